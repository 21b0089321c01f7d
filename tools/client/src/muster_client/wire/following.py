"""Watches, stream after stream: where one breaks, another endpoint goes on behind what was told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc

from muster_client.errors import (
    COMPACTED,
    Compacted,
    MusterError,
    PermissionDenied,
    ServerError,
    Unreachable,
    of_status,
)
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire import engine
from muster_client.wire.calls import Caller, Method
from muster_client.wire.connections import CLOSED, pause_s
from muster_client.wire.http2.answers import CallError
from muster_client.wire.http2.call import Call
from muster_client.wire.retries import Verdict, judge, passes

Told = TypeVar("Told")
OnAgain = Callable[[MusterError], None]
log = logging.getLogger("muster_client")
_WATCH = Method("Watch/Watch", pb.WatchResponse)
_LOGINS = 4
_LIVED_S = 1.0  # a stream that ends sooner is as one that could not begin
_ESTABLISHED_IN_S = 5.0  # an endpoint that does not answer until then is left
_LONGER = 8  # times as long, at most: each time twice as long as before, for all may take longer
_FATAL = "rpc error: code = "  # a refusal in a watch's answer: "rpc error: code = X desc = Y"
_CODES = {"PermissionDenied": grpc.StatusCode.PERMISSION_DENIED,
          "Unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
          "InvalidArgument": grpc.StatusCode.INVALID_ARGUMENT, "Unavailable": grpc.StatusCode.UNAVAILABLE}


class Broken(Exception):
    """The stream ended, by ``error``; another one goes on. ``stale``: for the token."""

    def __init__(self, error: MusterError, *, stale: bool = False) -> None:
        super().__init__(str(error))
        self.error, self.stale = error, stale


class _Stream:
    """One watch on one endpoint, until it breaks."""

    def __init__(self, call: Call, name: str, token: str) -> None:
        self.call, self.name, self.token = call, name, token

    async def read(self) -> pb.WatchResponse:
        """The next answer. Broken; MusterError if no other stream would do better."""
        try:
            answer = await self.call.read()
        except CallError as error:
            raise _broken(error.code, error.details, self.name) from None
        if answer is None:
            raise Broken(MusterError("the server ended the watch's stream"))
        assert isinstance(answer, pb.WatchResponse)
        return answer


def _broken(code: grpc.StatusCode, details: str, endpoint: str = "") -> Exception:
    if details == CLOSED:
        return MusterError(CLOSED)
    error = of_status(code, details, endpoint=endpoint)
    if judge(code, details) is Verdict.STALE_TOKEN:
        return Broken(error, stale=True)
    if code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED,
                grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED) \
            or isinstance(error, PermissionDenied):
        return error
    return Broken(error)


def passing(error: MusterError) -> Exception:
    """What a call for the watch met: Broken if it may pass, the error itself if not."""
    return Broken(error) if passes(error) or isinstance(error, Compacted) else error


def raise_refusal(answer: pb.WatchResponse) -> None:
    """A watch that the server ended by itself."""
    if answer.compact_revision:
        raise Compacted(COMPACTED, answer.compact_revision)
    reason = answer.cancel_reason
    if reason.startswith(_FATAL):
        name, _, details = reason.removeprefix(_FATAL).partition(" desc = ")
        raise _broken(_CODES.get(name, grpc.StatusCode.UNKNOWN), details)
    if reason.startswith(COMPACTED):
        raise Compacted(reason)
    if reason.startswith("mvcc: "):
        raise ServerError(grpc.StatusCode.INVALID_ARGUMENT, reason)
    if reason.startswith("etcdserver: "):  # of etcd's grpc-proxy, which names no code
        raise _broken(grpc.StatusCode.UNAVAILABLE, reason)
    raise Broken(MusterError(reason or "the server ended it"))


def check(answer: pb.WatchResponse) -> None:
    """MusterError: by this answer the server ends the watch."""
    try:
        raise_refusal(answer)
    except Broken as broken:
        raise broken.error from None


class Following(Generic[Told]):
    """What a watch tells, stream after stream; in the engine's loop. ``on_again`` is called before each
    further stream with what ended the last one. What it raises ends the watch."""

    def __init__(self, caller: Caller, revision: int, on_again: OnAgain | None = None) -> None:
        self._caller, self._on_again = caller, on_again
        self.next = revision  # the first revision that was not delivered whole; 0: not known yet
        self.events: deque[Told] = deque()
        self._stream: _Stream | None = None
        self._reading: asyncio.Task[None] | None = None
        self._failure: MusterError | None = None
        self._logins = self._attempts = 0
        self._patience: dict[str, int] = {}  # by endpoint that did not answer: times _ESTABLISHED_IN_S
        self._since = 0.0  # when the stream began, by time.monotonic()
        self._progress_asked = False
        self.closed = False
        self._origin = engine.Origin()  # of the stream
        self.endpoint = ""  # that serves it, or did last
        self._left = ""  # where a stream ended, until another endpoint had its turn
        self._unsent: dict[str, str] = {}  # by endpoint: why no stream could begin
        self._met: MusterError | None = None  # by the last attempt at one

    async def _request(self) -> pb.WatchCreateRequest:
        """For the next stream. Broken, MusterError."""
        raise NotImplementedError

    def _take(self, answer: pb.WatchResponse) -> None:
        """Append what it tells to the events, and remember where to go on."""
        raise NotImplementedError

    def _refused(self, answer: pb.WatchResponse, token: str) -> None:
        """Of an answer by which the server ends the watch: Broken, MusterError, or it is taken."""
        raise_refusal(answer)

    async def _compacted(self, error: Compacted) -> None:
        """The next revision is compacted."""
        raise error

    async def establish(self) -> None:
        """A stream that serves. After the client's time what an endpoint said last, or Unreachable."""
        self._own()
        deadline = time.monotonic() + self._caller.timeout_s
        try:
            async with asyncio.timeout_at(deadline - time.monotonic() + asyncio.get_running_loop().time()):
                await self._read_whole(self._establish(deadline))
        except TimeoutError:
            await self.close()
            connections, met = self._caller.connections, self._met
            if isinstance(met, ServerError) and met.endpoint not in self._unsent and connections.others(()):
                raise met from None
            raise Unreachable(connections.reasons() | self._unsent) from None

    async def wait(self) -> None:
        """Until there are events, or it is closed. MusterError: it cannot go on."""
        self._own()
        while not self.events and not self.closed:
            if self._failure is not None:
                raise self._failure.with_traceback(None)  # which grows by each use
            await self._read_whole(self._read())

    def _own(self) -> None:
        """In a process that was forked off: the stream is its parent's. It goes on by one of its own."""
        if self._origin.is_parent:
            self._origin, self._stream, self._reading = engine.Origin(), None, None
            self._leave()

    @property
    def serves(self) -> bool:
        return self._stream is not None

    async def request_progress(self) -> None:
        self._own()
        self._progress_asked = True
        if self._stream is not None:
            self._ask_progress(self._stream)

    def _ask_progress(self, stream: _Stream) -> None:
        """Once, for a request that waits. A stream that has ended takes none: the next one does."""
        if not self._progress_asked:
            return
        self._progress_asked = False
        try:
            stream.call.send(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
        except CallError:
            self._progress_asked = True

    async def close(self) -> None:
        self._own()
        self.closed = True
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None
        self._leave()

    async def _read_whole(self, step: Any) -> None:
        """Run a step to its end, also where the reader is cancelled: the next reader takes what it read."""
        if self._reading is None:
            self._reading = asyncio.create_task(step)
        else:
            step.close()
        task = self._reading
        await asyncio.wait((task,))
        if self._reading is task:
            self._reading = None
        if task.cancelled():
            if not self.closed:
                raise asyncio.CancelledError
        elif (error := task.exception()) is not None:
            if isinstance(error, MusterError):
                self._failure = error
            raise error

    async def _read(self) -> None:
        """One answer, or one attempt to go on."""
        try:
            if self._stream is None:
                await self._establish(None)
            elif not self.closed:
                self._taken(await self._stream.read(), self._stream.token)
        except Broken as broken:
            await self._mend(broken)
        except Compacted as error:
            await self._compacted(error)
        if self.closed:
            self._leave()

    def _taken(self, answer: pb.WatchResponse, token: str) -> None:
        if answer.canceled:
            self._refused(answer, token)
        if (space := self._caller.space) is not None:
            for event in answer.events:
                space.event(event)
        self._take(answer)

    async def _establish(self, deadline: float | None) -> None:
        """A stream from the next revision on, waited for; by the deadline, or whenever an endpoint serves."""
        while self._stream is None and not self.closed:
            try:
                self._stream = await self._opened(deadline)
                self._ask_progress(self._stream)
            except Broken as broken:
                self._met = broken.error
                await self._mend(broken)
            except Compacted as error:
                await self._compacted(error)
        self._logins, self._since = 0, time.monotonic()

    async def _opened(self, deadline: float | None) -> _Stream:
        create = await self._request()
        # not the endpoint at which the last stream ended, if there is another one that does better
        connection = await self._caller.connections.pick(deadline, (self._left,))
        try:
            token = await self._caller.token(time.monotonic() + self._caller.timeout_s)
        except MusterError as error:
            raise passing(error) from None
        try:
            call = self._caller.open(_WATCH, pb.WatchRequest(create_request=create), connection, token)
        except CallError as error:  # it was lost meanwhile, or takes no more watches
            self._unsent[connection.name], self._left = error.details, connection.name
            raise _broken(error.code, error.details, connection.name) from None
        self._left = ""
        self._unsent.pop(connection.name, None)
        stream = _Stream(call, connection.name, token)
        try:
            self._taken(await self._created(stream), token)
        except Broken as broken:
            call.cancel()
            connection.suspect()
            broken.error.endpoint = connection.name
            if broken.stale:
                self._stale(token, broken)
            raise
        except PermissionDenied as error:  # etcd 3.4 and 3.5 say this of stale tokens, too
            call.cancel()
            if not token or self._logins:
                raise
            stale = Broken(error, stale=True)
            self._stale(token, stale)
            raise stale from None
        except BaseException:
            call.cancel()
            raise
        self.endpoint = connection.name
        self._patience.clear()
        return stream

    async def _created(self, stream: _Stream) -> pb.WatchResponse:
        """Its first answer. Broken: sooner where another endpoint is connected that had less time."""
        turns = self._patience.get(stream.name, 1)
        no_better = {name for name, others in self._patience.items() if others >= turns} | {stream.name}
        reading = asyncio.create_task(stream.read())
        try:
            for turn in range(1, turns + 1):
                if (await asyncio.wait((reading,), timeout=_ESTABLISHED_IN_S))[0]:
                    return reading.result()
                if turn < turns and self._caller.connections.others(no_better):
                    break  # it has not had its time, and needs no more the next time
            else:
                self._patience[stream.name] = min(2 * turns, _LONGER)
            raise Broken(MusterError("it does not answer"))
        finally:
            reading.cancel()

    def _stale(self, token: str, broken: Broken) -> None:
        """The token was refused: fetch another one, some times."""
        self._logins += 1
        if self._logins > _LOGINS or not self._caller.renews(token):
            raise of_status(grpc.StatusCode.UNAUTHENTICATED, str(broken)) from None

    async def _mend(self, broken: Broken) -> None:
        """The stream has ended: wait before the next one, longer each time. The first goes at once."""
        if self._stream is not None:
            if broken.stale:
                self._stale(self._stream.token, broken)
            if time.monotonic() - self._since >= _LIVED_S:
                self._attempts = 0
            log.warning("watch: %s has ended it; another stream continues from revision %d: %s",
                        self._stream.name, self.next, broken)
            broken.error.endpoint = broken.error.endpoint or self.endpoint
            self._left = self.endpoint
        self._leave()
        if self._on_again is not None and not broken.stale:
            self._on_again(broken.error)
        if self._attempts:
            await asyncio.sleep(pause_s(self._attempts))
        self._attempts += 1

    def _leave(self) -> None:
        """Drop the stream."""
        if self._stream is not None:
            self._stream.call.cancel()
            self._stream = None


class Followed(AsyncIterator[Told]):
    """What a watch tells, by ``async for``."""

    def __init__(self, feed: Following[Told]) -> None:
        self._feed = feed

    @property
    def revision(self) -> int:
        """Where it stands: all changes before it were given to the reader, or wait in memory for it. 0: it
        is not established."""
        return self._feed.next

    @property
    def endpoint(self) -> str:
        """The one that serves it, or did last; "": it is not established."""
        return self._feed.endpoint

    @property
    def serves(self) -> bool:
        """Whether a stream serves it now."""
        return self._feed.serves

    async def __aenter__(self) -> Self:
        try:
            await engine.run(self._feed.establish())
        except BaseException:  # the reader has no watch to close
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Told:
        if (event := await self.next()) is None:
            raise StopAsyncIteration
        return event

    async def next(self) -> Told | None:
        """The next one; None: it is closed."""
        await self.ready()
        return next(self.waiting(), None)

    async def ready(self) -> None:
        """Wait until something waits in memory, or it is closed."""
        while not self._feed.events and not self._feed.closed:
            await engine.run(self._feed.wait())

    def waiting(self) -> Iterator[Told]:
        """What waits in memory: of events, with the one just read, whole revisions."""
        while self._feed.events:
            yield self._feed.events.popleft()

    async def request_progress(self) -> None:
        """Ask for the progress now: it follows the changes before it. Etcd before 3.4.25 and 3.5.8 may tell
        it too early."""
        await engine.run(self._feed.request_progress())

    async def close(self) -> None:
        """End it; the iteration ends behind what waits."""
        await engine.whole(self._feed.close())  # also if its reader is cancelled meanwhile
