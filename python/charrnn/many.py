"""Many texts on one call: requests go out as they are made, events come in with the id of their text.

Such a call is not resumed: which texts to ask for again, when its server is lost, is its caller's to say.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

import grpc

from charrnn._pb import charrnn_pb2 as pb
from charrnn.channels import Channels


class Call:
    """One call of ``GenerateMany``.

    Args:
        requests: read from a thread of gRPC's, as fast as the server takes them; what they raise ends
            the call.
        timeout: seconds for all texts; ``None`` for no limit.
    """

    def __init__(
        self, channels: Channels[grpc.Channel], requests: Iterable[pb.GenerateRequest], timeout: float | None
    ) -> None:
        self._channels, self._requests, self._timeout = channels, requests, timeout
        self._problem: BaseException | None = None

    def responses(self) -> Generator[pb.GenerateResponse, None, None]:
        """All responses; ends when the requests have ended and every text has. Closing it ends the call.

        Raises:
            grpc.RpcError: what ended the call, if the requests did not.
        """
        channel = self._channels.lease()
        generate_many = channel.stream_stream(
            "/charrnn.v1.CharRnn/GenerateMany",
            request_serializer=pb.GenerateRequest.SerializeToString,
            response_deserializer=pb.GenerateResponse.FromString,
        )
        call = generate_many(self._outgoing(), timeout=self._timeout)
        try:
            yield from call
        except grpc.RpcError:
            if self._problem is not None:
                raise self._problem from None
            raise
        finally:
            call.cancel()
            self._channels.release(channel)

    def _outgoing(self) -> Iterator[pb.GenerateRequest]:
        try:
            yield from self._requests
        except Exception as problem:
            # gRPC keeps the exception to itself and cancels the call.
            self._problem = problem
            raise
