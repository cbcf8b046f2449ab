"""Weights of other frameworks compute here what their own equations compute."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from charrnn.errors import DataError
from charrnn.export.foreign import Foreign, read_foreign
from charrnn.export.foreign.layouts import LAYOUTS
from charrnn.export.weights import Array
from tests.unit.export import foreign_models as models
from tests.unit.export.foreign_models import Arrays, V
from tests.unit.export.small_models import VOCAB_SIZE, make_model

TOKENS = [3, 0, 6, 6, 1, 2, 5, 4, 0, 3]


def written(folder: Path, arrays: Arrays, kind: str = "npz") -> Path:
    """The arrays as a file or a folder of one kind, with a vocabulary beside or in it."""
    vocab = {chr(97 + token): token for token in range(VOCAB_SIZE)}
    if kind == "npz":
        np.savez(folder / "weights.npz", **arrays)
    elif kind == "safetensors":
        save_file(
            {name: np.ascontiguousarray(a) for name, a in arrays.items()}, folder / "weights.safetensors"
        )
    else:
        manifest = {
            name: {"filename": f"f{i}", "shape": list(np.shape(a))}
            for i, (name, a) in enumerate(arrays.items())
        }
        for entry, array in zip(manifest.values(), arrays.values(), strict=True):
            (folder / str(entry["filename"])).write_bytes(np.asarray(array, "<f4").tobytes())
        (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "vocab.json").write_text(json.dumps(dict(list(vocab.items())[: _vocab_size(arrays)])))
    return folder if kind == "folder" else folder / f"weights.{kind}"


def _vocab_size(arrays: Arrays) -> int:
    return VOCAB_SIZE if "head.weight" in arrays else V


def imported_logits(path: Path, layout: str, forget_bias: float = 1.0) -> Array:
    """(T, V), of the imported torch model."""
    vocab = path.parent / "vocab.json" if path.is_file() else None
    source = read_foreign(Foreign(path, layout, vocab, forget_bias=forget_bias))
    with torch.no_grad():
        logits, _ = source.model(torch.tensor([TOKENS]), source.model.zero_state(1))
    return logits[0].numpy()


@pytest.mark.parametrize("kind", ["npz", "safetensors", "folder"])
@pytest.mark.parametrize("has_embedding", [True, False])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_keras(tmp_path: Path, cell: str, has_embedding: bool, kind: str) -> None:
    arrays = models.keras(cell, 2, has_embedding)
    expected = models.keras_logits(arrays, cell, 2, TOKENS)
    found = imported_logits(written(tmp_path, arrays, kind), "keras")
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("has_embedding", [True, False])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_keras_weights_without_names(tmp_path: Path, num_layers: int, has_embedding: bool) -> None:
    arrays = models.keras("lstm", num_layers, has_embedding)
    expected = models.keras_logits(arrays, "lstm", num_layers, TOKENS)
    numbered = {f"arr_{number}": array for number, array in enumerate(arrays.values())}
    found = imported_logits(written(tmp_path, numbered), "keras")
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("old_names", [True, False])
@pytest.mark.parametrize("has_embedding", [True, False])
@pytest.mark.parametrize("forget_bias", [1.0, 0.0])
def test_tf(tmp_path: Path, has_embedding: bool, old_names: bool, forget_bias: float) -> None:
    arrays = models.tf(2, has_embedding, old_names)
    expected = models.tf_logits(arrays, 2, TOKENS, forget_bias)
    found = imported_logits(written(tmp_path, arrays), "tf", forget_bias)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_char_rnn(tmp_path: Path, num_layers: int) -> None:
    arrays = models.char_rnn(num_layers)
    expected = models.char_rnn_logits(arrays, num_layers, TOKENS)
    np.testing.assert_allclose(imported_logits(written(tmp_path, arrays), "char-rnn"), expected, atol=2e-5)


@pytest.mark.parametrize("embedding_dim", [0, 3])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_torch_is_bit_for_bit(tmp_path: Path, cell: str, embedding_dim: int) -> None:
    model = make_model(cell, 2, embedding_dim)
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        expected, _ = model(torch.tensor([TOKENS]), model.zero_state(1))
    assert np.array_equal(imported_logits(written(tmp_path, arrays), "torch"), expected[0].numpy())


def test_a_wrong_layout_is_refused_by_name(tmp_path: Path) -> None:
    for layout, arrays in {
        "keras": models.keras("lstm", 1, True),
        "tf": models.tf(1, True, True),
        "char-rnn": models.char_rnn(1),
    }.items():
        path = written(tmp_path, arrays)
        for other in {*LAYOUTS} - {layout}:
            with pytest.raises(DataError, match=r"choose another --layout$"):
                imported_logits(path, other)
    with pytest.raises(DataError, match="layout 'caffe' is not one of torch, keras, char-rnn, tf"):
        imported_logits(path, "caffe")


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("keras", {"dense/bias:0": None}, "there must be the output layer's weight and bias"),
        ("keras", {"lstm_9/cell/bias:0": None}, "weight lstm_9/cell/bias is missing; there is"),
        (
            "keras",
            {"lstm_10/cell/kernel:0": (5, 16)},
            r"lstm_10/cell/kernel has shape \(5, 16\), expected \(4, 16\)",
        ),
        ("keras", {"dense/kernel:0": (7, 4)}, r"dense/kernel has shape \(7, 4\), expected \(4, 7\)"),
        ("keras", {"lstm_9/cell/recurrent_kernel:0": (4, 20)}, "has 20 rows of gates for 4 units"),
        ("keras", {"more": (3, 3)}, "there must be the output layer's weight and bias"),
        ("keras", {"cube": (3, 3, 3)}, r"weight cube of shape \(3, 3, 3\) has no place"),
        ("tf", {"embedding": (8, 5)}, r"weight embedding has shape \(8, 5\), expected \(7, 5\)"),
        ("tf", {"rnnlm/multi_rnn_cell/cell_1/basic_lstm_cell/weights": (9, 16)}, r"expected \(8, 16\)"),
        ("char-rnn", {"h2h_1.bias": None}, "weight h2h_1.bias is missing"),
        ("char-rnn", {"i2h_2.weight": (15, 4)}, r"i2h_2.weight has shape \(15, 4\), expected \(16, 4\)"),
        ("char-rnn", {"h2h_4.weight": (16, 4)}, r"weight i2h_3.weight is missing"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, layout: str, change: dict[str, tuple[int, ...] | None], message: str
) -> None:
    arrays = {
        "keras": lambda: models.keras("lstm", 2, True),
        "tf": lambda: models.tf(2, True, True),
        "char-rnn": lambda: models.char_rnn(2),
    }[layout]()
    for name, shape in change.items():
        arrays.pop(name, None)
        if shape is not None:
            arrays[name] = models.weights(*shape)
    with pytest.raises(DataError, match=message) as refused:
        imported_logits(written(tmp_path, arrays), layout)
    assert "\n" not in str(refused.value)


def test_a_gru_that_torch_does_not_have_is_refused(tmp_path: Path) -> None:
    arrays = models.keras("gru", 1, False) | {"gru_9/cell/bias:0": models.weights(12)}
    with pytest.raises(DataError, match="a GRU with reset_after=False, which torch does not have"):
        imported_logits(written(tmp_path, arrays), "keras")
