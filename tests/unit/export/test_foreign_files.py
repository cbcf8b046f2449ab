"""Foreign files that are damaged or hostile: one line says what is wrong, and nothing is written."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from charrnn.errors import DataError
from charrnn.export.foreign import Foreign, import_weights, reader
from charrnn.export.foreign.symbols import read_vocab
from tests.unit.export import foreign_models as models


def refusal(path: Path, vocab: Path | None = None, layout: str = "tf") -> str:
    """Why ``path`` is not imported; nothing may be written."""
    with pytest.raises(DataError) as refused:
        import_weights(Foreign(path, layout, vocab), path.parent / "out")
    assert not (path.parent / "out").exists()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def raw_folder(path: Path, **changes: object) -> Path:
    """A folder with one array ``a`` of shape (2, 3), its entry changed."""
    path.mkdir()
    (path / "file").write_bytes(np.arange(6, dtype="<f4").tobytes())
    (path / "manifest.json").write_text(json.dumps({"a": {"filename": "file", "shape": [2, 3]} | changes}))
    return path


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o700)


def test_raw_files_are_little_endian_floats(tmp_path: Path) -> None:
    arrays = reader.read_arrays(raw_folder(tmp_path / "raw"))
    assert np.array_equal(arrays["a"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [2, 4]}, "file has 24 bytes, but shape [2, 4] of float32 has 32"),
        ({"shape": [-2, -3]}, "shape [-2, -3] of a is not a list of positive whole numbers"),
        ({"shape": [2.0, 3]}, "shape [2.0, 3] of a is not a list"),
        ({"shape": 6}, "does not name a filename and a shape"),
        ({"shape": [1 << 16, 1 << 16]}, "holds 17,179,869,184 bytes of weights, the limit is 2,147,483,648"),
        ({"filename": "../file"}, "filename '../file' of a is not a plain name inside the folder"),
        ({"filename": "/etc/passwd"}, "is not a plain name inside the folder"),
        ({"filename": ".."}, "is not a plain name inside the folder"),
        ({"filename": 3}, "is not a plain name inside the folder"),
        ({"filename": "missing"}, "missing cannot be read: No such file"),
    ],
)
def test_a_raw_folder_that_is_damaged(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    assert message in refusal(raw_folder(tmp_path / "raw", **changes))


def test_no_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trap.npz"
    np.savez(path, a=np.array([Trap(tmp_path / "sprung")], dtype=object))
    assert "is not an npz file of plain arrays: Object arrays cannot be loaded" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", pickle.dumps(Trap(tmp_path / "sprung")))
    assert refusal(path) == "weight a is of type bytes, expected float32; convert it first"
    assert not (tmp_path / "sprung").exists()


def test_a_zip_bomb_is_refused_before_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros(1 << 20, np.float32))
    assert path.stat().st_size < 1 << 16
    monkeypatch.setattr(reader, "MAX_BYTES", 1 << 20)
    assert "bomb.npz holds 4,194,432 bytes of weights, the limit is 1,048,576" in refusal(path)


def test_files_of_no_kind_or_damaged(tmp_path: Path) -> None:
    for name, content, message in [
        ("w.h5", b"", "is neither a folder of raw float32 files nor a file of .npz, .safetensors"),
        ("w.npz", b"no zip", "is not an npz file of plain arrays: File is not a zip file"),
        ("w.safetensors", b"none", "is not a safetensors file"),
        ("w.safetensors", struct.pack("<Q", 1 << 60) + b"{}", "is not a safetensors file"),
    ]:
        (tmp_path / name).write_bytes(content)
        assert message in refusal(tmp_path / name)
    for name in ("missing.npz", "missing.safetensors"):
        assert f"{name} cannot be read: No such file" in refusal(tmp_path / name)
    assert "missing does not exist" in refusal(tmp_path / "missing")
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    (tmp_path / "e.npz").write_bytes(empty.getvalue())
    assert "e.npz holds no arrays" in refusal(tmp_path / "e.npz")


@pytest.mark.parametrize(("dtype", "kind"), [("float16", "F16"), ("float64", "F64"), ("int32", "I32")])
def test_only_float32_is_taken(tmp_path: Path, dtype: str, kind: str) -> None:
    array = np.ones((2, 2), dtype)
    np.savez(tmp_path / "w.npz", a=array)
    assert f"weight a is of type {dtype}, expected float32" in refusal(tmp_path / "w.npz")
    save_file({"a": array}, tmp_path / "w.safetensors")
    assert f"weight a is of type {kind}, expected F32" in refusal(tmp_path / "w.safetensors")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_counted(tmp_path: Path, bad: float) -> None:
    arrays = models.tf(1, True, True)
    arrays["embedding"][2, 1:3] = bad
    np.savez(tmp_path / "w.npz", **arrays)
    assert refusal(tmp_path / "w.npz") == "weight embedding is not finite in 2 of 35 places"


def vocab(tmp_path: Path, text: str, mended: dict[int, str] | None = None, size: int = 3) -> list[int]:
    (tmp_path / "v.json").write_text(text)
    return read_vocab(tmp_path / "v.json", size, mended or {}).symbols


def test_vocabularies_of_several_forms(tmp_path: Path) -> None:
    for text in (
        '{"b": 1, "a": 0, "\\n": 2}',
        '["a", "b", "\\n"]',
        '{"unit": "char", "symbols": [97, 98, 10]}',
    ):
        assert vocab(tmp_path, text) == [97, 98, 10]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 0, "b": 1, "": 2}', "id 2 is '', which is not one character"),
        ('{"a": 0, "b": 1, "ab": 2}', "id 2 is 'ab', which is not one character"),
        ('{"a": 0, "b": 1}', "id 2 has no character"),
        ('{"a": 0, "b": 1, "c": 1, "d": 2}', "id 1 is 'b' and 'c'"),
        ('{"a": 0, "b": 1, "a": 2}', "'a' is id 0 and id 2"),
        ('["a", "b", "b"]', "'b' is id 1 and id 2"),
        ('{"": 0, "b": 1}', "id 0 is '', which is not one character; id 2 has no character"),
    ],
)
def test_a_damaged_vocabulary_says_where_and_can_be_mended(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(DataError, match=f"v.json is damaged: {problem}; say what an id means with --symbol"):
        vocab(tmp_path, text)
    assert vocab(tmp_path, text, {0: "a", 1: "b", 2: "U"}) == [97, 98, 85]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 0, "b": 1, "c": 3}', "id 3 of 'c' is not one of 0 to 2"),
        ('{"a": 0, "b": true, "c": 2}', "id True of 'b' is not one"),
        ('{"a": "0"}', "id '0' of 'a' is not one"),
        ('["a", "b", "c", "d"]', "id 3 of 'd' is not one of 0 to 2"),
        ('{"unit": "char", "symbols": [97]}', "has 1 symbols, but the output layer has 3"),
        ('{"unit": "word", "symbols": [97]}', "v.json: "),
        ('{"unit": "char", "symbols": "abc"}', "v.json: "),
        ("3", "neither a map of characters to ids nor a list"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_no_vocabulary_at_all(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as refused:
        vocab(tmp_path, text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_many_problems_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"id 7 has no character; and 92 more; say"):
        vocab(tmp_path, "{}", size=100)


def test_what_else_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, **models.tf(1, True, True))
    assert "says nothing of its symbols; give a JSON map of characters to ids with --vocab" in refusal(path)
    assert "vocabulary" in refusal(path, tmp_path / "missing.json")
    with pytest.raises(DataError, match="symbol 9=x: the id is not one of 0 to 2"):
        vocab(tmp_path, '["a", "b", "c"]', {9: "x"})
    with pytest.raises(DataError, match="forget_bias is nan"):
        import_weights(Foreign(path, "tf", forget_bias=float("nan")), tmp_path / "out")
