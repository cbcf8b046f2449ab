"""The sampler beside torch and numpy on the same rows, on one core: ``make bench-sampler``.

Each figure is a ratio of medians of one run: how many times longer the other one takes for the same rows.
Ends with one JSON line. Theirs draw from generators of their own; ours from (seed, position) of each row.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from charrnn import SampleOutput, Sampler, SamplingParams, Vocab

VOCAB_SIZES, BATCH_SIZES = (65, 96, 256, 8192, 65536), (1, 8, 64, 1024)
TEMPERATURE, TOP_K, TOP_P = 0.8, 40, 0.95
NUM_ROUNDS, ROUND_S = 7, 0.03

Call = Callable[[], object]


def ours(logits: np.ndarray, params: SamplingParams) -> Call:
    """``Sampler.sample`` into room that is there already."""
    batch_size, vocab_size = logits.shape
    sampler, out = Sampler(vocab_size), SampleOutput(batch_size)
    seeds, positions = np.arange(batch_size, dtype=np.uint64), np.zeros(batch_size, np.uint64)
    return lambda: sampler.sample(logits, params, seeds=seeds, positions=positions, out=out)


def torch_plain(logits: np.ndarray) -> Call:
    """Softmax and multinomial."""
    rows = torch.from_numpy(logits)
    return lambda: torch.multinomial(torch.softmax(rows / TEMPERATURE, dim=-1), 1)


def torch_filtered(logits: np.ndarray) -> Call:
    """top_k and top_p as the widespread helpers do it: by sorting."""
    rows = torch.from_numpy(logits)

    def draw() -> torch.Tensor:
        scaled = rows / TEMPERATURE
        least = torch.topk(scaled, min(TOP_K, scaled.shape[-1]))[0][..., -1, None]
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
        ordered, order = torch.sort(scaled, descending=True)
        mass = torch.softmax(ordered, dim=-1).cumsum(dim=-1)
        remove = mass > TOP_P
        remove[..., 1:] = remove[..., :-1].clone()
        remove[..., 0] = False
        scaled = scaled.masked_fill(remove.scatter(1, order, remove), -torch.inf)
        return torch.multinomial(torch.softmax(scaled, dim=-1), 1)

    return draw


def numpy_plain(logits: np.ndarray) -> Call:
    """Inverse CDF over all rows at once."""
    rng = np.random.default_rng(1)

    def draw() -> np.ndarray:
        scaled = logits / np.float32(TEMPERATURE)
        mass = np.exp(scaled - scaled.max(axis=1, keepdims=True)).cumsum(axis=1)
        wanted = rng.random((len(logits), 1), dtype=np.float32) * mass[:, -1:]
        return (mass <= wanted).sum(axis=1)

    return draw


def seconds(call: Call) -> float:
    """Mean over as many calls as fit into a round."""
    start, num_calls = time.perf_counter(), 0
    while num_calls == 0 or time.perf_counter() - start < ROUND_S:
        call()
        num_calls += 1
    return (time.perf_counter() - start) / num_calls


def medians(calls: dict[str, Call]) -> dict[str, float]:
    """Seconds a call, warmed up, in turns."""
    for call in calls.values():
        call()
    rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(NUM_ROUNDS)]
    return {name: statistics.median(each[name] for each in rounds) for name in calls}


def compare(vocab_size: int, batch_size: int) -> dict[str, float]:
    """All of them on the same rows."""
    rng = np.random.default_rng(vocab_size)
    logits = (rng.normal(size=(batch_size, vocab_size)) * 2).astype(np.float32)
    plain = SamplingParams(temperature=TEMPERATURE, seed=1)
    filtered = SamplingParams(temperature=TEMPERATURE, top_k=TOP_K, top_p=TOP_P, seed=1)
    took = medians(
        {
            "plain": ours(logits, plain),
            "filtered": ours(logits, filtered),
            "torch": torch_plain(logits),
            "torch_filtered": torch_filtered(logits),
            "numpy": numpy_plain(logits),
        }
    )
    return {
        "vocab_size": vocab_size,
        "batch_size": batch_size,
        "ns_a_row": 1e9 * took["plain"] / batch_size,
        "ns_a_filtered_row": 1e9 * took["filtered"] / batch_size,
        "torch": took["torch"] / took["plain"],
        "numpy": took["numpy"] / took["plain"],
        "torch_filtered": took["torch_filtered"] / took["filtered"],
    }


def overhead() -> dict[str, float]:
    """A call for one row of 96 beside a call that does nothing."""
    logits, vocab = np.zeros((1, 96), np.float32), Vocab([97])
    native = vocab._native
    took = medians({"sample": ours(logits, SamplingParams(seed=1)), "empty": lambda: len(native)})
    return {"us_a_call": 1e6 * took["sample"], "us_above_empty": 1e6 * (took["sample"] - took["empty"])}


def main() -> None:
    """Print the table, then the JSON line."""
    torch.set_num_threads(1)
    print("     V     B    ns/row torch/ours  numpy/ours  top_k 40 + top_p 0.95: ns/row  torch/ours")
    rows = []
    for vocab_size in VOCAB_SIZES:
        for batch_size in BATCH_SIZES:
            row = compare(vocab_size, batch_size)
            rows.append(row)
            print(
                f"{vocab_size:6}{batch_size:6}{row['ns_a_row']:10.0f}{row['torch']:11.1f}{row['numpy']:12.1f}"
                f"{row['ns_a_filtered_row']:33.0f}{row['torch_filtered']:12.1f}",
                flush=True,
            )
    call = overhead()
    print(f"one row of 96: {call['us_a_call']:.2f} us, {call['us_above_empty']:.2f} above an empty call")
    print(json.dumps({"bench": "sampler", "rows": rows, **call}))


if __name__ == "__main__":
    main()
