"""Weights are taken only when all are there, of their shapes, and finite."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from charrnn.errors import CheckpointError
from charrnn.export.weights import StepWeights
from tests.unit.export.small_models import VOCAB_SIZE, make_model


@pytest.mark.parametrize("name", ["rnn.weight_hh_l1", "rnn.bias_ih_l0", "embedding.weight", "head.bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused_by_name(name: str, value: float) -> None:
    model = make_model("lstm", 2, 5)
    with torch.no_grad():
        model.get_parameter(name).flatten()[-1] = value
    with pytest.raises(
        CheckpointError, match=rf"{re.escape(name)} is not finite in 1 of \d+ places, first at \["
    ) as refused:
        StepWeights.from_model(model)
    assert refused.value.exit_code == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rnn.bias_hh_l0": None}, "rnn.bias_hh_l0 is missing"),
        ({"head.weight": None}, "head.weight is missing"),
        ({"rnn.weight_hr_l0": torch.zeros(2, 2)}, "rnn.weight_hr_l0 has no place in a 1-layer gru"),
        (
            {"rnn.weight_hh_l0": torch.zeros(32, 8)},
            r"rnn.weight_hh_l0 has shape \(32, 8\), expected \(24, 8\)",
        ),
    ],
)
def test_a_foreign_set_of_tensors_is_refused(change: dict[str, torch.Tensor | None], message: str) -> None:
    tensors = make_model("gru").state_dict() | change
    with pytest.raises(CheckpointError, match=message):
        StepWeights.from_state_dict({k: v for k, v in tensors.items() if v is not None}, "gru", 1)


def test_weights_are_float32_copies() -> None:
    model = make_model("rnn")
    weights = StepWeights.from_model(model.to(torch.bfloat16))
    assert weights.head_weight.dtype == np.float32
    with torch.no_grad():
        model.head.weight.zero_()
    assert np.abs(weights.head_weight).max() > 0
    assert (weights.vocab_size, weights.hidden_size) == (VOCAB_SIZE, 8)
