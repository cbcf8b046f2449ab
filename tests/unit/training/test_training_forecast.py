"""What is said before and after the first steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from charrnn.training import CharRNN, TrainConfig, Trainer, forecast
from charrnn.training.callbacks import Callback, Stepped
from charrnn.training.forecast import Facts, Forecast, Memory, free_memory, num_parameters, shortage, span
from charrnn.training.learner import Learner, model_shape
from tests.runs import Diary

SHAPES = [
    TrainConfig(cell=cell, num_layers=layers, embedding_dim=width, hidden_size=64, device="cpu", dropout=0.1)
    for cell in ("lstm", "gru", "rnn")
    for layers, width in ((1, 0), (2, 0), (3, 24))
]


@pytest.mark.parametrize("config", SHAPES, ids=lambda config: f"{config.cell}{config.num_layers}")
def test_parameters_are_counted_without_a_model(config: TrainConfig) -> None:
    assert num_parameters(config, 70) == CharRNN(model_shape(config, 70)).num_parameters


@pytest.mark.parametrize("config", SHAPES, ids=lambda config: f"{config.cell}{config.num_layers}")
def test_memory_is_of_the_size_that_torch_keeps(config: TrainConfig) -> None:
    learner, kept = Learner(config, 70), dict[int, int]()
    weights = {weight.untyped_storage().data_ptr() for weight in learner.model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = torch.randint(70, (config.batch_size, config.bptt))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        learner.learn(tokens, tokens, 0.01)
    memory = Memory.of(config, 70)
    assert 0.75 < memory.window / sum(kept.values()) < 1.5
    moments = sum(tensor.nbytes for name, tensor in learner.tensors().items() if name.startswith("exp_avg"))
    assert memory.optimizer == moments


def test_a_shortage_is_said() -> None:
    config = TrainConfig()
    total = Memory.of(config, 96).total
    assert shortage(config, 96, None) is None
    assert shortage(config, 96, total) is None
    told = shortage(config, 96, total - 1)
    assert told is not None
    assert told.startswith("warning: training takes about ")
    assert told.endswith("MiB are free: give a smaller --batch-size, --bptt or --hidden-size")


def test_a_run_without_memory_is_warned_and_goes_on(
    corpus: Path, small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charrnn.training.opening.free_memory", lambda: 1000)
    diary = Diary()
    assert Trainer(small, callbacks=[diary]).fit(corpus, out=tmp_path / "run").step == 30
    assert "0.0 MiB are free" in diary.notes[0]


def test_free_memory_is_the_tighter_of_machine_and_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       100 kB\nMemAvailable:   40 kB\n")
    assert forecast._available(meminfo) == 40 * 1024
    assert forecast._available(tmp_path / "missing") is None
    assert forecast._below_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert forecast._below_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("5000\n")
    assert forecast._below_limit(tmp_path) == 4000
    free = free_memory()
    assert free is None or free > 2**20


def facts(config: TrainConfig, total_steps: int | None) -> Facts:
    shape = {"vocab_size": 65, "device": "cpu", "threads": 2, "step": 0, "steps_per_epoch": 50}
    return Facts(
        Path("run"), config, "book.txt", "tail", {"train": 900, "test": 100}, total_steps=total_steps, **shape
    )  # type: ignore[arg-type]


def told(config: TrainConfig, total_steps: int | None, num_steps: int = 20) -> list[str]:
    """The forecast of steps that take two seconds each, for 3200 symbols."""
    now, notes = 0.0, list[str]()
    listening: Callback = Forecast(facts(config, total_steps), notes.append, lambda: now)
    for step in range(1, num_steps + 1):
        now += 2.0 if step > 3 else 50.0
        listening.stepped(Stepped(step, total_steps, 3.0, 3200, 0.01, 1.0))
    return notes


def test_after_some_steps_the_pace_is_said_once() -> None:
    assert told(TrainConfig(), 2000) == [
        "forecast: 1,600 chars/s; 1:06:20 to step 2,000, after 40.0 epochs",
    ]
    assert told(TrainConfig(), 2000, num_steps=9) == []


def test_minutes_limit_the_forecast() -> None:
    expected = ["forecast: 1,600 chars/s; 10 min are about 300 steps, 6.0 epochs"]
    assert told(TrainConfig(max_minutes=10), None) == expected
    assert told(TrainConfig(max_minutes=10, max_steps=2000), 2000) == expected
    assert "to step 20," in told(TrainConfig(max_minutes=10, max_steps=20), 20)[0]


def test_facts_for_people() -> None:
    lines = facts(TrainConfig(), 500).lines()
    assert lines[0] == "lstm 2x128, 240,321 parameters, 65 symbols, cpu, 2 threads"
    assert lines[1].startswith("memory: about ")
    assert lines[2] == "book.txt, split tail: train 900, test 100 chars"
    assert lines[3] == "steps: 500 (10.0 epochs), each 32 x 100 chars"
    assert facts(TrainConfig(), None).lines()[3] == "steps: as many as fit, each 32 x 100 chars"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3725, "1:02:05"), (-1, "0:00")])
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text
