"""HTML pages that load nothing: styles and pictures are in them, and everything from outside is escaped.

Knows HTML, not what a page is about.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence

# Nothing may be loaded, run or sent, whatever a sample says.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; overflow-wrap: anywhere; } h2 { margin-top: 2.2rem; font-size: 1.25rem; }
h3 { font-size: 1rem; margin-bottom: .3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
th:first-child, td:first-child, .facts td { text-align: left; overflow-wrap: anywhere; }
tr.model td { font-weight: 600; } img { max-width: 100%; height: auto; }
pre { background: #f6f6f4; border: 1px solid #e2e2de; padding: .8rem; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: .85rem; max-height: 24rem; overflow-y: auto; }
.note { background: #fff6dd; border-left: 4px solid #e69f00; padding: .5rem .8rem; }
figcaption, .small { color: #4a4a4a; font-size: .9rem; } figure { margin: 1rem 0; }
@media print { pre { max-height: none; } }
"""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")


def document(title: str, body: str) -> str:
    """The whole page."""
    return (
        "<!DOCTYPE html>\n"
        f'<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Text from anywhere as text in HTML; controls become their pictures."""
    shown = str(value).replace("\r\n", "\n")
    return html.escape(_CONTROL.sub(lambda match: chr(0x2400 + ord(match.group())), shown))


def facts(rows: Mapping[str, str]) -> str:
    """Names and values."""
    lines = "".join(f"<tr><td>{text(name)}</td><td>{text(value)}</td></tr>" for name, value in rows.items())
    return f'<table class="facts">{lines}</table>'


def figure(png: bytes, caption: str) -> str:
    """A picture inside the page."""
    data = base64.b64encode(png).decode()
    picture = f'<img alt="{text(caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{picture}<figcaption>{text(caption)}</figcaption></figure>"


def table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Rows with their class."""
    heads = "".join(f"<th>{text(cell)}</th>" for cell in head)
    lines = [
        f'<tr class="{kind}">{"".join(f"<td>{text(cell)}</td>" for cell in row)}</tr>' for kind, row in rows
    ]
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
