"""The options of a training run: one for every setting, with its type and default.

Knows the settings' names and what they are for, not how anything is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_type_hints

import click
from click.core import ParameterSource

from charrnn.cli.kinds import CommaList
from charrnn.training import presets
from charrnn.training.config import DEFAULT_EPOCHS, TrainConfig

F = TypeVar("F", bound=Callable[..., Any])

HELP = {
    "cell": "Recurrent cell.",
    "num_layers": "Recurrent layers.",
    "hidden_size": "Units in a layer.",
    "embedding_dim": "Width of a learnt embedding; 0 is 1-of-k.",
    "dropout": "Dropout between layers and before the head.",
    "batch_size": "Streams the text is cut into.",
    "bptt": "Characters the gradient is carried back.",
    "max_steps": "Stop after so many steps.",
    "max_epochs": "Stop after so many passes over the text.",
    "max_minutes": "Stop after so much time; alone, it also sets the schedule.",
    "optimizer": "adamw, rmsprop as in char-rnn, or sgd.",
    "lr": "Peak learning rate.",
    "schedule": "Course of the rate after the warm-up.",
    "warmup_steps": "Steps up to the peak rate, at most a tenth of the run's.",
    "decay": "Factor of an epoch in the schedule step.",
    "decay_after": "Epochs before the schedule step falls.",
    "weight_decay": "Share of a weight taken off a step, times the rate; biases have none.",
    "beta1": "Memory of the mean gradient, or momentum of sgd.",
    "beta2": "Memory of the squared gradient.",
    "clip_norm": "Largest norm of the gradient.",
    "patience": "Stop after so many evaluations without a better one.",
    "on_nan": "After a step that is not finite, and never applied.",
    "max_skipped": "Steps in a row that may be not finite.",
    "strict_save": "End when a checkpoint cannot be written, not only warn.",
    "split": "tail: last 5 % test, 5 % before it validation; interleaved: the ends of 50 pieces; "
    "nanogpt: last 10 % validation; none: train on all.",
    "unit": "What a symbol of the text is.",
    "separator": r"Between documents, each learnt by itself; \n and \t are understood.",
    "encoding_errors": "For bytes that are not UTF-8.",
    "init_from": "Begin with the weights of another model, symbol by symbol.",
    "seed": "Of weights, dropout, the order of documents and samples.",
    "device": "auto, cpu, cuda or cuda:N.",
    "dtype": "Of the products.",
    "compile": "Have torch compile the model.",
    "deterministic": "Only what is reproducible on a GPU.",
    "threads": "CPU threads; other numbers give other roundings.",
    "checkpoint_every": "Steps between checkpoints.",
    "eval_every": "Steps between evaluations.",
    "sample_at": "Keep a sample in RUN/samples at these steps.",
    "sample_chars": "Length of samples.",
}
"""In the order of the settings; a test holds both together."""

# What help shows where the default is nothing.
_SHOWN = {"max_epochs": str(DEFAULT_EPOCHS), "threads": "all cores", "eval_every": "an epoch, 250 to 5000"}
_METAVARS = {"sample_at": "N,N,...", "separator": "S", "init_from": "RUN|BUNDLE"}
_HINTS = get_type_hints(TrainConfig)


def training_options(command: F) -> F:
    """Add an option for every setting of a run."""
    for field in reversed(dataclasses.fields(TrainConfig)):
        command = _option(field)(command)
    return command


def preset_option(command: F) -> F:
    """Add ``--preset``, whose settings stand where no other was given."""
    told = "Begin from these settings; see charrnn presets."
    return click.option("--preset", type=click.Choice(presets.names()), help=told)(command)


def given_settings(context: click.Context, settings: dict[str, Any]) -> dict[str, Any]:
    """Those that somebody gave, on the command line, in the environment or in a file."""
    is_default = ParameterSource.DEFAULT
    return {
        name: value
        for name, value in settings.items()
        if context.get_parameter_source(name) is not is_default
    }


def _option(field: dataclasses.Field[Any]) -> Callable[[F], F]:
    name = f"--{field.name.replace('_', '-')}"
    shared: dict[str, Any] = {"help": HELP[field.name], "metavar": _METAVARS.get(field.name)}
    if field.name in _SHOWN:
        shared["show_default"] = _SHOWN[field.name]
    if _HINTS[field.name] is bool:
        return click.option(name, is_flag=True, help=HELP[field.name])
    if field.name == "sample_at":
        return click.option(name, type=CommaList(), default="", callback=_steps, **shared)
    if field.name == "separator":
        return click.option(name, default="", callback=_unescaped, show_default=False, **shared)
    return click.option(name, type=_kind(field.name), default=field.default, **shared)


def _kind(name: str) -> Any:
    choices = get_args(_HINTS[name])
    if choices and all(isinstance(choice, str) for choice in choices):
        return click.Choice(choices)
    return next(kind for kind in (float, int, str) if kind in (_HINTS[name], *choices))


def _steps(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in value.split(",") if word.strip())
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no list of steps such as 100,300,500", context, parameter
        ) from None


def _unescaped(context: click.Context, parameter: click.Parameter, value: str) -> str:
    return value.replace("\\n", "\n").replace("\\t", "\t")
