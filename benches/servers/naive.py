"""The server that most would write first: every stream runs its own steps, a batch of one each.

``python benches/servers/naive.py BUNDLE``. Each chunk is decoded in a thread of the event loop's pool, so
that ONNX Runtime, which lets go of the interpreter's lock, can use the other cores and the loop can send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
from model import Floats, Model
from request import Request
from service import Responses, checked, parser, serve
from text import Text

from charrnn import SamplingParams
from charrnn._pb import charrnn_pb2 as pb


def draw(logits: Floats, params: SamplingParams, rng: np.random.Generator) -> int:
    """A token from logits (V,): the inverse CDF of their softmax."""
    if params.temperature == 0:
        return int(logits.argmax())
    scaled = logits / params.temperature
    if 0 < params.top_k < len(scaled):
        least = np.partition(scaled, -params.top_k)[-params.top_k]
        scaled[scaled < least] = -np.inf
    mass = np.exp(scaled - scaled.max()).cumsum(dtype=np.float64)
    return int(mass.searchsorted(rng.random() * mass[-1], side="right"))


def responses(model: Model, request: Request, text: Text) -> Iterator[pb.GenerateResponse]:
    """The chunks of one text, decoded as they are asked for, and its Finished."""
    state, rng = model.zero_state(1), request.rng()
    text.begin()
    for token in request.prompt_tokens:
        logits, state = model.step(np.array([token]), state)
    while True:
        token = draw(logits[0], request.params, rng)
        text.add(token)
        if chunk := text.take():
            yield chunk
        if text.reason:
            break
        logits, state = model.step(np.array([token]), state)
    yield text.finished(mean_batch=1.0)


def main() -> None:
    """Serve a bundle until SIGTERM."""
    options = parser(__doc__).parse_args()
    model = Model(options.bundle, threads=1, precision=options.precision)

    async def decode(request: Request, text: Text) -> Responses:
        decoded = responses(model, request, text)
        while response := await asyncio.to_thread(next, decoded, None):
            yield response

    asyncio.run(serve(checked(model, decode), options.listen, [model.to_pb()]))


if __name__ == "__main__":
    main()
