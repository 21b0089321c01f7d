"""Endpoints as users write them."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


def trusting(ca: str) -> ssl.SSLContext:
    """For a client that trusts what Go's trusts: each certificate of ``ca``, intermediate ones and those
    without key usage, which the default context of Python 3.13 refuses. "": the system's. A server's
    alternative names count, and its common name does not. OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    if ca:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(ca)
    else:
        context.load_default_certs()
    return context


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: ``ca`` verifies the servers ("": the system's authorities), ``cert`` and ``key`` name
    this client. ``server_name``: what certificates must name, if not the endpoint's host."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""

    def __post_init__(self) -> None:
        if bool(self.cert) != bool(self.key):
            raise ValueError("cert and key go together")

    def context(self) -> ssl.SSLContext:
        """Python's form of it, from the files as they are now. OSError names the one that cannot be used."""
        for name in filter(None, (self.ca, self.cert, self.key)):
            Path(name).read_bytes()  # ssl's own errors do not say which file it is
        at = self.ca
        try:
            context = trusting(self.ca)
            if self.cert:
                at = f"{self.cert}, {self.key}"
                context.load_cert_chain(self.cert, self.key, password="")
        except ssl.SSLError as error:
            raise OSError(f"{at}: {error.reason or error}") from None
        context.set_alpn_protocols(["h2"])
        return context


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds of an attempt to connect; of silence, while calls wait, until a server is asked whether it is
    there; and of its answer to that."""

    dial_s: float
    ping_s: float
    pong_s: float


class Secured(Protocol):
    """How connections to a server are secured: :class:`Tls`, or what a program makes of its own settings."""

    @property
    def server_name(self) -> str:
        """What its certificate must name; "": the endpoint's host."""
        ...

    def context(self) -> ssl.SSLContext:
        """For one connection, in a thread of its own. OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``name`` as it was written. ``host`` and ``port``, or the ``path`` of a Unix socket. ``limits``: others
    than this library's own."""

    name: str
    host: str = ""
    port: int = 0
    path: str = ""
    tls: Secured | None = None
    limits: Limits | None = None

    @property
    def authority(self) -> str:
        """As requests name the server."""
        if self.path:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parsed(endpoints: str | Sequence[str], tls: Tls | bool | None = None) -> tuple[Endpoint, ...]:
    """Endpoints, by commas or in a list: ``host:port``, ``http(s)://host:port``, ``unix(s):path``. A scheme
    decides about TLS, then ``tls``. ValueError if there is none."""
    names = endpoints.split(",") if isinstance(endpoints, str) else endpoints
    found = {name: _endpoint(name, tls) for name in map(str.strip, names) if name}
    if not found:
        raise ValueError("no endpoint is given")
    return tuple(found.values())


def _endpoint(name: str, tls: Tls | bool | None) -> Endpoint:
    given = tls if isinstance(tls, Tls) else Tls()
    secure = bool(tls)
    scheme, colon, rest = name.partition(":")
    scheme = scheme.lower()
    if colon and scheme in ("unix", "unixs"):
        return Endpoint(name, path=rest.removeprefix("//"), tls=given if scheme == "unixs" else None)
    if colon and scheme in ("http", "https") and rest.startswith("//"):
        secure, name_only = scheme == "https", rest[2:].rstrip("/")
    else:
        name_only = name
    host, _, port = name_only.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise ValueError(f"endpoint {name!r} has no port")
    return Endpoint(name, host.removeprefix("[").removesuffix("]"), int(port), tls=given if secure else None)
