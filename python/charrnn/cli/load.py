"""``charrnn bench ADDR``: load on a server.

Knows what the options mean together; the tables are in ``load_tables``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from charrnn.bench.document import load_name, make_document
from charrnn.bench.load import OnTick, Report, find_knee, knee, run_load, steps, sweep
from charrnn.bench.page import make_folder, write_page
from charrnn.bench.plan import MAX_ACTIVE, LoadPlan, Tls, parse_slo, parse_spread, read_prompts
from charrnn.cli.kinds import YEAR_S, Number
from charrnn.cli.load_tables import live_table, print_runs
from charrnn.cli.sampling import MAX_SEED
from charrnn.errors import CharrnnError, ParityError, RequestError, ServerError, ServerUnavailableError

DEFAULT_STREAMS = 64
DEFAULT_SLO = "first_char=100ms,inter_char=20ms"
"""Of a search for the knee that is given none."""
SLO_DEFAULT = f"none; {DEFAULT_SLO} with --find-knee"
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
    "threads",
    "csv",
    "token",
)
"""Options that are called the same in a plan."""


class _LoadContext(click.Context):
    """Of the command without a word of its own."""

    @property
    def command_path(self) -> str:
        """As its group's."""
        return self.parent.command_path if self.parent else "charrnn bench"


class LoadCommand(click.Command):
    """What ``charrnn bench ADDR`` runs."""

    context_class = _LoadContext


@click.command("bench", cls=LoadCommand)
@click.argument("address", metavar="ADDR")
@click.option("--rate", metavar="N[..N]", help="Requests a second, on a schedule; with .. a sweep.")
@click.option(
    "--streams",
    metavar="N[..N]",
    help="Texts at once, each followed by the next.",
    show_default=str(DEFAULT_STREAMS),
)
@click.option("--steps", type=click.IntRange(2, 100), default=8, help="Runs of a sweep, equal ratios apart.")
@click.option(
    "--find-knee", is_flag=True, help="Search the highest rate at which 99 % of requests meet the SLO."
)
@click.option(
    "--slo",
    metavar="LIMITS",
    help="Of first_char, inter_char and request.",
    show_default=SLO_DEFAULT,
)
@click.option("--arrivals", type=click.Choice(["poisson", "constant"]), default="poisson", help="Of a rate.")
@click.option("--duration", type=Number(0, YEAR_S, min_open=True), default=30.0, help="Seconds that count.")
@click.option("--warmup", type=Number(0, YEAR_S), default=5.0, help="Seconds before them.")
@click.option(
    "--drain", type=Number(0, YEAR_S), default=30.0, help="Seconds that requests under way get after."
)
@click.option("--requests", type=click.IntRange(1), help="End after so many.", show_default="no limit")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, help="Of the schedule and all requests.")
@click.option("--model", default="", help="Name of the model.", show_default="the only one")
@click.option("--prompt", default="", help="Text that the model reads first.", show_default="none")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A prompt a line, or in a .jsonl file objects with prompt and max_tokens.",
)
@click.option(
    "--max-tokens",
    metavar="LENGTHS",
    default="256",
    help="200, 100..300, exp:200 (mean) or lognormal:200:0.8 (median, sigma).",
)
@click.option("--temperature", type=Number(0, 1e9), help="Of all texts.", show_default="1")
@click.option("--top-k", type=click.IntRange(0, 2**32 - 1), help="Of all texts.", show_default="off")
@click.option("--top-p", type=Number(0, 1), help="Of all texts.", show_default="off")
@click.option(
    "--chunk-chars", type=click.IntRange(1, 4096), help="Characters of a chunk.", show_default="the server's"
)
@click.option(
    "--max-chunk-delay",
    type=click.IntRange(0, 60_000),
    metavar="MS",
    help="Wait for one.",
    show_default="the server's",
)
@click.option(
    "--cancel-fraction", type=Number(0, 1), default=0.0, help="Requests cancelled at a random character."
)
@click.option("--slow-fraction", type=Number(0, 1), default=0.0, help="Requests that are read slowly.")
@click.option("--slow-read", type=Number(0, YEAR_S), default=100.0, metavar="MS", help="Between their reads.")
@click.option(
    "--deadline", metavar="MS", help="From when it was due; spread like --max-tokens.", show_default="none"
)
@click.option("--check", is_flag=True, help="Compare each text with the same request alone before.")
@click.option(
    "--distinct", type=click.IntRange(1), help="Different requests.", show_default="all; 64 with --check"
)
@click.option(
    "--max-active", type=click.IntRange(1), default=MAX_ACTIVE, help="Requests of a rate under way at once."
)
@click.option(
    "--connections", type=click.IntRange(1), help="Connections.", show_default="one for 512 streams"
)
@click.option("--threads", type=click.IntRange(1, 1024), default=1, help="Of the generator.")
@click.option("--tls", is_flag=True, help="Encrypt, and trust the system's authorities.")
@click.option("--ca", type=click.Path(), metavar="FILE.pem", help="Encrypt, and trust this authority.")
@click.option("--server-name", help="Name in the server's certificate.", show_default="the host of ADDR")
@click.option("--client-cert", type=click.Path(), metavar="FILE.pem", help="This client's certificate.")
@click.option("--client-key", type=click.Path(), metavar="FILE.pem", help="Its key.")
@click.option("--token", help="Sent as authorization: Bearer; better in CHARRNN_BENCH_TOKEN.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--csv", type=click.Path(), metavar="FILE", help="Write a line for each request of a single run."
)
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="FOLDER", help="Write a page and plots there."
)
def load(as_json: bool, report: Path | None, **options: Any) -> None:
    """Put load on the server at ADDR."""
    plan, reports = _runs(options)
    if report:
        make_folder(report)
    done: list[Report] = []
    failed: CharrnnError | None = None
    with live_table(plan.address) as on_tick:
        try:
            done.extend(reports(on_tick))
        except CharrnnError as error:
            if not done:
                raise
            failed = error  # after what the runs before it showed
    is_search = options["find_knee"]
    made = make_document(done, knee(done) if is_search else None)
    if as_json:
        click.echo(json.dumps(made))
    else:
        print_runs(made)
    for path in write_page(report, made) if report else []:
        click.echo(f"wrote {path}", err=True)
    if failed:
        raise failed
    _judge(done)


