"""``charrnn decompress``: the file that ``charrnn compress`` was given."""

from __future__ import annotations

import click

from charrnn.cli.bytes_done import bytes_done


@click.command(
    epilog="""\b
    Example:
      charrnn decompress war.crn --model tolstoy --out war.txt
    """
)
@click.argument("file", type=click.Path())
@click.option("--model", "bundle", required=True, metavar="BUNDLE", type=click.Path(), help="The same model.")
@click.option("--out", required=True, type=click.Path(), help="File to write.")
@click.option("--workers", type=click.IntRange(1), help="Threads.", show_default="one a core")
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
def decompress(file: str, bundle: str, out: str, workers: int | None, force: bool) -> None:
    """Restore what was compressed into FILE. Its checksum is checked before anything is written."""
    from charrnn import coding

    with bytes_done("") as on_progress:
        report = coding.decompress(file, out, bundle, workers=workers, force=force, on_progress=on_progress)
    click.echo(f"restored {report.num_bytes:,} bytes into {out}", err=True)
