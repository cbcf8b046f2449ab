"""The command line: one file per command, loaded when it is asked for.

Text goes to stdout and talk to stderr. An error is one line, ``error: ...``, and an exit code: 0 done,
1 failed, 2 wrong usage, 3 bad data, artifact or settings, 4 diverged, 5 parity or limit check failed,
69 no server answers, 70 the engine failed for good, 129 SIGHUP, 130 Ctrl-C, 141 nobody reads the
output any more, 143 SIGTERM.
"""

from __future__ import annotations

import errno
import importlib
import keyword
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from charrnn.cli.settings import debug_option, with_settings
from charrnn.errors import CharrnnError

COMMANDS = (
    "quickstart",
    "train",
    "eval",
    "compare",
    "report",
    "export",
    "import",
    "sample",
    "serve",
    "admin",
    "generate",
    "bench",
    "compress",
    "decompress",
    "presets",
    "data",
    "doctor",
    "completion",
)
"""In the order in which a newcomer meets them: a module each, with a click command of its name
(``import_`` where the name is a keyword)."""

COMPLETE_VARIABLE = "_CHARRNN_COMPLETE"
"""With it in the environment charrnn answers the shell instead of doing anything."""

EXIT_FAILED, EXIT_USAGE, EXIT_CTRL_C, EXIT_BROKEN_PIPE = 1, 2, 130, 141
EXIT_SIGNAL = 128
"""And the number of the signal that ended it: 129 SIGHUP, 143 SIGTERM."""


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived; like ``KeyboardInterrupt`` it unwinds the stack and everything is closed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class LazyGroup(click.Group):
    """Imports a command's module only when the command, or help on it, is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command with its settings added, or nothing for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        return with_settings(getattr(importlib.import_module(f"charrnn.cli.{name}"), name))


@click.group(
    cls=LazyGroup,
    params=[debug_option()],
    context_settings={"show_default": True, "max_content_width": 100},
    epilog="""\b
    Example:
      charrnn quickstart

    Every option can also come from the environment, as CHARRNN_<COMMAND>_<OPTION>, or from a table
    named after the command in the file of its --config option. What stands on the command line wins,
    then the environment, then the file.
    """,
)
@click.version_option(package_name="charrnn", message="charrnn %(version)s")
def cli() -> None:
    """Train, export, serve and sample character-level recurrent networks."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; never raises."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if sys.stdout is None:  # what is opened next would get its number, and stray output
        click.echo("error: stdout is closed; send it to a file, a pipe or /dev/null", err=True)
        return EXIT_USAGE
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        return _complete(instruction)
    _listen_for_signals()
    debug = "--debug" in words or os.environ.get("CHARRNN_DEBUG", "0") not in ("", "0")
    try:
        code = _run(words)
        sys.stdout.flush()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else EXIT_FAILED if ended.code else 0
    except KeyboardInterrupt:
        return EXIT_CTRL_C
    except Terminated as terminated:
        return EXIT_SIGNAL + terminated.number
    except BaseException as error:
        return _report(error, debug)
    return code


def _complete(instruction: str) -> int:
    """Answer the shell, which ``charrnn completion`` told to ask."""
    from click.shell_completion import shell_complete

    return shell_complete(cli, {}, "charrnn", COMPLETE_VARIABLE, instruction)


def _run(words: list[str]) -> int:
    try:
        with cli.make_context("charrnn", words) as context:
            cli.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    return 0


def _report(error: BaseException, debug: bool) -> int:
    """Say what went wrong in one line, and with which exit code that ends."""
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        _drop_stdout()
        return EXIT_BROKEN_PIPE
    if debug:
        traceback.print_exception(error)
    match error:
        case click.ClickException():
            message, code = _usage(error), error.exit_code
        case CharrnnError():
            message, code = str(error), error.exit_code
        case OSError():
            message, code = str(error), EXIT_FAILED
        case click.Abort():
            return EXIT_CTRL_C
        case _:
            message, code = f"{type(error).__name__}: {error}; charrnn --debug shows where", EXIT_FAILED
    click.echo(f"error: {' '.join(message.split())}", err=True)
    return code


def _usage(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message}; see {context.command_path} --help" if context else message


def _drop_stdout() -> None:
    """Let nothing more be written to a closed pipe, least of all by the interpreter as it exits."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # not a file: nothing to flush at exit either
        return


def _listen_for_signals() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup wants it to go on
            signal.signal(signal.SIGHUP, _terminate)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(number)
