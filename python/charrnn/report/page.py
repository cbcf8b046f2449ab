"""The page of a run.

Knows what a report holds, not where it comes from or goes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from charrnn.report.gather import Report, Sample
from charrnn.report.html import document, facts, figure, table, text
from charrnn.training.measures import Copied

_CAPTIONS = {
    "curve": "Loss during training. Lines across: n-grams counted on the training part, on the same "
    "validation part.",
    "ngram": "The validation loss of n-gram models of every order, and of this model.",
    "position": "Loss of the k-th symbol after a zero state: how much the model gains from what it has read.",
    "memorisation": "Share of places in a text at which a substring begins that the training text does not "
    "have. A model that copies lies below the held-out text.",
}


def render(report: Report, figures: Mapping[str, bytes]) -> str:
    """The whole page, with ``figures`` as PNG files by name."""
    body = "\n".join(_sections(report, figures))
    return document(report.name, body)


def _sections(report: Report, figures: Mapping[str, bytes]) -> Iterator[str]:
    yield f"<h1>{text(report.name)}</h1>"
    yield from (f'<p class="note">{text(note)}</p>' for note in report.notes)
    yield facts(report.facts)
    if "curve" in figures:
        yield "<h2>Training</h2>" + _figure("curve", figures)
    if report.measures is not None or report.ngram is not None:
        yield "<h2>Losses</h2>" + _losses(report) + _figure("ngram", figures)
    if "position" in figures:
        yield "<h2>Loss by position</h2>" + _figure("position", figures)
    if report.samples:
        yield "<h2>Samples over time</h2>"
        yield from (_sample(sample, report) for sample in report.samples)
    if report.copied is not None:
        yield "<h2>Learnt by heart?</h2>" + _copied(report.copied) + _figure("memorisation", figures)
    settings = text(json.dumps(report.settings, indent=1, ensure_ascii=False))
    yield f"<h2>Settings</h2><details><summary>All settings</summary><pre>{settings}</pre></details>"


def _figure(name: str, figures: Mapping[str, bytes]) -> str:
    return figure(figures[name], _CAPTIONS[name]) if name in figures else ""


def _losses(report: Report) -> str:
    if report.measures is None:
        assert report.ngram is not None
        rows = [("", [f"{n}-gram", f"{nats:.4f}"]) for n, nats in enumerate(report.ngram.nats, 1)]
        return table(["validation part", f"nats per {report.unit}"], rows)
    rows = [
        (
            "" if name.endswith("-gram") else "model",
            [name, f"{loss.nats:.4f}", f"{loss.bpc:.4f}", f"{loss.num_tokens:,}"],
        )
        for name, loss in report.measures.losses().items()
    ]
    head = [f"validation, {report.measures.num_tokens:,} {report.unit}s"]
    losses = table([*head, f"nats per {report.unit}", f"bits per {report.unit}", "predictions"], rows)
    smoothing = "n-grams: interpolated modified Kneser-Ney, counted on the training part."
    return f'{losses}<p class="small">{smoothing}</p>'


def _sample(sample: Sample, report: Report) -> str:
    before = [(step, nats) for step, nats in report.validation if step <= sample.step]
    loss = f", validation {before[-1][1]:.3f} nats at step {before[-1][0]:,}" if before else ""
    more = f"\n[{sample.num_left_out:,} more characters in {sample.file}]" if sample.num_left_out else ""
    return f"<h3>Step {sample.step:,}{loss}</h3><pre>{text(sample.text)}{text(more)}</pre>"


def _copied(copied: Copied) -> str:
    held_out = copied.held_out.novel if copied.held_out else {}
    rows = [
        ("", [str(length), f"{share:.1%}", f"{held_out[length]:.1%}" if length in held_out else "-"])
        for length, share in copied.drawn.novel.items()
    ]
    novel = table(["length", "drawn: not in the training text", "validation: not in it"], rows)
    return "".join(f"<p>{sentence}</p>" for sentence in _findings(copied)) + novel


def _findings(copied: Copied) -> Iterator[str]:
    drawn, longest = copied.drawn, copied.drawn.longest
    yield f"{drawn.num_tokens:,} symbols were drawn in {drawn.num_texts:,} texts, at temperature 1."
    if longest is None:
        yield "Nothing of them is in the training text."
    else:
        yield (
            f"The longest run that stands in the training text too has {longest.length:,} symbols "
            f"(at {longest.train_at:,} there): <code>{text(copied.excerpt[:500])}</code>"
        )
    if copied.held_out is None:
        yield "There is no validation text of that length to compare with."
    else:
        size = copied.held_out.longest.length if copied.held_out.longest else 0
        yield f"Of {copied.held_out.num_tokens:,} symbols of the validation text the longest has {size:,}."
    if (made := copied.documents) is not None:
        beside = ""
        if (held_out := copied.held_out_documents) is not None:
            beside = f", of {held_out.num_documents:,} validation documents {held_out.novel:.1%}"
        yield (
            f"Of {made.num_documents:,} documents drawn, {made.novel:.1%} are not in the training "
            f"text{beside}; {made.num_duplicates:,} were drawn before."
        )
