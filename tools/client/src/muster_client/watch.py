"""Watches: every change of a range, once, in order, over restarts, new leaders and new connections."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc

from muster_client.errors import (
    Compacted,
    DeadlineExceeded,
    MusterError,
    PermissionDenied,
    ServerError,
    Unreachable,
    of_status,
)
from muster_client.model import KeyValue, kv_of
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.ranges import KeyRange
from muster_client.wire import engine
from muster_client.wire.calls import Caller, Method, metadata
from muster_client.wire.connections import CLOSED, pause_s
from muster_client.wire.http2.answers import CallError
from muster_client.wire.http2.call import Call
from muster_client.wire.retries import Verdict, judge
from muster_client.wire.spaces import Space

log = logging.getLogger("muster_client")
_WATCH = "/etcdserverpb.Watch/Watch"
_RANGE = Method("KV/Range", pb.RangeResponse, repeatable=True)
_LOGINS = 4
_ESTABLISHED_IN_S = 5.0  # an endpoint that does not answer until then is left
_FATAL = "rpc error: code = "  # a refusal in a watch's answer: "rpc error: code = X desc = Y"


@dataclass(frozen=True, slots=True)
class Put:
    """A key was written. ``previous``: as it was before, if asked for and there was one."""

    kv: KeyValue
    previous: KeyValue | None = None

    @property
    def key(self) -> bytes:
        return self.kv.key

    @property
    def revision(self) -> int:
        return self.kv.mod_revision

    @property
    def created(self) -> bool:
        """It did not exist before."""
        return self.kv.version == 1


@dataclass(frozen=True, slots=True)
class Delete:
    """A key was deleted, or its lease ended. ``previous``: as for :class:`Put`."""

    key: bytes
    revision: int
    previous: KeyValue | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """All changes up to ``revision`` were delivered."""

    revision: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Changes were compacted before they could be read: all keys of the range as of ``revision`` instead.
    The changes behind it follow. ``missed_from``: the first revision that is not told change by change."""

    kvs: tuple[KeyValue, ...]
    revision: int
    missed_from: int


