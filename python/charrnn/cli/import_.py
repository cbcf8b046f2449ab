"""``charrnn import``: weights that another program trained, as a folder that serves like any other."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

from charrnn.cli.export import bundle_options

if TYPE_CHECKING:
    from charrnn.export.foreign import TextScore


def _symbols(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[int, str]:
    """``40=U`` and ``10=U+000A``."""
    symbols = {}
    for value in values:
        number, _, symbol = value.partition("=")
        if code := re.fullmatch(r"U\+([0-9A-Fa-f]{4,6})", symbol):
            symbol = chr(int(code[1], 16)) if int(code[1], 16) <= 0x10FFFF else ""
        if not (number.isascii() and number.isdigit()) or len(symbol) != 1:
            message = f"{value!r} is not ID=CHAR, such as 40=U or 10=U+000A."
            raise click.BadParameter(message, context, parameter)
        symbols[int(number)] = symbol
    return symbols


@click.command(
    "import",
    epilog="""\b
    Examples:
      charrnn import model.npz --layout keras --vocab vocab.json --out shakespeare --text test.txt
      charrnn import ml5/shakespeare --layout tf --symbol 40=U --symbol 13=u --out shakespeare

    \b
    Layouts, with the order of an LSTM's gates:
      torch     i, f, g, o  weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0; LSTM, GRU or RNN
      keras     i, f, c, o  kernel, recurrent_kernel, bias, or get_weights() in order; LSTM, GRU or SimpleRNN
      tf        i, j, f, o  BasicLSTMCell: one matrix a layer, the forget bias added
      char-rnn  i, f, o, g  i2h_1.weight, i2h_1.bias, h2h_1.weight, h2h_1.bias, decoder.weight, decoder.bias
    """,
)
@click.argument("weights", metavar="WEIGHTS", type=click.Path())
@click.option("--layout", required=True, help="Names and order: torch, keras, tf or char-rnn.")
@click.option(
    "--vocab",
    metavar="FILE",
    type=click.Path(),
    help="JSON: a map of characters to ids, or a list of characters.",
    show_default="vocab.json of a folder",
)
@click.option(
    "--symbol",
    "symbols",
    metavar="ID=CHAR",
    multiple=True,
    callback=_symbols,
    help="What an id means, where the vocabulary is damaged; CHAR may be U+XXXX. Repeatable.",
)
@click.option("--forget-bias", type=float, default=1.0, help="Of layout tf: what BasicLSTMCell added.")
@click.option(
    "--text", "texts", metavar="FILE", multiple=True, type=click.Path(), help="Text to score. Repeatable."
)
@bundle_options
def import_(
    weights: str,
    layout: str,
    vocab: str | None,
    symbols: dict[int, str],
    forget_bias: float,
    texts: tuple[str, ...],
    out: str,
    precisions: tuple[str, ...],
    name: str | None,
    model_version: str | None,
    force: bool,
    corpus_license: str | None,
    max_logit_difference: float,
    max_int8_bpc: float,
    as_json: bool,
) -> None:
    """Import trained WEIGHTS of another program as a BUNDLE that serves and samples.

    WEIGHTS is an npz file, a safetensors file, or a folder of raw little-endian float32 files with a
    manifest.json. The loss on a text is told in nats and bits per character: it shows whether the import is
    right. Whatever does not fit is refused by name, and nothing is written.
    """
    from charrnn.export import ExportOptions, Tolerances
    from charrnn.export.foreign import Foreign, import_weights

    scores: list[TextScore] = []

    def on_score(score: TextScore) -> None:
        scores.append(score)
        click.echo(
            f"{score.text}: {score.nats:.4f} nats, {score.bpc:.4f} bits per character, "
            f"over {score.num_tokens:,} predictions",
            err=True,
        )

    foreign = Foreign(weights, layout, vocab, symbols, forget_bias)
    tolerances = Tolerances(max_logit_difference, max_int8_bpc)
    options = ExportOptions(name, model_version, force, corpus_license, tolerances)
    report = import_weights(foreign, out, texts, options, precisions=precisions, on_score=on_score)
    for line in report.lines():
        click.echo(line, err=True)
    if as_json:
        told = [
            {"text": it.text, "nats": it.nats, "bpc": it.bpc, "num_tokens": it.num_tokens} for it in scores
        ]
        click.echo(json.dumps({"texts": told, **report.to_json()}, indent=2))
