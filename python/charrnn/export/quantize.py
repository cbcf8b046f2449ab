"""Eight-bit integers for weights and hidden states, chosen so that no CPU and no neighbour changes a result.

Hidden states of LSTM, GRU and tanh-RNN lie in [-1, 1], so they take one fixed scale: a row's numbers never
depend on the rows beside it, as they would if the scale were measured over the batch. Weights take one scale
a column of the (K, N) matrix, chosen under a rule about pairs: x86 CPUs without VNNI multiply unsigned by
signed bytes with ``vpmaddubsw``, which adds two neighbouring products in a *saturating* 16-bit sum. With
full-range weights that sum overflows (255 * 127 * 2 = 64,770 > 32,767) and the text of such a CPU is wrong.
Here the two weights of a pair (rows 2k and 2k+1) never sum to more than 128 on either side of zero: 255 * 128
= 32,640 fits, and every CPU finds the same integers. Halving the range of all weights would do too, at more
loss.

Does not know graphs or models.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ACTIVATION_SCALE = np.float32(1 / 127)
ACTIVATION_ZERO_POINT = np.uint8(128)

# One below 128: rounding may add half a unit to each weight of a pair.
_LARGEST = 127


def quantize_columns(weight: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Integers ``q`` (K, N) and scales (N,) with ``q * scale`` near ``weight`` (K, N).

    In every column ``|q| <= 127``, and the positive weights of rows 2k and 2k+1 sum to at most 128, as do
    the negative ones. A column of zeros gets scale 1.
    """
    num_rows, num_columns = weight.shape
    paired = np.zeros((num_rows + num_rows % 2, num_columns), np.float64)  # exact sums of two float32
    paired[:num_rows] = weight
    pairs = paired.reshape(-1, 2, num_columns)  # (K/2, 2, N)
    positive = np.maximum(pairs, 0).sum(axis=1)
    negative = np.maximum(-pairs, 0).sum(axis=1)
    reach = np.maximum(positive, negative).max(axis=0)  # (N,), never below the largest weight
    scale = np.where(reach > 0, reach / _LARGEST, 1.0).astype(np.float32)
    # A scale below the smallest normal float32 would be flushed or divide to infinity; such a column is zero.
    scale[scale < np.finfo(np.float32).tiny] = 1.0
    # The cast may have rounded the scale down; the clip keeps 127.00001 from becoming 128.
    return np.clip(np.rint(weight / scale), -_LARGEST, _LARGEST).astype(np.int8), scale


def dequantize_columns(
    quantized: npt.NDArray[np.int8], scale: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Undo ``quantize_columns`` up to half a scale a weight."""
    return quantized.astype(np.float32) * scale


def quantize_activations(hidden: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """What QuantizeLinear makes of hidden states: ``round(h * 127) + 128``, halves to even."""
    levels = np.rint(hidden / ACTIVATION_SCALE) + int(ACTIVATION_ZERO_POINT)
    quantized: npt.NDArray[np.uint8] = levels.clip(0, 255).astype(np.uint8)
    return quantized
