from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from charrnn.training import memorisation
from charrnn.training.memorisation import Longest, documents, find, memorised

Tokens = npt.NDArray[np.integer[Any]]


def tokens(text: str) -> Tokens:
    return np.frombuffer(text.encode(), np.uint8)


def slow_share(texts: list[str], train: str, length: int) -> float:
    runs = [text[at : at + length] for text in texts for at in range(len(text) - length + 1)]
    return sum(run not in train for run in runs) / len(runs)


def slow_longest(texts: list[str], train: str) -> int:
    runs = [text[i:j] for text in texts for i in range(len(text)) for j in range(i + 1, len(text) + 1)]
    return max((len(run) for run in runs if run in train), default=0)


def some_texts(seed: int) -> tuple[list[str], str]:
    rng = np.random.default_rng(seed)
    train = "".join(rng.choice(list("ab c"), 600))
    copied = train[100:123]
    return ["".join(rng.choice(list("abcd "), 40)) + copied, train[590:] + train[:9], "", "q"], train


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("chunk", [7, 100, 2**20])
def test_shares_and_the_longest_run_are_those_of_a_slow_search(
    seed: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memorisation, "_CHUNK", chunk)
    texts, train = some_texts(seed)
    found = memorised([tokens(text) for text in texts], tokens(train))
    assert found.novel == {
        length: pytest.approx(slow_share(texts, train, length))
        for length in memorisation.LENGTHS
        if length <= max(map(len, texts))
    }
    longest = found.longest
    assert longest is not None
    assert longest.length == slow_longest(texts, train) >= 23
    run = texts[longest.index][longest.at : longest.at + longest.length]
    assert train[longest.train_at : longest.train_at + longest.length] == run
    assert (found.num_texts, found.num_tokens) == (4, sum(map(len, texts)))


@pytest.mark.parametrize("chunk", [50, 2**20])
def test_runs_of_one_hash_are_told_apart(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With base 1 a hash is a sum, the same for every order of the symbols."""
    monkeypatch.setattr(memorisation, "_BASE", 1)
    monkeypatch.setattr(memorisation, "_CHUNK", chunk)
    texts, train = some_texts(9)
    for length in (2, 5, 8, 23):
        places = find(tokens(texts[0]), tokens(train), length)
        for at, place in enumerate(places):
            run = texts[0][at : at + length]
            assert train[place : place + length] == run if place >= 0 else run not in train


def test_what_has_nothing_in_common_or_is_empty() -> None:
    found = memorised([tokens("xyz")], tokens("abc"))
    assert (found.longest, found.novel) == (None, {2: 1.0, 3: 1.0})
    assert memorised([tokens("xyz")], tokens("")).novel == {2: 1.0, 3: 1.0}
    assert memorised([], tokens("abc")).longest is None


def test_a_text_that_is_all_copied() -> None:
    train = tokens("the cat sat on the mat. " * 9)
    found = memorised([train[24:144]], train)
    assert found.longest == Longest(120, 0, 0, found.longest.train_at if found.longest else -1)
    assert set(found.novel.values()) == {0.0}


def test_documents_that_are_new_and_those_that_come_again() -> None:
    known = [tokens(name) for name in ("anna", "bob", "eve")]
    made = [tokens(name) for name in ("anna", "anne", "anne", "bo", "", "bob")]
    found = documents(made, known)
    assert (found.num_documents, found.num_novel, found.num_duplicates) == (6, 4, 1)
