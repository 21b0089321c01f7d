"""Which part of this replica answers which method, from its applied state.

Everything that may be long is a generator for ``node.serving.reads``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.overlay import Overlay
from cluster.evaluate.txns import plain_txn
from cluster.features.rows import Row
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2
from cluster.raft import Raft
from cluster.settings import NodeSettings
from cluster.wire.events import EVENT, event_field
from cluster.wire.messages import HISTORY_ANSWER, HISTORY_HEAD, SIGNS, Method, Status
from node.links.fronts import FrontLink
from node.serving.auth.admission import Admission
from node.serving.auth.guard import Guard
from node.serving.backups import Backups
from node.serving.leases.keys import answer_keys
from node.serving.leases.listing import LeaseList
from node.serving.maintenance import Maintenance
from node.serving.ranges import Ranges
from node.serving.reads import Reads
from node.serving.streams import first_pieces, with_signs
from node.serving.txns.past import Past
from node.serving.v2 import V2Tree
from node.serving.watch.watches import PREV_KV, WatchSource
from node.slicing.slicer import Slices
from node.storage import Compacted, StateStore

if TYPE_CHECKING:
    from node.upkeep.expiry import Expiry

_HISTORY_SCAN = 128  # changes of other keys in a slice, or 16 events: 0.1 to 0.5 ms
_HISTORY_STEP = 256  # events that are encoded at once, 1.5 us each
_HISTORY_SLICES = 100  # in an answer: a front asks a silent node again, for the same
# of an answer leaves at once: a revision is read whole, and a link takes no message of 1 GiB
_HISTORY_PIECE = 16 << 20
_FAR_BEHIND = 1000  # revisions: a watch that has so many to catch up with asks for them in many parts


class ServeNode(Protocol):
    settings: NodeSettings
    store: StateStore
    reads: Reads
    admission: Admission
    guard: Guard
    expiry: Expiry
    watches: WatchSource
    past: Past
    backups: Backups
    raft: Raft


class Serve:
    def __init__(
        self, node: ServeNode, *, ranges: Ranges, maintenance: Maintenance, v2: V2Tree, lease_list: LeaseList,
        defragment: Callable[[FrontLink, int], None],
    ) -> None:
        """``defragment`` answers when that is done."""
        self._node = node
        self._store = node.store
        self._reads = {
            Method.RANGE: ranges.whole,
            Method.RANGE_STREAM: ranges.stream,
            Method.RANGE_ROWS: ranges.rows,
            Method.STREAM_ROWS: ranges.stream_rows,
            Method.READ_TXN: self._txn,
            Method.LEASE_LEASES: self._leases,
            Method.LEASE_KEYS: self._lease_keys,
            Method.MEMBER_LIST: maintenance.members,
            Method.HASH: maintenance.hash_all,
            Method.HASH_KV: maintenance.hash_kv,
            Method.STATUS: maintenance.status,
            Method.COUNTERS: maintenance.counters,
            Method.FACTS: maintenance.facts,
            Method.MOVES: maintenance.facts,
            Method.SNAPSHOT: self._snapshot,
            Method.ALARM: maintenance.alarms,
            Method.DOWNGRADE: maintenance.may_downgrade,
            Method.DEFRAGMENT: self._defragment,
            Method.AUTH_SHOW: self._users,
            Method.V2_READ: self._v2,
        }
        self.ranges = ranges
        self.maintenance = maintenance
        self.v2 = v2
        self.lease_list = lease_list
        self._ask_defragment = defragment

    def request(self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        """One read of a front, or a revoke: the keys of its lease are read before."""
        reads = self._node.reads
        if method == Method.LEASE_REVOKE:
            self._node.expiry.revoke(link, rid, timeout_ms, body)
            return
        if method == Method.HISTORY:
            try:
                reads_history = self._history(link, rid, body)
            except EtcdError as e:
                reads.refuse(link, rid, e)
            else:
                behind = self._store.revision - HISTORY_HEAD.unpack_from(body)[0]
                reads.start(link, rid, reads_history, part=behind > _FAR_BEHIND)
            return
        if reads.waits(link, body) and self._node.admission.late(link, rid, method, timeout_ms, body):
            return
        reads.submit(link, rid, timeout_ms, body, self.reading(method), method)

    def reading(self, method: int) -> Callable[[FrontLink, int, int, bytes], Slices | None]:
        return self._reads[Method(method)]

    def applied(self, rows: Mapping[int, list[Row]]) -> None:
        self._node.guard.applied(rows)
        self.v2.applied(rows)

    def replaced(self) -> None:
        self._node.guard.replaced()
        self.v2.replaced()
        self.ranges.replaced()

    @property
    def watched(self) -> bool:
        """Whether watches or v2 waits look at what is applied here."""
        return self._node.watches.active or self.v2.awaited

    def _v2(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        self.v2.read(link, rid, body)

    def _term(self) -> int:
        return self._node.raft.term

    def _txn(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices | None:
        plain = None if revision else plain_txn.read(body)
        if plain is not None and plain.ops() <= self._node.settings.common.max_txn_ops:
            with suppress(plain_txn.Large):
                outcome, answer = plain_txn.run(Overlay(self._store), plain, GRAIN.late_bytes)
                assert not outcome.items, "a read-only transaction has no effect"
                link.ok(rid, outcome.revision, self._term(), answer(outcome.revision))
                return None
        return self._node.past.read_txn(link, rid, revision, body)

    def _history(self, link: FrontLink, rid: int, body: bytes) -> Slices:
        work = self._history_parts(link, rid, body)
        if not HISTORY_HEAD.unpack_from(body)[3] & SIGNS:
            return work
        # revisions with very many changes are read as a whole
        return with_signs(work, _HISTORY_SLICES, lambda: link.answer(rid, Status.PARTIAL, b""))

    def _history_parts(self, link: FrontLink, rid: int, body: bytes) -> Slices:
        from_revision, max_events, max_bytes, flags, key_len = HISTORY_HEAD.unpack_from(body)
        names = body[HISTORY_HEAD.size :]
        key, range_end = names[:key_len], names[key_len:]
        table: list[bytes] = []
        parts: list[bytes] = []
        size = 0
        next_revision = from_revision
        left = _HISTORY_SLICES
        while True:
            left -= 1
            try:
                part = yield from self._store.history_slices(
                    key, range_end, next_revision, max_events=max_events - len(parts),
                    max_bytes=max_bytes - size, want_prev=bool(flags & PREV_KV), max_scan=_HISTORY_SCAN)
            except Compacted as e:
                raise EtcdError(errors.COMPACTED, str(e.compact_revision)) from e
            for at, (revision, kind, _, kv, prev, place) in enumerate(part.events):
                if at % _HISTORY_STEP == _HISTORY_STEP - 1:
                    yield  # a revision comes whole, however many changes it has
                encoded = event_field(kind, kv, prev)
                parts.append(encoded)
                table.append(EVENT.pack(revision, kind, place, len(encoded)))
                size += len(encoded)
            next_revision = part.next_revision
            if (next_revision > part.applied_revision or len(parts) >= max_events or size >= max_bytes
                    or not left):
                break
            yield
        head = HISTORY_ANSWER.pack(next_revision, part.applied_revision, part.compact_revision, len(parts))
        rest = [head, *table, *parts]
        if flags & SIGNS:
            begin = yield from first_pieces(rest, _HISTORY_PIECE, lambda begin, end: link.answer(
                rid, Status.PARTIAL, b"".join(rest[begin:end])))
            del rest[:begin]
        link.answer(rid, Status.OK, b"".join(rest))

    def _leases(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices | None:
        return self.lease_list.ask(link, rid)

    def _lease_keys(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices | None:
        answer = rpc_pb2.LeaseTimeToLiveResponse(ID=rpc_pb2.LeaseTimeToLiveRequest.FromString(body).ID)
        return answer_keys(self._store, link, rid, self._term(), answer)

    def _users(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        link.ok(rid, self._store.revision, self._term(), self._node.guard.shown(body))

    def _defragment(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        self._ask_defragment(link, rid)

    def _snapshot(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        self._node.backups.ask(link, rid, body)
