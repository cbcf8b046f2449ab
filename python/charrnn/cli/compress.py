"""``charrnn compress``: a file in as many bits as a model needs for it."""

from __future__ import annotations

import json

import click

from charrnn.cli.bytes_done import bytes_done


@click.command(
    epilog="""\b
    Examples:
      charrnn compress war.txt --model tolstoy --out war.crn
      charrnn decompress war.crn --model tolstoy --out war.txt
    """
)
@click.argument("file", type=click.Path())
@click.option("--model", "bundle", required=True, metavar="BUNDLE", type=click.Path(), help="Exported model.")
@click.option("--out", required=True, type=click.Path(), help="File to write.")
@click.option("--precision", help="int8 or fp32.", show_default="int8 if there")
@click.option("--workers", type=click.IntRange(1), help="Threads.", show_default="one a core")
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON document.")
def compress(
    file: str,
    bundle: str,
    out: str,
    precision: str | None,
    workers: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Compress FILE without a loss. The same BUNDLE is needed to restore it."""
    from charrnn import coding

    with bytes_done(file) as on_progress:
        report = coding.compress(
            file, out, bundle, precision=precision, workers=workers, force=force, on_progress=on_progress
        )
    if as_json:
        click.echo(json.dumps({**vars(report), "bpc": report.bpc}, indent=2))
    share = 100 * report.num_compressed / report.num_bytes if report.num_bytes else 100.0
    click.echo(
        f"{report.num_bytes:,} bytes -> {report.num_compressed:,} ({share:.1f} %), "
        f"{report.bpc:.4f} bits a symbol, {report.num_escaped:,} of {report.num_symbols:,} symbols escaped",
        err=True,
    )
