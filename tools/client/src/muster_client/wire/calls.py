"""Calls: an endpoint, a token, a deadline, and another attempt where ``retries`` allows it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

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
from muster_client.wire.connections import CLOSED, Connection, Connections
from muster_client.wire.endpoints import Endpoint
from muster_client.wire.retries import STALE_TOKEN, Verdict, judge
from muster_client.wire.spaces import Space

Answer = TypeVar("Answer")
_ATTEMPT_S = 5.0  # of a request that can be repeated: an isolated endpoint must not take its whole time
_LOGINS = 4  # a lagging member may not know a new token yet
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
_OUT_OF_TIME = (DeadlineExceeded, Unavailable, Unreachable)
_NOT_ENABLED = "etcdserver: authentication is not enabled"


@dataclass(frozen=True, slots=True)
class Method(Generic[Answer]):
    """A method of etcd's API, ``KV/Range``, of one request and one answer. ``repeatable``: the second time
    does nothing more than the first."""

    name: str
    answer: type[Answer]
    repeatable: bool = False

    @property
    def path(self) -> str:
        return f"/etcdserverpb.{self.name}"


@dataclass(slots=True)
class _How:
    """How one call is made. ``at``: by this endpoint alone; ``endpoints``: of its attempts so far."""

    timeout: float
    repeatable: bool
    needs_leader: bool
    anonymous: bool
    on_send: Callable[[], None] | None
    at: str
    headers: Headers = ()
    endpoints: list[str] = field(default_factory=list)


_AUTHENTICATE = Method("Auth/Authenticate", pb.AuthenticateResponse, repeatable=True)


def pause_s(attempt: int) -> float:
    """How long to wait before the attempt of that number, from 1: longer each time, and never in step with
    other clients."""
    return float(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempt, 10)) * random.uniform(0.5, 1.0))


class Caller:
    """Calls of one client. ``timeout_s`` holds for each that names none. ``space``: keys are of this one."""

    space: Space | None = None

    def __init__(
        self, endpoints: Sequence[Endpoint], user: str, password: str, timeout_s: float,
        observer: Observer | None = None,
    ) -> None:
        self.connections = Connections(endpoints)
        self.timeout_s = timeout_s
        self._observer = observer
        self._user, self._password = user, password
        self._token = ""
        self._login: asyncio.Task[None] | None = None
        self._open = True  # the cluster has no users, or none is named here
        if user:
            self._open = False

    async def unary(
        self, method: Method[Answer], request: Any, *, timeout: float | None = None,
        repeatable: bool = False, needs_leader: bool = True, anonymous: bool = False,
        on_send: Callable[[], None] | None = None, at: str = "",
    ) -> Answer:
        """The answer. MusterError: ``maybe_done`` says whether the request may have been done. From any loop.
        ``on_send`` is called before each attempt. ``at``: only this endpoint is asked."""
        how = _How(self.timeout_s if timeout is None else timeout, repeatable or method.repeatable,
                   needs_leader, anonymous, on_send, at)
        if self._observer is not None:
            return await self._observed(self._observer, method, request, how)
        return await engine.run(self._unary(method, request, how))

    async def _observed(
        self, observer: Observer, method: Method[Answer], request: Any, how: _How
    ) -> Answer:
        """The same, told to the observer."""
        began = time.monotonic()
        begun = observer.begin(method.name)
        how.headers = begun.headers
        failure: BaseException | None = None
        try:
            return await engine.run(self._unary(method, request, how))
        except BaseException as error:
            failure = error
            raise
        finally:
            begun.end(Call(method.name, time.monotonic() - began, tuple(how.endpoints), failure))

    async def _unary(self, method: Method[Answer], request: Any, how: _How) -> Answer:
        deadline = time.monotonic() + how.timeout
        attempt = logins = 0
        maybe_done = False
        avoid: set[str] = set()
        while True:
            connection, token = await self._next(deadline, avoid, maybe_done, how)
            if how.on_send is not None:
                how.on_send()
            how.endpoints.append(connection.name)
            left_s = deadline - time.monotonic()
            call = connection.unary(method.path, method.answer)
            try:
                answer: Answer = await call(
                    request, timeout=max(0.0, min(left_s, _ATTEMPT_S) if how.repeatable else left_s),
                    metadata=(*metadata(token, how.needs_leader), *how.headers))
            except grpc.aio.AioRpcError as met:
                code, details = met.code(), met.details() or ""
            except asyncio.CancelledError:
                if engine.was_cancelled():
                    raise
                raise MusterError(CLOSED, maybe_done=True) from None
            except grpc.aio.UsageError:  # the channel was closed before it was sent
                raise MusterError(CLOSED, maybe_done=maybe_done) from None
            else:
                connection.answered()
                return answer
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
                    raise of_status(code, details, maybe_done=True)
            elif verdict is Verdict.REFUSED:
                connection.suspect()
                avoid.add(connection.name)
            else:
                raise of_status(code, details, maybe_done=maybe_done)
            error = of_status(code, details, maybe_done=maybe_done)
            others = not how.at and self.connections.others(avoid)
            await self._pause(attempt, avoid, deadline, error, others)

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
        await asyncio.sleep(pause)

    async def token(self, deadline: float) -> str:
        """This client's token, fetched if there is none; "": the cluster asks for none. One login serves all
        that wait, and has the client's own time; each waits until its deadline."""
        began = False
        while not self._token and not self._open:
            if self._login is None or self._login.done():
                began = True
                self._login = asyncio.create_task(self._authenticate())
                self._login.add_done_callback(lambda login: login.cancelled() or login.exception())
            login = self._login
            await asyncio.wait((login,), timeout=max(0.0, deadline - time.monotonic()))
            if not login.done():
                raise DeadlineExceeded("no answer to the login in time")
            if login.cancelled():
                raise MusterError(CLOSED)
            error = login.exception()
            # a login that another caller began had less time than this one
            if error is not None and (began or not isinstance(error, _OUT_OF_TIME)):
                raise told_again(error, maybe_done=False) if isinstance(error, MusterError) else error
        return self._token

    def renews(self, token: str) -> bool:
        """Drop a token that was refused; whether another one can be had."""
        if not self._user:
            return False
        if self._token == token:
            self._token, self._open = "", False
        return True

    async def _authenticate(self) -> None:
        request = pb.AuthenticateRequest(name=self._user, password=self._password)
        try:
            answer = await self.unary(_AUTHENTICATE, request, anonymous=True)
            self._token = answer.token
        except ServerError as error:
            if error.message != _NOT_ENABLED:
                raise
            self._open = True

    def stale(self, text: str) -> bool:
        """Whether a text that ended a watch names the token."""
        return any(text.endswith(stale) for stale in STALE_TOKEN)

    async def close(self) -> None:
        """End all connections, and what waits for them. From any loop."""
        await engine.run(self._close())

    async def _close(self) -> None:
        if self._login is not None:
            self._login.cancel()
            await asyncio.gather(self._login, return_exceptions=True)
        await self.connections.close()


class SpacedCaller(Caller):
    """Another one's calls, with keys of a space."""

    space: Space

    def __init__(self, whole: Caller, space: Space) -> None:
        self.whole, self.space = whole, space
        self.connections, self.timeout_s = whole.connections, whole.timeout_s

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

    async def token(self, deadline: float) -> str:
        return await self.whole.token(deadline)

    def renews(self, token: str) -> bool:
        return self.whole.renews(token)

    async def close(self) -> None:
        """Nothing: the connections are the other's."""


def metadata(token: str, needs_leader: bool) -> tuple[tuple[str, str], ...]:
    """A call's. A member that knows no leader refuses at once what needs one, and another is asked."""
    found = (("hasleader", "true"),) if needs_leader else ()
    return (*found, ("token", token)) if token else found
