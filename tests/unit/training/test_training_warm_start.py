"""Beginning with another model's weights: by symbol, whatever the ids, from a run or a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from charrnn.errors import CheckpointError, ConfigError
from charrnn.export import export
from charrnn.training import CharRNN, TrainConfig, Trainer, load_run
from charrnn.training.callbacks import Callback, Stepped
from charrnn.training.learner import model_shape
from charrnn.training.model import ModelShape
from charrnn.training.warm_start import adopt, check_matches, read_donor
from charrnn.vocab import Vocab
from tests.runs import Diary, last_weights

CASES = [(cell, width) for cell in ("lstm", "gru", "rnn") for width in (0, 7)]


def donor_run(corpus: Path, config: TrainConfig, out: Path) -> Path:
    Trainer(config).fit(corpus, out=out)
    return out


def logits(model: CharRNN, vocab: Vocab, text: str, symbols: list[int]) -> torch.Tensor:
    """Over a text, for some symbols only, in their order: (T, len(symbols))."""
    tokens = torch.tensor(vocab.encode(text).astype("int64"))[None]
    with torch.inference_mode():
        rows, _ = model.eval()(tokens, model.zero_state(1))
    return rows[0][:, [vocab.symbols.index(symbol) for symbol in symbols]]


@pytest.mark.parametrize("kind", ["run", "bundle"])
@pytest.mark.parametrize(("cell", "embedding_dim"), CASES)
def test_shared_symbols_are_treated_as_before(
    kind: str, cell: str, embedding_dim: int, corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    config = small.replace(cell=cell, embedding_dim=embedding_dim)
    path = donor_run(corpus, config, tmp_path / "run")
    run = load_run(path)
    if kind == "bundle":
        path = tmp_path / "bundle"
        export(tmp_path / "run", path, precisions=("fp32",))
    torch.manual_seed(5)
    shared = [symbol for symbol in run.vocab.symbols if symbol != ord("q")]
    vocab = Vocab([0x20AC, *reversed(shared), ord("Z")])
    model = CharRNN(model_shape(config, len(vocab)))
    fresh = {name: weight.clone() for name, weight in model.named_parameters()}
    start = adopt(model, vocab, read_donor(path))
    assert (start.new_symbols, start.lost_symbols) == ((0x20AC, ord("Z")), (ord("q"),))
    text = "to be or not that is the nobler"
    ours, theirs = (logits(m, v, text, shared) for m, v in ((model, vocab), (run.model, run.vocab)))
    assert torch.allclose(ours, theirs, atol=0 if kind == "run" else 2e-5, rtol=0)
    for new in (0, len(vocab) - 1):
        assert torch.equal(model.head.weight[new], fresh["head.weight"][new])
        if embedding_dim:
            assert torch.equal(model.embedding.weight[new], fresh["embedding.weight"][new])  # type: ignore[union-attr]
        else:
            name = "rnn.weight_ih_l0"
            assert torch.equal(dict(model.named_parameters())[name][:, new], fresh[name][:, new])


def test_a_run_is_told_where_it_comes_from(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    donor = donor_run(corpus, small, tmp_path / "donor")
    other = tmp_path / "other.txt"
    other.write_text(corpus.read_text().replace("q", "") + "Hä?\n")
    diary = Diary()
    config = small.replace(init_from=str(donor), max_steps=5)
    Trainer(config, callbacks=[diary]).fit(other, out=tmp_path / "run")
    best = load_run(donor)
    notes = [note for note in diary.notes if "symbols" in note]
    known = len(best.vocab) - 1
    assert notes[0] == f"warm start from run {donor} at step {best.step}: {known} symbols known"
    assert notes[1] == "3 new symbols: '?', 'H', 'ä'"
    assert notes[2] == "1 of its symbols are not in the text: 'q'"
    told = json.loads((tmp_path / "run/run.json").read_text())["origin"]["init_from"]
    assert (told["kind"], told["path"], told["step"]) == ("run", str(donor), best.step)
    assert (told["new_symbols"], told["lost_symbols"]) == ([63, 72, 228], [113])
    state = json.loads((donor / f"checkpoints/step-{best.step:07d}/state.json").read_text())
    summary = load_run(tmp_path / "run").summary()
    assert summary["init_from"]["sha256"] == state["files"]["model.safetensors"]
    assert "path" not in summary["init_from"]


def test_it_helps(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    donor = donor_run(corpus, small.replace(max_steps=200, eval_every=100), tmp_path / "donor")
    cold, warm = Diary(), Diary()
    config = small.replace(max_steps=3)
    Trainer(config, callbacks=[cold]).fit(corpus, out=tmp_path / "cold")
    Trainer(config.replace(init_from=str(donor)), callbacks=[warm]).fit(corpus, out=tmp_path / "warm")
    assert warm.nats[0] < cold.nats[0] - 0.5


class Interrupting(Callback):
    """Ends the process's work at a step as a crash would, before anything is saved."""

    def stepped(self, stepped: Stepped) -> None:
        if stepped.step == 4:
            raise KeyboardInterrupt


