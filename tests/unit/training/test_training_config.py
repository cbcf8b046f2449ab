from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from charrnn.errors import ConfigError
from charrnn.training.config import TrainConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cell": "elman"}, "cell is 'elman': give one of lstm, gru, rnn"),
        ({"num_layers": 0}, "num_layers is 0: give a value from 1 to 16"),
        ({"hidden_size": 1.5}, "hidden_size is 1.5: give a value of type int"),
        ({"dropout": 1.0}, "dropout is 1.0: give a value from 0 to 0.95"),
        ({"batch_size": -3}, "batch_size is -3: give a value from 1 to 65536"),
        ({"seed": -1}, "seed is -1: give a value from 0 to 9223372036854775807"),
        ({"seed": True}, "seed is True: give a value of type int"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"max_minutes": float("inf")}, "max_minutes is inf"),
        ({"max_steps": 5, "max_epochs": 2}, "max_steps 5 and max_epochs 2 exclude each other"),
        ({"sample_at": (10, 0)}, "sample_at holds step 0"),
        ({"split": "head"}, "split is 'head': give one of tail, interleaved, nanogpt, none"),
        ({"unit": "word"}, "unit is 'word': give one of char, byte"),
        ({"device": "tpu"}, "device is 'tpu': give auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:x"}, "device is 'cuda:x'"),
        ({"device": "cuda:٣"}, "device is 'cuda:٣'"),
        ({"device": "cuda:99999999999999999999"}, "device is 'cuda:99999999999999999999': give auto"),
    ],
)
def test_an_impossible_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match="^" + message.replace("(", r"\(")):
        TrainConfig(**settings)


def test_json_round_trip() -> None:
    config = TrainConfig(cell="gru", lr=1e-3 / 3, sample_at=(3, 5), max_minutes=1, threads=2)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown setting 'optimiser'"):
        TrainConfig.from_json({"optimiser": "sgd"})


def test_resuming_refuses_other_weights_and_allows_other_threads() -> None:
    stored = TrainConfig(hidden_size=64)
    stored.replace(threads=1, checkpoint_every=9, device="cpu").check_resumes(stored)
    with pytest.raises(ConfigError, match="hidden_size is 64 in the run and 32 was given: leave it out"):
        stored.replace(hidden_size=32).check_resumes(stored)


def test_settings_are_read_without_torch() -> None:
    code = "import sys, charrnn.training.config, charrnn.cli.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    import charrnn.training

    for name in charrnn.training.__all__:
        assert getattr(charrnn.training, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Teacher'"):
        _ = charrnn.training.Teacher
