"""How ``Sampler.sample`` is called: other libraries' arrays, parameters a row, room for results, threads."""

from __future__ import annotations

import copy
import math
import pickle
import threading
from typing import Any

import numpy as np
import pytest

from charrnn import SampleOutput, Sampler, SamplingParams
from charrnn.errors import RequestError
from tests.reference import Rules, adjusted, logprob

VOCAB_SIZE = 70
RNG = np.random.default_rng(1)
LOGITS = (RNG.normal(size=(40, VOCAB_SIZE)) * 3).astype(np.float32)
SEEDS, POSITIONS = np.arange(40, dtype=np.uint64), np.arange(100, 140, dtype=np.uint64)
PARAMS = SamplingParams(temperature=0.9, top_p=0.95, logprobs=3)


def unaligned(array: np.ndarray) -> np.ndarray:
    """The same numbers at an odd address."""
    room = np.zeros(array.nbytes + 1, np.uint8)
    moved = room[1 : array.nbytes + 1].view(array.dtype).reshape(array.shape)
    moved[...] = array
    assert not moved.flags.aligned
    return moved


def draw(logits: Any = LOGITS, params: Any = PARAMS, **arguments: Any) -> SampleOutput:
    arguments = {"seeds": SEEDS, "positions": POSITIONS, **arguments}
    sampler = arguments.pop("sampler", None) or Sampler(VOCAB_SIZE)
    output: SampleOutput = sampler.sample(logits, params, **arguments)
    return output


EXPECTED = draw()


def assert_same(output: SampleOutput) -> None:
    assert output.tokens.tolist() == EXPECTED.tokens.tolist()
    assert output.logprobs.tobytes() == EXPECTED.logprobs.tobytes()


def test_types_and_shapes() -> None:
    arrays = [EXPECTED.tokens, EXPECTED.logprobs, EXPECTED.status, EXPECTED.top_tokens, EXPECTED.top_logprobs]
    found = [(array.shape, array.dtype.name) for array in arrays if array is not None]
    assert found == [
        ((40,), "int32"),
        ((40,), "float32"),
        ((40,), "uint8"),
        ((40, 3), "int32"),
        ((40, 3), "float32"),
    ]
    assert len({*EXPECTED.tokens.tolist()}) > 5


@pytest.mark.parametrize(
    "logits",
    [
        LOGITS.astype(np.float64),
        np.asfortranarray(LOGITS),
        np.repeat(LOGITS, 2, axis=1)[:, ::2],
        LOGITS.tolist(),
        unaligned(LOGITS),
    ],
    ids=["double", "columns", "strided", "list", "unaligned"],
)
def test_what_cannot_be_read_in_place_is_converted(logits: Any) -> None:
    assert_same(draw(logits))


def test_torch_tensors_are_read_in_place() -> None:
    torch = pytest.importorskip("torch")
    assert_same(draw(torch.from_numpy(LOGITS)))
    assert_same(draw(torch.from_numpy(LOGITS).double()))
    with pytest.raises(RequestError, match=r"logits cannot be read: .*grad"):
        draw(torch.from_numpy(LOGITS).requires_grad_())


def test_signs_and_halves_of_torch_are_read_right() -> None:
    torch = pytest.importorskip("torch")
    halves = torch.from_numpy(LOGITS).bfloat16()
    assert draw(halves).tokens.tolist() == draw(halves.float().numpy()).tokens.tolist()
    negated = torch.complex(torch.zeros(LOGITS.shape), torch.from_numpy(-LOGITS)).conj().imag
    assert negated.is_neg()
    assert_same(draw(negated))


@pytest.mark.parametrize("seeds", [SEEDS, SEEDS + np.uint64(2**63)], ids=["small", "large"])
def test_numbers_of_any_make_are_the_same(seeds: np.ndarray) -> None:
    expected = draw(seeds=seeds).tokens.tolist()
    for same in (seeds.tolist(), seeds.astype(object), np.repeat(seeds, 2)[::2], seeds.astype(">u8")):
        assert draw(seeds=same).tokens.tolist() == expected
    assert draw(seeds=unaligned(seeds)).tokens.tolist() == expected
    mixed = [14695981039346656037, 1]
    output = draw(LOGITS[:2], seeds=mixed, positions=[2**64 - 1, 0])
    assert (
        output.tokens.tolist()
        == draw(
            LOGITS[:2], seeds=np.array(mixed, np.uint64), positions=np.array([2**64 - 1, 0], np.uint64)
        ).tokens.tolist()
    )


def test_a_list_of_parameters_is_one_a_row() -> None:
    each = [SamplingParams(temperature=0.1 * (row + 1), top_k=row, logprobs=row % 3) for row in range(40)]
    output = draw(params=each)
    for row, params in enumerate(each):
        alone = draw(
            LOGITS[row : row + 1], params, seeds=SEEDS[row : row + 1], positions=POSITIONS[row : row + 1]
        )
        assert output.tokens[row] == alone.tokens[0]
        assert output.logprobs[row] == alone.logprobs[0]
        assert output.top_tokens is not None
        told = alone.top_tokens[0].tolist() if alone.top_tokens is not None else []
        assert output.top_tokens[row].tolist() == told + [-1] * (2 - len(told))


