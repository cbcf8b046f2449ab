"""A server without a model, whose texts take times that are known: ``python benches/servers/paced.py``.

It only waits, so that what generators say of it hardly depends on what else the machine does. The waits for
the first character are log-normal, median 40 ms, deviation of the logarithm 0.4; they come in turns of 40, so
that any run of 40 texts has the same ones. A chunk of 16 characters follows every 4 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import random
from statistics import NormalDist
from typing import Any

from service import Responses, serve

from charrnn._pb import charrnn_pb2 as pb

NUM_WAITS, MEDIAN_S, DEVIATION = 40, 0.04, 0.4
CHUNK_CHARS, CHUNK_S = 16, 0.004


def waits() -> list[float]:
    """Seconds, evenly over the distribution, in an order that is always the same."""
    shares = [(index + 0.5) / NUM_WAITS for index in range(NUM_WAITS)]
    found = [MEDIAN_S * math.exp(DEVIATION * NormalDist().inv_cdf(share)) for share in shares]
    random.Random(1).shuffle(found)
    return found


def main() -> None:
    """Serve until SIGTERM."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--listen", default="127.0.0.1:50051", help="host:port; port 0 takes a free one")
    first_s = itertools.cycle(waits())

    async def generate(request: pb.GenerateRequest, context: Any) -> Responses:
        clock = asyncio.get_running_loop().time
        due = clock() + next(first_s)
        yield pb.GenerateResponse(started=pb.Started(model="paced", seed=request.sampling.seed))
        num_chars = request.stopping.max_tokens
        for offset in range(0, num_chars, CHUNK_CHARS):
            await asyncio.sleep(due - clock())
            due += CHUNK_S
            n = min(CHUNK_CHARS, num_chars - offset)
            yield pb.GenerateResponse(chunk=pb.Chunk(text="x" * n, n=n, offset=offset))
        finished = pb.Finished(reason=pb.FINISH_REASON_LENGTH, chars=num_chars)
        yield pb.GenerateResponse(finished=finished)

    asyncio.run(serve(generate, options.parse_args().listen))


if __name__ == "__main__":
    main()
