"""Requests: endpoints with failover, timeouts, and errors with clientv3's texts.

A request goes to the first endpoint that answers. A read is sent again, to another endpoint, within its time;
a write only if it certainly was not sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from muster_client.wire import engine
from muster_client.wire.connections import Connection
from muster_client.wire.http2.answers import NOT_SENT, CallError
from muster_client.wire.http2.call import Call
from muster_client.wire.http2.sending import Metadata
from muster_client.wire.retries import Verdict, judge

from cluster.pb import rpc_pb2
from tools.client.channels import MAX_REQUEST_BYTES, Channels, Config, Waiting, say
from tools.musterctl.command import Exit, Flags, Invocation
from tools.musterctl.global_flags import GLOBAL_FLAGS, take_environment
from tools.musterctl.printing.printer import Printer, choose

if TYPE_CHECKING:
    import muster_client

R = TypeVar("R", bound=Message)
Result = TypeVar("Result")

_RETRY_PAUSE_S = 0.05
_STREAM_PAUSE_S = 0.1
_MIN_KEEPALIVE_MS = 10_000  # gRPC allows no client to ping more often
_NS_PER_S = 1_000_000_000
_FOREVER_S = 1e9
_TOKEN_S = 60.0  # a stream begins with a token that is no older: tokens end while streams do not use them

# messages of etcd's servers unknown to its client, which shows them with their gRPC code
_UNKNOWN_TO_CLIENTS = (
    "etcdserver: request cancelled", "etcdserver: unknown method",
    "etcdserver: request timed out, leader transfer took too long")
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


# codes about the endpoint, not the request
_ENDPOINTS_FAULT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
# codes of a broken stream, which another may not meet
_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED)


class RequestError(Exception):
    """A request failed; the text is clientv3's."""

    def __init__(self, text: str, code: grpc.StatusCode) -> None:
        super().__init__(text)
        self.code = code


def request_error(error: CallError) -> RequestError:
    """etcd's own messages stand alone, an expired deadline is Go's, others carry the gRPC code."""
    return told(error.code, error.details)


def told(code: grpc.StatusCode, details: str) -> RequestError:
    """The same of a code and a text."""
    if details.startswith("etcdserver: ") and details not in _UNKNOWN_TO_CLIENTS:
        return RequestError(details, code)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return RequestError("context deadline exceeded", code)
    name = _CODE_NAMES.get(code.name, code.name.capitalize())
    return RequestError(f"rpc error: code = {name} desc = {details}", code)


def stream_breaks(error: CallError) -> bool:
    """Whether another stream may not fail in this way: the connection broke, or a server stops."""
    return error.code in _BROKEN


