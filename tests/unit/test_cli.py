"""The command line without a model: help, refusals, exit codes, and where options come from."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import charrnn.cli
from charrnn._pb import charrnn_pb2 as pb
from charrnn.cli import COMMANDS, cli, main
from charrnn.cli.training import HELP
from charrnn.errors import CharrnnError, DivergedError, ParityError
from charrnn.training import TrainConfig, Trainer
from tests.fakes import FINISHED, fake_server, started

NOT_UTF8 = os.fsdecode(b"a\xff")
"""As the shell hands over ``$'a\\xff'``."""


def _command(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and error line of a command line that has to print exactly that."""
    code = main(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return code, err


def test_without_arguments_it_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    help_text = capsys.readouterr().out
    assert all(f"  {name} " in help_text for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("charrnn 0.")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    help_text = capsys.readouterr().out
    assert "Example" in help_text
    assert f"  charrnn {name}" in help_text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_a_variable(name: str) -> None:
    options = [option for option in _command(name).params if isinstance(option, click.Option)]
    for option in options:
        assert option.help, f"{name} {option.opts}"
        spellings = [spelling for spelling in option.opts if spelling.startswith("--")]
        variables = [f"CHARRNN_{name}_{spelling[2:].replace('-', '_')}".upper() for spelling in spellings]
        assert option.name in ("config", "debug") or option.envvar in variables


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["sampel"], 2, "sampel"),
        (["sample"], 2, "BUNDLE"),
        (["sample", "b", "--tempratur", "1"], 2, "--tempratur"),
        (["sample", "b", "--temperature", "hot"], 2, "'hot'"),
        (["sample", "b", "--temperature", "nan"], 2, "temperature"),
        (["sample", "b", "--temperature", "-1"], 2, "temperature"),
        (["sample", "b", "--top-k", "-1"], 2, "--top-k"),
        (["sample", "b", "--top-k", "99999999999"], 2, "--top-k is"),
        (["sample", "b", "--top-p", "1.5"], 2, "--top-p is"),
        (["sample", "b", "--min-p", "-0.5"], 2, "--min-p is"),
        (["sample", "b", "--max-tokens", "0"], 2, "--max-tokens is"),
        (["sample", "b", "--max-tokens", "-5"], 2, "max"),
        (["sample", "b", "--seed", "-1"], 2, "--seed"),
        (["sample", "b", "--seed", str(2**64)], 2, "--seed"),
        (["sample", "b", "--stop", ""], 2, "stop"),
        (["sample", "b", "--n", "0"], 2, "--n"),
        (["sample", "b", "--prompt", "a", "--prompt-file", os.devnull], 2, "not both"),
        (["sample", "b", "--prompt-file", "no-such-file"], 2, "no-such-file"),
        (["sample", "no-such-bundle"], 3, "no-such-bundle"),
        (["sample", "b", "--config", "no-such.toml"], 3, "no-such.toml"),
        (["generate", "--server", "nowhere"], 2, "'nowhere' is not host:port"),
        (["generate", "--server", "http://127.0.0.1:1"], 2, "not host:port"),
        (["generate", "--server", "127.0.0.1:1", "--temperature", "-1"], 2, "temperature"),
        (["generate", "--timeout", "0"], 2, "timeout"),
        (["generate", "--server", "127.0.0.1:1"], 69, "no server answers at 127.0.0.1:1"),
        (["generate", "--save-resume", "no/t"], 2, "no/t: there is no folder no; make it first"),
        (["generate", "--save-resume", ""], 2, "--save-resume . is a folder; give a file"),
        (["generate", "--resume", os.devnull, "--echo"], 2, "--echo is in the token of --resume"),
        (["generate", "--resume", os.devnull, "--ca", "no.pem"], 3, "no.pem"),
        (["generate", "--timeout", "1e300"], 2, "1e+300 is not in the range 0<x<=31536000"),
        (["generate", "--timeout", "nan"], 2, "nan is not in the range 0<x<=31536000"),
        (["sample", "b", "--prompt", NOT_UTF8], 2, r"'--prompt': b'a\xff' is not UTF-8"),
        (["sample", "b", "--stop", "a", "--stop", NOT_UTF8], 2, r"'--stop': b'a\xff' is not UTF-8"),
        (["sample", NOT_UTF8], 3, "manifest.json"),
        (["export", "r", "--out", "b", "--name", NOT_UTF8], 2, r"'--name': b'a\xff' is not UTF-8"),
        (["sample", "no-such-bundle"], 3, "there is no folder no-such-bundle"),
        (["serve"], 2, "BUNDLE"),
        (["serve", "no-such-bundle", "--listen", "127.0.0.1:0"], 3, "no-such-bundle"),
        (["serve", "b", "--listen", "50051"], 2, "not host:port"),
        (["serve", "b", "--listen", "127.0.0.1:99999"], 2, "not host:port"),
        (["serve", "b", "--listen", "0.0.0.0:0"], 2, "--insecure"),
        (["serve", "b", "--listen", "[::]:0"], 2, "--insecure"),
        (["serve", "b", "--listen", "example.org:0"], 2, "--insecure"),
        (["serve", "b", "--workers", "0"], 2, "--workers"),
        (["serve", "b", "--workers", "100000"], 2, "workers is 100000; it must be 1 to "),
        (["serve", "b", "--workers", "100000", "--check"], 2, "workers is 100000; it must be 1 to "),
        (["serve", "b", "--max-streams", "0"], 2, "--max-streams"),
        (["serve", "b", "--max-streams", "5000"], 2, "--max-streams is 5000; it must be 1 to 4096"),
        (["serve", "b", "--max-streams", "5000", "--check"], 2, "--max-streams is 5000; it must be 1 to"),
        (["serve", "b", "--queue", "9" * 20], 2, "'--queue': 99999999999999999999 is more than 2147483647"),
        (["serve", "b", "--json"], 2, "--json goes with --check"),
        (["serve", "b", "--drain-timeout", "-1"], 2, "--drain-timeout"),
        (["serve", "b", "--drain-timeout", "1e300"], 2, "1e+300 is not in the range 0<=x<=31536000"),
        (["serve", "b", "--drain-timeout", "nan", "--listen", "127.0.0.1:0"], 2, "drain"),
        (["quickstart", "--minutes", "0"], 2, "--minutes"),
        (["quickstart", "--minutes", "0.001"], 2, "0.001 is not in the range 0.01<=x<=10000000"),
        (["quickstart", "--minutes", "nan"], 2, "--minutes"),
        (["quickstart", "--out", os.devnull, "--force"], 3, "/dev/null is not a folder"),
        (["quickstart", "--out", "/proc/no/such"], 3, "cannot use /proc/no/such as a folder to work in: "),
        (["export", "r", "--out", "b", "--max-logit-difference", "nan"], 2, "--max-logit-difference"),
        (["export", "r", "--out", "b", "--max-int8-bpc", "nan"], 2, "--max-int8-bpc"),
        (["train", "--out", "r", "--hidden-size", "0"], 2, "--hidden-size is 0: give a value from 1"),
        (["train", "--out", "r", "--dropout", "1.5"], 2, "dropout is 1.5: give a value from 0 to 0.95"),
        (["train", "--out", "r", "--seed", "-1"], 2, "give a value from 0 to 9223372036854775807"),
        (["train", "--out", "r", "--device", "cuda:99"], 3, "device is 'cuda:99' and torch sees"),
        (["quickstart", "--out", "."], 3, "--force"),
        (["export", "no-such-run", "--out", "b"], 3, "no-such-run"),
        (["train", "no-such-corpus", "--out", "no-such-run"], 3, "no-such-corpus"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    arguments: list[str], code: int, part: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        got, line = _refusal(capsys, *arguments)
    assert got == code, line
    assert part in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("exists", [True, False])
def test_a_token_that_cannot_be_written_is_refused_before_its_text_is_made(
    exists: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    if exists:
        token.touch()
    # Whoever runs the tests may be somebody who may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: path != (token if exists else tmp_path))
    code, line = _refusal(capsys, "generate", "--server", "127.0.0.1:1", "--save-resume", str(token))
    assert (code, f"--save-resume {token} cannot be written; give a file that may be" in line) == (2, True)


def test_a_text_that_goes_on_may_be_told_otherwise_and_reached_as_any_other(tmp_path: Path) -> None:
    requests: list[pb.GenerateRequest] = []

    def generate(request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        requests.append(request)
        yield from (started(), FINISHED)

    (token := tmp_path / "token").write_bytes(b"t")
    told = ["--json", "--logprobs", "--top-logprobs", "2", "--chunk-chars", "3"]
    with fake_server(generate) as address:
        reached = ["--server", address, "--token", "secret", "--insecure", "--timeout", "60"]
        assert main(["generate", "--resume", str(token), *reached, *told]) == 0
    output = pb.Output(chunk_chars=3, logprobs=True, top_logprobs=2)
    assert requests == [pb.GenerateRequest(resume_token=b"t", output=output)]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CharrnnError("no\nluck"), 1, "error: no luck\n"),
        (DivergedError("x"), 4, "error: x\n"),
        (ParityError("x"), 5, "error: x\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "f"),
            1,
            "error: [Errno 13] Permission denied: 'f'\n",
        ),
        (KeyError("k"), 1, "error: KeyError: 'k'; charrnn --debug shows where\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(7), 7, ""),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(charrnn.cli, "_run", _raising(error))
    # What is left of a broken pipe is pointed away from it; here that would be pytest's own output.
    monkeypatch.setattr(charrnn.cli, "_drop_stdout", lambda: None)
    assert main(["doctor"]) == code
    assert capsys.readouterr().err == line


def test_a_closed_stdout_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert main(["sample", "b"]) == 2
    assert capsys.readouterr().err == "error: stdout is closed; send it to a file, a pipe or /dev/null\n"


def test_a_failed_quickstart_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: str) -> None:
        raise CharrnnError("charrnn train ended with exit code 3")

    monkeypatch.setattr("charrnn.cli.quickstart._run", failing)
    assert main(["quickstart", "--out", str(tmp_path / "q")]) == 1
    assert not list(tmp_path.iterdir())


def test_help_says_what_resuming_may_change_and_how_serving_ends(capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert (
        "with its own settings; only --checkpoint-every, --device, --strict-save, --threads may change."
        in told
    )
    main(["serve", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "the exit code is 0. A second one stops at once, with 130 for Ctrl-C and 143 for SIGTERM." in told


def test_tables_of_no_command_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "charrnn.toml"
    file.write_text("[train]\nseed = 1\n[smaple]\nseed = 1\n")
    code, line = _refusal(capsys, "sample", "b", "--config", str(file))
    assert code == 3
    assert f"{file}: there is no command for [smaple]; commands are quickstart, train, " in line


@pytest.mark.parametrize("value", ["'5, 10'", "[5, 10]"])
def test_steps_in_a_file_are_a_string_or_a_list(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainConfig] = []

    def note(self: Trainer, config: TrainConfig, **_: object) -> None:
        seen.append(config)
        raise CharrnnError("enough")

    monkeypatch.setattr(Trainer, "__init__", note)
    file = tmp_path / "charrnn.toml"
    file.write_text(f"[train]\nsample_at = {value}\n")
    assert main(["train", "--out", str(tmp_path / "r"), "--config", str(file)]) == 1
    assert seen[0].sample_at == (5, 10)


def test_debug_shows_where(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["--debug", "sample", "no-such-bundle"]) == 3
    assert "Traceback" in capsys.readouterr().err
    assert main(["sample", "no-such-bundle", "--debug"]) == 3
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("CHARRNN_DEBUG", "1")
    assert main(["sample", "no-such-bundle"]) == 3
    assert "Traceback" in capsys.readouterr().err


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts back the handlers of signals that ``main`` sets."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.usefixtures("handlers")
def test_a_signal_unwinds(number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    unwound = []

    def run(words: list[str]) -> int:
        try:
            signal.raise_signal(number)
        finally:
            unwound.append(True)
        return 0

    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    monkeypatch.setattr(charrnn.cli, "_run", run)
    assert main(["doctor"]) == code
    assert unwound == [True]


@pytest.mark.usefixtures("handlers")
def test_nohup_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(charrnn.cli, "_run", lambda words: signal.raise_signal(signal.SIGHUP) or 0)
    assert main(["doctor"]) == 0


def _raising(error: BaseException) -> Callable[[list[str]], int]:
    def run(words: list[str]) -> int:
        raise error

    return run


def test_every_setting_of_a_run_has_an_option_with_help() -> None:
    assert list(HELP) == [field.name for field in dataclasses.fields(TrainConfig)]
