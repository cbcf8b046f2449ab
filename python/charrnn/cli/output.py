"""Texts on stdout, for people or for programs, each piece as it comes.

Knows streams and the terminal, not where the texts are made.
"""

from __future__ import annotations

import io
import json
import re
import sys
from base64 import b64encode
from dataclasses import asdict

from charrnn.stream import Stream

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def escape_controls(text: str) -> str:
    """``text`` with controls as ``\\xNN``, except newline and tab: a terminal obeys none of them."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


class PlainText:
    """The bare text. A newline is added at its end where a prompt or another text would stick to it."""

    def __init__(self, *, raw: bool, num_texts: int) -> None:
        _speak_utf8()
        is_terminal = sys.stdout.isatty()
        self._escapes = is_terminal and not raw
        self._adds_newline = is_terminal or num_texts > 1

    def write(self, stream: Stream, index: int) -> None:
        """Print all of ``stream``."""
        last = ""
        for chunk in stream:
            sys.stdout.write(escape_controls(chunk.text) if self._escapes else chunk.text)
            sys.stdout.flush()
            last = chunk.text
        if self._adds_newline and not last.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()


class JsonLines:
    """One object a line: ``{"event": "started" | "chunk" | "finished", "index": N, ...}``, in ASCII."""

    def write(self, stream: Stream, index: int) -> None:
        """Print all events of ``stream``."""
        _print_json("started", index, {"model": stream.model, "seed": stream.seed})
        for chunk in stream:
            told = asdict(chunk)
            _print_json("chunk", index, {name: value for name, value in told.items() if value != ()})
        if stream.finished is not None:
            _print_json("finished", index, _plain(asdict(stream.finished)))


def _plain(finished: dict[str, object]) -> dict[str, object]:
    """A token in base64, if there is one."""
    token = finished.pop("resume_token")
    return finished | ({"resume_token": b64encode(token).decode()} if isinstance(token, bytes) else {})


def _print_json(event: str, index: int, fields: dict[str, object]) -> None:
    sys.stdout.write(json.dumps({"event": event, "index": index, **fields}) + "\n")
    sys.stdout.flush()


def _speak_utf8() -> None:
    """A text is UTF-8 whatever the locale says; newlines stay as they are."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