@pytest.mark.parametrize("mode", ["raw", "processed"])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, math.inf])
def test_logprobs_are_the_references(mode: Any, temperature: float) -> None:
    rules = Rules(temperature=temperature, top_k=20, frequency_penalty=0.5)
    history = [[1, 2, 2, 3]] * 40
    params = SamplingParams(**vars(rules), logprobs=5, logprobs_mode=mode)
    output = draw(params=params, history=history)
    for row, past in enumerate(history):
        logits = LOGITS[row].tolist() if mode == "raw" else adjusted(LOGITS[row].tolist(), rules, past)
        token = int(output.tokens[row])
        assert output.logprobs[row] == pytest.approx(logprob(logits, rules, token, mode=mode), abs=1e-5)
        assert output.top_tokens is not None
        assert output.top_logprobs is not None
        told = output.top_logprobs[row].tolist()
        assert told == sorted(told, reverse=True)
        if mode == "raw":
            best = sorted(range(VOCAB_SIZE), key=lambda i: (-logits[i], i))[:5]
            assert output.top_tokens[row].tolist() == best


def test_logprobs_are_told_only_where_they_are_asked_for() -> None:
    output = draw(params=SamplingParams())
    assert np.isnan(output.logprobs).all()
    assert (output.top_tokens, output.top_logprobs) == (None, None)
    assert draw(params=SamplingParams(logprobs=0)).top_tokens is None
    assert draw(params=SamplingParams(logprobs=1000)).top_tokens.shape == (40, VOCAB_SIZE)  # type: ignore[union-attr]


def test_out_is_filled_and_returned() -> None:
    out = SampleOutput(40, 3)
    tokens = out.tokens
    assert draw(out=out) is out
    assert out.tokens is tokens
    assert_same(out)
    for wrong in (SampleOutput(41, 3), SampleOutput(40, 2), SampleOutput(40)):
        with pytest.raises(RequestError, match=r"out has room for .* needed are 40 rows with 3"):
            draw(out=wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2**40,), "batch_size is 1099511627776; it must be a whole number of 0 to 268435456"),
        ((-1,), "batch_size is -1; it must be"),
        ((1, -1), "num_top is -1; it must be"),
        ((2**20, 2**15), "batch_size is 1048576; with 32768 alternatives it must be at most 8192"),
    ],
)
def test_room_out_of_its_limits_is_named(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        SampleOutput(*arguments)


def test_out_is_one_calls_at_a_time() -> None:
    """An array that is read and written at once is refused as one that two threads write."""
    out = SampleOutput(40, 3)
    with pytest.raises(RequestError, match=r"out cannot be written: .*a SampleOutput of its own"):
        draw(out.top_logprobs, SamplingParams(), out=out, sampler=Sampler(3))


def test_history_is_a_sequence_of_any_make() -> None:
    torch = pytest.importorskip("torch")
    params = SamplingParams(repetition_penalty=100)
    history = np.arange(80).reshape(40, 2) % VOCAB_SIZE
    expected = draw(params=params, history=history.tolist()).tokens.tolist()
    for same in (history, torch.from_numpy(history), list(history)):
        assert draw(params=params, history=same).tokens.tolist() == expected


def test_streams_have_numbers_of_their_own() -> None:
    one_row = {"logits": np.repeat(LOGITS[:1], 40, axis=0), "seeds": np.full(40, 7, np.uint64)}
    same_place = {"positions": np.zeros(40, np.uint64), "params": SamplingParams(temperature=3.0)}
    assert len({*draw(**one_row, **same_place).tokens.tolist()}) == 1
    samples = draw(**one_row, **same_place, streams=np.arange(40, dtype=np.uint32)).tokens
    assert len({*samples.tolist()}) > 5
    again = draw(LOGITS[:1], SamplingParams(temperature=3.0), seeds=[7], positions=[0], streams=[11])
    assert again.tokens[0] == samples[11]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logits": LOGITS[:, :-1]}, r"logits are \(40, 69\); expected \(B, 70\)"),
        ({"logits": LOGITS[0]}, "logits have 1 dimensions; expected 2"),
        ({"logits": "abc"}, "logits cannot be read"),
        ({"seeds": SEEDS[1:]}, "seeds has length 39; logits have 40 rows"),
        ({"positions": [0]}, "positions has length 1"),
        ({"streams": [0]}, "streams has length 1"),
        ({"history": [[1]]}, "history has length 1"),
        ({"history": [[70]] * 40}, "history: token 70 is not below 70"),
        ({"params": [PARAMS]}, "params has length 1"),
        ({"seeds": [0, -1] * 20}, r"seeds\[1\] is -1; it must be a whole number of 0 to 2\^64 - 1"),
        ({"seeds": np.arange(40) - 39}, r"seeds\[0\] is -39; it must be a whole number of 0 to 2\^64 - 1"),
        ({"seeds": [0.5] * 40}, r"seeds\[0\] is 0.5; it must be a whole number"),
        ({"seeds": np.zeros(40)}, "seeds are of type float64"),
        ({"seeds": 7}, "seeds is 7; give whole numbers, one a row"),
        ({"seeds": np.zeros((40, 1), int)}, "seeds have 2 dimensions"),
        ({"seeds": [2**63, 2**64] * 20}, r"seeds\[1\] is 18446744073709551616; .* 0 to 2\^64 - 1"),
        ({"streams": [2**32] * 40}, r"streams\[0\] is 4294967296; .* 0 to 2\^32 - 1"),
        ({"logits": LOGITS.astype(complex)}, "their type is complex128; give real numbers"),
        ({"logits": np.ma.masked_array(LOGITS)}, "logits are a masked array"),
        ({"history": [[-1]] * 40}, r"history\[0\]\[0\] is -1; it must be a whole number of 0 to"),
        ({"history": 3}, "history is of type int; give token ids"),
        ({"params": None}, "params is of type NoneType; give SamplingParams"),
        ({"params": {"top_k": 3}}, "params is of type dict; give SamplingParams"),
        ({"params": [None] * 40}, r"params\[0\] is of type NoneType; give SamplingParams"),
        ({"params": SamplingParams(regex="a")}, "regex needs a vocabulary"),
        ({"params": SamplingParams(utf8=True)}, "utf8 needs a vocabulary"),
        ({"params": SamplingParams(allowed=[70])}, "allowed: id 70 is not below the vocabulary's size 70"),
        ({"params": SamplingParams(logit_bias={99: 1.0})}, "logit_bias: id 99 is not below"),
    ],
)
def test_what_does_not_fit_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        draw(**arguments)


