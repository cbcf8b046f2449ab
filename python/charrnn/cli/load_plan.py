"""What the options of ``charrnn bench ADDR`` mean together: plans of load, and how they are run.

Knows options and plans, not how a load is shown or judged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from charrnn.bench.load import Report, Watch, find_knee, run_load, steps, sweep
from charrnn.bench.plan import LoadPlan, parse_slo, parse_spread, read_prompts
from charrnn.cli.connection import tls_fields
from charrnn.errors import RequestError
from charrnn.tls import Tls

DEFAULT_STREAMS = 64
DEFAULT_SLO = "first_char=100ms,inter_char=20ms"
"""Of a search for the knee that is given none."""

SAME = (
    "address",
    "arrivals",
    "requests",
    "seed",
    "model",
    "temperature",
    "top_k",
    "top_p",
    "chunk_chars",
    "cancel_fraction",
    "slow_fraction",
    "check",
    "distinct",
    "max_active",
    "connections",
    "multiplex",
    "threads",
    "csv",
    "token",
    "insecure",
)
"""Options that are called the same in a plan."""

_Read = TypeVar("_Read")

Reports = Callable[[Watch], Iterable[Report]]


def make_runs(context: click.Context, options: dict[str, Any]) -> tuple[LoadPlan, Reports]:
    """The plan that is common to all runs, and what runs them.

    Raises:
        RequestError: options that cannot be, or of which one would mean nothing beside the others.
    """
    given = {name for name in options if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    _check_meaning(given, options)
    rates, streams = _span("--rate", options["rate"]), _span("--streams", options["streams"])
    if options["find_knee"]:
        low, high = rates or (1.0, 1e6)
        plan = _plan(options, rate=low, slo=options["slo"] or DEFAULT_SLO)
        return plan, lambda watch: find_knee(plan, low, high, lambda plan: run_load(plan, watch))
    if rates:
        plan = _plan(options, rate=rates[0])
        plans = [plan.with_rate(rate) for rate in _steps(rates, options)]
    else:
        streams = streams or (float(DEFAULT_STREAMS),) * 2
        plan = _plan(options, streams=int(streams[0]))
        plans = [plan.with_streams(count) for count in sorted({round(n) for n in _steps(streams, options)})]
    if len(plans) > 1 and options["csv"]:
        raise RequestError("--csv is of a single run; give one rate or one number of streams")
    if len(plans) == 1 and "steps" in given:
        raise RequestError("--steps is of a sweep such as --rate 10..1000; leave it out for a single run")
    return plan, lambda watch: sweep(plans, watch)


def _check_meaning(given: Collection[str], options: dict[str, Any]) -> None:
    """Refuse an option that what is given beside it leaves without a meaning."""
    is_open = "rate" in given or options["find_knee"]
    has_tls = options["tls"] or options["ca"] or options["client_cert"]
    for is_wrong, message in (
        ("rate" in given and "streams" in given, "give --rate or --streams, not both"),
        (options["find_knee"] and "streams" in given, "--find-knee searches a rate; leave out --streams"),
        (options["find_knee"] and "steps" in given, "--find-knee chooses its rates; leave out --steps"),
        (options["find_knee"] and "csv" in given, "--csv is of a single run; leave it out with --find-knee"),
        ("arrivals" in given and not is_open, "--arrivals is of a --rate; leave it out with --streams"),
        ("max_active" in given and not is_open, "--max-active is of a --rate; leave it out with --streams"),
        ("prompt" in given and "prompts" in given, "give --prompt or --prompts, not both"),
        (
            "slow_read" in given and not options["slow_fraction"],
            "--slow-read is of slow readers; say with --slow-fraction how many there are",
        ),
        (
            "server_name" in given and not has_tls,
            "--server-name is of a certificate; give --tls or --ca beside it",
        ),
    ):
        if is_wrong:
            raise RequestError(message)


def _steps(span: tuple[float, float], options: dict[str, Any]) -> list[float]:
    low, high = span
    return [low] if low == high else steps(low, high, options["steps"])


def _span(name: str, words: str | None) -> tuple[float, float] | None:
    """``10`` or ``10..1000``."""
    if words is None:
        return None
    low, separator, high = words.partition("..")
    try:
        span = (float(low), float(high if separator else low))
    except ValueError:
        span = (0.0, 0.0)
    if not 0 < span[0] <= span[1] <= 1e6 or (name == "--streams" and not all(n.is_integer() for n in span)):
        raise RequestError(f"{name} is {words!r}; it must be like 50 or 10..1000, above 0 and at most 1e6")
    return span


def _plan(options: dict[str, Any], slo: str | None = None, **load: Any) -> LoadPlan:
    prompts = options["prompts"]
    deadline = options["deadline"]
    return LoadPlan(
        **{name: options[name] for name in SAME},
        **load,
        duration_s=options["duration"],
        warmup_s=options["warmup"],
        drain_s=options["drain"],
        prompts=read_prompts(prompts) if prompts else [{"text": options["prompt"]}],
        max_tokens=_read("--max-tokens", parse_spread, options["max_tokens"]),
        max_chunk_delay_ms=options["max_chunk_delay"],
        slow_read_ms=options["slow_read"],
        deadline_ms=None if deadline is None else _read("--deadline", parse_spread, deadline),
        slo=parse_slo(slo or options["slo"] or ""),
        tls=Tls.asked(**tls_fields(options)),
    )


def _read(name: str, parse: Callable[[str], _Read], words: str) -> _Read:
    """What an option says, or a refusal that names it."""
    try:
        return parse(words)
    except RequestError as error:
        raise RequestError(f"{name} {error}") from error
