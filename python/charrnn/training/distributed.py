"""Several processes that train one model: who is which, and what they have to agree on.

``torchrun --nproc-per-node N -m charrnn train ...`` starts N processes, the ranks. Each learns from its share
of the rows of every window; gradients are averaged, so that all make the same step of the same weights. Rank
0 alone writes, evaluates and prints. A process by itself is a ``World`` of size 1, where all this is free.

Knows nothing of models, text or files.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from charrnn.errors import CharrnnError, ConfigError
from charrnn.training.signals import Wish

T = TypeVar("T")

# The ranks wait for rank 0 while it evaluates. One that has died is noticed at once, by its closed sockets.
_PATIENCE = timedelta(hours=6)
# Stands for a wish to stop that is no signal; above all signal numbers.
_ASKED = 1000


class World:
    """One process that trains alone."""

    rank, size, local_rank = 0, 1, 0

    def rows(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """This rank's share of a tensor that holds all rows along ``dim``."""
        return tensor

    def average(self, tensors: Sequence[Tensor], weight: float) -> None:
        """Replace every tensor by its mean over the ranks, each of which counts with its ``weight``."""

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, of one shape, in the order of ranks."""
        return [tensor]

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by that of rank 0."""

    def any_stop(self, wish: Wish | None) -> Wish | None:
        """The wish to stop of any rank, the same on all."""
        return wish

    def first(self, work: Callable[[], T]) -> T:
        """What ``work`` returns on rank 0, the only one that does it; a value that JSON keeps.

        Raises:
            SystemExit: on the other ranks, with the exit code of the error that rank 0 raises.
        """
        return work()

    def fail(self, error: CharrnnError) -> NoReturn:
        """Raise an error that all ranks have met, on rank 0; SystemExit with its exit code on the others."""
        raise error

    def clock(self, clock: Callable[[], float]) -> Callable[[], float]:
        """A clock that shows all ranks the time of rank 0, when all look at it."""
        return clock


class Ranks(World):
    """One of several processes, joined by torch.distributed.

    Why not DistributedDataParallel: it averages by number of ranks, where the padding of documents makes
    their shares unequal, and hides its buffers; a sum over one flat tensor is exact and all there is to see.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank))

    def rows(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """This rank's share of a tensor that holds all rows along ``dim``."""
        share = tensor.shape[dim] // self.size
        return tensor.narrow(dim, self.rank * share, share).contiguous()

    def average(self, tensors: Sequence[Tensor], weight: float) -> None:
        """Replace every tensor by its mean over the ranks, each of which counts with its ``weight``."""
        flat = torch.cat([*(tensor.flatten() for tensor in tensors), tensors[0].new_ones(1)])
        # A rank without anything to learn from has no numbers: 0 / 0.
        flat = flat * weight if weight else torch.zeros_like(flat)
        _call(dist.all_reduce, flat)
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, mean in zip(tensors, torch.split(flat[:-1] / flat[-1], sizes), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, of one shape, in the order of ranks."""
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        _call(dist.all_gather, found, tensor.contiguous())
        return found

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by that of rank 0."""
        for tensor in tensors:
            _call(dist.broadcast, tensor, 0)

    def any_stop(self, wish: Wish | None) -> Wish | None:
        """The wish to stop of any rank, the same on all."""
        code = torch.tensor(0 if wish is None else wish if isinstance(wish, signal.Signals) else _ASKED)
        _call(dist.all_reduce, code, dist.ReduceOp.MAX)
        if wish is not None or not int(code):
            return wish
        return "another process asked to stop" if int(code) == _ASKED else signal.Signals(int(code))

    def first(self, work: Callable[[], T]) -> T:
        """What ``work`` returns on rank 0, the only one that does it; a value that JSON keeps."""
        if self.rank:
            told = self._told(None)
            if "exit_code" in told:
                raise SystemExit(told["exit_code"])  # rank 0 says why
            value: T = told["value"]
            return value
        try:
            value = work()
        except BaseException as error:
            self._told({"exit_code": getattr(error, "exit_code", 1)})
            raise
        self._told({"value": value})
        return value

    def fail(self, error: CharrnnError) -> NoReturn:
        """Raise an error that all ranks have met, on rank 0; SystemExit with its exit code on the others."""
        if self.rank:
            raise SystemExit(error.exit_code)
        raise error

    def clock(self, clock: Callable[[], float]) -> Callable[[], float]:
        """A clock that shows all ranks the time of rank 0, when all look at it."""

        def now() -> float:
            seconds = torch.tensor(clock(), dtype=torch.float64)
            _call(dist.broadcast, seconds, 0)
            return float(seconds)

        return now

    def _told(self, value: dict[str, Any] | None) -> dict[str, Any]:
        """What rank 0 tells, on every rank. JSON, since what torch sends as an object is a pickle."""
        data = bytearray(json.dumps(value).encode())
        size = torch.tensor(len(data))
        _call(dist.broadcast, size, 0)
        if value is None:
            data = bytearray(int(size))
        told = torch.frombuffer(data, dtype=torch.uint8)
        _call(dist.broadcast, told, 0)
        found: dict[str, Any] = json.loads(told.numpy().tobytes())
        return found


@contextmanager
def joined(batch_size: int) -> Iterator[World]:
    """The processes that torchrun has started, or this one alone.

    Raises:
        ConfigError: ``batch_size`` rows cannot be split evenly over them.
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        world = Ranks()
        world.first(lambda: _check_rows(batch_size, world.size))
        yield world
    finally:
        dist.destroy_process_group()


def _check_rows(batch_size: int, size: int) -> None:
    if batch_size % size:
        raise ConfigError(
            f"batch_size {batch_size} cannot be split over {size} processes: give a multiple of {size}"
        )


def _call(collective: Callable[..., Any], *arguments: Any) -> None:
    """Meet the other ranks.

    Raises:
        CharrnnError: one of them has gone.
    """
    try:
        collective(*arguments)
    except RuntimeError as error:
        # After a path in torch's sources, which tells nobody anything.
        reason = re.sub(r"^\S+:\d+\] ", "", str(error).splitlines()[0]).split(". ")[0]
        raise CharrnnError(
            f"rank {dist.get_rank()} lost another process of this training ({reason}): "
            "see what ended that one, and go on from the last checkpoint with --resume"
        ) from error
