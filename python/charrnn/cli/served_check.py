"""What ``charrnn serve --check`` says of each bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from charrnn.cli.tables import print_table
from charrnn.errors import BundleError, CharrnnError, RequestError

HEAD = ["model", "version", "precision", "slots", "characters/s", "a slot", "bytes/text", "bytes"]


def report_checks(bundles: Sequence[str], *, as_json: bool, **options: Any) -> None:
    """Check each bundle as ``charrnn.checking`` does, and print one table or document of all.

    Raises:
        RequestError: options with which no server starts.
        BundleError: not all can be served.
    """
    from charrnn.checking import check_bundle

    found: list[dict[str, Any]] = []
    for bundle in bundles:
        try:
            found.append({"bundle": bundle, **asdict(check_bundle(bundle, **options)), "error": None})
        except RequestError:  # not of this bundle: a server with these options serves none
            raise
        except CharrnnError as error:
            found.append({"bundle": bundle, "error": str(error)})
    _refuse_twins([entry for entry in found if entry["error"] is None])
    good = [entry for entry in found if entry["error"] is None]
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif good:
        print_table("can be served", HEAD, [_row(entry) for entry in good])
    bad = [entry["error"] for entry in found if entry["error"] is not None]
    for message in bad[1:]:
        click.echo(f"error: {' '.join(message.split())}", err=True)
    if bad:
        raise BundleError(bad[0])


def _refuse_twins(good: list[dict[str, Any]]) -> None:
    """A server has one model of each name."""
    names: set[str] = set()
    for entry in good:
        if entry["model"] in names:
            entry["error"] = f"{entry['bundle']}: another bundle names its model {entry['model']!r}, too"
        names.add(entry["model"])


def _row(entry: dict[str, Any]) -> list[str]:
    counts = [entry["slots"], entry["chars_per_s"], entry["chars_per_s"] / entry["slots"]]
    counts += [entry["stream_bytes"], entry["model_bytes"]]
    return [entry["model"], entry["version"], entry["precision"], *(f"{count:,.0f}" for count in counts)]
