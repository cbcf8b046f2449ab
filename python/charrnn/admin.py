"""What whoever runs a charrnn server may do with it while it runs: load, unload, drain.

Knows the service ``charrnn.v1.Admin``, which has a listener of its own.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

import grpc

from charrnn._pb import charrnn_pb2 as pb
from charrnn.access import Access
from charrnn.addresses import check_address
from charrnn.calls import Settings
from charrnn.channels import Channels
from charrnn.errors import BundleError, CharrnnError, RequestError
from charrnn.wire import Model, method, to_model


class Admin:
    """The server whose ``--admin`` listens at ``address``.

    Args:
        timeout: seconds a call may take; ``None`` waits as long as a load takes.
        token: the one named ``admin``, where the server has a list of tokens.

    Example:
        >>> with Admin("127.0.0.1:50052") as admin:  # doctest: +SKIP
        ...     admin.load("/srv/bundles/shakespeare")
    """

    def __init__(self, address: str, *, timeout: float | None = None, token: str | None = None) -> None:
        access = Access.of(check_address(address), {"token": token})
        settings = Settings(address, timeout=timeout, access=access)
        self._settings = settings
        self._channels = Channels(lambda: access.connect(address, settings.options()))

    def load(self, bundle: str | os.PathLike[str] = "", model: str = "") -> tuple[Model, str | None]:
        """Load a bundle and have it serve in place of the model of its name; returns once it does.

        Args:
            bundle: a folder, as the server's machine names it; empty takes ``model`` from where it came.
            model: the name that the bundle has to have; empty takes any.

        Returns:
            The model, and the version that it replaced, if there was one of its name.

        Raises:
            BundleError: it could not be loaded; the server serves what it served.
            ServerUnavailableError: no server answers, or it is stopping.
        """
        request = pb.LoadModelRequest(bundle=os.fspath(bundle), model=model)
        response: pb.LoadModelResponse = self._call("LoadModel", request)
        return to_model(response.model), response.replaced if response.HasField("replaced") else None

    def unload(self, model: str) -> str:
        """Have a model serve no longer; its texts go on until they are over. Returns its version.

        Raises:
            RequestError: there is no model of that name.
            BundleError: it is the last one.
        """
        response: pb.UnloadModelResponse = self._call("UnloadModel", pb.UnloadModelRequest(model=model))
        return response.version

    def drain(self) -> None:
        """End the server as SIGTERM does. Returns at once; texts that run get ``--drain-timeout``."""
        self._call("Drain", pb.DrainRequest())

    def close(self) -> None:
        """Close the connection."""
        for channel in self._channels.close():
            channel.close()

    def _call(self, name: str, request: Any) -> Any:
        channel = self._channels.lease()
        try:
            return channel.unary_unary(*method(name, "Admin"))(request, timeout=self._settings.timeout)
        except grpc.RpcError as error:
            raise self._error(error) from error
        finally:
            self._channels.release(channel)

    def _error(self, error: Any) -> CharrnnError:
        told = self._settings.error(error)
        match error.code():
            case grpc.StatusCode.FAILED_PRECONDITION:
                return BundleError(str(told))
            case grpc.StatusCode.UNIMPLEMENTED:
                return RequestError(f"{self._settings.address} is not where --admin of a server listens")
        return told

    def __enter__(self) -> Admin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
