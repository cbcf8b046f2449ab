"""A batch of the paulgraham preset on an NVIDIA GPU: ``python benches/gpu_batch.py``.

First charrnn's own step (forward, backward, clipping, optimiser) beside the essay's 0.46 s. Then a bare torch
loop of the same model in every dtype, as one stack of layers in nn.LSTM and as one module a layer, which
cuDNN treats differently. Medians in milliseconds, and ratios to the stack in float32, or why a device cannot.
Ends with one JSON line. Without a GPU it says so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from charrnn.errors import CharrnnError
from charrnn.training import TrainConfig
from charrnn.training.learner import Learner

# Karpathy 2015: "one batch on a TITAN Z GPU takes about 0.46 seconds".
ESSAY_S = 0.46
VOCAB_SIZE = 96
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WARM_UP = 3


class Stack(nn.Module):
    """All layers in one nn.LSTM, which drops between them."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.rnn = nn.LSTM(
            VOCAB_SIZE, config.hidden_size, config.num_layers, batch_first=True, dropout=config.dropout
        )
        self.head = nn.Linear(config.hidden_size, VOCAB_SIZE)
        self.dropout = config.dropout

    def hidden(self, ones: Tensor) -> Tensor:
        """(B, T, V) -> (B, T, H)."""
        out: Tensor = self.rnn(ones)[0]
        return out

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, T) -> logits (B, T, V)."""
        ones = functional.one_hot(inputs, VOCAB_SIZE).float()
        logits: Tensor = self.head(functional.dropout(self.hidden(ones), self.dropout, self.training))
        return logits


class Layers(Stack):
    """One nn.LSTM a layer, with dropout between them."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        sizes = [VOCAB_SIZE] + [config.hidden_size] * (config.num_layers - 1)
        self.rnn = nn.ModuleList(nn.LSTM(size, config.hidden_size, batch_first=True) for size in sizes)

    def hidden(self, ones: Tensor) -> Tensor:
        """(B, T, V) -> (B, T, H)."""
        out = ones
        for index, layer in enumerate(self.rnn):
            out = functional.dropout(out, self.dropout, self.training) if index else out
            out = layer(out)[0]
        return out


def bare_step(model: Stack, dtype: torch.dtype, batch: tuple[Tensor, Tensor]) -> Callable[[], object]:
    """A step of torch alone: RMSProp, clipping, products in ``dtype``, scaled where it is float16."""
    inputs, targets = batch
    device = inputs.device.type
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3, alpha=0.95)
    scaler = torch.amp.GradScaler(device, enabled=dtype is torch.float16)

    def step() -> None:
        with torch.autocast(device, dtype=dtype, enabled=dtype is not torch.float32):
            logits = model(inputs)
        loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def milliseconds(step: Callable[[], object], device: torch.device, num_batches: int) -> float:
    """Median of a step, each waited for."""

    def once() -> float:
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return 1e3 * (time.perf_counter() - began)

    for _ in range(WARM_UP):
        once()
    return statistics.median(once() for _ in range(num_batches))


def measure(config: TrainConfig, num_batches: int) -> Iterator[dict[str, Any]]:
    """Rows of kind, dtype and ms, or the error in place of ms."""
    device = torch.device(config.device)
    tokens = torch.randint(VOCAB_SIZE, (config.batch_size, config.bptt + 1), device=device)
    batch = tokens[:, :-1], tokens[:, 1:].contiguous()
    for name, dtype in DTYPES.items():
        steps = {
            "charrnn": lambda: partial(Learner(config.replace(dtype=name), VOCAB_SIZE).learn, *batch, 2e-3),  # noqa: B023
            "stack": lambda: bare_step(Stack(config).to(device), dtype, batch),  # noqa: B023
            "layers": lambda: bare_step(Layers(config).to(device), dtype, batch),  # noqa: B023
        }
        for kind, make in steps.items():
            row: dict[str, Any] = {"kind": kind, "dtype": name}
            try:
                yield row | {"ms": milliseconds(make(), device, num_batches)}
            except (RuntimeError, CharrnnError) as error:
                yield row | {"error": str(error).splitlines()[0]}


def main() -> None:
    """Print the table, then the JSON line."""
    parser = argparse.ArgumentParser(description="A batch of the paulgraham preset on an NVIDIA GPU.")
    parser.add_argument("--device", default="cuda", help="cpu only tries the script itself")
    parser.add_argument("--batches", type=int, default=30, help="of which the median is taken")
    parser.add_argument("--hidden-size", type=int, default=512)
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no NVIDIA GPU that torch can use: nothing was measured")
        return
    config = TrainConfig.preset("paulgraham", device=options.device, hidden_size=options.hidden_size)
    card = torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu"
    rows = list(map(told, measure(config, options.batches)))
    base = next(row["ms"] for row in rows if (row["kind"], row["dtype"]) == ("stack", "float32"))
    for row in rows:
        if "ms" in row:
            row["of_stack_float32"] = row["ms"] / base
            print(f"{row['kind']:<8} {row['dtype']:<9} {row['of_stack_float32']:6.2f} of the float32 stack")
    print(json.dumps({"bench": "gpu_batch", "card": card, "torch": torch.__version__, "rows": rows}))


def told(row: dict[str, Any]) -> dict[str, Any]:
    """Print a row as it comes."""
    beside = f"the essay's 460 ms / this: {1e3 * ESSAY_S / row['ms']:7.1f}" if "ms" in row else ""
    found = f"{row['ms']:9.2f} ms  {beside}" if "ms" in row else f"not on this device: {row['error']}"
    print(f"{row['kind']:<8} {row['dtype']:<9} {found}", flush=True)
    return row


if __name__ == "__main__":
    main()
