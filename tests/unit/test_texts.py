"""Texts that share a call: what is sent of them and what is read, over lost calls and full servers."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from charrnn._pb import charrnn_pb2 as pb
from charrnn.calls import Asked
from charrnn.errors import CharrnnError, RequestError, ServerBusyError, ServerError, ServerUnavailableError
from charrnn.patience import Patience
from charrnn.resuming import HandedOverError
from charrnn.stream import Chunk, Finished, Started
from charrnn.texts import MAX_TEXTS, Answer, Texts
from tests.fakes import FINISHED, chunk, started

BUSY, CANCELLED, STOPPING, WRONG = 8, 1, 14, 3  # codes of google.rpc


class Status:
    """What ended a call."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return ""


LOST, FULL = Status(grpc.StatusCode.UNAVAILABLE), Status(grpc.StatusCode.RESOURCE_EXHAUSTED)


def of(name: str, response: pb.GenerateResponse) -> pb.GenerateResponse:
    copy = pb.GenerateResponse(request_id=name)
    copy.MergeFrom(response)
    return copy


def refused(code: int, reason: str = "") -> pb.GenerateResponse:
    return pb.GenerateResponse(refused=pb.Refused(code=code, message="no", reason=reason))


def drained(num_chars: int, token: bytes) -> pb.GenerateResponse:
    end = pb.Finished(reason=pb.FINISH_REASON_DRAINED, chars=num_chars, resume_token=token)
    return pb.GenerateResponse(finished=end)


def finished(num_chars: int) -> pb.GenerateResponse:
    return pb.GenerateResponse(finished=pb.Finished(reason=pb.FINISH_REASON_LENGTH, chars=num_chars))


def sent(texts: Texts) -> list[pb.GenerateRequest]:
    """All that is to be sent, waiting for what is to be sent in a while."""
    requests = []
    while texts.has_unsent or texts.wait_s is not None:
        if (request := texts.next()) is None:
            time.sleep(texts.wait_s or 0)
        else:
            requests.append(pb.GenerateRequest.FromString(request.SerializeToString()))
    return requests


def told(texts: Texts, name: str, *responses: pb.GenerateResponse) -> list[Any]:
    """What the reader sees of them."""
    answers = [texts.take(of(name, response)) for response in responses]
    assert {answer[0] for answer in answers if answer is not None} <= {name}
    return [answer[1] for answer in answers if answer is not None]


def asked(*names: str, resume_s: float = 10, **fields: Any) -> Texts:
    texts = Texts(None, resume_s)
    for name in names:
        texts.ask(name, Asked(**({"prompt": name} | fields)))  # type: ignore[typeddict-item]
    assert [request.request_id for request in sent(texts)] == list(names)
    return texts


def lose(texts: Texts, error: Any = LOST) -> None:
    assert texts.pause_after(error) is not None
    texts.begin_again()


def test_what_has_begun_is_asked_for_with_its_seed_and_the_rest_as_it_stands() -> None:
    texts = asked("a", "b", "c")
    texts.have_all = True
    assert told(texts, "a", started(seed=5), chunk("abc")) == [Started("fake", 5, 0), Chunk("abc", 0, 3)]
    told(texts, "c", started(), FINISHED)
    lose(texts)
    requests = {request.request_id: request for request in sent(texts)}
    assert requests.keys() == {"a", "b"}
    assert (requests["a"].sampling.seed, requests["a"].prompt, requests["a"].model) == (5, "a", "fake")
    assert requests["b"] == pb.GenerateRequest(request_id="b", prompt="b")
    # Chunks of another size: what was read is left out.
    assert told(texts, "a", started(seed=5), chunk("ab"), chunk("cd", 2)) == [Chunk("d", 3, 1)]
    assert len(told(texts, "b", started(), FINISHED)) == 2
    assert not texts.is_over
    (end,) = told(texts, "a", finished(4))
    assert isinstance(end, Finished)
    assert texts.is_over


