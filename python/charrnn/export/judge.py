"""Judging a step graph against the torch model it was made from, and refusing one that is another model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from charrnn.errors import ConfigError, ParityError
from charrnn.export import bpc, parity
from charrnn.export.manifest import FILE_NAMES
from charrnn.export.report import PrecisionReport
from charrnn.export.source import TrainedModel
from charrnn.export.stepping import Stepper, carrying, graph_step, torch_step, torch_stepper


@dataclass(frozen=True)
class Tolerances:
    """How much a graph may differ from torch.

    ``max_logit_difference`` is for fp32 and one step from the same state. Both sides sum the same float32
    products in other orders: trained 2x128 models, with logits up to 40 in size, differ by up to 3e-5, a
    swapped gate by more than 0.1. ``max_int8_bpc``: bits per character int8 may add.
    """

    max_logit_difference: float = 1e-4
    max_int8_bpc: float = 0.01

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if math.isnan(limit):
                raise ConfigError(f"{name} is nan, which no difference is above: give a number")


class Judge:
    """Measures graphs of one model. ``torch_bpc`` is None where the model has no validation text."""

    def __init__(self, source: TrainedModel, tolerances: Tolerances) -> None:
        self._source = source
        self._tolerances = tolerances
        self._vocab_size = len(source.symbols)
        self._model = _torch(source)
        self._streams = bpc.cut(source.validation, source.end_token)
        self.num_tokens = self._streams.num_tokens if self._streams else 0
        self.torch_bpc = self._bpc(self._model)

    def judge(self, precision: str, graph: bytes) -> PrecisionReport:
        """Measure a serialised graph.

        Raises:
            ParityError: its logits, its bits per character or its rows are not what they must be.
        """
        step, file = graph_step(graph), FILE_NAMES[precision]
        differences = parity.step_differences(torch_step(self._source.model), step, self._vocab_size)
        self._check_differences(precision, file, differences)
        stepper = carrying(step, self._source.end_token)
        self._check_rows(file, stepper)
        measured = self._bpc(stepper)
        added = None if measured is None or self.torch_bpc is None else round(measured - self.torch_bpc, 6)
        self._check_bpc(precision, file, added)
        # Rounded, so that the order of a sum cannot make two exports of one checkpoint differ.
        return PrecisionReport(
            precision, file, len(graph), float(f"{differences.max():.1e}"), measured, added
        )

    def _bpc(self, stepper: Stepper) -> float | None:
        return None if self._streams is None else round(bpc.bits_per_character(stepper, self._streams), 6)

    def _check_differences(self, precision: str, file: str, differences: parity.Differences) -> None:
        finite = np.isfinite(differences)
        if not finite.all():
            raise ParityError(f"{file}: logits or states are not finite from step {finite.argmin()} on")
        limit = self._tolerances.max_logit_difference
        if precision == "fp32" and differences.max() > limit:
            raise ParityError(
                f"{file}: a step differs from torch's by {differences.max():.1e}, the limit is {limit:g}; "
                "the graph is another model, or raise --max-logit-difference"
            )

    def _check_rows(self, file: str, stepper: Stepper) -> None:
        if (found := parity.dependent_row(stepper, self._vocab_size)) is not None:
            raise ParityError(
                f"{file}: row {found[1]} of a batch of 64 has other logits in a batch of {found[0]}; "
                "on this CPU a text would depend on its neighbours"
            )

    def _check_bpc(self, precision: str, file: str, added: float | None) -> None:
        limit = self._tolerances.max_int8_bpc
        if precision == "int8" and added is not None and not added <= limit:
            raise ParityError(
                f"{file}: int8 adds {added:.4f} bits per character to torch's {self.torch_bpc:.4f}, "
                f"the limit is {limit:g}; export fp32 only, or raise --max-int8-bpc"
            )


def _torch(source: TrainedModel) -> Stepper:
    if source.end_token is None:
        return torch_stepper(source.model)
    return carrying(torch_step(source.model), source.end_token)
