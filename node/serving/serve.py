"""What this replica answers from its applied state: ranges, read-only transactions, status, hashes, backups.

Hot path: a read of one key costs one parse (0.3 us), one store look-up and two joins, at once. Everything
that may be long is a generator for ``node.serving.reads``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate.reading.ranges import RangeRead, RowSource, plain_answer, plain_get
from cluster.evaluate.replica import Overlay
from cluster.evaluate.txns import plain_txn
from cluster.evaluate.validate import parse
from cluster.features import downgrade
from cluster.features.rows import Row
from cluster.histogram import HASH_S, Histogram
from cluster.pb import rpc_pb2
from cluster.version import CLUSTER_VERSION
from cluster.wire.events import EVENT, event_field
from cluster.wire.messages import HEAD, HISTORY_ANSWER, HISTORY_HEAD, Method, Status
from node.links.fronts import FrontLink
from node.serving.leases.keys import answer_keys
from node.serving.leases.listing import LeaseList
from node.serving.streams import PIECE_BYTES, Answer, RangeStream
from node.serving.v2 import V2Tree
from node.serving.watches import PREV_KV
from node.slicing.slicer import Slices
from node.storage import LEAST_ROWS, PAUSE, Compacted, FutureRevision, Reader

if TYPE_CHECKING:
    from node.replica.server import Node

_SLICE_ROWS = 256
_SLICE_BYTES = 256 << 10
_PARTIAL_ROWS = 1024
_HISTORY_SCAN = 32  # a slice of 0.1 to 0.25 ms
_FAR_BEHIND = 1000  # revisions: a watch that has so many to catch up with asks for them in many parts
_LOOK = 1000  # rows passed over in a slice: of keys that are gone, or newer
_RESTS = 1024  # lists whose next page may be asked for
_REST_KEY_BYTES = 1024  # of one that is remembered


class Serve:
    """Read methods of one replica."""

    def __init__(self, node: Node, *, facts: Callable[[], dict[str, Any]],
                 figures: Callable[[], dict[str, Any]], defragment: Callable[[FrontLink, int], None]) -> None:
        """``facts``: how this node is (``node.upkeep.facts``). ``figures``: what it has done
        (``node.upkeep.counters``). ``defragment`` answers when that is done."""
        self._node = node
        self._facts_now, self._figures, self._ask_defragment = facts, figures, defragment
        self._store = node.store
        self._reads = {
            Method.RANGE: self._range,
            Method.RANGE_STREAM: self._range_stream,
            Method.RANGE_ROWS: self._range_rows,
            Method.STREAM_ROWS: self._stream_rows,
            Method.READ_TXN: self._txn,
            Method.LEASE_LEASES: self._leases,
            Method.LEASE_KEYS: self._lease_keys,
            Method.MEMBER_LIST: self._members,
            Method.HASH: self._hash,
            Method.HASH_KV: self._hash_kv,
            Method.STATUS: self._status,
            Method.COUNTERS: self._counters,
            Method.FACTS: self._facts,
            Method.SNAPSHOT: self._snapshot,
            Method.ALARM: self._alarms,
            Method.DOWNGRADE: self._downgrade,
            Method.DEFRAGMENT: self._defragment,
            Method.AUTH_SHOW: self._users,
            Method.V2_READ: self._v2,
        }
        self.v2 = V2Tree(node)
        self.ranges = 0
        # how many keys there are from where a page of a list ended, at its revision, up to its end
        self._rests: dict[tuple[int, bytes, bytes], int] = {}
        self.hashes, self.hash_revs = Histogram(HASH_S), Histogram(HASH_S)
        self.lease_list = LeaseList(node)

    def request(self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        """One read of a front, or a revoke: what hangs on its lease is read before."""
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
        if reads.behind(body) and self._node.guard.late(link, rid, method, timeout_ms, body):
            return
        reads.submit(link, rid, timeout_ms, body, self.reading(method))

    def reading(self, method: int) -> Callable[[FrontLink, int, int, bytes], Slices | None]:
        """What answers this method."""
        return self._reads[Method(method)]

    def applied(self, rows: Mapping[int, list[Row]]) -> None:
        """Rows of features were applied."""
        self._node.guard.applied(rows)
        self.v2.applied(rows)

    def replaced(self) -> None:
        """A snapshot was installed."""
        self._node.guard.replaced()
        self.v2.replaced()
        self._rests.clear()

    @property
    def watched(self) -> bool:
        """Whether somebody looks at what is applied here, as it is applied."""
        return self._node.watches.active or self.v2.awaited

    def _v2(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        self.v2.read(link, rid, body)

    def _term(self) -> int:
        return self._node.raft.term

    # -- keys

    def get(self, key: bytes) -> tuple[int, int, bytes]:
        """For a front in this very process: applied revision, term, and the answer for one key after its
        header."""
        self.ranges += 1
        return self._store.revision, self._node.raft.term, plain_answer(self._store.get(key))

    def _range(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices | None:
        self.ranges += 1
        store = self._store
        if not revision and (plain := plain_get(body)) is not None:
            link.ok(rid, store.revision, self._term(), plain_answer(store.get(plain[0])))
            return None
        read = RangeRead(body)
        at = revision or read.revision
        if read.single and not read.count_only:
            try:
                kv = store.get(read.key, at)
            except Compacted as e:
                raise EtcdError(errors.COMPACTED) from e
            except FutureRevision as e:
                raise EtcdError(errors.FUTURE_REV) from e
            if kv is not None:
                read.feed(((read.key, kv),))
            link.ok(rid, store.revision, self._term(), read.finish())
            return None
        return self._long_range(link, rid, read, at)

    def _long_range(self, link: FrontLink, rid: int, read: RangeRead, at: int) -> Slices:
        """From one snapshot at one revision, whatever is applied meanwhile (H16)."""
        reader = self._reader(at)
        answer = self._node.streams.answer(link, rid, [HEAD.pack(reader.position.revision, self._term())])
        return answer.run(self._gathered(answer, reader, read))

    def _gathered(self, answer: Answer, reader: Reader, read: RangeRead) -> Slices:
        at_last = before = 0
        for _ in self._feed(reader, read):
            if not read.satisfied and self._part_is_due(read, at_last, before):
                answer.pieces(read.take_parts())
                at_last = read.count
            before = read.count
            yield
        yield from read.ending()
        yield from answer.last(read.take_parts())

    def _range_rows(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices:
        """As a range, for who merges its rows with those of other shards."""
        self.ranges += 1
        read = RangeRead(body, sized=True)
        reader = self._reader(revision or read.revision)
        answer = self._node.streams.answer(link, rid, [])
        return answer.run(self._gathered_rows(answer, reader, read))

    def _gathered_rows(self, answer: Answer, reader: Reader, read: RangeRead) -> Slices:
        head = HEAD.pack(reader.position.revision, self._term())
        at_last = before = 0
        for _ in self._feed(reader, read):
            if self._part_is_due(read, at_last, before):
                answer.pieces([head, *read.take_sized()])
                at_last = read.count
            before = read.count
            yield
        yield from read.ending()
        answer.end([head, *read.take_sized()])

    @staticmethod
    def _part_is_due(read: RangeRead, at_last: int, before: int) -> bool:
        """Whether there is enough to be sent: many rows since the last part, or few large ones in the last
        slice."""
        rows = read.count
        return rows - at_last >= _PARTIAL_ROWS or (
            rows - before < _SLICE_ROWS and read.unsent and read.unsent_bytes() >= PIECE_BYTES)

    def _feed(self, reader: Reader, read: RangeRead) -> Slices:
        """Give a read its rows a slice at a time, and the count of those that its answer does not show."""
        if read.empty:
            return
        # now, while the store is at the reader's revision; after other requests it may not be
        total = most = None
        if reader.revision == self._store.revision:
            if read.row_limit is None:
                most = self._store.count_at_most(read.key, read.range_end)
            else:
                total = most = self._store.quick_count(read.key, read.range_end)
            if most == 0:
                return
        if read.spliced:
            few = min(n for n in (most, read.row_limit, LEAST_ROWS) if n is not None) < LEAST_ROWS
            source: RowSource = (reader.splicer if few else reader.rows)(read.key, read.range_end, _LOOK)
            while not read.satisfied and not read.feed_from(source, _SLICE_ROWS, _SLICE_BYTES):
                yield
        else:
            rows = reader.scan(read.key, read.range_end, _LOOK)
            ended = False
            while not read.satisfied:
                some, ended = _some(rows)
                if (some and read.feed(some)) or ended:
                    break
                yield
        if read.satisfied:
            shown = read.count
            if total is None:  # the page before may have counted: what was there at a revision stays
                total = self._rests.get((reader.revision, read.key, read.range_end))
            if total is not None:
                read.add_count(total - shown)
            else:
                yield from self._count_rest(reader, read)
            self._note_rest(reader.revision, read, read.count - shown)

    def _note_rest(self, revision: int, read: RangeRead, rest: int) -> None:
        """A page ended, and so many keys come after it: the next page need not walk them to count them."""
        last, end = read.last_key, read.range_end
        if rest and last is not None and len(last) + len(end) <= _REST_KEY_BYTES:
            while len(self._rests) >= _RESTS:
                del self._rests[next(iter(self._rests))]
            self._rests[revision, last + b"\0", end] = rest

    def _count_rest(self, reader: Reader, read: RangeRead) -> Slices:
        """Count the keys after the rows that the answer shows."""
        start: bytes | None = read.key if read.last_key is None else read.last_key + b"\0"
        end = read.range_end
        if not end:
            if read.last_key is None:
                read.add_count(reader.count(read.key, b"")[0])
            return
        while start is not None and (end == b"\0" or start < end):
            count, start = reader.count(start, end, 200)
            read.add_count(count)
            yield

    def _range_stream(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices:
        """As a range, in parts of whole KeyValues, as fast as they are taken; more and count come with the
        last one."""
        read = RangeRead(body)
        return self._stream(link, rid, revision, read, read.take_parts)

    def _stream_rows(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices:
        """As a stream, for who merges its rows with those of other shards."""
        read = RangeRead(body, sized=True)
        return self._stream(link, rid, revision, read, read.take_sized)

    def _stream(
        self, link: FrontLink, rid: int, revision: int, read: RangeRead, take: Callable[[], list[bytes]]
    ) -> Slices:
        reader = self._reader(revision or read.revision)
        stream = self._node.streams.open(link, rid)
        return stream.run(self._streamed(stream, reader, read, take))

    def _streamed(
        self, stream: RangeStream, reader: Reader, read: RangeRead, take: Callable[[], list[bytes]]
    ) -> Slices:
        head = HEAD.pack(reader.position.revision, self._term())
        for _ in self._feed(reader, read):
            if read.unsent and not read.satisfied:
                stream.send(b"".join([head, *take()]))
            yield
        yield from read.ending()
        stream.link.answer(stream.rid, Status.OK, b"".join([head, *take()]))

    def _reader(self, revision: int) -> Reader:
        try:
            return self._store.reader(revision)
        except Compacted as e:
            raise EtcdError(errors.COMPACTED) from e
        except FutureRevision as e:
            raise EtcdError(errors.FUTURE_REV) from e

    def _txn(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices | None:
        limit = self._node.settings.common.max_txn_ops
        if revision or (plain := plain_txn.read(body)) is None or plain.ops() > limit:
            return self._node.past.read_txn(link, rid, revision, body)
        outcome = evaluate.txn(Overlay(self._store), body, limit)
        assert not outcome.items, "a read-only transaction has no effect"
        link.ok(rid, outcome.revision, self._term(), outcome.tail)
        return None

    def _history(self, link: FrontLink, rid: int, body: bytes) -> Slices:
        from_revision, max_events, max_bytes, flags, key_len = HISTORY_HEAD.unpack_from(body)
        at = HISTORY_HEAD.size
        key, range_end = body[at : at + key_len], body[at + key_len :]
        table: list[bytes] = []
        parts: list[bytes] = []
        size = 0
        next_revision = from_revision
        while True:
            try:
                part = yield from self._store.history_slices(
                    key,
                    range_end,
                    next_revision,
                    max_events=max_events - len(parts),
                    max_bytes=max_bytes - size,
                    want_prev=bool(flags & PREV_KV),
                    max_scan=_HISTORY_SCAN,
                )
            except Compacted as e:
                raise EtcdError(errors.COMPACTED, str(e.compact_revision)) from e
            for revision, kind, _, kv, prev, place in part.events:
                encoded = event_field(kind, kv, prev)
                parts.append(encoded)
                table.append(EVENT.pack(revision, kind, place, len(encoded)))
                size += len(encoded)
            next_revision = part.next_revision
            if next_revision > part.applied_revision or len(parts) >= max_events or size >= max_bytes:
                break
            yield
        link.answer(
            rid,
            Status.OK,
            HISTORY_ANSWER.pack(next_revision, part.applied_revision, part.compact_revision, len(parts))
            + b"".join(table + parts),
        )

    # -- the rest

    def _leases(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices | None:
        return self.lease_list.ask(link, rid)

    def _lease_keys(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices | None:
        answer = rpc_pb2.LeaseTimeToLiveResponse(ID=rpc_pb2.LeaseTimeToLiveRequest.FromString(body).ID)
        return answer_keys(self._store, link, rid, self._term(), answer)

    def _members(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        answer = rpc_pb2.MemberListResponse(members=self._node.roster.listed())
        link.ok(rid, 0, self._term(), answer.SerializeToString())

    def _status(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        node, raft = self._node, self._node.raft
        answer = rpc_pb2.StatusResponse(
            dbSize=max(self._store.size_bytes(), 1), dbSizeInUse=max(self._store.size_in_use_bytes(), 1),
            leader=raft.leader_id, raftIndex=raft.commit_index, raftTerm=raft.term,
            raftAppliedIndex=node.applied_index,
            isLearner=node.roster.table.learner(node.settings.common.member_id),
            dbSizeQuota=node.settings.quota_backend_bytes,
        )
        target = self._store.meta(downgrade.META)
        answer.downgradeInfo.enabled = target is not None
        answer.downgradeInfo.targetVersion = (target or b"").decode()
        if not raft.leader_id:
            answer.errors.append("etcdserver: no leader")
        for member_id, kind in self._store.alarms():  # as etcd writes an AlarmMember
            member = f"memberID:{member_id} " if member_id else ""
            answer.errors.append(f"{member}alarm:{rpc_pb2.AlarmType.Name(kind)} ")
        link.ok(rid, self._store.revision, raft.term, answer.SerializeToString())

    def _counters(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        link.ok(rid, self._store.revision, self._term(), json.dumps(self._figures()).encode())

    def _facts(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        link.ok(rid, self._store.revision, self._term(), json.dumps(self._facts_now()).encode())

    def _users(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        self._node.guard.show(link, rid, revision, body)

    def _alarms(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        wanted = rpc_pb2.AlarmRequest.FromString(body).alarm
        answer = rpc_pb2.AlarmResponse(alarms=[
            rpc_pb2.AlarmMember(memberID=member_id, alarm=kind)  # type: ignore[arg-type]  # an enum's number
            for member_id, kind in self._store.alarms() if wanted in (rpc_pb2.NONE, kind)])
        link.ok(rid, self._store.revision, self._term(), answer.SerializeToString())

    def _downgrade(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        """VALIDATE: whether a downgrade to that version may begin."""
        request = parse(rpc_pb2.DowngradeRequest.FromString, body)
        downgrade.check_target(request.version, self._store.meta(downgrade.META))
        answer = rpc_pb2.DowngradeResponse(version=CLUSTER_VERSION)
        link.ok(rid, self._store.revision, self._term(), answer.SerializeToString())

    def _defragment(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        self._ask_defragment(link, rid)

    def _hash_kv(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices:
        wanted = revision or rpc_pb2.HashKVRequest.FromString(body).revision
        store = self._store
        if wanted > store.revision:
            raise EtcdError(errors.FUTURE_REV)
        if 0 < wanted < store.compact_revision:
            raise EtcdError(errors.COMPACTED)
        began = self._node.machine.perf_counter()
        hashing, shown = store.hash_kv(wanted), store.revision  # more may be applied before it is done
        while not hashing.step(200):
            yield
        self.hash_revs.observe(self._node.machine.perf_counter() - began)
        answer = rpc_pb2.HashKVResponse(
            hash=hashing.value,
            compact_revision=hashing.compact_revision or -1,
            hash_revision=hashing.revision,
        )
        link.ok(rid, shown, self._term(), answer.SerializeToString())

    def _hash(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices:
        began = self._node.machine.perf_counter()
        hashing, shown = self._store.hash_written(), self._store.revision
        while not hashing.step(200):
            yield
        self.hashes.observe(self._node.machine.perf_counter() - began)
        link.ok(rid, shown, self._term(), rpc_pb2.HashResponse(hash=hashing.value).SerializeToString())

    def _snapshot(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        self._node.backups.ask(link, rid, body)


def _some(rows: Iterator[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], bool]:
    """The next rows: not too many, and with large values fewer; whether these are the last."""
    some: list[tuple[bytes, bytes]] = []
    size = 0
    for row in rows:
        if row is PAUSE:
            return some, False
        some.append(row)
        size += len(row[1])
        if len(some) == _SLICE_ROWS or size >= _SLICE_BYTES:
            return some, False
    return some, True

