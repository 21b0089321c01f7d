"""Watches: every change of a range, once, in order, over restarts, new leaders and new connections."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from muster_client.errors import Compacted, MusterError
from muster_client.model import KeyValue, kv_of
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.ranges import KeyRange
from muster_client.wire.calls import Caller, Method
from muster_client.wire.following import Broken, Followed, Following, passing

log = logging.getLogger("muster_client")
_RANGE = Method("KV/Range", pb.RangeResponse, repeatable=True)


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


class _Feed(Following[Event]):
    """The events of a watch."""

    def __init__(
        self, caller: Caller, options: WatchOptions, snapshot: Callable[[], Awaitable[Snapshot]]
    ) -> None:
        super().__init__(caller, options.revision)
        self._options, self._snapshot = options, snapshot
        self._held: list[Change] = []  # of a revision that may go on in the next answer
        self._exact = 0  # the next revision, if what is before it is compacted

    async def _request(self) -> pb.WatchCreateRequest:
        keys = self._options.keys
        if not self.next:
            self.next = await self._now()
        return pb.WatchCreateRequest(
            key=keys.start, range_end=keys.end, start_revision=self.next - self._early,
            prev_kv=self._options.previous, progress_notify=True, fragment=True)

    @property
    def _early(self) -> bool:
        """Whether the stream begins a revision before the next one. A server tells no progress before the
        beginning of a watch: while nothing is written, it would tell none."""
        return self._options.progress and self.next > 1 and self.next != self._exact

    async def _now(self) -> int:
        """The revision behind all that is done: an endpoint that lags would begin with what is past."""
        try:
            asked = pb.RangeRequest(key=self._options.keys.start, keys_only=True)
            return (await self._caller.unary(_RANGE, asked)).header.revision + 1
        except MusterError as error:
            raise passing(error) from None

    async def _compacted(self, error: Compacted) -> None:
        """A snapshot in place of the changes, if asked for."""
        self._leave()
        if self._early and error.revision <= self.next:
            self._exact = self.next
            return
        if not self._options.snapshots:
            raise error
        missed_from = self.next
        try:
            found = await self._snapshot()
        except MusterError as failed:
            if not isinstance(broken := passing(failed), Broken):
                raise
            await self._mend(broken)  # the next stream is refused again, and leads here
            return
        self.next = found.revision + 1
        self.events.append(Snapshot(found.kvs, found.revision, missed_from))
        log.warning("watch: revision %d is compacted; continuing from %d", missed_from, self.next)

    def _leave(self) -> None:
        """Drop the stream, and a revision of which it has told a part."""
        super()._leave()
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


class Watch(Followed[Event]):
    """Changes of a range, by ``async for``. In ``async with`` it is established once the body begins.

    It reads no further than it is asked for: changes that wait stay on the server, where a compaction may
    overtake them. A reader that is cancelled loses nothing, and may go on. One task reads at a time.

    MusterError where no endpoint could serve it better (no permission, Compacted). What else breaks is told
    to the logger ``muster_client``, and another endpoint goes on.
    """

    def __init__(
        self, caller: Caller, options: WatchOptions, snapshot: Callable[[], Awaitable[Snapshot]]
    ) -> None:
        super().__init__(_Feed(caller, options, snapshot))


def _change(event: kv_pb2.Event) -> Change:
    previous = kv_of(event.prev_kv) if event.HasField("prev_kv") else None
    if event.type == kv_pb2.Event.DELETE:
        return Delete(event.kv.key, event.kv.mod_revision, previous)
    return Put(kv_of(event.kv), previous)
