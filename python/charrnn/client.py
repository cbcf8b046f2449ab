"""The face of a charrnn server: texts as streams, over gRPC. ``charrnn.aio`` has the same for asyncio.

Knows the service and nothing of models: what may be asked is the server's to say.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Unpack

import grpc

from charrnn._pb import charrnn_pb2 as pb
from charrnn.access import Access, ConnectionFields
from charrnn.addresses import check_address
from charrnn.calls import GenerateFields, ScoreFields, Settings, request_of
from charrnn.channels import Channels
from charrnn.many import Calls
from charrnn.resuming import Progress, Text
from charrnn.sampler import SamplingParams
from charrnn.score import Score
from charrnn.stream import Event, Finished, Stream
from charrnn.texts import Answer, Request, Texts
from charrnn.wire import Model, method, to_model, to_score, to_score_request

__all__ = ["Client", "Model"]


class Client:
    """Texts from the server at ``address``.

    No connection is made before the first call, and a lost one is made again. Any number of streams may be
    read at once and from several threads; for each further hundred another connection is opened.

    Args:
        address: ``host:port``; of a name with several addresses, calls go to each in turn.
        timeout: seconds that a call may take from its start to its end; ``None`` waits as long as it takes.
        resume_s: seconds for which a text that has begun and lost its server is asked for again, with the
            same seed; what was read already is checked and left out, so that a reader notices nothing.
        attempts: how often a call that no server has begun is sent, 1 to 5, where none is there or its queue
            is full; the pauses between them grow, or are as long as the server says.
        interceptors: gRPC's, of calls and of channels; the first is called first.
        connection: ``tls``, ``ca``, ``cert``, ``key``, ``server_name``, ``token``, ``insecure``: see
            ``charrnn.access.ConnectionFields``.

    Raises:
        RequestError: an address that is no ``host:port``, a number out of its limits, half of a pair of
            files, or a token that would be readable on its way.
        ConfigError: a certificate or key that is none.

    Example:
        >>> with Client("127.0.0.1:50051") as client:  # doctest: +SKIP
        ...     for chunk in client.generate("ROMEO:", max_tokens=200):
        ...         print(chunk.text, end="", flush=True)
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = None,
        resume_s: float = 10.0,
        attempts: int = 1,
        interceptors: Sequence[Any] = (),
        **connection: Unpack[ConnectionFields],
    ) -> None:
        access = Access.of(check_address(address), connection)
        settings = Settings(address, timeout=timeout, resume_s=resume_s, attempts=attempts, access=access)
        self._settings = settings

        def connect() -> grpc.Channel:
            channel = access.connect(address, settings.options())
            return grpc.intercept_channel(channel, *interceptors)

        self._channels = Channels(connect)

    def generate(
        self, prompt: str = "", params: SamplingParams | None = None, **fields: Unpack[GenerateFields]
    ) -> Stream:
        """Ask for one text. Returns at once: what the server refuses is raised by the first read.

        Args:
            prompt: what the model reads first; not part of the text.
            params: or its fields as keywords: ``temperature``, ``seed``, ``max_tokens``, ``stop``...
            fields: ``model``, ``version``, ``sample_index``, ``chunk_chars``, ``max_chunk_delay_ms``,
                ``ids``, ``logprobs``, ``top_logprobs``, ``echo``, ``resumable``, ``resume_token``: see
                ``charrnn.calls.GenerateFields``.

        Raises:
            RequestError: a parameter out of its limits; on reading also an unknown model or character.
            ServerBusyError, ServerUnavailableError, ServerError: on reading.
        """
        settings = self._settings
        request = request_of(prompt, params, fields, resumes=settings.resume_s > 0)
        resumable = fields.get("resumable", False)
        progress = Progress(request, settings.timeout, settings.resume_s, resumable=resumable)
        text = Text(self._channels, progress)
        return Stream(self._events(text), text.cancel)

    def generate_many(self, requests: Iterable[Request]) -> Generator[Answer, None, None]:
        """Ask for many texts on one call; for thousands at once that is lighter than a call each.

        The call ends once ``requests`` have and all texts have; closing the iterator ends it with all of
        them. When its server is lost, all texts that have not ended are asked for again on another call, as
        those of ``generate`` are, until nothing new has come for ``resume_s`` seconds; so is a text that the
        server hands over. A call that no server has answered yet is not made again. Answers of all texts
        come in the order in which they are read here: what is not read waits with the server, which makes no
        more of it than a few dozen chunks of each text, and after its stall timeout gives the texts up. Up to
        1024 texts run at once; the next requests are read as texts end.

        Args:
            requests: an id of the caller's, unique among the texts that have not ended, and what to ask
                for: the arguments of ``generate`` as a dictionary. ``None`` instead cancels the text of that
                id. They are read from another thread, ahead of the texts, and may wait for what these say.

        Yields:
            What happened to the text of an id: ``Started``, ``Chunk``..., ``Finished``; or, as the last of
            it, the error that ``generate`` would have raised. A request with the id of a text that has not
            ended is refused by an error under that id, and the text goes on.

        Raises:
            RequestError: a parameter out of its limits.
            ServerBusyError, ServerUnavailableError, ServerError: what ended the whole call; for texts that
                had been handed over to ``resumable`` readers their ends come before.
            Exception: whatever ``requests`` raise.

        Example:
            >>> asked = {f"take {i}": {"prompt": "ROMEO:", "seed": i} for i in range(500)}
            >>> for name, event in client.generate_many(asked.items()):  # doctest: +SKIP
            ...     if isinstance(event, Chunk):
            ...         texts[name] += event.text
        """
        texts = Texts(self._settings.timeout, self._settings.resume_s)
        calls = Calls(self._channels, requests, texts)
        try:
            with closing(calls.answers()) as answers:
                yield from answers
        except grpc.RpcError as error:
            raise self._settings.error(error) from error
        if not texts.is_over:
            raise self._settings.broken_off()

    def models(self) -> list[Model]:
        """The models this server holds.

        Raises:
            ServerUnavailableError: no server answers.
        """
        response: pb.ListModelsResponse = self._call("ListModels", pb.ListModelsRequest())
        return [to_model(model) for model in response.models]

    def score(self, text: str | Sequence[int], **fields: Unpack[ScoreFields]) -> Score:
        """How likely a text is; the model reads it and draws nothing.

        Args:
            text: at least one character, or token ids.
            fields: ``prompt``, ``per_symbol``, ``top_logprobs``, ``model``, ``version``: see
                ``charrnn.calls.ScoreFields``.

        Raises:
            RequestError: an unknown model or character, a text that is empty or too long.
            ServerBusyError, ServerUnavailableError, ServerError: no score.
        """
        response: pb.ScoreResponse = self._call("Score", to_score_request(text, **fields))
        return to_score(response)

    def close(self) -> None:
        """Close the connections; texts that are not complete end with a ``ServerError``."""
        for channel in self._channels.close():
            channel.close()

    def _call(self, name: str, request: Any) -> Any:
        channel = self._channels.lease()
        try:
            return channel.unary_unary(*method(name))(request, timeout=self._settings.timeout)
        except grpc.RpcError as error:
            raise self._settings.error(error) from error
        finally:
            self._channels.release(channel)

    def _events(self, text: Text) -> Iterator[Event]:
        try:
            for event in text.events():
                yield event
                if isinstance(event, Finished):
                    return
        except grpc.RpcError as error:
            raise self._settings.error(error) from error
        raise self._settings.broken_off()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
