"""Calls: an endpoint, a token, a deadline, and another attempt where ``retries`` allows it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import DecodeError

from muster_client.errors import (
    DeadlineExceeded,
    MusterError,
    ServerError,
    Unavailable,
    Unreachable,
    of_status,
    told_again,
)
from muster_client.pb import rpc_pb2 as pb
from muster_client.telemetry import Call, Headers, Observer
from muster_client.wire import engine
from muster_client.wire.connections import CLOSED, Connection, Connections, pause_s
from muster_client.wire.http2 import call as http2_call
from muster_client.wire.http2 import connection as http2
from muster_client.wire.http2.answers import CallError
from muster_client.wire.http2.sending import Metadata
from muster_client.wire.retries import Verdict, judge
from muster_client.wire.spaces import Space

Answer = TypeVar("Answer")
Guard = Callable[[str, Any], None]
_ATTEMPT_S = 5.0  # of a request that can be repeated: an isolated endpoint must not take its whole time
_LOGINS = 4  # a lagging member may not know a new token yet
_OUT_OF_TIME = (DeadlineExceeded, Unavailable, Unreachable)
_NOT_ENABLED = "etcdserver: authentication is not enabled"
_NO_LOGIN = "no answer to the login in time"


@dataclass(frozen=True, slots=True)
class Method(Generic[Answer]):
    """A method of one request and one answer: ``KV/Range`` of etcd's API, or ``package.Service/Method``.
    ``repeatable``: the second time does nothing more than the first; ``whole``: it goes on at the server
    where its caller is cancelled."""

    name: str
    answer: type[Answer]
    repeatable: bool = False
    whole: bool = False

    @property
    def path(self) -> str:
        return f"/{self.name}" if "." in self.name else f"/etcdserverpb.{self.name}"

    def told(self, body: bytes) -> Answer:
        """The answer from its bytes. ServerError: they are none."""
        try:
            answer: Answer = self.answer.FromString(body)  # type: ignore[attr-defined]
        except DecodeError:
            raise ServerError(
                grpc.StatusCode.INTERNAL, "the answer is malformed", maybe_done=True) from None
        return answer


@dataclass(slots=True)
class _How:
    """How one call is made. ``at``: by this endpoint alone; ``endpoints``: of its attempts so far."""

    deadline: float
    repeatable: bool
    needs_leader: bool
    anonymous: bool
    on_send: Callable[[], None] | None
    at: str
    attempt_s: float
    headers: Headers = ()
    endpoints: list[str] = field(default_factory=list)

    def timeout_s(self) -> float:
        """Of the attempt that begins now."""
        left_s = self.deadline - time.monotonic()
        return max(0.0, min(left_s, self.attempt_s) if self.repeatable else left_s)

    def begins(self, connection: Connection, token: str) -> Metadata:
        """An attempt is sent; its metadata."""
        if self.on_send is not None:
            self.on_send()
        self.endpoints.append(connection.name)
        told = metadata(token, self.needs_leader)
        return (*told, *self.headers) if self.headers else told


@dataclass(frozen=True, slots=True)
class _Failed:
    """An attempt."""

    connection: Connection
    token: str
    error: CallError


class _Quick(Generic[Answer]):
    """A call from elsewhere than the engine's loop; ``back`` runs a step there. Its first attempt takes no
    task: nearly all calls need no other, and a task costs as much as the rest."""

    __slots__ = (
        "_answer",
        "_back",
        "_body",
        "_caller",
        "_cancelled",
        "_connection",
        "_failure",
        "_how",
        "_line",
        "_method",
        "_number",
        "_task",
        "_there",
        "_token",
        "_told",
    )

    def __init__(
        self, caller: Caller, method: Method[Answer], body: bytes, how: _How,
        told: asyncio.Future[Answer] | engine.Told[Answer], back: Callable[[Callable[[], object]], object],
    ) -> None:
        self._caller, self._method, self._body, self._how = caller, method, body, how
        self._told, self._back, self._there = told, back, engine.mail()
        self._task: asyncio.Task[Answer] | None = None
        self._line: http2.Connection | None = None
        self._number: http2.Handle = 0
        self._cancelled = False
        self._there.post(self._begin)

    def _begin(self) -> None:
        if self._cancelled or self._told.cancelled():
            return
        try:
            self._ask()
        except Exception as error:  # what cannot be sent: others' calls are begun all the same
            self._failure = error
            self._post(self._tell_failure)

    def _ask(self) -> None:
        found = self._caller.quick(self._how)
        if found is None or found[0].line is None:
            self._go_on(None)
            return
        self._connection, self._token = found
        self._line = found[0].line
        sent = self._how.begins(self._connection, self._token)
        self._number = self._line.unary(
            self._method.path, self._body, self._how.timeout_s(), sent, self._done)

    def _done(self, error: CallError | None, answer: bytes) -> None:
        if self._cancelled:
            return
        if error is not None and self._told.cancelled():
            return  # nobody asks for it any more
        if error is not None:
            self._go_on(_Failed(self._connection, self._token, error))
            return
        self._answer = answer
        self._post(self._tell)

    def _go_on(self, failed: _Failed | None) -> None:
        step = self._caller._unary(self._method, self._body, self._how, failed)
        self._task = self._there.loop.create_task(step)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Answer]) -> None:
        if task.cancelled() or task.exception() is None or not self._cancelled:  # else nobody asks for it
            self._post(self._tell_task)

    def _post(self, step: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the caller's loop has ended
            self._back(step)

    def _tell(self) -> None:
        """In the caller's loop."""
        if self._told.done():
            return
        try:
            self._told.set_result(self._method.told(self._answer))
        except ServerError as error:
            self._told.set_exception(error)

    def _tell_failure(self) -> None:
        if not self._told.done():
            self._told.set_exception(self._failure)

    def _tell_task(self) -> None:
        assert self._task is not None
        engine.tell(self._told, self._task)

    def cancel(self) -> None:
        """Of a caller that does not wait any more."""
        self._there.post(self._cancel)

    def _cancel(self) -> None:
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()
        elif self._line is not None and self._number:
            self._line.cancel(self._number)