def test_what_was_not_sent_yet_is_sent_as_a_fresh_one() -> None:
    texts = asked("a")
    told(texts, "a", started())
    texts.ask("b", {})
    lose(texts)
    assert sorted(request.request_id for request in sent(texts)) == ["a", "b"]
    (busy,) = told(texts, "b", refused(BUSY))
    assert isinstance(busy, ServerBusyError)


def test_more_texts_than_a_call_may_have_wait_for_an_end() -> None:
    texts = asked(*(str(i) for i in range(MAX_TEXTS)))
    texts.ask("one more", {})
    assert texts.next() is None
    told(texts, "7", started(), FINISHED)
    (last,) = sent(texts)
    assert last.request_id == "one more"


def test_nothing_is_asked_again_after_the_time_for_all_of_it() -> None:
    patience = Patience(0.05, 10)
    pauses = list(iter(lambda: waited(patience), None))
    assert sum(pauses) <= 0.05
    assert 0 not in pauses, "it tries on, without a pause"


def waited(patience: Patience) -> float | None:
    if (pause := patience.pause()) is not None:
        time.sleep(pause)
    return pause


def test_before_any_answer_a_lost_call_is_the_callers() -> None:
    assert asked("a").pause_after(LOST) is None


def test_a_fresh_refusal_is_told_and_one_of_a_lost_text_waits() -> None:
    texts = asked("a", "b")
    (busy,) = told(texts, "a", refused(BUSY))
    assert isinstance(busy, ServerBusyError)
    assert told(texts, "b", started(), chunk("ab"), refused(STOPPING)) != []
    for _ in range(3):
        assert [request.request_id for request in sent(texts)] == ["b"]
        assert told(texts, "b", refused(BUSY)) == []
    assert sent(texts)[0].sampling.seed == 7
    assert told(texts, "b", started(), chunk("abc")) == [Chunk("c", 2, 1)]


def test_a_call_that_is_refused_after_a_loss_is_made_again() -> None:
    texts = asked("a")
    told(texts, "a", started())
    assert texts.pause_after(FULL) is None
    lose(texts)
    lose(texts, FULL)
    assert texts.pause_after(Status(grpc.StatusCode.UNAUTHENTICATED)) is None


def test_a_text_handed_over_goes_on_by_its_token() -> None:
    texts = asked("a", max_tokens=5000)
    assert told(texts, "a", started(), chunk("ab"), drained(2, b"token"))[1:] == [Chunk("ab", 0, 2)]
    with pytest.raises(HandedOverError):
        texts.check()  # nothing runs on this call, and its server is going
    lose(texts, HandedOverError())
    (request,) = sent(texts)
    assert (request.request_id, request.resume_token, request.prompt) == ("a", b"token", "")
    # Another key: from the beginning.
    assert told(texts, "a", refused(WRONG)) == []
    (request,) = sent(texts)
    assert (request.resume_token, request.prompt, request.sampling.seed) == (b"", "a", 7)
    assert told(texts, "a", started(), chunk("abc")) == [Chunk("c", 2, 1)]


def test_a_call_is_not_left_while_texts_run_on_it() -> None:
    texts = asked("a", "b", max_tokens=5000)
    for name in ("a", "b"):
        told(texts, name, started(), chunk("ab"))
    told(texts, "a", drained(2, b"token"))
    texts.check()
    assert [request.resume_token for request in sent(texts)] == [b"token"]


def test_nobody_takes_a_text_and_its_reader_has_the_token() -> None:
    texts = asked("a", "b", resume_s=0.1, max_tokens=5000, resumable=True)
    for name in ("a", "b"):
        told(texts, name, started(), chunk("ab"), drained(2, b"token"))
    sent(texts)
    answers: list[Any] = []
    while not answers:
        answers = told(texts, "a", refused(STOPPING))
        sent(texts)
    assert answers[0].resume_token == b"token"
    ends: list[Answer] = texts.ends()
    assert [(name, getattr(end, "resume_token", None)) for name, end in ends] == [("b", b"token")]
    assert texts.is_idle


