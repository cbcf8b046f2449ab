"""``charrnn train``: a text in, a run folder out."""

from __future__ import annotations

import gc
import math
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charrnn.cli.output import escape_controls
from charrnn.cli.training import given_settings, preset_option, training_options
from charrnn.errors import ConfigError
from charrnn.training.config import RESUMABLE, TrainConfig

if TYPE_CHECKING:
    from charrnn.training import TrainResult

RESUME_HELP = (
    "Go on with the run in --out, with its own settings; only "
    f"{', '.join('--' + name.replace('_', '-') for name in sorted(RESUMABLE))} may change."
)


@click.command(
    epilog="""\b
    Examples:
      charrnn train book.txt --out runs/book
      charrnn train book.txt --out runs/best --preset quick
      charrnn train book.txt --out runs/big --hidden-size 512 --dropout 0.3 --max-minutes 60
      charrnn train --out runs/book --resume
      charrnn train src/ 'docs/**/*.md' --out runs/code --split interleaved
      charrnn train names.txt --out runs/names --separator '\\n' --split interleaved
      zcat dump.gz | charrnn train - --out runs/dump

    CORPUS is a file, a folder (all files below it in the order of their names, hidden ones left out), a
    quoted pattern, - for stdin, which is kept in RUN, data:NAME, which charrnn data get fetched, or
    python-stdlib, the source of Python's library. Several are joined in order with nothing between them;
    with --separator a file's end also ends a document. Without CORPUS it trains on the help topics of
    Python's own documentation.

    A sample of the trained model goes to stdout. Ctrl-C saves and stops; --resume goes on to the same
    result.
    """
)
@click.argument("corpus", nargs=-1, metavar="[CORPUS]...", type=click.Path())
@click.option("--out", required=True, metavar="RUN", type=click.Path(), help="Folder of the run.")
@preset_option
@training_options
@click.option("--resume", is_flag=True, help=RESUME_HELP)
@click.option("--allow-data-change", is_flag=True, help="Resume although the text has changed.")
@click.option("--tensorboard", is_flag=True, help="Write curves and samples to RUN/tensorboard too.")
@click.pass_context
def train(
    context: click.Context,
    /,
    corpus: tuple[str, ...],
    out: str,
    preset: str | None,
    resume: bool,
    allow_data_change: bool,
    tensorboard: bool,
    **settings: Any,
) -> None:
    """Train a model on CORPUS, one or several texts, and keep it in the folder RUN."""
    config = _config(context, out, preset, settings, resume=resume)
    with _without_collector():
        from charrnn.training import TensorBoard, Trainer
        from charrnn.training.reporter import terminal_reporter

    reporter = terminal_reporter()
    boards = [TensorBoard(Path(out) / "tensorboard")] if tensorboard else []
    result = Trainer(config, callbacks=[reporter, *boards]).fit(
        corpus or None, out=out, resume=resume, allow_data_change=allow_data_change
    )
    code = 128 + result.stopped_by if isinstance(result.stopped_by, signal.Signals) else 0
    if result.rank:  # of several processes the first one speaks
        context.exit(code)
    if isinstance(result.stopped_by, signal.Signals):
        reporter.note(
            f"stopped by {result.stopped_by.name} and saved at step {result.step}: go on with --resume"
        )
        context.exit(code)
    reporter.note(f"trained {result.step} steps into {result.path}{_best(result, config)}")
    _print_sample(result.sample)


@contextmanager
def _without_collector() -> Iterator[None]:
    """What torch makes while it is loaded is no garbage: to look for some takes a tenth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _config(
    context: click.Context, out: str, preset: str | None, settings: dict[str, Any], *, resume: bool
) -> TrainConfig:
    """The settings given on top of the preset's or, when resuming, of those of the run."""
    from charrnn.training.presets import read
    from charrnn.training.run_folder import RunFolder

    folder, given = RunFolder(out), given_settings(context, settings)
    if resume and folder.info.exists():
        changes = read(preset).with_changes(given) if preset else given
        return _checked(folder.read_config().replace, changes, context)
    if preset is None:
        return _checked(TrainConfig, settings, context)
    return _checked(partial(TrainConfig.preset, preset), given, context)


def _checked(
    make: Callable[..., TrainConfig], settings: dict[str, Any], context: click.Context
) -> TrainConfig:
    """The settings, or a refusal as of any other option that cannot be."""
    try:
        return make(**settings)
    except ConfigError as error:
        raise click.UsageError(str(error), context) from error


def _best(result: TrainResult, config: TrainConfig) -> str:
    nats = result.best_nats
    if nats is None:
        return ""
    loss = f"validation {nats:.4f} nats {nats / math.log(2):.4f} bpc (split {config.split})"
    return f"; best at step {result.best_step}: {loss}"


def _print_sample(text: str) -> None:
    is_terminal = sys.stdout.isatty()
    shown = escape_controls(text) if is_terminal else text
    click.echo(shown.encode(), nl=is_terminal and not shown.endswith("\n"))