async def _attempted(
    method: Method[Any], body: bytes, how: _How, connection: Connection, token: str
) -> bytes:
    """The answer to one attempt. CallError."""
    sent = how.begins(connection, token)
    return await connection.unary(method.path, body, how.timeout_s(), sent)


_AUTHENTICATE = Method("Auth/Authenticate", pb.AuthenticateResponse, repeatable=True)


class Caller:
    """Calls of one client. ``timeout_s`` holds for each that names none. ``space``: keys are of this one.
    ``token``: one that is had already. ``attempt_s``: of one attempt of what can be repeated; ``on_again`` is
    called before each further attempt with what the last one met. What it raises ends the call."""

    space: Space | None = None
    guard: Guard | None = None  # asked before each call, with its method's name and its request

    def __init__(
        self, connections: Connections, user: str, password: str, timeout_s: float,
        observer: Observer | None = None, token: str = "", attempt_s: float | None = None,
        on_again: Callable[[MusterError], None] | None = None,
    ) -> None:
        self.connections = connections
        self._attempt_s = _ATTEMPT_S if attempt_s is None else attempt_s
        self._on_again = on_again
        self.timeout_s = timeout_s
        self._observer = observer
        self.user, self._password = user, password
        self._token = token
        self._login: asyncio.Task[None] | None = None
        self._origin = engine.Origin()  # of the login
        self._open = True  # the cluster has no users, or none is named here
        if user:
            self._open = False

    async def unary(
        self, method: Method[Answer], request: Any, *, timeout: float | None = None,
        repeatable: bool = False, needs_leader: bool = True, anonymous: bool = False,
        on_send: Callable[[], None] | None = None, at: str = "",
    ) -> Answer:
        """The answer. MusterError: ``maybe_done`` says whether the request may have been done. From any loop.
        ``on_send`` is called before each attempt. ``at``: only this endpoint is asked, for the whole time."""
        if self.guard is not None:
            self.guard(method.name, request)
        timeout_s = self.timeout_s if timeout is None else timeout
        how = _How(time.monotonic() + timeout_s, repeatable or method.repeatable, needs_leader, anonymous,
                   on_send, at, timeout_s if at else self._attempt_s)
        if self._observer is not None:
            return await self._observed(self._observer, method, request, how)
        return await self._asked(method, request, how)

    async def _asked(self, method: Method[Answer], request: Any, how: _How) -> Answer:
        body: bytes = request.SerializeToString()
        if engine.is_here():
            step = self._unary(method, body, how)
            return await (engine.whole(step) if method.whole else step)
        if engine.is_direct():
            answered: engine.Told[Answer] = engine.Told()
            waiting = _Quick(self, method, body, how, answered, lambda step: step())
            try:
                return answered.result()
            except BaseException:  # of an interrupt; else it has ended, and there is nothing to cancel
                if not method.whole:
                    waiting.cancel()
                raise
        here = asyncio.get_running_loop()
        told: asyncio.Future[Answer] = here.create_future()
        quick = _Quick(self, method, body, how, told, engine.mail_of(here).post)
        try:
            return await told
        except asyncio.CancelledError:
            if not method.whole:
                quick.cancel()
            raise

    async def _observed(
        self, observer: Observer, method: Method[Answer], request: Any, how: _How
    ) -> Answer:
        """The same, told to the observer."""
        began = time.monotonic()
        begun = observer.begin(method.name)
        how.headers = begun.headers
        failure: BaseException | None = None
        try:
            return await self._asked(method, request, how)
        except BaseException as error:
            failure = error
            raise
        finally:
            begun.end(Call(method.name, time.monotonic() - began, tuple(how.endpoints), failure))

    def open(
        self, method: Method[Any], request: Any, connection: Connection, token: str, *,
        needs_leader: bool = True,
    ) -> http2_call.Call:
        """Begin a call of many messages with the first request. CallError. In the engine's loop."""
        if self.guard is not None:
            self.guard(method.name, request)
        call = connection.stream(method.path, method.answer, metadata(token, needs_leader))
        call.send(request)
        return call

    def quick(self, how: _How) -> tuple[Connection, str] | None:
        """A connection and a token for an attempt that need not be waited for."""
        if how.at or not (self._open or self._token or how.anonymous):
            return None
        connection = self.connections.any_ready()
        return None if connection is None else (connection, "" if how.anonymous else self._token)

    async def _unary(
        self, method: Method[Answer], body: bytes, how: _How, failed: _Failed | None = None
    ) -> Answer:
        """``failed``: the first attempt, which was made already."""
        attempt = logins = 0
        maybe_done = False
        avoid: set[str] = set()
        while True:
            if failed is None:
                connection, token = await self._next(how.deadline, avoid, maybe_done, how)
                try:
                    answer = await _attempted(method, body, how, connection, token)
                except CallError as met:
                    failed = _Failed(connection, token, met)
                else:
                    connection.answered()
                    return method.told(answer)
            connection, token, code, details = (
                failed.connection, failed.token, failed.error.code, failed.error.details)
            failed = None
            if details == CLOSED:
                raise MusterError(CLOSED, maybe_done=True)
            attempt += 1
            verdict = judge(code, details)
            if verdict is Verdict.STALE_TOKEN and self.renews(token) and logins < _LOGINS:
                logins += 1
                if logins == 1:
                    continue
            elif verdict is Verdict.UNKNOWN:
                maybe_done = True
                connection.suspect()
                avoid.add(connection.name)
                if not how.repeatable:
                    raise of_status(code, details, maybe_done=True, endpoint=connection.name)
            elif verdict is Verdict.REFUSED:
                connection.suspect()
                avoid.add(connection.name)
            else:
                raise of_status(code, details, maybe_done=maybe_done, endpoint=connection.name)
            error = of_status(code, details, maybe_done=maybe_done, endpoint=connection.name)
            others = not how.at and self.connections.others(avoid)
            if code is grpc.StatusCode.DEADLINE_EXCEEDED and not others:  # it may take longer
                how.attempt_s *= 2
            await self._pause(attempt, avoid, how.deadline, error, others)

    async def _next(
        self, deadline: float, avoid: set[str], maybe_done: bool, how: _How
    ) -> tuple[Connection, str]:
        """An endpoint and a token for an attempt; errors say what is known of the attempts before it."""
        try:
            connection = await self.connections.pick(deadline, avoid, how.at)
            return connection, "" if how.anonymous else await self.token(deadline)
        except MusterError as error:
            raise told_again(error, maybe_done=maybe_done) from None

    async def _pause(
        self, attempt: int, avoid: set[str], deadline: float, error: MusterError, others: bool
    ) -> None:
        """Wait before another attempt, unless another endpoint is there; the last error at the deadline."""
        pause = 0.0 if others else pause_s(attempt)
        if pause:
            avoid.clear()
        if time.monotonic() + pause >= deadline:
            raise error
        if self._on_again is not None:
            self._on_again(error)
        await asyncio.sleep(pause)

    def _forget_logins_of_a_parent(self) -> None:
        """In a process that was forked off they are on a loop that it has not."""
        if self._origin.is_parent:
            self._origin, self._login = engine.Origin(), None

    async def token(self, deadline: float) -> str:
        """This client's token, fetched if there is none; "": the cluster asks for none. One login serves all
        that wait, and has the client's own time; each waits until its deadline."""
        began = False
        self._forget_logins_of_a_parent()
        while not self._token and not self._open:
            if self._login is None or self._login.done():
                began = True
                self._login = asyncio.create_task(self._authenticate())
                self._login.add_done_callback(lambda login: login.cancelled() or login.exception())
            login = self._login
            await asyncio.wait((login,), timeout=max(0.0, deadline - time.monotonic()))
            if not login.done():
                raise DeadlineExceeded(_NO_LOGIN)
            if login.cancelled():
                raise MusterError(CLOSED)
            error = login.exception()
            # a login that another caller began had less time than this one
            if error is not None and (began or not isinstance(error, _OUT_OF_TIME)):
                raise told_again(error, maybe_done=False) if isinstance(error, MusterError) else error
        return self._token

    def renews(self, token: str) -> bool:
        """Drop a token that was refused; whether another one can be had."""
        if not self.user:
            return False
        if self._token == token:
            self._token, self._open = "", False
        return True

    async def _authenticate(self) -> None:
        request = pb.AuthenticateRequest(name=self.user, password=self._password)
        try:
            answer = await self.unary(_AUTHENTICATE, request, anonymous=True)
            self._token = answer.token
        except DeadlineExceeded:
            raise DeadlineExceeded(_NO_LOGIN) from None
        except ServerError as error:
            if error.message != _NOT_ENABLED:
                raise
            self._open = True

    async def close(self) -> None:
        """End all connections, and what waits for them. From any loop."""
        await engine.run(self._close())

    async def _close(self) -> None:
        self._forget_logins_of_a_parent()
        if self._login is not None:
            self._login.cancel()
            await asyncio.gather(self._login, return_exceptions=True)
        await self.connections.close()


