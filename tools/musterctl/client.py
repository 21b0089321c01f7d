"""Requests: the library's calls with the global flags, etcdctl's time limits and clientv3's texts."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import Message
from muster_client.errors import DeadlineExceeded, LeaseLost, MusterError, ServerError, Unreachable
from muster_client.raw.api import Raw
from muster_client.wire import engine
from muster_client.wire.calls import Caller, Method
from muster_client.wire.http2.answers import NOT_SENT
from muster_client.wire.keeper import Keeper
from muster_client.wire.renewing import Renewing
from muster_client.wire.retries import TOO_MANY, Verdict, judge

from tools.client.channels import LOOK_S, MAX_REQUEST_BYTES, MIN_KEEPALIVE_MS, Channels, Config, Waiting, say
from tools.musterctl.command import Exit, Flags, Invocation
from tools.musterctl.global_flags import GLOBAL_FLAGS, take_environment
from tools.musterctl.printing.printer import Printer, choose

if TYPE_CHECKING:
    import muster_client

R = TypeVar("R", bound=Message)
Result = TypeVar("Result")

_NS_PER_S = 1_000_000_000
_FOREVER_S = 1e9
_CONNECTED_IN_S = 1.0  # an endpoint that is up

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
_LEARNER = "etcdserver: rpc not supported for learner"  # since etcd 3.6 its code is FAILED_PRECONDITION
# codes of a broken stream, which another may not meet
_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED)


class RequestError(Exception):
    """A request failed; the text is clientv3's."""

    def __init__(self, text: str, code: grpc.StatusCode) -> None:
        super().__init__(text)
        self.code = code


def told(code: grpc.StatusCode, details: str) -> RequestError:
    """etcd's own messages stand alone, an expired deadline is Go's, others carry the gRPC code."""
    if details.startswith("etcdserver: ") and details not in _UNKNOWN_TO_CLIENTS:
        return RequestError(details, code)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return RequestError("context deadline exceeded", code)
    name = _CODE_NAMES.get(code.name, code.name.capitalize())
    return RequestError(f"rpc error: code = {name} desc = {details}", code)


def failure_of(error: MusterError) -> RequestError:
    """The same of what the library tells. No endpoint was there until the end of a request's time."""
    if isinstance(error, ServerError):
        return told(error.code, error.message)
    if isinstance(error, DeadlineExceeded | Unreachable):
        return _out_of_time()
    return told(grpc.StatusCode.UNKNOWN, str(error))


