"""The connection: endpoints with failover, timeouts, and errors with clientv3's texts.

Of several endpoints a request goes to the first that answers. A read is sent again, to another endpoint,
as long as its time allows; a write only if it certainly was not sent.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from cluster.pb import rpc_pb2
from tools.musterctl.cli import take_environment
from tools.musterctl.command import Exit, Flags, Invocation
from tools.musterctl.printer import Printer, choose

R = TypeVar("R", bound=Message)

_MAX_SEND_BYTES = 2 * 1024 * 1024  # clientv3's default limit of a request
_RETRY_PAUSE_S = 0.05
_MIN_KEEPALIVE_MS = 10_000  # gRPC allows no client to ping more often
_NS_PER_S = 1_000_000_000

# messages of etcd's servers that its client does not know: these show with their gRPC code
_UNKNOWN_TO_CLIENTS = (
    "etcdserver: request cancelled",
    "etcdserver: unknown method",
    "etcdserver: request timed out, leader transfer took too long",
)
_CODE_NAMES = {
    "CANCELLED": "Canceled",
    "INVALID_ARGUMENT": "InvalidArgument",
    "DEADLINE_EXCEEDED": "DeadlineExceeded",
    "NOT_FOUND": "NotFound",
    "ALREADY_EXISTS": "AlreadyExists",
    "PERMISSION_DENIED": "PermissionDenied",
    "RESOURCE_EXHAUSTED": "ResourceExhausted",
    "FAILED_PRECONDITION": "FailedPrecondition",
    "OUT_OF_RANGE": "OutOfRange",
    "DATA_LOSS": "DataLoss",
}


class RequestError(Exception):
    """A request failed; the text is what clientv3 would say."""

    def __init__(self, text: str, code: grpc.StatusCode) -> None:
        super().__init__(text)
        self.code = code


def request_error(error: grpc.RpcError) -> RequestError:
    """etcd's own messages stand alone, an expired deadline is Go's, the rest carries the gRPC code."""
    code: grpc.StatusCode = error.code()
    details: str = error.details() or ""
    if details.startswith(("etcdserver: ", "auth: ")) and details not in _UNKNOWN_TO_CLIENTS:
        return RequestError(details, code)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return RequestError("context deadline exceeded", code)
    name = _CODE_NAMES.get(code.name, code.name.capitalize())
    return RequestError(f"rpc error: code = {name} desc = {details}", code)


@dataclass(slots=True, frozen=True)
class Config:
    """What the global flags say about connections."""

    endpoints: tuple[str, ...]
    insecure_transport: bool
    cert: str
    key: str
    cacert: str
    user: str
    password: str
    keepalive_ms: int
    keepalive_timeout_ms: int


@dataclass(slots=True)
class Session:
    """What a command works with: the printer, the timeout of short requests and the way to a client."""

    config: Config
    printer: Printer
    timeout_s: float
    timeout_given: bool

    def client(self, *endpoints: str) -> Client:
        """A client of all endpoints, or of those given."""
        return Client(self.config, endpoints or self.config.endpoints)


def session(invocation: Invocation) -> Session:
    """Read flags and environment. Exit 128 on impossible ones, 4 on an unknown output format."""
    flags = invocation.flags
    take_environment(flags)
    if flags.switch("debug"):
        _show_flags(flags)
    printer = choose(flags.string("write-out"), flags.switch("hex"))
    for name in ("cert", "key", "cacert"):
        if name in flags.given and not flags.string(name):
            raise Exit(128, f"empty string is passed to --{name} option")
    for name in ("discovery-srv", "insecure-skip-tls-verify"):
        if name in flags.given and flags.value(name):
            raise Exit(128, f"--{name} is not supported")
    user, password = _credentials(flags)
    config = Config(
        endpoints=tuple(flags.strings("endpoints")),
        insecure_transport=flags.switch("insecure-transport"),
        cert=flags.string("cert"),
        key=flags.string("key"),
        cacert=flags.string("cacert"),
        user=user,
        password=password,
        keepalive_ms=max(_MIN_KEEPALIVE_MS, flags.number("keepalive-time") // 1_000_000),
        keepalive_timeout_ms=flags.number("keepalive-timeout") // 1_000_000,
    )
    if not config.endpoints:
        raise Exit(2, "etcdclient: no available endpoints")
    timeout_s = flags.number("command-timeout") / _NS_PER_S
    return Session(config, printer, timeout_s, "command-timeout" in flags.given)


def _show_flags(flags: Flags) -> None:
    from tools.musterctl.commands import GLOBAL_FLAGS
    from tools.musterctl.gotext import duration

    for flag in sorted(GLOBAL_FLAGS, key=lambda flag: flag.name):
        value = flags.value(flag.name)
        if isinstance(value, bool):
            shown = "true" if value else "false"
        elif isinstance(value, int):
            shown = duration(value)
        else:
            shown = f"[{','.join(value)}]" if isinstance(value, list) else value
        print(f"ETCDCTL_{flag.name.upper().replace('-', '_')}={shown}", file=sys.stderr)


def _credentials(flags: Flags) -> tuple[str, str]:
    user, password = flags.string("user"), flags.string("password")
    if not user or password:
        return user, password
    name, colon, password = user.partition(":")
    if not colon:
        import getpass

        if sys.stdin.isatty():
            password = getpass.getpass("Password: ")
        else:
            print("Password: ", flush=True)
            password = sys.stdin.readline().rstrip("\n")
    return name, password


class Client:
    """Requests over one or more endpoints. Close it, or end the process."""

    def __init__(self, config: Config, endpoints: tuple[str, ...] | list[str]) -> None:
        self._config = config
        self._endpoints = list(endpoints)
        self._channels: dict[str, grpc.Channel] = {}
        self._ready: dict[str, bool] = {}
        self._changed = threading.Condition()
        self._token = ""
        self._authenticated = not config.user
        for endpoint in self._endpoints:
            if endpoint not in self._channels:
                self._channels[endpoint] = self._open(endpoint)

    def unary(
        self,
        method: str,
        request: Message,
        response: type[R],
        timeout_s: float | None = None,
        safe_to_repeat: bool = False,
    ) -> R:
        """One request, one response. RequestError when it failed; no time limit with None."""
        if request.ByteSize() > _MAX_SEND_BYTES:
            text = f"trying to send message larger than max ({request.ByteSize()} vs. {_MAX_SEND_BYTES})"
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            raise RequestError(f"rpc error: code = ResourceExhausted desc = {text}", code)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            channel = self._pick(deadline)
            call = channel.unary_unary(
                f"/etcdserverpb.{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=response.FromString,
            )
            try:
                answer: R = call(
                    request,
                    timeout=_left_to_send(deadline),
                    wait_for_ready=len(self._channels) == 1,
                    metadata=self._metadata(deadline),
                )
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or not (safe_to_repeat or _unsent(error)):
                    raise request_error(error) from None
                self._forget_ready(channel)
                if deadline is not None and time.monotonic() + _RETRY_PAUSE_S > deadline:
                    raise RequestError(
                        "context deadline exceeded", grpc.StatusCode.DEADLINE_EXCEEDED
                    ) from None
                time.sleep(_RETRY_PAUSE_S)
                continue
            return answer

    def start(self, method: str, request: Message, response: type[R], timeout_s: float) -> grpc.Future:
        """Send one request without waiting; the future's exception is a grpc.RpcError. Never sent twice."""
        deadline = time.monotonic() + timeout_s
        call = self._pick(deadline).unary_unary(
            f"/etcdserverpb.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        metadata = self._metadata(deadline)
        return call.future(
            request, timeout=_left_to_send(deadline), wait_for_ready=len(self._channels) == 1, metadata=metadata
        )

    def stream(
        self, method: str, requests: Iterator[Message], response: type[R], has_leader: bool = False
    ) -> grpc.Call:
        """A stream both ways; iterate the call for responses. grpc.RpcError ends it."""
        channel = self._pick(None)
        call = channel.stream_stream(
            f"/etcdserverpb.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        metadata = self._metadata(None)
        if has_leader:
            metadata += (("hasleader", "true"),)
        return call(requests, wait_for_ready=len(self._channels) == 1, metadata=metadata)

    def responses(
        self, method: str, request: Message, response: type[R], timeout_s: float | None
    ) -> grpc.Call:
        """One request, a stream of responses."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        call = self._pick(deadline).unary_stream(
            f"/etcdserverpb.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        metadata = self._metadata(deadline)
        return call(
            request, timeout=_left_to_send(deadline), wait_for_ready=len(self._channels) == 1, metadata=metadata
        )

    def close(self) -> None:
        """End all connections."""
        for channel in self._channels.values():
            channel.close()

    def _open(self, endpoint: str) -> grpc.Channel:
        scheme, separator, address = endpoint.partition("://")
        if not separator:
            scheme, address = "", endpoint
        config = self._config
        tls = bool(config.cert or config.key or config.cacert) or not config.insecure_transport
        if scheme in ("http", "https"):
            address = address.split("/", 1)[0]
            tls = scheme == "https"
        elif scheme == "unixs":
            tls = True
        target = f"unix:{address}" if scheme in ("unix", "unixs") else f"dns:///{address.strip()}"
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),  # the limit is checked above, with etcd's message
            ("grpc.keepalive_time_ms", config.keepalive_ms),
            ("grpc.keepalive_timeout_ms", config.keepalive_timeout_ms),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.service_config_disable_resolution", 1),
        ]
        if address.startswith(("127.", "localhost", "[::1]")):
            options.append(("grpc.enable_http_proxy", 0))
        if not tls:
            return grpc.insecure_channel(target, options)
        return grpc.secure_channel(target, self._tls_credentials(), options)

    def _tls_credentials(self) -> grpc.ChannelCredentials:
        config = self._config
        if bool(config.cert) != bool(config.key):
            raise Exit(
                128, f"KeyFile and CertFile must both be present[key: {config.key}, cert: {config.cert}]"
            )
        contents: dict[str, bytes | None] = {}
        for name in (config.cert, config.key, config.cacert):
            try:
                contents[name] = Path(name).read_bytes() if name else None
            except OSError as error:
                reason = (error.strerror or "").lower()
                raise Exit(128, f"open {name}: {reason}") from None
        return grpc.ssl_channel_credentials(
            contents[config.cacert], contents[config.key], contents[config.cert]
        )

    def _pick(self, deadline: float | None) -> grpc.Channel:
        """The channel for the next request: the only one, or the first that is connected."""
        if len(self._channels) == 1:
            return next(iter(self._channels.values()))
        if not self._ready:
            self._follow_states()
        with self._changed:
            connected = self._changed.wait_for(lambda: any(self._ready.values()), _left(deadline))
            if not connected:
                raise RequestError("context deadline exceeded", grpc.StatusCode.DEADLINE_EXCEEDED)
            return next(self._channels[e] for e in self._endpoints if self._ready[e])

    def _follow_states(self) -> None:
        for endpoint, channel in self._channels.items():
            self._ready[endpoint] = False

            def changed(state: grpc.ChannelConnectivity, endpoint: str = endpoint) -> None:
                with self._changed:
                    self._ready[endpoint] = state is grpc.ChannelConnectivity.READY
                    self._changed.notify_all()

            channel.subscribe(changed, try_to_connect=True)

    def _forget_ready(self, channel: grpc.Channel) -> None:
        """Move an endpoint that failed to the end of the line."""
        for endpoint, known in self._channels.items():
            if known is channel:
                self._endpoints = [e for e in self._endpoints if e != endpoint] + [endpoint]
                return

    def _metadata(self, deadline: float | None) -> tuple[tuple[str, str], ...]:
        if not self._authenticated:
            self._authenticated = True
            request = rpc_pb2.AuthenticateRequest(name=self._config.user, password=self._config.password)
            left = _left(deadline)
            try:
                answer = self.unary("Auth/Authenticate", request, rpc_pb2.AuthenticateResponse, left, True)
            except RequestError as error:
                # a server without authentication, or one that has none yet, is used without a token
                if (
                    "authentication is not enabled" in str(error)
                    or error.code is grpc.StatusCode.UNIMPLEMENTED
                ):
                    return ()
                raise Exit(1, str(error)) from None
            self._token = answer.token
        return (("token", self._token),) if self._token else ()


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _left_to_send(deadline: float | None) -> float | None:
    """As ``_left``. RequestError if nothing is left: like Go's client, it does not send then."""
    left = _left(deadline)
    if left == 0.0:
        raise RequestError("context deadline exceeded", grpc.StatusCode.DEADLINE_EXCEEDED)
    return left


def _unsent(error: grpc.RpcError) -> bool:
    """Whether the request never left: only a failed connection says so."""
    return str(error.details() or "").startswith(
        ("failed to connect to all addresses", "DNS resolution failed")
    )


@contextlib.contextmanager
def failing_with(code: int = 1, wrap: str = "{}") -> Iterator[None]:
    """End the program with ``code`` if a request fails; ``wrap`` surrounds the error's text."""
    try:
        yield
    except RequestError as error:
        raise Exit(code, wrap.format(error)) from None


def quiet_grpc() -> None:
    """Keep the gRPC library's own log off stderr unless somebody asked for it."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


quiet_grpc()