def test_no_rows_give_none() -> None:
    output = draw(LOGITS[:0], seeds=[], positions=[])
    assert output.tokens.shape == (0,)


def test_threads_share_a_sampler() -> None:
    """Rows of a large batch, which detaches the GIL, and of small ones, from several threads at once."""
    sampler = Sampler(VOCAB_SIZE)
    rows = np.repeat(LOGITS, 20, axis=0)
    seeds, positions = np.arange(800, dtype=np.uint64), np.arange(800, dtype=np.uint64)
    params = SamplingParams(top_k=9, repetition_penalty=1.2)
    expected = sampler.sample(rows, params, seeds=seeds, positions=positions).tokens.tolist()
    found: list[list[int]] = []

    def work() -> None:
        for _ in range(5):
            found.append(sampler.sample(rows, params, seeds=seeds, positions=positions).tokens.tolist())
            half = sampler.sample(rows[:9], params, seeds=seeds[:9], positions=positions[:9])
            found.append(half.tokens.tolist() + expected[9:])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert all(tokens == expected for tokens in found)


def test_parameters_compare_hash_copy_and_pickle() -> None:
    params = SamplingParams(
        temperature=0.5, logit_bias={3: -1.0}, allowed=[3, 1], stop=["a", "b"], regex="x*"
    )
    assert params == SamplingParams(**params.fields())
    assert hash(params) == hash(SamplingParams(**params.fields()))
    assert pickle.loads(pickle.dumps(params)) == copy.deepcopy(params) == params
    assert params != SamplingParams(temperature=0.5)
    assert eval(repr(params)) == params


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 10**23}, "top_k is 100000000000000000000000; it must be"),
        ({"max_tokens": -1}, "max_tokens is -1; it must be 1 to"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens is 9, above max_tokens, which is 8"),
        ({"allowed": []}, "allowed is empty"),
        ({"logit_bias": {0: math.nan}}, "logit_bias is NaN"),
        ({"logprobs_mode": "cooked"}, 'logprobs_mode is "cooked"'),
        ({"regex": ""}, "length of regex is 0"),
        ({"stop": "abc"}, "stop is the string"),
        ({"stop": ["\ud800"]}, r"a string of stop is '.ud800'; it holds half of a surrogate pair"),
        ({"regex": "\ud800"}, r"regex is '.ud800'; it holds half of a surrogate pair"),
        ({"allowed": [-1]}, "an id of allowed is -1; it must be a whole number of 0 to 4294967295"),
        ({"allowed": 1}, "allowed is 1; give a list of token ids"),
        ({"logit_bias": {-1: 1.0}}, "an id of logit_bias is -1; it must be a whole number of 0 to"),
        ({"logit_bias": 3}, "logit_bias is 3; give a dict"),
    ],
)
def test_parameters_out_of_their_limits_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        SamplingParams(**arguments)
