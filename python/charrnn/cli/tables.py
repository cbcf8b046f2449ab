"""Tables for people: framed on a terminal, lines of columns anywhere else.

Knows cells of text, not what they say.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from charrnn.cli.output import escape_controls


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout; the first column is of words, the others of figures."""
    cells = [[_one_line(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        Console().print(_framed(_one_line(title), head, cells))
        return
    widths = [max(len(row[column]) for row in [list(head), *cells]) for column in range(len(head))]
    click.echo(_one_line(title))
    for row in [list(head), *cells]:
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join(["", first, *others]).rstrip())


def _framed(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=Text(title), title_justify="left")  # Text: brackets in a name are no markup
    for column, name in enumerate(head):
        table.add_column(Text(name), justify="right" if column else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _one_line(text: str) -> str:
    return escape_controls(text.replace("\n", "\\n").replace("\t", "\\t"))