Reports = Callable[[OnTick], Iterable[Report]]


def _runs(options: dict[str, Any]) -> tuple[LoadPlan, Reports]:
    """The plan that is common to all runs, and what runs them."""
    rates, streams = _span("--rate", options["rate"]), _span("--streams", options["streams"])
    if options["find_knee"]:
        if streams:
            raise RequestError("--find-knee searches a rate; leave out --streams")
        low, high = rates or (1.0, 1e6)
        plan = _plan(options, rate=low, slo=options["slo"] or DEFAULT_SLO)
        return plan, lambda on_tick: find_knee(plan, low, high, lambda plan: run_load(plan, on_tick))
    if rates and streams:
        raise RequestError("give --rate or --streams, not both")
    if rates:
        plan = _plan(options, rate=rates[0])
        plans = [plan.with_rate(rate) for rate in _steps(rates, options)]
    else:
        streams = streams or (float(DEFAULT_STREAMS),) * 2
        plan = _plan(options, streams=int(streams[0]))
        plans = [plan.with_streams(count) for count in sorted({round(n) for n in _steps(streams, options)})]
    if len(plans) > 1 and options["csv"]:
        raise RequestError("--csv is of a single run; give one rate or one number of streams")
    return plan, lambda on_tick: sweep(plans, on_tick)


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
        max_tokens=parse_spread(options["max_tokens"]),
        max_chunk_delay_ms=options["max_chunk_delay"],
        slow_read_ms=options["slow_read"],
        deadline_ms=parse_spread(deadline) if deadline else None,
        slo=parse_slo(slo or options["slo"] or ""),
        tls=_tls(options),
    )


def _tls(options: dict[str, Any]) -> Tls | None:
    certificate, key = options["client_cert"], options["client_key"]
    if (certificate is None) != (key is None):
        raise RequestError("--client-cert and --client-key go together; give both")
    if not (options["tls"] or options["ca"] or certificate):
        return None
    return Tls(
        ca=options["ca"], server_name=options["server_name"], identity=(certificate, key) if key else None
    )


def _judge(reports: Sequence[Report]) -> None:
    """Exit code 5 for a text that differs, 69 for no answers, 1 for no success at all, 130 for Ctrl-C."""
    for report in reports:
        wrong = report["outcomes"].get("DIFFERS", 0) + report["outcomes"].get("PROTOCOL", 0)
        if wrong:
            told = [text for text in report["messages"] if text.startswith(("DIFFERS", "PROTOCOL"))]
            raise ParityError(f"{load_name(report)}: {wrong:,} texts are not what they have to be: {told[0]}")
    if reports[-1]["interrupted"]:
        raise KeyboardInterrupt
    for report in reports:
        name, counts, said = load_name(report), report["outcomes"], report["messages"][:1]
        if counts and set(counts) <= {"UNAVAILABLE"}:
            raise ServerUnavailableError(f"{name}: no request was answered: {said[0]}")
        if said and not set(counts) & {"ok", "cancelled", "unfinished"}:
            raise ServerError(f"{name}: no request succeeded: {said[0]}")
        if counts and set(counts) <= {"unfinished", "dropped"}:
            raise ServerError(f"{name}: no request ended within the run and its --drain")
        if not counts:
            raise CharrnnError(f"{name}: no request came due in the time that counts")
