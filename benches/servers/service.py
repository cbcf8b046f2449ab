"""The gRPC service of the servers here, and the command line of the two yardsticks.

Knows nothing of how streams take turns; that is where the yardsticks differ.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
from model import Model
from request import Request
from text import Text

from charrnn._pb import charrnn_pb2 as pb
from charrnn.cli.serve import READY
from charrnn.errors import RequestError, ServerBusyError

Responses = AsyncGenerator[pb.GenerateResponse]
Generate = Callable[[pb.GenerateRequest, Any], Responses]
Decode = Callable[[Request, Text], Responses]
"""From a request to its chunks and its Finished."""


def parser(description: str) -> argparse.ArgumentParser:
    """The options that both yardsticks take."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("bundle", type=Path, help="an exported model")
    options.add_argument("--listen", default="127.0.0.1:50051", help="host:port; port 0 takes a free one")
    options.add_argument("--precision", choices=["int8", "fp32"], help="default: int8 if there")
    return options


def checked(model: Model, decode: Decode) -> Generate:
    """``decode`` behind the checks and the Started of every request."""

    async def generate(message: pb.GenerateRequest, context: Any) -> Responses:
        try:
            request = Request.from_pb(message, model)
            text = Text(model, request)
            yield text.started()
            async with aclosing(decode(request, text)) as responses:
                async for response in responses:
                    yield response
        except RequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except ServerBusyError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    return generate


async def serve(generate: Generate, listen: str, models: Sequence[pb.Model] = ()) -> None:
    """Serve until SIGTERM or Ctrl-C; then end at once."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_handlers(generate, models),))
    port = server.add_insecure_port(listen)
    await server.start()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    print(f"{READY}{listen.rpartition(':')[0]}:{port}; Ctrl-C stops", file=sys.stderr, flush=True)
    await stopping.wait()
    await server.stop(grace=0)


def _handlers(generate: Generate, models: Sequence[pb.Model]) -> grpc.GenericRpcHandler:
    async def list_models(message: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=models)

    methods = {
        "Generate": grpc.unary_stream_rpc_method_handler(
            generate,
            request_deserializer=pb.GenerateRequest.FromString,
            response_serializer=pb.GenerateResponse.SerializeToString,
        ),
        "ListModels": grpc.unary_unary_rpc_method_handler(
            list_models,
            request_deserializer=pb.ListModelsRequest.FromString,
            response_serializer=pb.ListModelsResponse.SerializeToString,
        ),
    }
    return grpc.method_handlers_generic_handler("charrnn.v1.CharRnn", methods)