class SpacedCaller(Caller):
    """Another one's calls, with keys of a space."""

    space: Space

    def __init__(self, whole: Caller, space: Space) -> None:
        self.whole, self.space = whole, space
        self.connections, self.timeout_s, self.user = whole.connections, whole.timeout_s, whole.user

    async def unary(
        self, method: Method[Answer], request: Any, *, timeout: float | None = None,
        repeatable: bool = False, needs_leader: bool = True, anonymous: bool = False,
        on_send: Callable[[], None] | None = None, at: str = "",
    ) -> Answer:
        answer = await self.whole.unary(
            method, self.space.asked(request), timeout=timeout, repeatable=repeatable,
            needs_leader=needs_leader, anonymous=anonymous, on_send=on_send, at=at)
        self.space.told(answer)
        return answer

    def open(
        self, method: Method[Any], request: Any, connection: Connection, token: str, *,
        needs_leader: bool = True,
    ) -> http2_call.Call:
        asked = self.space.asked(request)
        return self.whole.open(method, asked, connection, token, needs_leader=needs_leader)

    async def token(self, deadline: float) -> str:
        return await self.whole.token(deadline)

    def renews(self, token: str) -> bool:
        return self.whole.renews(token)

    async def close(self) -> None:
        """Nothing: the connections are the other's."""


_NEEDS_LEADER: Metadata = (("hasleader", "true"),)


def metadata(token: str, needs_leader: bool) -> Metadata:
    """A call's. A member that knows no leader refuses at once what needs one, and another is asked."""
    found: Metadata = _NEEDS_LEADER if needs_leader else ()
    return (*found, ("token", token)) if token else found
