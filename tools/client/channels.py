"""The channels to the endpoints: which are connected, and which one the next request takes.

A gRPC channel goes idle when its connection ends, and dials only on demand. Requests go to connected
endpoints, so an idle channel is told to dial at once.
"""

from __future__ import annotations

import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tools.client.diagnose import Target, Tls, explain_all
from tools.client.exits import Exit
from tools.client.unchecked import shown_by

_LOOK_S = 0.2
_TOLD_AFTER_S = 1.0  # of waiting without a time limit
_TOLD_AGAIN_S = 30.0
_EXPLAINED_IN_S = 1.0
_CERTIFICATE, _PRIVATE_KEY = b"CERTIFICATE-----", b"PRIVATE KEY-----"
_AUTHORITY = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
MAX_REQUEST_BYTES = 2 * 1024 * 1024  # clientv3's default


def say(text: str) -> None:
    """One line on stderr, whole."""
    sys.stderr.write(f"musterctl: {text}\n")
    sys.stderr.flush()


@dataclass(slots=True, frozen=True)
class Config:
    """Connections by the global flags."""

    endpoints: tuple[str, ...]
    insecure_transport: bool = True
    cert: str = ""
    key: str = ""
    cacert: str = ""
    user: str = ""
    password: str = ""
    keepalive_ms: int = 2_000
    keepalive_timeout_ms: int = 6_000
    dial_timeout_ms: int = 2_000
    debug: bool = False
    skip_verify: bool = False
    server_name: str = ""  # that certificates must name; "": the endpoint's host
    max_request_bytes: int = MAX_REQUEST_BYTES
    max_recv_bytes: int = -1  # of an answer; -1: any
    token: str = ""  # of a user, instead of name and password

    def target(self, endpoint: str) -> Target:
        """Where an endpoint is; its scheme decides about TLS, then the other flags."""
        scheme, separator, address = endpoint.partition("://")
        if not separator:
            scheme, address = "", endpoint
            if endpoint.startswith(("unix:", "unixs:")):  # gRPC's form of a path
                scheme, _, address = endpoint.partition(":")
        tls = bool(self.cert or self.key or self.cacert) or not self.insecure_transport
        if scheme in ("http", "https"):
            address = re.split("[/?#]", address, maxsplit=1)[0].rpartition("@")[2]
            tls = scheme == "https"
        elif scheme == "unixs":
            tls = True
        files = Tls(self.cert, self.key, self.cacert, self.skip_verify) if tls else None
        return Target(endpoint, address.strip(), scheme in ("unix", "unixs"), files)


