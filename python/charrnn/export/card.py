"""The model card: README.md of a bundle, with the front matter that model hubs read.

Says only what is known: a line whose fact is missing is left out. Knows Markdown, not how figures were made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from charrnn.export.report import ExportReport, PrecisionReport
from charrnn.export.source import TrainedModel

_CELL_NAMES = {"lstm": "LSTM", "gru": "GRU", "rnn": "tanh RNN"}


def model_card(
    source: TrainedModel, report: ExportReport, corpus_license: str | None, folder_name: str
) -> str:
    """The whole card; the same inputs give the same text."""
    sections = [
        _front_matter(source, corpus_license),
        f"# {report.name}",
        _summary(source),
        "## Data",
        _bullets(_data(source.training, corpus_license)),
        "## Losses",
        _losses(source.training),
        "## Files",
        _files(report),
        "## Serve it",
        _serving(folder_name),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(source: TrainedModel, corpus_license: str | None) -> str:
    lines = ["---", "library_name: onnx", "pipeline_tag: text-generation", "tags:"]
    lines += [f"- {tag}" for tag in ("charrnn", "onnx", source.model.shape.cell, "character-level")]
    if corpus_license is not None:
        lines.append(f"corpus_license: {json.dumps(corpus_license)}")  # a JSON string is a YAML string
    return "\n".join([*lines, "---"])


def _summary(source: TrainedModel) -> str:
    shape = source.model.shape
    entry = f"an embedding of {shape.embedding_dim}" if shape.embedding_dim else "1-of-k inputs"
    units = "characters" if source.unit == "char" else "bytes"
    layers = "layer" if shape.num_layers == 1 else "layers"
    size = f"{shape.num_layers} {layers} and {shape.hidden_size} hidden units"
    return (
        f"A character-level {_CELL_NAMES[shape.cell]} of {size} with\n"
        f"{entry}, over {len(source.symbols)} {units}. Made with charrnn.{_ending(source)}"
    )


def _ending(source: TrainedModel) -> str:
    if source.end_token is None:
        return ""
    symbol = source.symbols[source.end_token]
    name = repr(chr(symbol)) if source.unit == "char" else f"byte {symbol:#04x}"
    return (
        f"\nIt writes documents: {_inline(name)} (token {source.end_token}) ends each and is no part of it."
    )


def _data(training: Mapping[str, Any], corpus_license: str | None) -> Iterator[str]:
    if imported := training.get("imported"):
        yield f"Weights: imported from {_inline(imported['file'])}, layout {imported['layout']}"
    for text in training.get("earlier_corpora", []):
        yield f"Text up to step {text['until_step']:,}: {_inline(text['name'])}, sha256 `{text['sha256']}`"
    corpus = training.get("corpus", {})
    if name := corpus.get("name"):
        yield f"Text: {_inline(name)}"
    if digest := corpus.get("sha256"):
        yield f"sha256: `{digest}`"
    if corpus_license is not None:
        yield f"Licence of the text: {_inline(corpus_license)}"
    if split := training.get("split"):
        sizes = ", ".join(f"{part} {size:,}" for part, size in split.get("sizes", {}).items())
        yield f"Split: {_inline(split['name'])}" + (f" ({sizes} tokens)" if sizes else "")
    if (step := training.get("step")) is not None:
        yield f"Checkpoint: step {step:,}"


def _losses(training: Mapping[str, Any]) -> str:
    losses = training.get("losses", {})
    if not losses:
        return "None was measured in training."
    rows = [f"| {_cell(part)} | {nats:.4f} | {nats / math.log(2):.4f} |" for part, nats in losses.items()]
    return "\n".join(["| part | nats per character | bits per character |", "|---|---|---|", *rows])


def _files(report: ExportReport) -> str:
    rows = [_file(entry) for entry in report.precisions]
    head = ["| file | precision | bytes | max logit difference | bits per character | more than torch |"]
    return "\n".join([*head, "|---|---|---|---|---|---|", *rows, "", _how_judged(report)])


def _file(entry: PrecisionReport) -> str:
    cells = [
        f"`{entry.file}`",
        entry.precision,
        f"{entry.num_bytes:,}",
        f"{entry.max_abs_logit_difference:.1e}",
        _figure(entry.bpc, ".4f"),
        _figure(entry.bpc_difference, "+.4f"),
    ]
    return f"| {' | '.join(cells)} |"


def _how_judged(report: ExportReport) -> str:
    judged = (
        "Logit differences are from the torch model, each step from the same state, over 200 random\n"
        "tokens in batches of 1, 2, 7 and 64; rows were bit-identical in all of them. "
    )
    if report.torch_bpc is None:
        return judged + "There was no validation text, so bits per character were not measured."
    return judged + (
        f"Bits per character are over {report.num_tokens:,} tokens of the validation text\n"
        f"in parallel streams; torch has {report.torch_bpc:.4f} there."
    )


def _serving(folder_name: str) -> str:
    return (
        "```\n"
        f"charrnn serve {folder_name}\n"
        'charrnn generate --server 127.0.0.1:50051 --prompt "The "\n'
        "```\n\n"
        "`step(token, state) -> (logits, state)`: inputs `token` int64 (B,) and the state tensors float32,\n"
        "outputs `logits` (B, V) and each state tensor's successor `<name>_out`. The vocabulary is in\n"
        "`manifest.json`."
    )


def _figure(value: float | None, form: str) -> str:
    return "not measured" if value is None else format(value, form)


def _bullets(lines: Iterator[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "Not recorded."


def _cell(part: str) -> str:
    """A part of the split by its name; the name of a file from outside as code."""
    return part if part.isalpha() else _inline(part).replace("|", "\\|")


def _inline(text: str) -> str:
    """Text from outside as code, on one line: a corpus name cannot end the table or the page."""
    return f"`{' '.join(str(text).split()).replace('`', chr(39))}`"