Event = Put | Delete | Progress | Snapshot
Change = Put | Delete


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What is watched. ``revision``: the first one, 0: from now on. ``previous``: with keys as they were
    before; ``progress``: tell :class:`Progress`; ``snapshots``: go on with a :class:`Snapshot` where changes
    were compacted, in place of the error Compacted."""

    keys: KeyRange
    revision: int = 0
    previous: bool = False
    progress: bool = False
    snapshots: bool = False


class _Broken(Exception):
    """The stream ended; another one goes on. ``stale``: for the token."""

    def __init__(self, why: str, *, stale: bool = False) -> None:
        super().__init__(why)
        self.stale = stale


class _Stream:
    """One watch on one endpoint, until it breaks."""

    def __init__(self, call: Call, name: str, token: str, space: Space | None) -> None:
        self.call, self.name, self.token, self._space = call, name, token, space

    async def read(self) -> pb.WatchResponse:
        """The next answer. _Broken; MusterError if no other stream would do better."""
        try:
            answer = await self.call.read()
        except CallError as error:
            raise _broken(error.code, error.details) from None
        if answer is None:
            raise _Broken("the server ended it")
        assert isinstance(answer, pb.WatchResponse)
        if answer.canceled:
            _raise_refusal(answer)
        if self._space is not None:
            for event in answer.events:
                self._space.event(event)
        return answer

    def ask_progress(self) -> None:
        self.call.send(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    def close(self) -> None:
        self.call.cancel()


def _broken(code: grpc.StatusCode, details: str) -> Exception:
    if details == CLOSED:
        return MusterError(CLOSED)
    verdict = judge(code, details)
    if verdict is Verdict.STALE_TOKEN:
        return _Broken(details, stale=True)
    if code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED,
                grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED):
        return of_status(code, details)
    return _Broken(details or code.name)


def _passing(error: MusterError) -> Exception:
    """What a call for the watch met: _Broken if it may pass, the error itself if not."""
    passes = isinstance(error, Unreachable | DeadlineExceeded | Compacted) or (
        isinstance(error, ServerError)
        and judge(error.code, error.message) in (Verdict.REFUSED, Verdict.UNKNOWN))
    return _Broken(str(error)) if passes else error


def _raise_refusal(answer: pb.WatchResponse) -> None:
    """A watch that the server ended by itself."""
    if answer.compact_revision:
        raise Compacted("etcdserver: mvcc: required revision has been compacted", answer.compact_revision)
    reason = answer.cancel_reason
    if reason.startswith(_FATAL):
        name, _, details = reason.removeprefix(_FATAL).partition(" desc = ")
        raise _broken(_CODES.get(name, grpc.StatusCode.UNKNOWN), details)
    if reason.startswith("etcdserver: mvcc: required revision has been compacted"):
        raise Compacted(reason)
    if reason.startswith("mvcc: "):
        raise ServerError(grpc.StatusCode.INVALID_ARGUMENT, reason)
    raise _Broken(reason or "the server ended it")


_CODES = {"PermissionDenied": grpc.StatusCode.PERMISSION_DENIED,
          "Unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
          "InvalidArgument": grpc.StatusCode.INVALID_ARGUMENT, "Unavailable": grpc.StatusCode.UNAVAILABLE}


class _Feed:
    """The events of a watch, stream after stream; in the engine's loop."""

    def __init__(
        self, caller: Caller, options: WatchOptions, snapshot: Callable[[], Awaitable[Snapshot]]
    ) -> None:
        self._caller, self._options, self._snapshot = caller, options, snapshot
        self.next = options.revision  # the first revision that was not delivered whole; 0: not known yet
        self.events: deque[Event] = deque()
        self._held: list[Change] = []  # of a revision that may go on in the next answer
        self._stream: _Stream | None = None
        self._reading: asyncio.Task[None] | None = None
        self._failure: MusterError | None = None
        self._logins = self._attempts = 0
        self._progress_asked = False
        self.closed = False

    async def establish(self) -> None:
        """A stream that serves. Unreachable after the client's time."""
        deadline = time.monotonic() + self._caller.timeout_s
        try:
            async with asyncio.timeout_at(deadline - time.monotonic() + asyncio.get_running_loop().time()):
                await self._read_whole(self._establish(deadline))
        except TimeoutError:
            await self.close()
            raise Unreachable(self._caller.connections.reasons()) from None

    async def wait(self) -> None:
        """Until there are events, or it is closed. MusterError: it cannot go on."""
        while not self.events and not self.closed:
            if self._failure is not None:
                raise self._failure
            await self._read_whole(self._read())

    async def request_progress(self) -> None:
        self._progress_asked = True
        if self._stream is not None:
            self._ask_progress(self._stream)

    def _ask_progress(self, stream: _Stream) -> None:
        """Once, for a request that waits. A stream that has ended takes none: the next one does."""
        if not self._progress_asked:
            return
        self._progress_asked = False
        try:
            stream.ask_progress()
        except CallError:
            self._progress_asked = True

    async def close(self) -> None:
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
            if self._stream is not None:  # else it is closed
                self._take(await self._stream.read())
        except _Broken as broken:
            await self._mend(broken)
        except Compacted as error:
            await self._go_on_from_snapshot(error)

    async def _go_on_from_snapshot(self, error: Compacted) -> None:
        """The next revision is compacted: a snapshot in its place, if asked for."""
        self._leave()
        if not self._options.snapshots:
            raise error
        missed_from = self.next
        try:
            found = await self._snapshot()
        except MusterError as failed:
            if not isinstance(broken := _passing(failed), _Broken):
                raise
            await self._mend(broken)  # the next stream is refused again, and leads here
            return
        self.next = found.revision + 1
        self.events.append(Snapshot(found.kvs, found.revision, missed_from))
        log.warning("watch: revision %d is compacted, it goes on from %d", missed_from, self.next)

    async def _establish(self, deadline: float | None) -> None:
        """A stream from the next revision on, waited for; by the deadline, or whenever an endpoint serves."""
        while self._stream is None and not self.closed:
            try:
                self._stream = await self._opened(deadline)
                self._ask_progress(self._stream)
            except _Broken as broken:
                await self._mend(broken)
            except Compacted as error:
                await self._go_on_from_snapshot(error)
        self._attempts = self._logins = 0

    async def _opened(self, deadline: float | None) -> _Stream:
        if not self.next:
            self.next = await self._now()
        connection = await self._caller.connections.pick(deadline)
        try:
            token = await self._caller.token(time.monotonic() + self._caller.timeout_s)
            call = connection.stream(_WATCH, pb.WatchResponse, metadata(token, needs_leader=True))
        except MusterError as error:
            raise _passing(error) from None
        except CallError as error:  # it was lost meanwhile
            raise _broken(error.code, error.details) from None
        asked, space = self._options, self._caller.space
        stream = _Stream(call, connection.name, token, space)
        keys = asked.keys if space is None else space.range(asked.keys)
        create = pb.WatchCreateRequest(
            key=keys.start, range_end=keys.end, start_revision=self.next, prev_kv=asked.previous,
            progress_notify=True, fragment=True)
        try:
            async with asyncio.timeout(_ESTABLISHED_IN_S):
                call.send(pb.WatchRequest(create_request=create))
                await stream.read()  # it is created
        except TimeoutError:
            stream.close()
            connection.suspect()
            raise _Broken(f"{connection.name} does not answer") from None
        except CallError as error:  # it ended before it was asked
            raise _broken(error.code, error.details) from None
        except _Broken as broken:
            stream.close()
            connection.suspect()
            if broken.stale:
                self._stale(token, broken)
            raise
        except PermissionDenied as error:  # etcd 3.4 and 3.5 say this of stale tokens, too
            stream.close()
            if not token or self._logins:
                raise
            stale = _Broken(str(error), stale=True)
            self._stale(token, stale)
            raise stale from None
        except BaseException:
            stream.close()
            raise
        return stream

    async def _now(self) -> int:
        """The revision behind all that is done: an endpoint that lags would begin with what is past."""
        try:
            asked = pb.RangeRequest(key=self._options.keys.start, keys_only=True)
            return (await self._caller.unary(_RANGE, asked)).header.revision + 1
        except MusterError as error:
            raise _passing(error) from None

    def _stale(self, token: str, broken: _Broken) -> None:
        """The token was refused: fetch another one, some times."""
        self._logins += 1
        if self._logins > _LOGINS or not self._caller.renews(token):
            raise of_status(grpc.StatusCode.UNAUTHENTICATED, str(broken)) from None

    async def _mend(self, broken: _Broken) -> None:
        """The stream has ended: wait before the next one, longer each time. The first goes at once."""
        if self._stream is not None:
            if broken.stale:
                self._stale(self._stream.token, broken)
            log.warning("watch: %s has ended it, another endpoint goes on from revision %d: %s",
                        self._stream.name, self.next, broken)
        self._leave()
        if self._attempts:
            await asyncio.sleep(pause_s(self._attempts))
        self._attempts += 1

    def _leave(self) -> None:
        """Drop the stream, and a revision of which it has told a part."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._held.clear()

    def _take(self, answer: pb.WatchResponse) -> None:
        """Deliver whole revisions. What is resumed begins behind them, so none comes twice or in part."""
        for event in answer.events:
            change = _change(event)
            if change.revision < self.next:
                continue  # delivered by an earlier stream
            if self._held and self._held[-1].revision != change.revision:
                self._deliver()
            self._held.append(change)
        if not answer.fragment:
            self._deliver()
        if not answer.events and not answer.created and not answer.fragment:
            revision = answer.header.revision
            if answer.watch_id >= 0:  # told by the server's own clock
                self.next = max(self.next, revision + 1)
            if self._options.progress:
                self.events.append(Progress(revision))

    def _deliver(self) -> None:
        if self._held:
            self.events.extend(self._held)
            self.next = self._held[-1].revision + 1
            self._held.clear()


class Watch(AsyncIterator[Event]):
    """Changes of a range, by ``async for``. In ``async with`` it is established once the body begins.

    It reads no further than it is asked for: changes that wait stay on the server, where a compaction may
    overtake them. A reader that is cancelled loses nothing, and may go on. One task reads at a time.

    MusterError where no endpoint could serve it better (no permission, Compacted). What else breaks is told
    to the logger ``muster_client``, and another endpoint goes on.
    """

    def __init__(
        self, caller: Caller, options: WatchOptions, snapshot: Callable[[], Awaitable[Snapshot]]
    ) -> None:
        self._feed = _Feed(caller, options, snapshot)

    @property
    def revision(self) -> int:
        """Where it stands: all changes before it were given to the reader, or wait in memory for it. 0: it
        is not established."""
        return self._feed.next

    async def __aenter__(self) -> Watch:
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

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Event:
        if (event := await self.next()) is None:
            raise StopAsyncIteration
        return event

    async def next(self) -> Event | None:
        """The next event; None: it is closed."""
        await self.ready()
        return next(self.waiting(), None)

    async def ready(self) -> None:
        """Wait until an event waits in memory, or it is closed."""
        while not self._feed.events and not self._feed.closed:
            await engine.run(self._feed.wait())

    def waiting(self) -> Iterator[Event]:
        """The events that wait in memory: with the one just read, whole revisions."""
        while self._feed.events:
            yield self._feed.events.popleft()

    async def request_progress(self) -> None:
        """Ask for a :class:`Progress` now: it follows the changes before it. Etcd before 3.4.25 and 3.5.8 may
        tell it too early."""
        await engine.run(self._feed.request_progress())

    async def close(self) -> None:
        """End it; the iteration ends behind the events that wait."""
        await asyncio.shield(engine.run(self._feed.close()))  # also if its reader is cancelled meanwhile


def _change(event: kv_pb2.Event) -> Change:
    previous = kv_of(event.prev_kv) if event.HasField("prev_kv") else None
    if event.type == kv_pb2.Event.DELETE:
        return Delete(event.kv.key, event.kv.mod_revision, previous)
    return Put(kv_of(event.kv), previous)