@dataclass(slots=True)
class Session:
    """What a command works with: the printer, the timeout of short requests and a client."""

    config: Config
    printer: Printer
    timeout_s: float
    timeout_given: bool

    def client(self, *endpoints: str) -> Client:
        """A client of all endpoints, or of the given ones."""
        return Client(self.config, endpoints or self.config.endpoints)

    def ask(
        self, method: str, request: Message, response: type[R], safe_to_repeat: bool = False, *,
        limited: bool = True, code: int = 1, wrap: str = "{}",
    ) -> R:
        """One request, ``limited`` by ``timeout_s``; a failure ends the program (:func:`failing_with`)."""
        with failing_with(code, wrap):
            return self.client().unary(
                method, request, response, self.timeout_s if limited else None, safe_to_repeat)


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
    domain, insecure = flags.string("discovery-srv"), flags.switch("insecure-discovery")
    found: list[str] = []
    if domain:
        from tools.musterctl.discovery import endpoints_of

        found = endpoints_of(domain, flags.string("discovery-srv-name"), insecure=insecure)
    if flags.string("auth-jwt-token") and (flags.string("user") or flags.string("password")):
        raise Exit(128, "--auth-jwt-token excludes --user and --password")
    user, password = _credentials(flags)
    config = Config(
        endpoints=tuple(found or flags.strings("endpoints")),
        insecure_transport=flags.switch("insecure-transport"),
        cert=flags.string("cert"),
        key=flags.string("key"),
        cacert=flags.string("cacert"),
        user=user,
        password=password,
        keepalive_ms=max(_MIN_KEEPALIVE_MS, flags.number("keepalive-time") // 1_000_000),
        keepalive_timeout_ms=flags.number("keepalive-timeout") // 1_000_000,
        dial_timeout_ms=max(1, flags.number("dial-timeout") // 1_000_000),
        debug=flags.switch("debug"),
        skip_verify=flags.switch("insecure-skip-tls-verify"),
        server_name="" if insecure else domain,
        max_request_bytes=flags.number("max-request-bytes") or MAX_REQUEST_BYTES,
        max_recv_bytes=flags.number("max-recv-bytes") or -1,
        token=flags.string("auth-jwt-token"))
    if not config.endpoints:
        raise Exit(2, "etcdclient: no available endpoints")
    timeout_s = flags.number("command-timeout") / _NS_PER_S
    return Session(config, printer, timeout_s, "command-timeout" in flags.given)


def _show_flags(flags: Flags) -> None:
    from tools.gotext import duration

    for flag in sorted((flag for flag in GLOBAL_FLAGS if not flag.newer), key=lambda flag: flag.name):
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


class Stream(Generic[R]):
    """A stream both ways: iterate it for responses; a CallError ends it. ``endpoint`` serves it, until the
    deadline (of ``time.monotonic()``), if it has one."""

    def __init__(self, call: Call, endpoint: str, most_bytes: int, deadline: float | None = None) -> None:
        self._call, self._most_bytes, self._deadline = call, most_bytes, deadline
        self.endpoint = endpoint

    def __iter__(self) -> Iterator[R]:
        try:
            while (answer := self.read(_left(self._deadline))) is not None:
                yield answer
        except TimeoutError:
            self.cancel()
            raise CallError(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time") from None

    def read(self, limit_s: float | None = None) -> R | None:
        """The next response; None: it has ended well. CallError; TimeoutError, and nothing is lost."""
        answer: R | None = engine.submit(asyncio.wait_for(self._call.read(), limit_s)).result()
        if answer is not None:
            _check_size(answer.ByteSize(), self._most_bytes)
        return answer

    def send(self, request: Message) -> None:
        """CallError: it has ended."""
        _there(lambda: self._call.send(request))

    def close_send(self) -> None:
        """No more requests; responses still come."""
        _there(self._call.close_send)

    def cancel(self) -> None:
        """End it: who reads it meets a CallError with the code CANCELLED."""
        _there(self._call.cancel)


class Client:
    """Requests over one or more endpoints. Close it, or end the process."""

    def __init__(self, config: Config, endpoints: Sequence[str]) -> None:
        self._config = config
        self._channels = Channels(config, endpoints)
        self._failing = Waiting()
        self._token = config.token
        self._authenticated = not config.user
        self._logged_in = time.monotonic()

    def unary(
        self, method: str, request: Message, response: type[R], timeout_s: float | None = None,
        safe_to_repeat: bool = False,
    ) -> R:
        """One request, one response. RequestError. None: no time limit.

        A failing endpoint is reported on stderr.
        """
        if request.ByteSize() > self._config.max_request_bytes:
            sizes = f"({request.ByteSize()} vs. {self._config.max_request_bytes})"
            text = f"trying to send message larger than max {sizes}"
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            raise RequestError(f"rpc error: code = ResourceExhausted desc = {text}", code)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        renewed = False  # the token
        while True:
            connection = self._pick(deadline)
            endpoint, token = connection.name, self._metadata(deadline)
            try:
                return self._asked(connection, method, request, response, deadline, token).result()
            except CallError as error:
                failure = request_error(error)
                if self._config.debug:
                    say(f"debug: {method} at {endpoint}: {error}")
                if self._config.user and token and not renewed and _is_of_the_token(error):
                    renewed, self._authenticated = True, False
                    continue
                if failure.code is not grpc.StatusCode.UNAVAILABLE or not (safe_to_repeat or _unsent(error)):
                    if failure.code in _ENDPOINTS_FAULT:
                        say(f"{endpoint}: {_told(failure, timeout_s)}")
                    raise failure from None
                self._channels.avoid(endpoint)
                if deadline is not None and time.monotonic() + _RETRY_PAUSE_S > deadline:
                    say(f"{endpoint}: {failure}")
                    raise _out_of_time() from None
                if deadline is None and self._failing.is_due():
                    say(f"{endpoint}: {failure}; trying again")
                time.sleep(_RETRY_PAUSE_S)

    def start(self, method: str, request: Message, response: type[R], timeout_s: float) -> Future[R]:
        """Send one request, once, without waiting; the future's exception is a CallError."""
        deadline = time.monotonic() + timeout_s
        connection = self._pick(deadline)
        return self._asked(connection, method, request, response, deadline, self._metadata(deadline))

    def stream(self, method: str, response: type[R], has_leader: bool = False) -> Stream[R]:
        """A stream both ways, at the first connected endpoint, waited for."""
        if self._config.user and time.monotonic() - self._logged_in > _TOKEN_S:
            self._authenticated = False
        metadata = self._metadata(None)
        if has_leader:
            metadata += (("hasleader", "true"),)
        return self._begin(method, response, None, metadata)

    def works(self, stream: Stream[R]) -> None:
        """A stream that is renewed at each end has answered."""
        if self._failing.over():
            say(f"{stream.endpoint} answers")

    def failed(self, stream: Stream[R], reason: str) -> None:
        """Such a stream ended: the next one goes to another endpoint, after a pause."""
        self._channels.avoid(stream.endpoint)
        if self._failing.is_due():
            say(f"{stream.endpoint}: {reason}; trying again")
        elif self._config.debug:
            say(f"debug: {stream.endpoint}: {reason}")
        time.sleep(_STREAM_PAUSE_S)

    def responses(
        self, method: str, request: Message, response: type[R], timeout_s: float | None
    ) -> Stream[R]:
        """One request, a stream of responses."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        stream = self._begin(method, response, deadline, self._metadata(deadline))
        stream.send(request)
        stream.close_send()
        return stream

    def library(self) -> muster_client.Client:
        """The library's own client over these connections, which waits for an answer as long as it takes."""
        import logging

        from muster_client.client import over
        from muster_client.wire.calls import Caller

        logging.getLogger("muster_client").setLevel(logging.CRITICAL)  # this program says what fails
        self._pick(None)
        self._metadata(None)
        config = self._config
        return over(Caller(
            self._channels.connections, config.user, config.password, _FOREVER_S, token=self._token))

    def close(self) -> None:
        self._channels.close()

    def _begin(
        self, method: str, response: type[R], deadline: float | None, metadata: Metadata
    ) -> Stream[R]:
        while True:
            connection = self._pick(deadline)
            with contextlib.suppress(CallError):  # it was lost meanwhile
                call = _there(functools.partial(connection.stream, _path(method), response, metadata))
                return Stream(call, connection.name, self._config.max_recv_bytes, deadline)

    def _asked(
        self, connection: Connection, method: str, request: Message, response: type[R],
        deadline: float | None, metadata: Metadata,
    ) -> Future[R]:
        """One attempt."""
        timeout_s = _left_to_send(deadline)
        most_bytes, body = self._config.max_recv_bytes, request.SerializeToString()

        async def ask() -> R:
            answer = await connection.unary(_path(method), body, timeout_s, metadata)
            _check_size(len(answer), most_bytes)
            try:
                return response.FromString(answer)
            except DecodeError:
                raise CallError(grpc.StatusCode.INTERNAL, "the answer is malformed") from None

        return engine.submit(ask())

    def _pick(self, deadline: float | None) -> Connection:
        picked = self._channels.pick(deadline)
        if picked is None:
            raise _out_of_time()
        return picked

    def _metadata(self, deadline: float | None) -> Metadata:
        if not self._authenticated:
            self._authenticated = True
            self._token = ""
            request = rpc_pb2.AuthenticateRequest(name=self._config.user, password=self._config.password)
            left = _left(deadline)
            try:
                answer = self.unary("Auth/Authenticate", request, rpc_pb2.AuthenticateResponse, left, True)
            except RequestError as error:
                if error.code is grpc.StatusCode.UNIMPLEMENTED:
                    raise Exit(1, "this server has no users: leave out --user and --password") from None
                if "authentication is not enabled" in str(error):  # etcd's: used without a token
                    return ()
                raise Exit(2, str(error)) from None  # as etcdctl, which cannot connect then
            self._token, self._logged_in = answer.token, time.monotonic()
        return (("token", self._token),) if self._token else ()


def _there(step: Callable[[], Result]) -> Result:
    """Do something in the loop of the connections. What it raises."""

    async def run() -> Result:
        return step()

    return engine.submit(run()).result()


def _path(method: str) -> str:
    return f"/{method}" if "." in method else f"/etcdserverpb.{method}"


def _check_size(size: int, most: int) -> None:
    """CallError in clientv3's words; no limit: -1."""
    if 0 <= most < size:
        text = f"grpc: received message larger than max ({size} vs. {most})"
        raise CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _out_of_time() -> RequestError:
    return RequestError("context deadline exceeded", grpc.StatusCode.DEADLINE_EXCEEDED)


def _told(failure: RequestError, timeout_s: float | None) -> str:
    if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED and timeout_s is not None:
        return f"took the request and did not answer within {timeout_s:g} s"
    return str(failure)


def _left_to_send(deadline: float | None) -> float | None:
    """As ``_left``. RequestError if no time is left: like Go's client, it does not send then."""
    left = _left(deadline)
    if left == 0.0:
        raise _out_of_time()
    return left


def _unsent(error: CallError) -> bool:
    """Whether the server has certainly not looked at the request."""
    return error.details.startswith(NOT_SENT)


def _is_of_the_token(error: CallError) -> bool:
    return judge(error.code, error.details) is Verdict.STALE_TOKEN


@contextlib.contextmanager
def failing_with(code: int = 1, wrap: str = "{}") -> Iterator[None]:
    """End the program with ``code`` if a request fails; ``wrap`` surrounds the error's text."""
    try:
        yield
    except RequestError as error:
        raise Exit(code, wrap.format(error)) from None