def test_killed_before_the_first_checkpoint_it_begins_the_same(
    corpus: Path, small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    donor_run(corpus, small.replace(seed=9), tmp_path / "donor")
    monkeypatch.chdir(tmp_path)
    config = small.replace(init_from="donor")
    Trainer(config).fit(corpus, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, callbacks=[Interrupting()]).fit(corpus, out=tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Trainer(config).fit(out=tmp_path / "run", resume=True)
    assert last_weights(tmp_path / "run") == last_weights(tmp_path / "whole")
    Trainer(small).fit(corpus, out=tmp_path / "cold")
    assert last_weights(tmp_path / "run") != last_weights(tmp_path / "cold")


def test_another_donor_is_not_taken_for_the_same(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    donor = donor_run(corpus, small, tmp_path / "donor")
    config = small.replace(init_from=str(donor))
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, callbacks=[Interrupting()]).fit(corpus, out=tmp_path / "run")
    donor.rename(tmp_path / "old")
    donor_run(corpus, small.replace(seed=2), donor)
    with pytest.raises(ConfigError, match=r"run .*donor has changed since the run began with it: sha256 was"):
        Trainer(config).fit(out=tmp_path / "run", resume=True)


def test_after_the_first_checkpoint_the_donor_may_go(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    donor = donor_run(corpus, small, tmp_path / "donor")
    config = small.replace(init_from=str(donor))
    Trainer(config).fit(corpus, out=tmp_path / "whole")
    Trainer(config, callbacks=[Diary(13)]).fit(corpus, out=tmp_path / "run")
    donor.rename(tmp_path / "gone")
    Trainer(config).fit(out=tmp_path / "run", resume=True)
    assert last_weights(tmp_path / "run") == last_weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell": "gru"}, r"cell is 'lstm' in run \S*donor and 'gru' here: give --cell lstm, or another"),
        ({"num_layers": 1}, "num_layers is 2 in run .* and 1 here: give --num-layers 2"),
        ({"hidden_size": 13, "cell": "rnn"}, "cell is 'lstm'"),
        ({"hidden_size": 13}, "hidden_size is 12 in run .* and 13 here"),
        ({"embedding_dim": 3}, "embedding_dim is 0 in run .* and 3 here"),
        ({"unit": "byte"}, "unit is 'char' in run .* and 'byte' here"),
    ],
)
def test_another_shape_is_refused_and_nothing_left(
    changes: dict[str, str | int], message: str, corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    donor = donor_run(corpus, small.replace(max_steps=2), tmp_path / "donor")
    with pytest.raises(ConfigError, match=message):
        Trainer(small.replace(init_from=str(donor), **changes)).fit(corpus, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_no_model_is_refused(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"init_from is .*, which is no run and no bundle"):
        read_donor(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Trainer(small, callbacks=[Interrupting()]).fit(corpus, out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="run has no checkpoint yet"):
        read_donor(tmp_path / "run")


def test_a_bundle_without_float32_is_refused(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    donor_run(corpus, small, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "bundle", precisions=("int8",))
    with pytest.raises(ConfigError, match=r"holds int8, and weights are read from fp32: export it with"):
        read_donor(tmp_path / "bundle")


def test_an_embedding_wider_than_the_alphabet_can_be_factored(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    config = small.replace(embedding_dim=40)
    run = load_run(donor_run(corpus, config, tmp_path / "run"))
    export(tmp_path / "run", tmp_path / "bundle", precisions=("fp32",))
    donor = read_donor(tmp_path / "bundle")
    check_matches(donor, config)
    model = CharRNN(ModelShape(len(run.vocab), "lstm", 2, 12, 40))
    adopt(model, run.vocab, donor)
    ours, theirs = (logits(each, run.vocab, "to be", run.vocab.symbols) for each in (model, run.model))
    assert torch.allclose(ours, theirs, atol=2e-5, rtol=0)
