"""A whole export of a small model: what is written, what is refused, and that a refusal writes nothing."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from charrnn.errors import BundleError, CheckpointError, ConfigError, ParityError
from charrnn.export import ExportOptions, Tolerances, TrainedModel, exporter, folder
from charrnn.export.exporter import export_model
from charrnn.export.stepping import graph_step
from tests.unit.export.small_models import make_model, make_source

pytestmark = pytest.mark.usefixtures("few_steps")

TRAINING = {
    "corpus": {"name": "a `tick`\n# and more", "sha256": "ab" * 32},
    "split": {"name": "tail", "sizes": {"train": 9000, "validation": 600}},
    "step": 1234,
    "losses": {"validation": 1.5},
}
LOOSE = ExportOptions(tolerances=Tolerances(max_int8_bpc=1.0))


@pytest.fixture
def source() -> TrainedModel:
    return replace(make_source(make_model("lstm", 2)), training=TRAINING)


def files(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


def test_a_bundle_and_its_manifest(source: TrainedModel, tmp_path: Path) -> None:
    out = tmp_path / "my model"
    report = export_model(source, out, options=LOOSE)
    written = files(out)
    assert set(written) == {"manifest.json", "step.onnx", "step.int8.onnx", "README.md"}
    manifest = json.loads(written.pop("manifest.json"))
    assert list(manifest) == [
        *("format", "version", "name", "cell", "num_layers", "hidden_size", "embedding_dim", "vocab"),
        *("start_token", "state", "precisions", "files", "training"),
    ]
    assert (manifest["format"], manifest["version"], manifest["name"]) == ("charrnn-bundle", 1, "my-model")
    assert (manifest["cell"], manifest["num_layers"], manifest["hidden_size"]) == ("lstm", 2, 8)
    assert manifest["embedding_dim"] == 0
    assert manifest["vocab"] == {"unit": "char", "symbols": [97, 98, 99, 10, *range(110, 117)]}
    assert manifest["start_token"] == 3
    assert manifest["state"] == [{"name": name, "width": 8} for name in ("h0", "c0", "h1", "c1")]
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in written.items()
    }
    for entry in report.precisions:
        assert manifest["precisions"][entry.precision] == {
            "path": entry.file,
            "bpc": entry.bpc,
            "max_abs_logit_difference": entry.max_abs_logit_difference,
        }
    assert manifest["training"].items() >= TRAINING.items()
    assert report.digest == hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest()


def test_a_model_without_a_newline_starts_at_its_first_symbol(source: TrainedModel, tmp_path: Path) -> None:
    export_model(replace(source, symbols=tuple(range(97, 108))), tmp_path / "b", ["fp32"])
    assert json.loads((tmp_path / "b" / "manifest.json").read_bytes())["start_token"] == 0


@pytest.mark.parametrize("end_token", [-1, 11])
def test_an_end_that_is_no_symbol_is_refused(source: TrainedModel, end_token: int) -> None:
    with pytest.raises(ConfigError, match=f"end_token is {end_token}; it must be below 11 symbols"):
        replace(source, end_token=end_token)


def test_a_model_of_documents_is_judged_as_it_was_trained(source: TrainedModel, tmp_path: Path) -> None:
    """The whole documents of the validation text, judged by a loop that forgets at every end."""
    documents = replace(source, end_token=7)
    report = export_model(documents, tmp_path / "b", ["fp32"])
    assert json.loads((tmp_path / "b" / "manifest.json").read_bytes())["start_token"] == 7
    num_tokens = int(np.flatnonzero(source.validation == 7)[-1]) + 1
    text = torch.tensor([7, *source.validation[:num_tokens].tolist()])
    nats, state = 0.0, source.model.zero_state(1)
    for token, target in itertools.pairwise(text):
        state = source.model.zero_state(1) if token == 7 else state
        with torch.no_grad():
            logits, state = source.model.step(token[None], state)
        nats += float(torch.nn.functional.cross_entropy(logits, target[None]))
    assert report.num_tokens == num_tokens
    assert report.torch_bpc == pytest.approx(nats / num_tokens / np.log(2), abs=1e-5)
    assert report.precisions[0].bpc == pytest.approx(report.torch_bpc, abs=1e-5)
    assert (
        abs((report.torch_bpc or 0) - (export_model(source, tmp_path / "c", ["fp32"]).torch_bpc or 0)) > 1e-3
    )


def test_figures_are_of_the_written_graphs(source: TrainedModel, tmp_path: Path) -> None:
    report = export_model(source, tmp_path / "b", options=LOOSE)
    fp32, int8 = report.precisions
    assert report.torch_bpc == pytest.approx(fp32.bpc, abs=1e-5)
    assert 0 < fp32.max_abs_logit_difference < 1e-4 < int8.max_abs_logit_difference
    assert int8.bpc_difference == pytest.approx((int8.bpc or 0) - (report.torch_bpc or 0), abs=1e-6)
    assert report.num_tokens == 2 * (599 // 2)
    tokens = np.zeros((1, 1), np.int64)
    for entry in report.precisions:
        content = (tmp_path / "b" / entry.file).read_bytes()
        assert len(content) == entry.num_bytes
        assert graph_step(content)(tokens[:, 0], None)[0].shape == (1, 11)


def test_the_same_export_twice_is_the_same_bytes(source: TrainedModel, tmp_path: Path) -> None:
    export_model(source, tmp_path / "b", options=LOOSE)
    first = files(tmp_path / "b")
    export_model(source, tmp_path / "b", options=replace(LOOSE, force=True))
    assert files(tmp_path / "b") == first
    assert os.listdir(tmp_path) == ["b"]


def test_only_what_was_asked_for(source: TrainedModel, tmp_path: Path) -> None:
    report = export_model(source, tmp_path / "b", ["int8", "int8"], LOOSE)
    assert [entry.precision for entry in report.precisions] == ["int8"]
    assert set(files(tmp_path / "b")) == {"manifest.json", "step.int8.onnx", "README.md"}


def test_without_validation_text_int8_is_not_judged(tmp_path: Path) -> None:
    report = export_model(make_source(make_model("gru"), num_validation=0), tmp_path / "b")
    assert report.torch_bpc is None
    assert [(entry.bpc, entry.bpc_difference) for entry in report.precisions] == [(None, None)] * 2
    assert "there is no validation text" in report.lines()[2]
    assert "bits per character were not measured" in (tmp_path / "b" / "README.md").read_text()


@pytest.mark.parametrize(
    ("value", "error"), [(float("nan"), CheckpointError), (float("inf"), CheckpointError)]
)
def test_weights_that_are_not_finite_write_nothing(
    tmp_path: Path, value: float, error: type[Exception]
) -> None:
    model = make_model()
    with torch.no_grad():
        model.head.bias[2] = value
    with pytest.raises(error, match=r"head.bias is not finite"):
        export_model(make_source(model), tmp_path / "b")
    assert os.listdir(tmp_path) == []


def test_one_changed_weight_fails_parity_and_writes_nothing(
    source: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exporter.StepWeights.from_model

    def drifted(model: object) -> object:
        weights = real(model)
        weights.layers[1].w_hh[3, 4] += 0.01
        return weights

    monkeypatch.setattr(exporter.StepWeights, "from_model", drifted)
    with pytest.raises(ParityError, match=r"step.onnx: a step differs .*, the limit is 0.0001") as refused:
        export_model(source, tmp_path / "b")
    assert refused.value.exit_code == 5
    assert os.listdir(tmp_path) == []


def test_logits_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """Weights may be finite and their sums not: int8 has no limit on logits but this."""
    model = make_model("rnn")
    with torch.no_grad():
        model.head.weight.fill_(3e38)
    with pytest.raises(ParityError, match=r"step.int8.onnx: .* are not finite from step \d+ on"):
        export_model(make_source(model, num_validation=0), tmp_path / "b", ["int8"])
    assert os.listdir(tmp_path) == []


def test_int8_that_loses_too_much_is_refused(source: TrainedModel, tmp_path: Path) -> None:
    strict = ExportOptions(tolerances=Tolerances(max_int8_bpc=-1.0))
    with pytest.raises(ParityError, match=r"step.int8.onnx: int8 adds .* the limit is -1"):
        export_model(source, tmp_path / "b", options=strict)
    assert os.listdir(tmp_path) == []
    export_model(source, tmp_path / "b", ["fp32"], strict)


@pytest.mark.parametrize("limit", ["max_logit_difference", "max_int8_bpc"])
def test_a_limit_that_is_no_number_is_refused(limit: str) -> None:
    with pytest.raises(ConfigError, match=f"{limit} is nan, which no difference is above: give a number"):
        Tolerances(**{limit: float("nan")})


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), FileExistsError("b")])
def test_a_folder_that_cannot_be_written_is_named_as_given(
    source: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise error

    monkeypatch.setattr(folder, "_write_synced", full)
    expected = rf"^cannot write bundle {tmp_path}/b: {error.strerror or error}; see that its parent .* --out$"
    with pytest.raises(BundleError, match=expected):
        export_model(source, tmp_path / "b", ["fp32"])
    assert os.listdir(tmp_path) == []


def test_a_row_that_depends_on_its_batch_is_refused(
    source: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from charrnn.export import judge

    monkeypatch.setattr(judge.parity, "dependent_row", lambda stepper, vocab_size: (7, 12))
    with pytest.raises(ParityError, match="row 12 of a batch of 64 has other logits in a batch of 7"):
        export_model(source, tmp_path / "b")
    assert os.listdir(tmp_path) == []


def test_a_failed_replacement_keeps_the_bundle(source: TrainedModel, tmp_path: Path) -> None:
    export_model(source, tmp_path / "b", options=LOOSE)
    before = files(tmp_path / "b")
    with pytest.raises(ParityError):
        export_model(
            source,
            tmp_path / "b",
            options=ExportOptions(force=True, tolerances=Tolerances(max_int8_bpc=-1.0)),
        )
    assert files(tmp_path / "b") == before
    assert os.listdir(tmp_path) == ["b"]


def test_a_taken_path_is_refused(source: TrainedModel, tmp_path: Path) -> None:
    out = tmp_path / "b"
    out.mkdir()
    (out / "diary.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        export_model(source, out)
    for manifest in (None, "not JSON", "[]", '{"format": "other"}'):
        if manifest is not None:
            (out / "manifest.json").write_text(manifest)
        with pytest.raises(ConfigError, match="is not a bundle, so --force does not replace it"):
            export_model(source, out, options=ExportOptions(force=True))
    assert (out / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 129, "ä"])
def test_names_no_server_would_take_are_refused(source: TrainedModel, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="choose another with --name"):
        export_model(source, tmp_path / "b", options=ExportOptions(name=name))


@pytest.mark.parametrize(
    ("precisions", "message"), [(["fp64"], "'fp64' is not one of fp32, int8"), ([], "is empty")]
)
def test_unknown_precisions_are_refused(
    source: TrainedModel, tmp_path: Path, precisions: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        export_model(source, tmp_path / "b", precisions)


def test_the_card_tells_what_is_known(source: TrainedModel, tmp_path: Path) -> None:
    export_model(source, tmp_path / "b", options=replace(LOOSE, corpus_license='CC "BY" 4.0'))
    card = (tmp_path / "b" / "README.md").read_text()
    front, body = card.removeprefix("---\n").split("\n---\n")
    assert front.splitlines() == [
        *("library_name: onnx", "pipeline_tag: text-generation", "tags:", "- charrnn", "- onnx", "- lstm"),
        *("- character-level", 'corpus_license: "CC \\"BY\\" 4.0"'),
    ]
    assert "- Text: `a 'tick' # and more`\n" in body  # a name cannot break out of its line
    assert f"- sha256: `{'ab' * 32}`\n" in body
    assert "- Split: `tail` (train 9,000, validation 600 tokens)\n" in body
    assert "- Checkpoint: step 1,234\n" in body
    assert "| validation | 1.5000 | 2.1640 |" in body
    assert "charrnn serve b\n" in body
    earlier = [{"name": "before", "sha256": "cd" * 32, "until_step": 1000}]
    source = replace(source, training={"earlier_corpora": earlier, **TRAINING})
    export_model(source, tmp_path / os.fsdecode(b"\xe9"), options=LOOSE)
    card = (tmp_path / os.fsdecode(b"\xe9") / "README.md").read_text()
    assert f"- Text up to step 1,000: `before`, sha256 `{'cd' * 32}`\n- Text: " in card
    export_model(source, tmp_path / "c", options=LOOSE)
    assert "icen" not in (tmp_path / "c" / "README.md").read_text()
