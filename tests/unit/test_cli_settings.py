"""Where options come from: flag before environment before file before default."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import pytest

from charrnn.cli.kinds import Amount, CommaList
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
    @click.option("--rate", type=float)
    @click.option("--steps", type=CommaList())
    @click.option("--span", type=Amount())
    @click.option("--path", type=click.Path())
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
    assert (seen["max_tokens"], seen["as_json"], seen["stop"]) == (5, True, stop)


def test_the_variable_is_named_after_the_flag(
    command: click.Command, seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARRNN_DEMO_JSON", "1")
    command.main([], standalone_mode=False)
    assert seen["as_json"] is True


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[demo]\nmax-token = 2", "no setting 'max-token'; it has json, max-tokens, max_tokens, path, "),
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max-tokens = 'many'", "max-tokens in [demo] is 'many'; give a whole number"),
        ("max_tokens = [1, 2]", "max_tokens in [demo] is [1, 2]; give a whole number"),
        ("max_tokens = 2.7", "max_tokens in [demo] is 2.7; give a whole number"),
        ("max_tokens = true", "max_tokens in [demo] is True; give a whole number"),
        ("rate = 'high'", "rate in [demo] is 'high'; give a number"),
        ("json = 1", "json in [demo] is 1; give true or false"),
        ("stop = 5", "stop in [demo] is 5; give a string"),
        ("stop = ['a', 5]", "stop in [demo] is ['a', 5]; give a string"),
        ("steps = 2.5", "steps in [demo] is 2.5; give a string or a list of words"),
        ("steps = [[1]]", "steps in [demo] is [[1]]; give a string or a list of words"),
        ("span = true", "span in [demo] is True; give a number or a string"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(
    command: click.Command, file: Path, text: str, expected: str
) -> None:
    file.write_text(f"[demo]\n{text}")
    with pytest.raises(click.BadParameter) as caught:
        command.main(["--config", str(file)], standalone_mode=False)
    assert caught.value.exit_code == 2
    assert f"{file}: {expected}" in caught.value.format_message()


@pytest.mark.parametrize(
    ("text", "steps", "span"), [("steps = [1, 'b']", "1,b", "9"), ("steps = 5\nspan = 1.5", "5", "1.5")]
)
def test_a_list_is_as_good_as_commas_and_a_number_as_words(
    command: click.Command, seen: dict[str, Any], file: Path, text: str, steps: str, span: str
) -> None:
    file.write_text(f"[demo]\nrate = 2\nspan = 9\n{text}".replace("span = 9\nsteps = 5", "steps = 5"))
    command.main(["--config", str(file)], standalone_mode=False)
    assert (seen["steps"], seen["rate"], seen["span"]) == (steps, 2.0, span)


def test_an_error_names_an_option_as_it_is_typed(seen: dict[str, Any]) -> None:
    @click.command("demo")
    @click.option("--max-tokens", type=int)
    @click.option("--as-usage", is_flag=True)
    def demo(max_tokens: int, as_usage: bool) -> None:
        message = (
            "max_tokens is 0, in /tmp/max_tokens/a max_tokens.txt 'max_tokens' my_max_tokens; max_tokens."
        )
        raise click.UsageError(message) if as_usage else ConfigError(message)

    told = "--max-tokens is 0, in /tmp/max_tokens/a max_tokens.txt 'max_tokens' my_max_tokens; --max-tokens."
    for words, kind in (([], ConfigError), (["--as-usage"], click.UsageError)):
        with pytest.raises(kind) as caught:
            with_settings(demo).main(words, standalone_mode=False)
        assert told in str(caught.value)


def test_text_that_is_not_utf8_is_refused_and_a_path_is_not(
    command: click.Command, seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = os.fsdecode(b"\xff")
    for arguments in (["--steps", odd], ["--stop", "a", "--stop", odd]):
        with pytest.raises(click.BadParameter, match=r"b'\\xff' is not UTF-8"):
            command.main(arguments, standalone_mode=False)
    command.main(["--path", odd, "--stop", "é"], standalone_mode=False)
    assert (seen["path"], seen["stop"]) == (odd, ("é",))
    monkeypatch.setenv("CHARRNN_DEMO_STEPS", odd)
    with pytest.raises(click.BadParameter, match=r"is not UTF-8"):
        command.main([], standalone_mode=False)


def test_the_file_can_come_from_the_environment(
    command: click.Command, seen: dict[str, Any], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("[demo]\nmax-tokens = 2\n")
    monkeypatch.setenv("CHARRNN_DEMO_CONFIG", str(file))
    command.main([], standalone_mode=False)
    assert seen["max_tokens"] == 2


def test_settings_are_added_once(command: click.Command) -> None:
    assert len(with_settings(command).params) == len(with_settings(command).params)
