"""``charrnn generate``: texts from a server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from charrnn.cli.connection import connection_fields, connection_options
from charrnn.cli.kinds import YEAR_S, Number
from charrnn.cli.sampling import parse_text_options, print_texts, text_options
from charrnn.sampler import SamplingFields

if TYPE_CHECKING:
    from charrnn.stream import Stream

# What a text is of, and so is in its token; the length of the whole may be another.
IN_TOKEN = SamplingFields.__annotations__.keys() - {"max_tokens"} | {"prompt", "prompt_file", "echo", "n"}


@click.command(
    epilog="""\b
    Examples:
      charrnn generate --prompt 'ROMEO:' --temperature 0.8
      charrnn generate --server 127.0.0.1:50052 --model shakespeare --max-tokens 2000 --stop $'\\n\\n'
      CHARRNN_GENERATE_TOKEN=... charrnn generate --server models.example.org:443 --tls --prompt 'ROMEO:'
      charrnn generate --prompt 'ROMEO:' --save-resume romeo.token
      charrnn generate --resume romeo.token --max-tokens 1000

    Ctrl-C ends the text on the server too.
    """
)
@click.option("--server", default="127.0.0.1:50051", metavar="HOST:PORT", help="Where charrnn serve listens.")
@click.option("--model", default="", help="Name of the model.", show_default="the only one")
@text_options
@click.option(
    "--timeout",
    type=Number(0, YEAR_S, min_open=True),
    help="Seconds a text may take.",
    show_default="no limit",
)
@click.option(
    "--resume",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Go on with the text of a token; --max-tokens is the length of the whole.",
)
@click.option(
    "--save-resume",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the token of a text that could go on: cut by --max-tokens, --timeout or the server's end.",
)
@connection_options
def generate(
    server: str,
    model: str,
    timeout: float | None,
    resume: Path | None,
    save_resume: Path | None,
    **options: Any,
) -> None:
    """Print text from a charrnn server as it is made."""
    connection = connection_fields(options)
    text = parse_text_options(options)
    if save_resume and text.num_texts > 1:
        raise click.UsageError("--save-resume is for one text, not for --n")
    if save_resume:
        _check_target(save_resume)
    length = _check_resume(options["max_tokens"]) if resume else {}
    # gRPC logs what an error line says already; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from charrnn.client import Client

    texts: list[Stream] = []

    def start(prompt: str, **kwargs: Any) -> Stream:
        if resume:
            kwargs = {"resume_token": resume.read_bytes(), **text.output, **length}
        texts.append(client.generate(prompt, model=model, resumable=save_resume is not None, **kwargs))
        return texts[-1]

    with Client(server, timeout=timeout, **connection) as client:
        print_texts(start, text)
    if save_resume:
        _save(texts[-1], save_resume)


def _check_resume(max_tokens: int) -> dict[str, int]:
    """The length, if one is given; nothing else of the text may be, which the token has."""
    context = click.get_current_context()
    source = context.get_parameter_source
    given = {name for name in context.params if source(name) is ParameterSource.COMMANDLINE}
    for name in sorted(given & IN_TOKEN):
        raise click.UsageError(f"--{name.replace('_', '-')} is in the token of --resume; leave it out")
    return {"max_tokens": max_tokens} if "max_tokens" in given else {}


def _check_target(path: Path) -> None:
    """A text whose token turns out to have no place is lost, so that is said before it is made."""
    folder = path.parent
    if not os.path.isdir(folder):
        raise click.UsageError(f"--save-resume {path}: there is no folder {folder}; make it first")
    if os.path.isdir(path):  # also the name that is empty
        raise click.UsageError(f"--save-resume {path} is a folder; give a file")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise click.UsageError(f"--save-resume {path} cannot be written; give a file that may be")


def _save(text: Stream, path: Path) -> None:
    finished = text.finished
    if finished is None or finished.resume_token is None:
        reason = finished.reason if finished else "cut short"
        click.echo(f"no token: the text cannot go on ({reason})", err=True)
        return
    path.write_bytes(finished.resume_token)
    click.echo(f"token: {path}", err=True)
