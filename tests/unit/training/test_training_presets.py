"""Every preset is valid, says what it is for, and trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from charrnn.errors import ConfigError
from charrnn.training import TrainConfig, Trainer, presets
from charrnn.training.forecast import num_parameters

NAMES = {"latex", "linux", "names", "paulgraham", "quick", "shakespeare", "warpeace", "wikipedia"}
# So that two steps take a moment; the rest stays as the preset has it.
CUT = {"batch_size": 2, "hidden_size": 32, "device": "cpu", "threads": 1, "sample_chars": 20}


def test_there_is_one_for_each_model_of_the_essay() -> None:
    assert set(presets.names()) == NAMES


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_is_valid_and_says_what_it_is_for(name: str) -> None:
    preset = presets.read(name)
    assert 20 < len(preset.purpose) < 100
    assert "\n#\n# " in preset.text  # where it comes from, below what it is for
    config, default = TrainConfig.preset(name), TrainConfig()
    assert config.preset_name == name
    for setting, value in preset.settings.items():
        assert getattr(config, setting) == value
    untouched = {field.name for field in dataclasses.fields(config)} - set(preset.settings)
    assert all(getattr(config, setting) == getattr(default, setting) for setting in untouched)


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_trains(name: str, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Emma\nAda\nGrace Hopper\nJo\n" * 300)
    config = TrainConfig.preset(name, **CUT, max_steps=2, max_minutes=None)
    result = Trainer(config).fit(text, out=tmp_path / "run")
    assert result.step == 2
    assert result.best_nats is not None


def test_the_sizes_are_the_essays() -> None:
    sizes = {name: num_parameters(TrainConfig.preset(name), 96) for name in ("paulgraham", "linux")}
    assert 3.3e6 < sizes["paulgraham"] < 3.6e6
    assert 9.5e6 < sizes["linux"] < 10.5e6
    assert TrainConfig.preset("warpeace").sample_at == (100, 300, 500, 700, 1200, 2000)


def test_what_is_given_wins() -> None:
    config = TrainConfig.preset("paulgraham", lr=0.1, max_steps=5)
    assert (config.lr, config.max_steps, config.max_epochs) == (0.1, 5, None)
    assert (config.hidden_size, config.preset_name) == (512, "paulgraham")
    assert TrainConfig.preset("paulgraham", max_steps=None).max_epochs == 50
    copy = config.replace(seed=3)
    assert (copy.seed, copy.preset_name) == (3, "paulgraham")
    assert TrainConfig().preset_name is None
    assert "preset_name" not in config.to_json()


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"preset is 'slow': give one of latex, linux, names, "):
        TrainConfig.preset("slow")
