"""Endpoints as users write them, and the channels to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

PING_S, PONG_S = 10, 5  # etcd's servers end connections that ping more often than every 5 s


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

    def credentials(self) -> grpc.ChannelCredentials:
        """gRPC's form of it. OSError if a file cannot be read."""
        ca, key, cert = (Path(name).read_bytes() if name else None for name in (self.ca, self.key, self.cert))
        return grpc.ssl_channel_credentials(ca, key, cert)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``name`` as it was written, ``target`` as gRPC has it."""

    name: str
    target: str
    tls: Tls | None = None

    def blocking(self) -> grpc.Channel:
        """A channel of gRPC's threads, not connected yet."""
        if self.tls is None:
            return grpc.insecure_channel(self.target, self._options())
        return grpc.secure_channel(self.target, self.tls.credentials(), self._options())

    def opened(self) -> grpc.aio.Channel:
        """A channel of the running loop, not connected yet."""
        if self.tls is None:
            return grpc.aio.insecure_channel(self.target, self._options())
        return grpc.aio.secure_channel(self.target, self.tls.credentials(), self._options())

    def _options(self) -> list[tuple[str, Any]]:
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", PING_S * 1000),
            ("grpc.keepalive_timeout_ms", PONG_S * 1000),
            ("grpc.http2.ping_timeout_ms", PONG_S * 1000),  # else a minute, whatever the other says
            ("grpc.http2.max_pings_without_data", 0),  # a watch that only listens notices a dead network
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.min_reconnect_backoff_ms", 2000),  # of one attempt to connect
            ("grpc.dns_min_time_between_resolutions_ms", 1000),  # a restarted host may have a new address
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.use_local_subchannel_pool", 1),  # clients of one process share no connection
        ]
        if self.tls is not None and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        if self.name.rpartition("//")[2].startswith(("127.", "localhost", "[::1]")):
            options.append(("grpc.enable_http_proxy", 0))
        return options


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
    if colon and scheme in ("unix", "unixs"):
        return Endpoint(name, f"unix:{rest.removeprefix('//')}", given if scheme == "unixs" else None)
    if colon and scheme in ("http", "https") and rest.startswith("//"):
        secure, name_only = scheme == "https", rest[2:].rstrip("/")
    else:
        name_only = name
    if not name_only.rpartition(":")[2].isdigit():
        raise ValueError(f"endpoint {name!r} has no port")
    return Endpoint(name, f"dns:///{name_only}", given if secure else None)
