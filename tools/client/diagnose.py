"""Why an endpoint cannot be reached, by one short connection.

gRPC reports all failures as "failed to connect to all addresses". This tries its first steps: look up,
connect, shake hands, exchange HTTP/2's SETTINGS.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tools.client.files import Files, Tls

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # with empty SETTINGS
_FRAME_HEADER_BYTES = 9
_SETTINGS = 4
_ZMTP_BYTE = 0xFF  # a ZeroMQ connection begins with it
_TLS_ALERT = b"\x15\x03"
UNKNOWN = "://"  # ends the address of another scheme, which has no port: no mistyped https goes in clear
REACHABLE = "takes connections, but was not reached in time"
_ENDS = "ends connections without a word"
_ENDS_AT_ONCE = "ends connections at once"
_ENDS_TLS = "ends TLS connections: it may ask for a client certificate (--cert, --key), or refuse this one"
_SPEAKS_TLS = "speaks TLS: use https://, or --cacert"


@dataclass(slots=True, frozen=True)
class Target:
    """``name`` as the user wrote it, ``address`` as host:port or a Unix socket's path."""

    name: str
    address: str
    unix: bool = False
    tls: Tls | None = None


def explain(target: Target, timeout_s: float, files: Files | None = None) -> str:
    """Why ``target`` cannot be used, or REACHABLE; takes ``timeout_s``, at most twice. ``files``: of its TLS,
    if they were read already."""
    try:
        connection = connect(target, timeout_s)
    except OSError as error:
        return _words(error)
    with contextlib.closing(connection):
        if target.tls is None:
            said = _greet(connection)
            ended = said.startswith((_ENDS, _ENDS_AT_ONCE))
            return _SPEAKS_TLS if ended and _by_tls(target, timeout_s) else said
        try:
            host = host_port(target.address)[0]
            context = (files or Files(target.tls)).context()
            secure = context.wrap_socket(connection, server_hostname=host.removesuffix("."))
        except OSError as error:
            return _tls_words(error)
        with contextlib.closing(secure):
            said = _greet(secure)
            return _ENDS_TLS if said.startswith((_ENDS, _ENDS_AT_ONCE)) else said


def _by_tls(target: Target, timeout_s: float) -> bool:
    """Whether the server speaks TLS."""
    try:
        with (
            connect(target, timeout_s) as connection,
            Files(Tls(unchecked=True)).context().wrap_socket(connection),
        ):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False


def explain_all(
    targets: Sequence[Target], timeout_s: float, files: Files | None = None
) -> list[tuple[str, str]]:
    """(name, reason) of each, asked at once; ``timeout_s`` for all of them."""
    found: dict[int, str] = {}

    def ask(place: int, target: Target) -> None:
        found[place] = explain(target, timeout_s, files)

    threads = [threading.Thread(target=ask, args=(i, t), daemon=True) for i, t in enumerate(targets)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return [(t.name, found.get(i, "no answer")) for i, t in enumerate(targets)]


def host_port(address: str) -> tuple[str, str]:
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        return address.strip("[]"), "443"  # gRPC's default
    return host.strip("[]"), port


def port_of(text: str) -> int | None:
    """None: it is none."""
    return int(text) if text.isascii() and text.isdigit() and int(text) < 65536 else None


def connect(target: Target, timeout_s: float) -> socket.socket:
    """A connection without TLS yet. OSError."""
    if target.unix:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(target.address)
        except OSError:
            connection.close()
            raise
        return connection
    if target.address.endswith(UNKNOWN):
        raise OSError("its scheme is none of http, https, unix, unixs")
    host, port = host_port(target.address)
    if port_of(port) is None and port.isascii() and port.isdigit():
        raise OSError(f"address {port}: invalid port")  # getaddrinfo would take a part of it
    try:
        return socket.create_connection((host, port), timeout_s)
    except UnicodeError:  # a label that is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, "") from None


def _words(error: OSError) -> str:
    """Go's words for a connection that was not made."""
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return "its name cannot be looked up now: the name server does not answer"
        if error.errno == socket.EAI_SERVICE:
            return "the port is not a number"
        return "no such host"
    if isinstance(error, TimeoutError):
        return "no answer to attempts to connect"
    return (error.strerror or str(error)).lower()


def _tls_words(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "does not speak TLS: use http://, without --cacert, --cert and --key"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or "CERTIFICATE_REQUIRED" in str(error):
        return _ENDS_TLS
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, TimeoutError):
        return "does not answer to TLS"
    return f"TLS: {_words(error)}"


def _greet(connection: socket.socket) -> str:
    """The other side's answer to HTTP/2's first bytes."""
    answer = b""
    try:
        connection.sendall(_PREFACE)
        while len(answer) < _FRAME_HEADER_BYTES and (read := connection.recv(1024)):
            answer += read
        if not answer:
            return _ENDS
    except TimeoutError:
        pass
    except ssl.SSLError as error:  # TLS 1.3: a server refuses a client's certificate after the handshake
        return _tls_words(error)
    except OSError as error:
        if not answer:
            return f"{_ENDS_AT_ONCE}: {_words(error)}"
    if answer[:1] == bytes((_ZMTP_BYTE,)):
        return "this is a peer port: clients have another one (--listen-client-urls of the server)"
    if answer.startswith(_TLS_ALERT):
        return _SPEAKS_TLS
    if answer.startswith(b"HTTP/1"):
        return "speaks HTTP/1 only: this is a peer port or a port for metrics, not one for clients"
    if len(answer) >= _FRAME_HEADER_BYTES and answer[3] == _SETTINGS:
        return REACHABLE
    return "takes connections and says nothing of HTTP/2" if answer else "takes connections and says nothing"