def test_a_text_is_given_up_and_its_reader_told_why() -> None:
    texts = asked("a", resume_s=0.1)
    told(texts, "a", started())
    answers: list[Any] = []
    while not answers:
        answers = told(texts, "a", refused(STOPPING))
        sent(texts)
    assert isinstance(answers[0], ServerUnavailableError)
    assert texts.is_idle


def test_calls_are_given_up_when_nothing_new_comes() -> None:
    texts = asked("a", resume_s=0.2)
    told(texts, "a", started(), chunk("ab"))
    lose(texts)
    time.sleep(0.25)
    sent(texts)
    assert told(texts, "a", started(), chunk("ab")) == []
    assert texts.pause_after(LOST) is None
    told(texts, "a", chunk("c", 2))
    lose(texts)


def test_while_nobody_waits_calls_are_not_given_up() -> None:
    texts = asked("a", resume_s=0.1)
    told(texts, "a", started(), FINISHED)
    for _ in range(3):
        lose(texts)
        time.sleep(0.06)
    texts.ask("b", {})
    lose(texts)
    time.sleep(0.15)
    assert texts.pause_after(LOST) is None


def test_a_text_cancelled_while_its_server_was_lost_is_ended_by_the_next() -> None:
    texts = asked("a", "b")
    for name in ("a", "b"):
        told(texts, name, started(), chunk("ab"))
    texts.ask("a", None)
    assert [request.cancel for request in sent(texts)] == [True]
    lose(texts)
    requests = [(request.request_id, request.cancel) for request in sent(texts)]
    assert sorted(requests) == [("a", False), ("a", True), ("b", False)]
    assert requests.index(("a", False)) < requests.index(("a", True))
    (error,) = told(texts, "a", started(), refused(CANCELLED))
    assert isinstance(error, ServerError)
    lose(texts)
    assert [request.request_id for request in sent(texts)] == ["b"]


def test_an_id_is_free_after_its_end() -> None:
    texts = asked("a")
    told(texts, "a", started(), chunk("ab"), FINISHED)
    texts.ask("a", {"prompt": "other"})
    assert [request.prompt for request in sent(texts)] == ["other"]
    assert told(texts, "a", started(seed=8), chunk("xy"))[1:] == [Chunk("xy", 0, 2)]


def test_an_id_asked_for_twice_is_refused_and_the_first_text_goes_on() -> None:
    texts = asked("a", "a")
    told(texts, "a", started(), chunk("ab"))
    (error,) = told(texts, "a", refused(WRONG, "REQUEST_ID_IN_USE"))
    assert isinstance(error, RequestError)
    lose(texts)
    assert [request.sampling.seed for request in sent(texts)] == [7]


@pytest.mark.parametrize("end", [refused(CANCELLED), finished(3)])
def test_another_text_is_an_error_and_ended_there(end: pb.GenerateResponse) -> None:
    texts = asked("a")
    told(texts, "a", started(), chunk("abc"))
    lose(texts)
    sent(texts)
    (error,) = told(texts, "a", started(), chunk("abX"))
    assert isinstance(error, CharrnnError)
    assert "another text for the same seed" in str(error)
    texts.ask("a", {"prompt": "new"})
    assert [(request.cancel, request.prompt) for request in sent(texts)] == [(True, ""), (False, "new")]
    # What comes of the old one is nobody's.
    assert told(texts, "a", chunk("d", 3), end) == []
    assert told(texts, "a", started(), chunk("xy"))[1:] == [Chunk("xy", 0, 2)]


def test_without_resuming_all_is_the_callers() -> None:
    texts = asked("a", "b", resume_s=0, max_tokens=5000, resumable=True)
    told(texts, "b", started())
    (*_, end) = told(texts, "a", started(), chunk("ab"), drained(2, b"token"))
    assert end.resume_token == b"token"
    assert texts.pause_after(LOST) is None
    (error,) = told(texts, "b", refused(STOPPING))
    assert isinstance(error, ServerUnavailableError)
