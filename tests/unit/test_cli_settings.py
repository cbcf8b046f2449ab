"""Where options come from: flag before environment before file before default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from charrnn.cli.settings import with_settings
from charrnn.errors import ConfigError


@pytest.fixture
def seen() -> dict[str, Any]:
    return {}


@pytest.fixture
def command(seen: dict[str, Any]) -> click.Command:
    @click.command("demo")
    @click.option("--max-tokens", type=int, default=1)
    @click.option("--stop", multiple=True)
    @click.option("--json", "as_json", is_flag=True)
    def demo(**options: Any) -> None:
        seen.update(options)

    return with_settings(demo)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "charrnn.toml"


def test_flag_before_environment_before_file_before_default(
    command: click.Command, seen: dict[str, Any], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.main([], standalone_mode=False)
    assert seen["max_tokens"] == 1
    file.write_text("[demo]\nmax-tokens = 2\n")
    command.main(["--config", str(file)], standalone_mode=False)
    assert seen["max_tokens"] == 2
    monkeypatch.setenv("CHARRNN_DEMO_MAX_TOKENS", "3")
    command.main(["--config", str(file)], standalone_mode=False)
    assert seen["max_tokens"] == 3
    command.main(["--max-tokens", "4", "--config", str(file)], standalone_mode=False)
    assert seen["max_tokens"] == 4


@pytest.mark.parametrize(("text", "stop"), [('stop = ["a", "b c"]', ("a", "b c")), ('stop = "ab"', ("ab",))])
def test_a_repeatable_option(
    command: click.Command, seen: dict[str, Any], file: Path, text: str, stop: tuple[str, ...]
) -> None:
    file.write_text(f"[demo]\nmax_tokens = 5\njson = true\n{text}\n[other]\nx = 1\n")
    command.main(["--config", str(file)], standalone_mode=False)
    assert seen == {"max_tokens": 5, "as_json": True, "stop": stop}


def test_the_variable_is_named_after_the_flag(
    command: click.Command, seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARRNN_DEMO_JSON", "1")
    command.main([], standalone_mode=False)
    assert seen["as_json"] is True


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[demo]\nmax-token = 2", "no setting 'max-token'; it has json, max-tokens, max_tokens, stop"),
        ("max-tokens = 2", "'max-tokens' stands in no table"),
        ("[demo", "cannot read"),
        ("[[demo]]\nmax-tokens = 2", "stands in no table"),
    ],
)
def test_a_file_that_is_wrong_is_refused(command: click.Command, file: Path, text: str, part: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"charrnn\.toml") as caught:
        command.main(["--config", str(file)], standalone_mode=False)
    assert part in str(caught.value)


def test_a_value_of_the_wrong_kind_is_refused(command: click.Command, file: Path) -> None:
    file.write_text("[demo]\nmax-tokens = 'many'")
    with pytest.raises(click.BadParameter, match="many"):
        command.main(["--config", str(file)], standalone_mode=False)


def test_the_file_can_come_from_the_environment(
    command: click.Command, seen: dict[str, Any], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("[demo]\nmax-tokens = 2\n")
    monkeypatch.setenv("CHARRNN_DEMO_CONFIG", str(file))
    command.main([], standalone_mode=False)
    assert seen["max_tokens"] == 2


def test_settings_are_added_once(command: click.Command) -> None:
    assert len(with_settings(command).params) == len(with_settings(command).params)
