"""What ``sample`` and ``generate`` share: the options of a text, and the loop that prints its texts.

Knows neither engine nor server: it is handed a function that starts a stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from charrnn.cli.output import JsonLines, PlainText
from charrnn.sampler import SamplingFields, resolve
from charrnn.stream import Stream

DEFAULT_MAX_TOKENS = 500
MAX_SEED = 2**64 - 1

F = TypeVar("F", bound=Callable[..., Any])


class _OneString(click.types.StringParamType):
    """A repeatable string of which the environment gives one, spaces and all."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


OPTIONS = (
    click.option("--prompt", help="Text that the model reads first; it is not printed.", show_default="none"),
    click.option(
        "--prompt-file", type=click.File(encoding="utf-8"), help="Read the prompt from a file; - is stdin."
    ),
    click.option("--max-tokens", type=int, default=DEFAULT_MAX_TOKENS, help="Length at which the text ends."),
    click.option(
        "--temperature", type=float, default=1.0, help="Below 1 safer, above 1 wilder; 0 is greedy."
    ),
    click.option("--top-k", type=click.IntRange(0), default=0, help="Keep the K most likely; 0 keeps all."),
    click.option(
        "--top-p", type=float, default=1.0, help="Keep the smallest set of this probability; 1 keeps all."
    ),
    click.option(
        "--min-p", type=float, default=0.0, help="Keep what is this likely relative to the best; 0 keeps all."
    ),
    click.option(
        "--typical-p",
        type=float,
        default=1.0,
        help="Keep this mass of the least surprising; 1 keeps all.",
    ),
    click.option(
        "--repetition-penalty", type=float, default=1.0, help="Above 1, what came lately comes less."
    ),
    click.option("--presence-penalty", type=float, default=0.0, help="Logit taken off what came lately."),
    click.option("--frequency-penalty", type=float, default=0.0, help="The same for each time it came."),
    click.option("--penalty-window", type=int, default=64, help="Last characters that count as lately."),
    click.option(
        "--no-repeat-ngram-size",
        type=int,
        default=0,
        help="No run of N characters twice lately; 0 allows.",
    ),
    click.option(
        "--regex", help="The text matches this regular expression, and ends where it would leave it."
    ),
    click.option("--utf8", is_flag=True, help="With a byte vocabulary, nothing but valid UTF-8."),
    click.option("--min-tokens", type=int, default=0, help="Length before which nothing ends the text."),
    click.option(
        "--seed", type=click.IntRange(0, MAX_SEED), help="Same seed, same text.", show_default="drawn"
    ),
    click.option(
        "--stop", type=_OneString(), multiple=True, help="End the text before this string; repeatable."
    ),
    click.option("--include-stop", is_flag=True, help="Keep the stop string that ended the text."),
    click.option(
        "--n", type=click.IntRange(1), default=1, help="Texts of the same prompt and seed, each its own."
    ),
    click.option(
        "--chunk-chars", type=click.IntRange(1), help="Characters printed at a time.", show_default="16"
    ),
    click.option("--echo", is_flag=True, help="Print the prompt before the text."),
    click.option(
        "--logprobs",
        is_flag=True,
        help="With --json, tell each symbol's id and log-probability (natural, raw).",
    ),
    click.option(
        "--top-logprobs",
        type=click.IntRange(1),
        help="With --json, tell so many of the most likely besides.",
        show_default="none",
    ),
    click.option("--json", is_flag=True, help="Print events, one JSON object a line."),
    click.option("--raw", is_flag=True, help="Print control characters as they are, also to a terminal."),
)


@dataclass(frozen=True)
class TextOptions:
    """The options of a text, checked as far as it can be done without a model.

    ``output``: keywords that change nothing of the text, only how it is handed over.
    """

    prompt: str
    sampling: SamplingFields
    num_texts: int
    output: dict[str, Any]
    json: bool
    raw: bool


Start = Callable[..., Stream]
"""``Engine.generate`` or ``Client.generate``: takes the prompt, the output and the sampling keywords."""


def text_options(function: F) -> F:
    """Give a command all options of a text; it takes them as ``**options`` for ``parse_text_options``."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def parse_text_options(options: dict[str, Any]) -> TextOptions:
    """Check the options before a model is loaded or a server asked.

    Raises:
        RequestError: a value out of its limits.
        click.UsageError: two prompts, or something told that only JSON can tell.
    """
    prompt, file = options["prompt"], options["prompt_file"]
    if prompt is not None and file is not None:
        raise click.UsageError("give either --prompt or --prompt-file, not both")
    if (options["logprobs"] or options["top_logprobs"]) and not options["json"]:
        raise click.UsageError("--logprobs and --top-logprobs are told in JSON: give --json, too")
    names = SamplingFields.__annotations__.keys() & options.keys()
    sampling = SamplingFields(**{name: options[name] for name in names})  # type: ignore[typeddict-item]
    resolve(None, sampling)
    return TextOptions(
        prompt=_read(file) if file is not None else prompt or "",
        sampling=sampling,
        num_texts=options["n"],
        output={name: options[name] for name in ("chunk_chars", "echo", "logprobs", "top_logprobs")},
        json=options["json"],
        raw=options["raw"],
    )


def print_texts(start: Start, options: TextOptions) -> None:
    """Make the texts one after another and print each as it grows."""
    writer = JsonLines() if options.json else PlainText(raw=options.raw, num_texts=options.num_texts)
    sampling = options.sampling
    for index in range(options.num_texts):
        with start(options.prompt, sample_index=index, **options.output, **sampling) as stream:
            number = f"text {index + 1} of {options.num_texts}: " if options.num_texts > 1 else ""
            click.echo(f"{number}model {stream.model}, seed {stream.seed}", err=True)
            writer.write(stream, index)
            sampling = sampling | {"seed": stream.seed}


def _read(file: Any) -> str:
    try:
        return str(file.read())
    except UnicodeDecodeError as error:
        raise click.UsageError(f"the prompt is not UTF-8: {error}") from error
