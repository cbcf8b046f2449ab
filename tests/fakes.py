"""Stand-ins for what tests do without: a charrnn server without a model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from charrnn._pb import charrnn_pb2 as pb

Generate = Callable[[pb.GenerateRequest, Any], Iterator[pb.GenerateResponse]]
GenerateMany = Callable[[Iterator[pb.GenerateRequest], Any], Iterator[pb.GenerateResponse]]

FINISHED = pb.GenerateResponse(finished=pb.Finished(reason=pb.FINISH_REASON_LENGTH))


def started(seed: int = 7, model: str = "fake") -> pb.GenerateResponse:
    return pb.GenerateResponse(started=pb.Started(model=model, seed=seed))


def chunk(text: str, offset: int = 0) -> pb.GenerateResponse:
    return pb.GenerateResponse(chunk=pb.Chunk(text=text, n=len(text), offset=offset))


def finished_at_once(request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
    yield from (started(), chunk("text"), FINISHED)


@contextlib.contextmanager
def fake_server(
    generate: Generate = finished_at_once,
    models: tuple[pb.Model, ...] = (),
    *,
    many: GenerateMany | None = None,
    port: int = 0,
    num_threads: int = 8,
) -> Iterator[str]:
    """The address of a gRPC server that answers with ``generate``, or ``many``, and lists ``models``."""
    methods = {
        "Generate": grpc.unary_stream_rpc_method_handler(
            generate,
            request_deserializer=pb.GenerateRequest.FromString,
            response_serializer=pb.GenerateResponse.SerializeToString,
        ),
        "ListModels": grpc.unary_unary_rpc_method_handler(
            lambda request, context: pb.ListModelsResponse(models=models),
            request_deserializer=pb.ListModelsRequest.FromString,
            response_serializer=pb.ListModelsResponse.SerializeToString,
        ),
    }
    if many is not None:
        methods["GenerateMany"] = grpc.stream_stream_rpc_method_handler(
            many,
            request_deserializer=pb.GenerateRequest.FromString,
            response_serializer=pb.GenerateResponse.SerializeToString,
        )
    with ThreadPoolExecutor(num_threads) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("charrnn.v1.CharRnn", methods),)
        )
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            yield f"127.0.0.1:{bound}"
        finally:
            server.stop(grace=None).wait()
