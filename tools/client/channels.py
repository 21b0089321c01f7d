"""The connections to the endpoints, which are the library's: which one the next request takes, and what is
said while none is there.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from muster_client.errors import Unreachable
from muster_client.wire import engine
from muster_client.wire.connections import Connection, Connections
from muster_client.wire.endpoints import Endpoint, Limits

from tools.client.diagnose import UNKNOWN, Target, explain_all, host_port, port_of
from tools.client.files import Files, Tls

LOOK_S = 0.2
_TOLD_AFTER_S = 1.0  # of waiting without a time limit
_TOLD_AGAIN_S = 30.0
_EXPLAINED_IN_S = 1.0
MIN_KEEPALIVE_MS = 10_000  # gRPC allows no client to ping more often
_GRPCS_S = 20.0  # gRPC's own limit, for which 0 stands
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

    def limits(self) -> Limits:
        """Of each connection."""
        return Limits(
            _limit_s(self.dial_timeout_ms), self.keepalive_ms / 1000, _limit_s(self.keepalive_timeout_ms))

    def target(self, endpoint: str) -> Target:
        """Where an endpoint is; its scheme decides about TLS, then the other flags."""
        endpoint = endpoint.strip()
        scheme, separator, address = endpoint.partition("://")
        scheme = scheme.lower()
        if not separator:
            scheme, address = "", endpoint
            if endpoint.startswith(("unix:", "unixs:")):  # gRPC's form of a path
                scheme, _, address = endpoint.partition(":")
        tls = bool(self.cert or self.key or self.cacert or self.skip_verify) or not self.insecure_transport
        if scheme in ("http", "https"):
            address = re.split("[/?#]", address, maxsplit=1)[0].rpartition("@")[2]
            tls = scheme == "https"
        elif scheme == "unixs":
            tls = True
        elif separator and scheme != "unix":
            address = f"{scheme}{UNKNOWN}"
        files = Tls(self.cert, self.key, self.cacert, self.skip_verify) if tls else None
        return Target(endpoint, address.strip(), scheme in ("unix", "unixs"), files)


def _limit_s(given_ms: int) -> float:
    return given_ms / 1000 if given_ms > 0 else _GRPCS_S


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
    """A connection to each endpoint. Close it, or end the process. Exit: files of TLS cannot be used."""

    def __init__(self, config: Config, endpoints: Sequence[str]) -> None:
        targets = [config.target(name) for name in dict.fromkeys(endpoints)]
        self._targets = targets
        secured = next((target.tls for target in targets if target.tls is not None), None)
        self._files = None if secured is None else Files(secured, config.server_name)
        self.connections = Connections(
            [_endpoint(config, target, self._files) for target in targets], in_order=True,
            on_change=_say_state if config.debug else None)
        self._waiting = Waiting()

    def pick(self, deadline: float | None) -> Connection | None:
        """The first endpoint that is connected; waits for one.

        None at the deadline (of ``time.monotonic()``), with each endpoint's trouble on stderr. Without a
        deadline, the troubles are reported during the wait.
        """
        if deadline is not None:
            now = time.monotonic()
            left_s = max(0.0, deadline - now)
            found = self.first(now + left_s - min(_EXPLAINED_IN_S, left_s / 2))
            if found is None and (found := self._explain_until(deadline)) is None:
                return None
        else:
            while (found := self.first(time.monotonic() + LOOK_S)) is None:
                self.tell()
        self._connected(found)
        return found

    def tell(self) -> None:
        """Call it during a wait, and behind it: the troubles are reported when that is due, if no endpoint is
        connected, and that one is again."""
        if (found := self.connections.other()) is not None:
            self._connected(found)
        elif self._waiting.is_due():
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self._reasons())
            say(f"waiting for an endpoint: {reasons}")

    def _connected(self, found: Connection) -> None:
        if self._waiting.over():
            say(f"connected to {found.name}")

    def first(self, deadline: float) -> Connection | None:
        """The same, without a message."""
        try:
            return engine.submit(self.connections.pick(deadline)).result()
        except Unreachable:
            return None

    def close(self) -> None:
        engine.submit(self.connections.close()).result()

    def _explain_until(self, deadline: float) -> Connection | None:
        """Diagnose while there is time to connect, and report it unless that was done."""
        found: list[tuple[str, str]] = []
        thread = threading.Thread(target=lambda: found.extend(self._reasons()), daemon=True)
        thread.start()
        if (connection := self.first(deadline)) is not None:
            return connection
        thread.join(_EXPLAINED_IN_S)
        for name, reason in found:
            say(f"{name}: {reason}")
        return None

    def _reasons(self) -> list[tuple[str, str]]:
        return explain_all(self._targets, _EXPLAINED_IN_S, self._files)


def _endpoint(config: Config, target: Target, files: Files | None) -> Endpoint:
    limits = config.limits()
    tls = None if target.tls is None else files
    if target.unix:
        return Endpoint(target.name, path=target.address, tls=tls, limits=limits)
    host, port = host_port(target.address)
    # nobody listens on port 0: what is no port is told of by `diagnose`
    return Endpoint(target.name, host, port_of(port) or 0, tls=tls, limits=limits)


def _say_state(endpoint: str, trouble: str) -> None:
    say(f"debug: {endpoint}: {trouble or 'ready'}")
