"""``charrnn train``: a text in, a run folder out."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from charrnn.cli.kinds import CommaList
from charrnn.cli.output import escape_controls
from charrnn.errors import ConfigError
from charrnn.training.config import DEFAULT_EPOCHS, RESUMABLE, TrainConfig

if TYPE_CHECKING:
    from charrnn.training import TrainResult

DEFAULT = TrainConfig()
RESUME_HELP = (
    "Go on with the run in --out, with its own settings; only "
    f"{', '.join('--' + name.replace('_', '-') for name in sorted(RESUMABLE))} may change."
)


def _steps(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in value.split(",") if word.strip())
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no list of steps such as 100,300,500", context, parameter
        ) from None


@click.command(
    epilog="""\b
    Examples:
      charrnn train book.txt --out runs/book
      charrnn train book.txt --out runs/big --hidden-size 512 --dropout 0.3 --max-minutes 60
      charrnn train --out runs/book --resume

    Without CORPUS it trains on the help topics of Python's own documentation. A sample of the trained
    model goes to stdout. Ctrl-C saves and stops; --resume goes on to the same result.
    """
)
@click.argument("corpus", required=False, metavar="[CORPUS]", type=click.Path())
@click.option("--out", required=True, metavar="RUN", type=click.Path(), help="Folder of the run.")
@click.option(
    "--cell", type=click.Choice(["lstm", "gru", "rnn"]), default=DEFAULT.cell, help="Recurrent cell."
)
@click.option("--num-layers", type=int, default=DEFAULT.num_layers, help="Recurrent layers.")
@click.option("--hidden-size", type=int, default=DEFAULT.hidden_size, help="Units in a layer.")
@click.option(
    "--embedding-dim",
    type=int,
    default=DEFAULT.embedding_dim,
    help="Width of a learnt embedding; 0 is 1-of-k.",
)
@click.option(
    "--dropout", type=float, default=DEFAULT.dropout, help="Dropout between layers and before the head."
)
@click.option("--batch-size", type=int, default=DEFAULT.batch_size, help="Streams the text is cut into.")
@click.option("--bptt", type=int, default=DEFAULT.bptt, help="Characters the gradient is carried back.")
@click.option("--max-steps", type=int, help="Stop after so many steps.")
@click.option(
    "--max-epochs",
    type=int,
    help="Stop after so many passes over the text.",
    show_default=str(DEFAULT_EPOCHS),
)
@click.option("--max-minutes", type=float, help="Stop after so much time; alone, it also sets the schedule.")
@click.option("--lr", type=float, default=DEFAULT.lr, help="Peak learning rate of AdamW.")
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "constant"]),
    default=DEFAULT.schedule,
    help="Course of the rate.",
)
@click.option("--warmup-steps", type=int, default=DEFAULT.warmup_steps, help="Steps up to the peak rate.")
@click.option("--weight-decay", type=float, default=DEFAULT.weight_decay, help="Of AdamW; biases have none.")
@click.option("--beta1", type=float, default=DEFAULT.beta1, help="Memory of AdamW's first moment.")
@click.option("--beta2", type=float, default=DEFAULT.beta2, help="Memory of AdamW's second moment.")
@click.option("--clip-norm", type=float, default=DEFAULT.clip_norm, help="Largest norm of the gradient.")
@click.option(
    "--split",
    type=click.Choice(["tail", "nanogpt", "none"]),
    default=DEFAULT.split,
    help="tail: last 5 % test, 5 % before it validation; nanogpt: last 10 % validation; none: train on all.",
)
@click.option(
    "--unit", type=click.Choice(["char", "byte"]), default=DEFAULT.unit, help="What a symbol of the text is."
)
@click.option("--seed", type=int, default=DEFAULT.seed, help="Of weights, dropout and samples.")
@click.option("--device", default=DEFAULT.device, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--threads", type=int, help="CPU threads; other numbers give other roundings.", show_default="all cores"
)
@click.option(
    "--checkpoint-every", type=int, default=DEFAULT.checkpoint_every, help="Steps between checkpoints."
)
@click.option(
    "--eval-every", type=int, help="Steps between evaluations.", show_default="an epoch, 250 to 5000"
)
@click.option(
    "--sample-at",
    type=CommaList(),
    default="",
    callback=_steps,
    metavar="N,N,...",
    help="Keep a sample in RUN/samples at these steps.",
)
@click.option("--sample-chars", type=int, default=DEFAULT.sample_chars, help="Length of samples.")
@click.option("--resume", is_flag=True, help=RESUME_HELP)
@click.option("--allow-data-change", is_flag=True, help="Resume although the text has changed.")
@click.pass_context
def train(
    context: click.Context,
    /,
    corpus: str | None,
    out: str,
    resume: bool,
    allow_data_change: bool,
    **settings: Any,
) -> None:
    """Train a model on CORPUS, a text file, and keep it in the folder RUN."""
    config = _config(context, out, settings, resume=resume)
    from charrnn.training import Trainer
    from charrnn.training.reporter import terminal_reporter

    reporter = terminal_reporter()
    try:
        result = Trainer(config, reporter=reporter).fit(
            corpus, out=out, resume=resume, allow_data_change=allow_data_change
        )
    finally:
        reporter.close()
    if result.stopped_by is not None:
        reporter.note(
            f"stopped by {result.stopped_by.name} and saved at step {result.step}: go on with --resume"
        )
        context.exit(128 + result.stopped_by)
    reporter.note(f"trained {result.step} steps into {result.path}{_best(result, config)}")
    _print_sample(result.sample)


def _config(context: click.Context, out: str, settings: dict[str, Any], *, resume: bool) -> TrainConfig:
    """The settings given, or when resuming those of the run with what was given on top."""
    from charrnn.training.run_folder import RunFolder

    folder = RunFolder(out)
    if not (resume and folder.info.exists()):
        return _checked(TrainConfig, settings, context)
    given = {
        name: value
        for name, value in settings.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    return _checked(folder.read_config().replace, given, context)


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
