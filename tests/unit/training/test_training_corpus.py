from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.errors import DataError
from charrnn.training import TrainConfig, Trainer, corpus, sources
from charrnn.training.corpus import encoded as encode
from charrnn.training.corpus import make_vocab, open_tokens, scan, token_dtype, write_tokens
from charrnn.training.layout import RangeLayout
from charrnn.training.sources import find_source
from charrnn.training.splits import check_size
from charrnn.training.symbols import Rules

TINY = TrainConfig(
    num_layers=1, hidden_size=4, batch_size=2, bptt=4, max_steps=3, device="cpu", threads=1, sample_chars=5
)


def encoded(data: bytes, folder: Path, unit: str = "char", errors: str = "strict") -> str | bytes:
    """What a text is after it has become token ids and text again."""
    path = folder / "text"
    path.write_bytes(data)
    source, rules = find_source(path), Rules(unit, errors)
    seen = scan(source, rules)
    vocab = make_vocab(source, seen, unit)
    layout = RangeLayout("none", seen.num_symbols)
    write_tokens(encode(source, rules, vocab, seen), layout, folder / "tokens.bin")
    tokens = open_tokens(folder / "tokens.bin", token_dtype(vocab).name)
    assert len(tokens) == seen.num_symbols
    assert seen.num_bytes == len(data)
    symbols = [vocab.symbols[token] for token in tokens]
    return "".join(map(chr, symbols)) if unit == "char" else bytes(symbols)


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(
    "text",
    [
        "abc",
        "a\r\nb\r\n\rc\n",
        "\ufeffwith a mark",
        "nul \0 in it",
        "naïve \u2013 日本語 🎈🎈",
        "\x85\u2028\u2029",
    ],
)
def test_every_symbol_is_kept(
    text: str, piece_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PIECE_BYTES", piece_bytes)
    assert encoded(text.encode(), tmp_path) == text


@given(
    data=st.binary(min_size=1, max_size=60) | st.text(min_size=1, max_size=30).map(str.encode),
    piece_bytes=st.integers(1, 9),
)
def test_any_bytes_are_a_text_or_told_where_they_are_none(data: bytes, piece_bytes: int) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PIECE_BYTES", piece_bytes)
        assert encoded(data, Path(folder), "byte") == data
        assert encoded(data, Path(folder), errors="replace") == data.decode(errors="replace")
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            with pytest.raises(DataError, match=rf"is not UTF-8 at byte {error.start} "):
                encoded(data, Path(folder))
        else:
            assert encoded(data, Path(folder)) == text


def test_a_line_may_be_10_megabytes_long(tmp_path: Path) -> None:
    text = "日ab" * 2_000_000
    assert encoded(text.encode(), tmp_path) == text


def test_bytes_are_kept_even_where_they_are_no_text(tmp_path: Path) -> None:
    data = bytes(range(255, -1, -1)) + b"\xff\xfe\xc3"
    assert encoded(data, tmp_path, "byte") == data


@pytest.mark.parametrize("piece_bytes", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"abc\xffdef", 3),
        (b"\xc3\x28", 0),
        ("日本".encode()[:-1], 3),
        (b"12345678\xed\xa0\x80", 8),
        (b"\x80", 0),
    ],
)
def test_bad_utf8_is_told_by_its_byte(
    data: bytes, offset: int, piece_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PIECE_BYTES", piece_bytes)
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    with pytest.raises(
        DataError, match=rf"corpus .*bad.txt is not UTF-8 at byte {offset} \(0x{data[offset]:02x}"
    ):
        scan(find_source(path), Rules())


@pytest.mark.parametrize("text", ["", "a", "ab" * 4])
def test_a_text_that_is_too_small_is_refused_and_leaves_nothing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=f"short.txt has {len(text)} characters: .* need at least 31; give"):
        Trainer(TINY).fit(path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["tail", "interleaved", "nanogpt", "none"])
@pytest.mark.parametrize(("batch_size", "bptt"), [(1, 1), (2, 4), (32, 100)])
def test_the_number_of_characters_asked_for_is_enough_and_the_least(
    split: str, batch_size: int, bptt: int
) -> None:
    config = TrainConfig(split=split, batch_size=batch_size, bptt=bptt)
    with pytest.raises(DataError, match="need at least") as refused:
        check_size(0, config, "x")
    need = int(str(refused.value).split("at least ")[1].split(";")[0])
    check_size(need, config, "x")
    with pytest.raises(DataError):
        check_size(need - 1, config, "x")


@pytest.mark.parametrize("text", ["a" * 40, "\r\n" * 20, "\0b" * 20, "\ufeff" + "ab\n" * 20])
def test_odd_texts_train(text: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.txt"
    path.write_bytes(text.encode())
    result = Trainer(TINY).fit(path, out=tmp_path / "run")
    assert result.step == 3
    assert set(result.sample) <= set(text)
    assert len(result.sample) == TINY.sample_chars


def test_a_text_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read corpus .*nowhere.txt: No such file"):
        scan(find_source(tmp_path / "nowhere.txt"), Rules())


def test_the_built_in_corpus_is_pythons_help() -> None:
    seen = scan(find_source(None), Rules())
    assert seen.num_symbols > 100_000
    assert seen.sha256 == corpus.sha256_of(find_source(None))


def test_the_built_in_corpus_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match="pydoc_data, which this Python lacks: give a text file"):
        scan(find_source(None), Rules())


def test_token_files_take_the_smallest_type(tmp_path: Path) -> None:
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 257)))
    assert encoded(many.encode(), tmp_path) == many
    assert (tmp_path / "tokens.bin").stat().st_size == 2 * 257
    assert encoded(many[1:].encode(), tmp_path) == many[1:]
    assert (tmp_path / "tokens.bin").stat().st_size == 256
    assert isinstance(open_tokens(tmp_path / "tokens.bin", "uint8"), np.memmap)
