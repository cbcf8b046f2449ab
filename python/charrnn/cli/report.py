"""``charrnn report``: a run on one page."""

from __future__ import annotations

from typing import Any

import click


@click.command(
    epilog="""\b
    Examples:
      charrnn report runs/shakespeare
      charrnn report runs/shakespeare --dynamic --out shakespeare.html
    """
)
@click.argument("run", metavar="RUN", type=click.Path())
@click.option(
    "--out", metavar="FILE.html", type=click.Path(), help="The page.", show_default="RUN/report/index.html"
)
@click.option("--dynamic", is_flag=True, help="Also the loss of a copy that goes on learning (Krause 2018).")
@click.option("--which", type=click.Choice(["best", "last"]), default="best", help="The checkpoint measured.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.", show_default="all cores")
def report(run: str, out: str | None, threads: int | None, **options: Any) -> None:
    """Write a page of RUN that needs no other file: curve, losses beside n-grams, samples, what was copied.

    It can be written while the run is being trained. The plots are in RUN/report too, as PNG files. The
    names of the files go to stdout.
    """
    from charrnn.report.writer import write_report
    from charrnn.training.measures import use_threads

    use_threads(threads)
    for path in write_report(run, out, **options):
        click.echo(str(path))
