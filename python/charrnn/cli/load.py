"""``charrnn bench ADDR``: load on a server.

Knows the options and how a load ends; what they mean together is in ``load_plan``, tables in ``load_tables``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from charrnn.bench.document import load_name, make_document
from charrnn.bench.load import Report, Watch, knee
from charrnn.bench.page import make_folder, write_page
from charrnn.bench.plan import MAX_ACTIVE, MAX_SECONDS
from charrnn.cli import Terminated
from charrnn.cli.connection import connection_options
from charrnn.cli.kinds import Amount, Number
from charrnn.cli.load_plan import DEFAULT_SLO, DEFAULT_STREAMS, make_runs
from charrnn.cli.load_tables import live_table, print_runs
from charrnn.cli.sampling import MAX_SEED
from charrnn.cli.stopping import Stopping
from charrnn.errors import CharrnnError, ParityError, ServerError, ServerUnavailableError

SLO_DEFAULT = f"none; {DEFAULT_SLO} with --find-knee"


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
@click.option(
    "--rate", type=Amount(), metavar="N[..N]", help="Requests a second, on a schedule; with .. a sweep."
)
@click.option(
    "--streams",
    type=Amount(),
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
@click.option(
    "--duration", type=Number(0, MAX_SECONDS, min_open=True), default=30.0, help="Seconds that count."
)
@click.option("--warmup", type=Number(0, MAX_SECONDS), default=5.0, help="Seconds before them.")
@click.option(
    "--drain", type=Number(0, MAX_SECONDS), default=30.0, help="Seconds that requests under way get after."
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
    type=Amount(),
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
@click.option(
    "--slow-read", type=Number(0, MAX_SECONDS), default=100.0, metavar="MS", help="Between their reads."
)
@click.option(
    "--deadline",
    type=Amount(),
    metavar="MS",
    help="From when it was due; spread like --max-tokens.",
    show_default="none",
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
@click.option("--multiplex", is_flag=True, help="Send requests on calls that they share, as gateways do.")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, help="Of the generator.")
@connection_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--csv", type=click.Path(), metavar="FILE", help="Write a line for each request of a single run."
)
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="FOLDER", help="Write a page and plots there."
)
@click.pass_context
def load(context: click.Context, /, as_json: bool, report: Path | None, **options: Any) -> None:
    """Put load on the server at ADDR."""
    plan, reports = make_runs(context, options)
    if report:
        make_folder(report)
    done: list[Report] = []
    failed: CharrnnError | None = None
    with Stopping() as stopping, live_table(plan.address) as on_tick:
        try:
            done.extend(reports(Watch(on_tick, stopping.is_asked)))
        except KeyboardInterrupt:  # before the next run began
            if stopping.number is None:
                raise
        except CharrnnError as error:
            failed = error
    if done:  # also of runs before one that failed
        _show(done, as_json=as_json, page=report, is_search=options["find_knee"])
    if failed:
        raise failed
    _judge(done, stopping.number)


def _show(done: Sequence[Report], *, as_json: bool, page: Path | None, is_search: bool) -> None:
    made = make_document(done, knee(done) if is_search else None)
    if as_json:
        click.echo(json.dumps(made))
    else:
        print_runs(made)
    for path in write_page(page, made) if page else []:
        click.echo(f"wrote {path}", err=True)


def _judge(reports: Sequence[Report], signal: int | None) -> None:
    """Exit code 5 for a text that differs, that of a signal, 69 for no answers, 1 for no success at all."""
    for report in reports:
        wrong = report["outcomes"].get("DIFFERS", 0) + report["outcomes"].get("PROTOCOL", 0)
        if wrong:
            told = [text for text in report["messages"] if text.startswith(("DIFFERS", "PROTOCOL"))]
            raise ParityError(f"{load_name(report)}: {wrong:,} texts are not what they have to be: {told[0]}")
    if signal is not None:
        raise Terminated(signal)
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