@dataclass(slots=True)
class Session:
    """What a command works with: the printer, the timeout of short requests and a client."""

    config: Config
    printer: Printer
    timeout_s: float
    timeout_given: bool
    _kept: dict[tuple[str, ...], Client] = field(default_factory=dict)

    def client(self, *endpoints: str) -> Client:
        """A client of all endpoints, or of the given ones."""
        return Client(self.config, endpoints or self.config.endpoints)

    def kept_client(self, *endpoints: str) -> Client:
        """The same one each time: it logs in once."""
        if endpoints not in self._kept:
            self._kept[endpoints] = self.client(*endpoints)
        return self._kept[endpoints]

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
    user, password = credentials(flags.string("user"), flags.string("password"))
    config = Config(
        endpoints=tuple(found or map(str.strip, flags.strings("endpoints"))),
        insecure_transport=flags.switch("insecure-transport"),
        cert=flags.string("cert"),
        key=flags.string("key"),
        cacert=flags.string("cacert"),
        user=user,
        password=password,
        keepalive_ms=max(MIN_KEEPALIVE_MS, flags.number("keepalive-time") // 1_000_000),
        keepalive_timeout_ms=flags.number("keepalive-timeout") // 1_000_000,
        dial_timeout_ms=flags.number("dial-timeout") // 1_000_000,
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
    from cluster.gotext import duration

    for flag in sorted((flag for flag in GLOBAL_FLAGS if not flag.newer), key=lambda flag: flag.name):
        value = flags.value(flag.name)
        if isinstance(value, bool):
            shown = "true" if value else "false"
        elif isinstance(value, int):
            shown = duration(value)
        else:
            shown = f"[{','.join(value)}]" if isinstance(value, list) else value
        print(f"ETCDCTL_{flag.name.upper().replace('-', '_')}={shown}", file=sys.stderr)


def credentials(user: str, password: str, prompt: str = "Password: ") -> tuple[str, str]:
    """Name and password of two such flags' values. A password that is in neither is asked for. Without one
    there is no name: clientv3 does not log in then."""
    if user and not password:
        user, colon, password = user.partition(":")
        if not colon:
            from tools.musterctl import passwords

            password = passwords.ask(prompt)
    return (user, password) if password else ("", "")


class Client:
    """Requests over one or more endpoints. Close it, or end the process.

    They are calls and streams of the library, which tries them again and renews the token by its own table.
    Here is what etcdctl's users know of them: clientv3's texts, and what is said of endpoints.
    """

    def __init__(self, config: Config, endpoints: Sequence[str]) -> None:
        self._config = config
        self._channels = Channels(config, endpoints)
        self._failing = Waiting()
        self._caller = Caller(
            self._channels.connections, config.user, config.password, _FOREVER_S, token=config.token,
            attempt_s=_FOREVER_S, on_again=self._tried)
        self._unlimited, self._repeats = False, True  # how what is asked now is tried
        self.unanswered: set[str] = set()  # endpoints that may do the last request, which another has done
        self.maybe_done = False  # the last request of :meth:`unary`, by an attempt that failed
        self._token = config.token
        self._of_all = tuple(endpoints) == config.endpoints
        self.logs_in = bool(config.user)  # it has not yet

    def unary(
        self, method: str, request: Message, response: type[R], timeout_s: float | None = None,
        safe_to_repeat: bool = False,
    ) -> R:
        """One request, one response. RequestError. None: no time limit.

        A failing endpoint is reported on stderr.
        """
        if request.ByteSize() > self._config.max_request_bytes:
            sizes = f"({request.ByteSize()} vs. {self._config.max_request_bytes})"
            raise told(grpc.StatusCode.RESOURCE_EXHAUSTED, f"trying to send message larger than max {sizes}")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._log_in(deadline)
        self._repeats = safe_to_repeat
        self.unanswered.clear()
        self.maybe_done = False
        if (left_s := _left(deadline)) == 0.0:  # like Go's client, it does not send then
            raise _out_of_time()
        call = self._caller.unary(
            Method(method, response), request, timeout=left_s, repeatable=safe_to_repeat, needs_leader=False)
        try:
            answer = self._waited(call, deadline)
            _check_size(answer.ByteSize(), self._config.max_recv_bytes)
        except MusterError as error:
            raise self._failure(error, timeout_s, safe_to_repeat) from None
        return answer

    def start(self, method: str, request: Message, response: type[R], timeout_s: float) -> Future[R]:
        """Send one request without waiting; the future's exception is a MusterError."""
        return engine.submit(
            self._caller.unary(Method(method, response), request, timeout=timeout_s, needs_leader=False))

    def each(
        self, told: AsyncIterator[R], deadline: float | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Iterator[R]:
        """The answers of a stream, until it ends. ``meanwhile`` is called now and then during the wait, if it
        has no deadline. RequestError."""
        while (answer := self.run(_next(told), deadline, meanwhile)) is not None:
            _check_size(answer.ByteSize(), self._config.max_recv_bytes)
            if self._failing.over():
                say("it goes on")
            yield answer

    def again(self, error: MusterError) -> None:
        """A stream ended, and another one begins, unless etcdctl ends, too. A learner's refusal is not the
        last word if there are other endpoints."""
        if isinstance(error, Unreachable):
            return  # :meth:`Channels.tell` says why
        text = str(error)
        if isinstance(error, ServerError):
            several = len(self._channels.connections.reasons()) > 1
            if error.code not in _BROKEN and not (several and error.message == _LEARNER):
                raise error
            text = str(failure_of(error))
        if error.endpoint:
            text = f"{error.endpoint}: {text}"
        if self._failing.is_due():
            say(f"{text}; trying again")
        elif self._config.debug:
            say(f"debug: {text}")

    def again_elsewhere(self, of: Collection[str] | None = None) -> Callable[[MusterError], None]:
        """:meth:`again` for what no endpoint has served: a refusal ends it once each endpoint has refused or
        failed it, or is not connected. One that may pass does if it is etcd's own, and ``of`` these texts.
        A failure that may pass counts from an endpoint's second on, and not at all without such texts."""
        connections, tried, failed, until = self._channels.connections, set[str](), set[str](), 0.0

        def again(error: MusterError) -> None:
            nonlocal until
            until = until or time.monotonic() + _CONNECTED_IN_S
            refusal = isinstance(error, ServerError) and (
                error.code not in _BROKEN
                or error.message in ((str(failure_of(error)),) if of is None else of))
            if refusal or (of != () and error.endpoint in failed):
                tried.add(error.endpoint)
            failed.add(error.endpoint)
            if refusal:
                late = time.monotonic() >= until or tried.issuperset(connections.reasons())
                if late and not connections.others(tried):
                    raise error
            self.again(error)

        return again

    def raw(self, deadline: float | None = None) -> Raw:
        """The library's streams over these connections, which wait for an answer as long as it takes. The
        first endpoint, and the user's token, until the deadline: RequestError."""
        caller = self._own_caller(deadline)
        return Raw(caller, Keeper(caller))

    def streamed(
        self, method: str, request: Message, response: type[R], deadline: float
    ) -> AsyncIterator[R]:
        """The many answers to one request, for :meth:`each`. It begins until the deadline: RequestError."""
        from muster_client.admin.snapshots import streamed

        return streamed(self._own_caller(deadline), Method(method, response), request)

    def renewing(self, gone: Callable[[int], None]) -> Renewing:
        """For many leases. What ends its streams is told, and they are tried again, whatever was wrong.
        ``gone`` is called with a lease that has ended."""
        def again(error: MusterError) -> None:
            try:
                self.again(error)
            except MusterError:
                say(f"leases are not renewed: {failure_of(error)}")

        return Renewing(self._own_caller(None), gone, again)

    def library(self) -> muster_client.Client:
        """The library's own client, in the same way."""
        from muster_client.client import over

        return over(self._own_caller(None))

    def _own_caller(self, deadline: float | None) -> Caller:
        """For what the library tries again by itself."""
        import logging

        logging.getLogger("muster_client").setLevel(logging.CRITICAL)  # this program says what fails
        self._log_in(deadline)
        config = self._config
        return Caller(self._channels.connections, config.user, config.password, _FOREVER_S, token=self._token)

    def run(
        self, step: Coroutine[Any, Any, Result], deadline: float | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Result:
        """What a step of the library gives, until the deadline or whenever that is. RequestError, or
        LeaseLost."""
        if deadline is not None:
            step = asyncio.wait_for(step, _left(deadline))
        try:
            return self._waited(step, deadline, meanwhile)
        except LeaseLost:
            raise
        except MusterError as error:
            raise failure_of(error) from None
        except TimeoutError:
            raise _out_of_time() from None

    def begin(self, step: Coroutine[Any, Any, None]) -> None:
        """Run a step beside all else, as long as this program runs."""
        engine.submit(step)

    async def answers(self, endpoint: str) -> None:
        """Wait until an endpoint is connected. In the engine's loop."""
        await self._channels.connections.pick(None, only=endpoint)

    def close(self) -> None:
        self._channels.close()

    def _log_in(self, deadline: float | None) -> None:
        """Wait for an endpoint, and for the user's token. The first login has the time for connecting: as in
        etcdctl, there is no client without it."""
        self._unlimited, self._repeats = deadline is None, True
        if self.logs_in and self._config.dial_timeout_ms > 0:
            most = time.monotonic() + self._config.dial_timeout_ms / 1000
            deadline = most if deadline is None else min(deadline, most)
        if self._channels.pick(deadline) is None:
            failure = _out_of_time()
            raise Exit(2, str(failure)) if self.logs_in and self._of_all else failure
        if not self._config.user:
            return
        until = time.monotonic() + _FOREVER_S if deadline is None else deadline
        try:
            token = self._waited(self._caller.token(until), deadline)
        except MusterError as error:
            failure = self._failure(error, None, True)
            if failure.code is grpc.StatusCode.UNIMPLEMENTED:
                raise Exit(1, "this server has no users: leave out --user and --password") from None
            others = failure.code in _ENDPOINTS_FAULT and not self._of_all  # which may do better
            raise (failure if others else Exit(2, str(failure))) from None  # as etcdctl, which cannot connect
        self._token, self.logs_in = token, False

    def _waited(
        self, step: Coroutine[Any, Any, Result], deadline: float | None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Result:
        """What a step of the library gives. MusterError."""
        future = engine.submit(step)
        while deadline is None and not wait((future,), LOOK_S).done:
            self._channels.tell()
            if meanwhile is not None:
                meanwhile()
        if deadline is None:
            self._channels.tell()
        return future.result()

    def _tried(self, error: MusterError) -> None:
        """An attempt failed, and another one follows: without a time limit only if etcdctl waits, too.
        Within one, a write that is certainly not done is sent again besides."""
        text = f"{error.endpoint}: {failure_of(error)}"
        if self._config.debug:
            say(f"debug: {text}")
        if not (_passes(error, self._repeats) if self._unlimited else _may_pass(error, self._repeats)):
            raise error
        self.maybe_done |= error.maybe_done or TOO_MANY in str(error)  # a host says it, too, of what it did
        if error.maybe_done:
            self.unanswered.add(error.endpoint)
        if self._unlimited and self._failing.is_due():
            say(f"{text}; trying again")

    def _failure(self, error: MusterError, timeout_s: float | None, safe_to_repeat: bool) -> RequestError:
        """For its end; what is wrong with endpoints is said."""
        failure = failure_of(error)
        if isinstance(error, Unreachable):
            for name, reason in error.reasons.items():
                say(f"{name}: {reason}")
        elif failure.code in _ENDPOINTS_FAULT:
            say(f"{error.endpoint}: {_told(failure, timeout_s)}" if error.endpoint else str(error))
            if _passes(error, safe_to_repeat):  # it was tried until then
                return _out_of_time()
        return failure


async def _next(told: AsyncIterator[R]) -> R | None:
    return await anext(told, None)


def _check_size(size: int, most: int) -> None:
    """RequestError in clientv3's words; no limit: -1."""
    if 0 <= most < size:
        text = f"grpc: received message larger than max ({size} vs. {most})"
        raise told(grpc.StatusCode.RESOURCE_EXHAUSTED, text)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _out_of_time() -> RequestError:
    return RequestError("context deadline exceeded", grpc.StatusCode.DEADLINE_EXCEEDED)


def _told(failure: RequestError, timeout_s: float | None) -> str:
    if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED and timeout_s is not None:
        return f"took the request and did not answer within {timeout_s:g} s"
    return str(failure)


def _passes(error: MusterError, safe_to_repeat: bool) -> bool:
    """Whether clientv3 waits until an endpoint does better."""
    return (
        isinstance(error, ServerError) and error.code is grpc.StatusCode.UNAVAILABLE
        and (safe_to_repeat or error.message.startswith(NOT_SENT)))


def _may_pass(error: MusterError, safe_to_repeat: bool) -> bool:
    """Whether an attempt within the time limit may do better. A learner refuses the next one, too."""
    if not isinstance(error, ServerError) or error.code in _ENDPOINTS_FAULT:
        return True
    if error.code is grpc.StatusCode.FAILED_PRECONDITION:
        return False
    return not safe_to_repeat or judge(error.code, error.message) is Verdict.REFUSED


@contextlib.contextmanager
def failing_with(code: int = 1, wrap: str = "{}") -> Iterator[None]:
    """End the program with ``code`` if a request fails; ``wrap`` surrounds the error's text."""
    try:
        yield
    except RequestError as error:
        raise Exit(code, wrap.format(error)) from None