class Waiting:
    """When to report a wait: after a second, then every 30 s."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._due: float | None = None
        self._told = False

    def is_due(self) -> bool:
        """Call it repeatedly while nothing works; true when a report is due."""
        with self._lock:
            now = self._clock()
            if self._due is None:
                self._due = now + _TOLD_AFTER_S
            if now < self._due:
                return False
            self._due, self._told = now + _TOLD_AGAIN_S, True
            return True

    def over(self) -> bool:
        """It works; whether there was a report."""
        with self._lock:
            told, self._due, self._told = self._told, None, False
            return told


class Channels:
    """A channel to each endpoint. Close it, or end the process."""

    def __init__(self, config: Config, endpoints: Sequence[str]) -> None:
        self._config = config
        self._changed = threading.Condition()
        self._channels: dict[str, grpc.Channel] = {}
        for endpoint in endpoints:
            if endpoint not in self._channels:
                self._channels[endpoint] = opened(config, endpoint)
        self._order = list(self._channels)
        self._ready = dict.fromkeys(self._channels, False)
        self._followed = False
        self._waiting = Waiting()

    def pick(self, deadline: float | None) -> tuple[str, grpc.Channel] | None:
        """The first connected endpoint and its channel; waits for one.

        None at the deadline (of ``time.monotonic()``), with each endpoint's trouble on stderr. Without a
        deadline, the troubles are reported during the wait.
        """
        if not self._followed:
            self._followed = True
            self._follow_states()
        if deadline is not None:
            left_s = max(0.0, deadline - time.monotonic())
            if not self._connected(left_s - min(_EXPLAINED_IN_S, left_s / 2)):
                self._explain_until(deadline)
        else:
            while not self._connected(_LOOK_S):
                if self._waiting.is_due():
                    reasons = "; ".join(f"{name}: {reason}" for name, reason in self._reasons())
                    say(f"waiting for an endpoint: {reasons}")
        with self._changed:
            endpoint = next((e for e in self._order if self._ready[e]), None)
        if endpoint is None:
            # it may have connected and gone meanwhile: without a deadline, wait on
            return None if deadline is not None else self.pick(deadline)
        if self._waiting.over():
            say(f"connected to {endpoint}")
        return endpoint, self._channels[endpoint]

    def avoid(self, endpoint: str) -> None:
        """Move a failed endpoint to the end of the line."""
        with self._changed:
            self._order.remove(endpoint)
            self._order.append(endpoint)

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def _connected(self, limit_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: any(self._ready.values()), limit_s)

    def _explain_until(self, deadline: float) -> None:
        """Diagnose while there is time to connect, and report it unless that was done."""
        found: list[tuple[str, str]] = []
        thread = threading.Thread(target=lambda: found.extend(self._reasons()), daemon=True)
        thread.start()
        if self._connected(deadline - time.monotonic()):
            return
        thread.join(_EXPLAINED_IN_S)
        for name, reason in found:
            say(f"{name}: {reason}")

    def _reasons(self) -> list[tuple[str, str]]:
        return explain_all([self._config.target(e) for e in self._channels], _EXPLAINED_IN_S)

    def _follow_states(self) -> None:
        for endpoint, channel in self._channels.items():

            def changed(
                state: grpc.ChannelConnectivity, endpoint: str = endpoint, channel: grpc.Channel = channel
            ) -> None:
                with self._changed:
                    self._ready[endpoint] = state is grpc.ChannelConnectivity.READY
                    self._changed.notify_all()
                if self._config.debug:
                    say(f"debug: {endpoint}: {state.name.lower().replace('_', ' ')}")
                if state is grpc.ChannelConnectivity.IDLE:
                    _dial(channel)

            channel.subscribe(changed, try_to_connect=True)


def opened(config: Config, endpoint: str) -> grpc.Channel:
    """A channel to an endpoint, not connected yet. Exit if TLS files cannot be read."""
    target = config.target(endpoint)
    where = f"unix:{target.address}" if target.unix else f"dns:///{target.address}"
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", config.max_recv_bytes),
        ("grpc.max_send_message_length", -1),  # the client checks the limit, with etcd's message
        ("grpc.keepalive_time_ms", config.keepalive_ms),
        ("grpc.keepalive_timeout_ms", config.keepalive_timeout_ms),
        ("grpc.http2.ping_timeout_ms", config.keepalive_timeout_ms),  # else a minute, whatever the other says
        ("grpc.http2.max_pings_without_data", 0),  # a watch that only listens must notice a dead network
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.min_reconnect_backoff_ms", config.dial_timeout_ms),  # of one attempt to connect
        ("grpc.dns_min_time_between_resolutions_ms", 1000),  # a restarted host may have a new address
        ("grpc.service_config_disable_resolution", 1),
    ]
    if target.address.startswith(("127.", "localhost", "[::1]")):
        options.append(("grpc.enable_http_proxy", 0))
    if target.tls is None:
        return grpc.insecure_channel(where, options)
    trusted: bytes | None = None
    if config.server_name:
        options.append(("grpc.ssl_target_name_override", config.server_name))
    if target.tls.unchecked and (shown := shown_by(target, config.dial_timeout_ms / 1000)) is not None:
        trusted = shown.pem
        options.append(("grpc.ssl_target_name_override", shown.name))
    return grpc.secure_channel(where, _credentials(target.tls, trusted), options)


def _dial(channel: grpc.Channel) -> None:
    """Connect an idle channel, by a subscription. Its events also come to the other subscription."""

    def nothing(_state: grpc.ChannelConnectivity) -> None:
        pass

    channel.subscribe(nothing, try_to_connect=True)
    channel.unsubscribe(nothing)


def _credentials(tls: Tls, trusted: bytes | None = None) -> grpc.ChannelCredentials:
    if bool(tls.cert) != bool(tls.key):
        raise Exit(128, f"KeyFile and CertFile must both be present[key: {tls.key}, cert: {tls.cert}]")
    contents: dict[str, bytes | None] = {}
    for name in (tls.cert, tls.key, tls.cacert):
        try:
            contents[name] = Path(name).read_bytes() if name else None
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise Exit(128, f"open {name}: {reason}") from None
    _check_pem(tls, contents)
    roots = trusted or contents[tls.cacert]
    return grpc.ssl_channel_credentials(roots, contents[tls.key], contents[tls.cert])


def _check_pem(tls: Tls, contents: Mapping[str, bytes | None]) -> None:
    """Exit if a file has no PEM data: gRPC's library accepts it, and the endpoint would be blamed. Checks the
    bytes, as the file may be a pipe."""
    for name, what, words in ((tls.cert, "certificate", _CERTIFICATE), (tls.key, "key", _PRIVATE_KEY)):
        held = contents[name]
        if held is not None and words not in held:
            raise Exit(128, f"{name}: tls: failed to find any PEM data in {what} input")  # Go's words
    trusted = contents[tls.cacert]
    if trusted is None:
        return
    if _CERTIFICATE not in trusted:
        raise Exit(128, f"{tls.cacert}: failed to find any certificate in PEM")
    if authorities := _AUTHORITY.findall(trusted):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
                cadata=b"\n".join(authorities).decode("ascii"))
        except (ValueError, ssl.SSLError):
            raise Exit(128, f"{tls.cacert}: holds a certificate that cannot be read") from None
