"""Reports of runs that are finished, being trained, without a validation part, and with hostile texts."""

from __future__ import annotations

import html.parser
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from charrnn.errors import CheckpointError, DataError
from charrnn.report.figures import draw_figures
from charrnn.report.gather import MAX_SAMPLE_CHARS, gather
from charrnn.report.page import render, text
from charrnn.report.writer import write_report
from charrnn.training import TrainConfig, Trainer, load_run
from charrnn.training import measures as measures_module
from charrnn.training.files import write_json
from charrnn.training.run_folder import RunFolder

PNG = b"\x89PNG\r\n\x1a\n"
HOSTILE = "<script>alert(1)</script>&lt;\"'><img src=x onerror=y>"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures_module, "TEXT_TOKENS", 40)
    torch.set_num_threads(1)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / f"{HOSTILE.replace('/', '')}.txt"
    path.write_text("The quick brown fox <b>jumps</b> over the lazy dog & sleeps.\n" * 70)
    return path


@pytest.fixture
def settings() -> TrainConfig:
    return TrainConfig(
        hidden_size=8, num_layers=1, batch_size=4, bptt=16, max_steps=6, device="cpu", threads=1,
        eval_every=3, sample_at=(2, 4), sample_chars=30,
    )  # fmt: skip


class Tags(html.parser.HTMLParser):
    """Counts elements and keeps what they point to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        assert not any(name.startswith("on") for name, _ in attributes)
        self.links += [str(value) for name, value in attributes if name in ("src", "href", "action")]


def test_a_page_needs_no_other_file_and_runs_nothing(
    corpus: Path, settings: TrainConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    Trainer(settings).fit(corpus, out=run)
    (run / "samples" / "step-0000004.txt").write_text(HOSTILE + "\x00\x1b[2J" + "x" * 4000)
    (run / "samples" / "notes.txt").write_text("no sample")
    paths = write_report(run, dynamic=True)
    names = [str(path.relative_to(run / "report")) for path in paths]
    assert names == ["index.html", "curve.png", "ngram.png", "position.png", "memorisation.png"]
    assert all(path.read_bytes().startswith(PNG) for path in paths[1:])
    page = paths[0].read_text()
    tags = Tags(page)
    assert tags.tags["img"] == len(tags.links) == 4
    assert all(link.startswith("data:image/png;base64,") for link in tags.links)
    assert not tags.tags.keys() & {"script", "link", "iframe", "object", "b"}
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in page
    assert text(HOSTILE) in page
    assert "\x00" not in page
    assert "\N{SYMBOL FOR ESCAPE}[2J" in page
    left_out = len(HOSTILE) + 4005 - MAX_SAMPLE_CHARS
    assert f"[{left_out:,} more characters in samples/step-0000004.txt]" in page
    assert re.findall(r"<h3>Step (\d+)", page) == ["2", "4", "6"]
    for told in ("state carried", "cold windows of 16", "dynamic evaluation", "8-gram", "tail: train"):
        assert told in page
    loss = gather(run).measures
    assert loss is not None
    assert f"{loss.carried.nats:.4f}" in page


def test_a_run_without_validation_part_or_samples(
    corpus: Path, settings: TrainConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    Trainer(settings.replace(split="none", sample_at=())).fit(corpus, out=run)
    (run / "samples" / "step-0000006.txt").unlink()
    report = gather(run)
    assert (report.measures, report.ngram, report.samples, report.validation) == (None, None, [], [])
    figures = draw_figures(report)
    assert list(figures) == ["curve", "memorisation"]
    page = render(report, figures)
    assert "has no validation part" in page
    assert "There is no validation text" in page


def test_a_run_of_documents_says_what_is_between_them(
    corpus: Path, settings: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures_module, "NUM_DOCUMENTS", 5)
    run = tmp_path / "run"
    Trainer(settings.replace(separator="\n")).fit(corpus, out=run)
    report = gather(run)
    assert report.facts["Documents"] == "70, with '\\n' between them; each is read by itself"
    assert report.facts["Split"].endswith(" characters")
    assert "of 4 validation documents 0.0%" in render(report, {})


def test_a_run_that_is_being_trained(corpus: Path, settings: TrainConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    Trainer(settings).fit(corpus, out=run)
    folder = RunFolder(run)
    whole = gather(run)
    info = {key: value for key, value in folder.read_info().items() if key != "checkpoints"}
    write_json(folder.info, info)
    with folder.metrics.open("a") as file:
        file.write('{"kind": "train", "step": 50, "train_n')
    report = gather(run)
    assert report.measures is report.copied is None
    assert report.ngram == whole.ngram is not None
    page = render(report, draw_figures(report))
    assert "The run has no checkpoint yet" in page
    assert f"{report.ngram.best_nats:.4f}" in page
    folder.metrics.unlink()
    assert list(draw_figures(gather(run))) == ["ngram"]


def test_the_best_or_the_last_checkpoint_and_another_place(
    corpus: Path, settings: TrainConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    Trainer(settings.replace(max_steps=9, lr=1.0, clip_norm=100.0)).fit(corpus, out=run)
    out = tmp_path / "page.html"
    paths = write_report(run, out, which="last")
    assert paths[0] == out
    assert paths[1].parent == run / "report"
    assert f"step {load_run(run, 'last').step}" in out.read_text()
    for folder in (run / "config.json", tmp_path / "absent"):
        with pytest.raises(DataError, match=f"cannot write .*: there is no folder {folder}"):
            write_report(run, folder / "page.html")
    (run / "report" / "index.html").mkdir()
    with pytest.raises(DataError, match="cannot write"):
        write_report(run)
    with pytest.raises(CheckpointError, match="is it a run folder"):
        write_report(tmp_path)
