"""TLS of a client: whom to trust, who one is, and in plain words why a connection was not made.

Knows files, sockets and the standard library's TLS, not gRPC.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from charrnn.errors import ConfigError, RequestError

TIMEOUT_S = 2.0
"""Of the question why a connection failed."""

_EXPIRED, _NOT_YET, _OTHER_HOST, _OTHER_IP = 10, 9, 62, 64
_UNTRUSTED = (2, 18, 19, 20, 21, 24)
"""OpenSSL's numbers for what is wrong with a certificate (X509_V_ERR_...)."""


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Encryption of connections.

    Args:
        ca: PEM file of the authorities to trust; ``None`` is the system's.
        cert: PEM file of this client's certificate, for servers that want one.
        key: PEM file of its private key.
        server_name: the name in the server's certificate, where it is not the host of the address.

    Raises:
        RequestError: half of a pair.
        ConfigError: a file that cannot be read or is something else.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise RequestError("a client's certificate and its key go together; give both")
        self.context()

    @classmethod
    def asked(
        cls,
        *,
        tls: bool = False,
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        server_name: str | None = None,
    ) -> Tls | None:
        """Encryption if ``tls`` or a file asks for it.

        Raises:
            RequestError, ConfigError: as above, or a name for a certificate that nobody will see.
        """
        if tls or ca or cert or key:
            return cls(ca=ca, cert=cert, key=key, server_name=server_name)
        if server_name:
            raise RequestError("server_name is the name in a certificate; it needs tls or ca")
        return None

    def context(self) -> ssl.SSLContext:
        """For the standard library."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"cannot take authorities from {self.ca}: {_reason(error)}") from error
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key, password="")
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(
                    f"cannot take {self.cert} with its key {self.key}: {_reason(error)}"
                ) from error
        context.set_alpn_protocols(["h2"])
        return context

    def pem(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Authorities, key and certificate; no authorities where the system has no file of them."""
        system = ssl.get_default_verify_paths().cafile
        return _read(self.ca or system), _read(self.key), _read(self.cert)


def why_not(address: str, tls: Tls | None) -> str | None:
    """Why the server at ``address`` and this client do not get on; ``None`` if it is not for TLS.

    Asks the server once more, for ``TIMEOUT_S`` seconds at most.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
            if tls is None:
                return _why_not_plain(address, connection)
            return _why_not_encrypted(address, tls, connection, tls.server_name or host)
    except OSError:
        return None


def _why_not_plain(address: str, connection: socket.socket) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with context.wrap_socket(connection):
            pass
    except ssl.SSLError as error:
        if "ALERT" not in (error.reason or ""):
            return None
    except OSError:
        return None
    return f"the server at {address} speaks TLS, and this client does not; give tls or ca"


def _why_not_encrypted(address: str, tls: Tls, connection: socket.socket, name: str) -> str | None:
    try:
        with tls.context().wrap_socket(connection, server_hostname=name) as encrypted:
            # With TLS 1.3 a server says only now what it thinks of the client's certificate.
            encrypted.recv(1)
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of the server at {address} {_fault(error, name)}"
    except ssl.SSLError as error:
        return _why_not_this_client(address, tls, error.reason or "")
    except ConnectionResetError:
        return f"the server at {address} does not speak TLS; leave out tls, ca and cert"
    return None


def _why_not_this_client(address: str, tls: Tls, reason: str) -> str | None:
    if "ALERT" not in reason:
        return f"the server at {address} does not speak TLS; leave out tls, ca and cert"
    if "CERTIFICATE_REQUIRED" in reason or (tls.cert is None and "HANDSHAKE_FAILURE" in reason):
        return f"the server at {address} wants a certificate of this client; give cert and key"
    if tls.cert is not None:
        return (
            f"the server at {address} does not take this client's certificate {tls.cert} ({_words(reason)})"
        )
    return f"the server at {address} ended the TLS handshake ({_words(reason)})"


def _fault(error: ssl.SSLCertVerificationError, name: str) -> str:
    match error.verify_code:
        case code if code == _EXPIRED:
            return "has expired"
        case code if code == _NOT_YET:
            return "is not valid yet"
        case code if code in (_OTHER_HOST, _OTHER_IP):
            return f"is not for {name}; give the server_name that it is for, or another address"
        case code if code in _UNTRUSTED:
            return "is from an authority that is not trusted here; give its ca"
    return f"is not right: {error.verify_message}"


def _words(reason: str) -> str:
    return reason.lower().replace("_", " ")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"not PEM of that kind ({_words(error.reason)})"
    return getattr(error, "strerror", None) or str(error)


def _read(path: str | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
