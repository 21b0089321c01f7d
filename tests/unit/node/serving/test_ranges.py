"""A node's answers to ranges: the same whether the rows come out of blocks or not, in pieces or in frames."""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate.reading.ranges import RangeRead, end_fields
from cluster.evaluate.reading.row_parts import read_part, sizes_in
from cluster.pb import rpc_pb2
from cluster.placement.changes import Moved, move_item, moved_item
from cluster.placement.table import Move
from cluster.wire import messages
from cluster.wire.messages import HEAD, READ, Method, Status
from node.links.fronts import FrontLink
from node.serving import ranges
from node.serving.reads import Reads
from node.serving.streams import LINK_BYTES, PIECE_BYTES, Streams
from node.slicing.slicer import Slicer, Slices
from node.storage import Reader, StateStore
from node.storage.state import reads as rows_of
from node.storage.state import store as state
from tests.garbage import no_garbage
from tests.unit.node.serving.answering import serve_of
from tests.unit.proxy.fakes import ManualLoop
from tests.unit.storage.moved.cluster import SHARDS, Cluster
from tests.unit.storage.state.stores import received, with_many_tables

KEYS = [b"k%04d" % n for n in range(900)]


class Replica:
    """One store, its read path, and a front that is in the same process (``near``) or not."""

    def __init__(self, path: Path, cache_bytes: int, near: bool, store: StateStore | None = None) -> None:
        self.store = store or StateStore.open(
            path, block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20, range_cache_bytes=cache_bytes
        )
        loop: Any = ManualLoop()
        self.loop = loop
        self.reads = Reads(loop, Slicer(loop), lambda link: None, lambda: 0)
        raft: Any = SimpleNamespace(term=1)
        self.streams = Streams(self.reads.start, loop.time, self.reads.refuse, 60.0)
        self.serve = serve_of(self.store, raft, self.reads, self.streams)
        self.answers: list[tuple[int, bytes]] = []
        self.link = FrontLink(b"front", self._frame, b"", 1)
        if near:
            self.link.pass_on = lambda rid, status, parts: self.answers.append((status, b"".join(parts)))

    def _frame(self, parts: list[bytes]) -> bool:
        self.answers += [record[1:] for record in messages.decode_answers(parts[-1])[1]]
        return True

    def ask(self, request: rpc_pb2.RangeRequest, method: Method = Method.RANGE) -> tuple[int, bytes]:
        """The last status, and everything of the answer."""
        self.answers.clear()
        self.serve.request(self.link, 1, method, 1000, READ.pack(0, 0) + request.SerializeToString())
        self.loop.run()
        if self.link.pending:
            self.link.flush()
        assert {status for status, _ in self.answers[:-1]} <= {Status.PARTIAL}
        return self.answers[-1][0], b"".join(body for _, body in self.answers)


    def merged(self, request: rpc_pb2.RangeRequest, method: Method) -> bytes:
        """What a front reads out of the parts that are for merging: the rows, and the count."""
        self.ask(request, method)
        rows, count = [], 0
        for _, body in self.answers:
            starts, count = read_part(body, HEAD.size)
            assert len(body) == starts[-1] + len(end_fields(False, count)) or body[starts[-1]] == 0x18  # more
            part = body[starts[0] : starts[-1]]
            assert body[HEAD.size + 4 : starts[0]] == sizes_in(part)
            rows.append(part)
        return b"".join(rows) + end_fields(False, count)


def request(rng: random.Random, revision: int) -> rpc_pb2.RangeRequest:
    start, end = sorted(rng.sample(KEYS, 2))
    asked = rpc_pb2.RangeRequest(
        key=rng.choice((start, b"\0")), range_end=rng.choice((end, end, b"\0", b"l"))
    )
    if rng.random() < 0.4:
        asked.limit = rng.choice((1, 100, 300, 5000))
    if rng.random() < 0.3:
        asked.revision = rng.randint(1, revision + 1)
    if rng.random() < 0.1:
        asked.keys_only = True
    if rng.random() < 0.1:
        asked.count_only = True
    if rng.random() < 0.1:
        asked.sort_order = rpc_pb2.RangeRequest.DESCEND
        asked.sort_target = rng.choice((0, 3))  # type: ignore[assignment]
    if rng.random() < 0.1:
        asked.min_mod_revision = rng.randint(1, revision)
    return asked


def change(store: StateStore, rng: random.Random, key: bytes) -> bytes:
    current = store.current(key)
    value = bytes(rng.choice((0, 100)))
    if current is None:
        return records.put(key, 0, 1, value, 0)
    return (
        records.delete(key)
        if rng.random() < 0.3
        else records.put(key, current.create, current.version + 1, value, 0)
    )


@pytest.mark.parametrize("seed", range(4))
def test_answers_with_blocks_are_those_without(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    replicas = [Replica(tmp_path / "plain", 0, near=False), Replica(tmp_path / "near", 1 << 20, near=True),
                Replica(tmp_path / "far", 50_000, near=False)]
    try:
        for index in range(1, 150):
            many = index == 1 or rng.random() < 0.05
            changed = rng.sample(KEYS, 200 if many else rng.randrange(4))
            item = b"".join(change(replicas[0].store, rng, key) for key in changed)
            if rng.random() < 0.05:
                item += records.compact(replicas[0].store.revision)
            for replica in replicas:
                replica.store.apply([(index, 1, item)])
                while not replica.store.counts.build_step():
                    pass
            for _ in range(3):
                asked = request(rng, replicas[0].store.revision)
                expected, *others = [replica.ask(asked) for replica in replicas]
                assert others == [expected, expected], asked
                if expected[0] == Status.OK and asked.range_end:
                    plain = expected[1][HEAD.size :]
                    for replica in replicas:
                        for method in (Method.RANGE_ROWS, Method.STREAM_ROWS):
                            assert replica.merged(asked, method) == plain.replace(b"\x18\x01\x20", b"\x20")
                if expected[0] == Status.OK:
                    assert HEAD.unpack_from(expected[1]) == (replicas[0].store.revision, 1)
        taken = [replica.store.blocks.taken_rows for replica in replicas]
        assert taken[0] == 0
        assert min(taken[1:]) > 1000
    finally:
        for replica in replicas:
            replica.store.close()


@pytest.mark.parametrize("keys_only", [False, True])
def test_the_pages_of_a_list_are_counted_once_while_the_store_goes_on(
    tmp_path: Path, keys_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pages but the first are at a revision that is past. To walk all that follows each of them, for the
    count, took more than the rows themselves."""
    replica = Replica(tmp_path / "store", 1 << 20, near=False)
    rng = random.Random(7)

    def put(index: int, keys: list[bytes]) -> None:
        replica.store.apply([(index, 1, b"".join(change(replica.store, rng, key) for key in keys))])
        while not replica.store.counts.build_step():
            pass

    def page(asked: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        status, body = replica.ask(asked)
        assert status == Status.OK
        return rpc_pb2.RangeResponse.FromString(body[HEAD.size :])

    try:
        put(1, KEYS)
        revision = replica.store.revision
        asked = rpc_pb2.RangeRequest(key=b"k", range_end=b"l", limit=150, keys_only=keys_only)
        pages = [page(asked)]
        walked = 0
        with monkeypatch.context() as patched:
            counting = Reader.count

            def counted(*arguments: Any) -> Any:
                nonlocal walked
                walked += 1
                return counting(*arguments)

            patched.setattr(Reader, "count", counted)
            while pages[-1].more:
                put(len(pages) + 1, [*rng.sample(KEYS, 20), b"knew%d" % len(pages)])  # some are deleted
                asked.key, asked.revision = pages[-1].kvs[-1].key + b"\0", revision
                pages.append(page(asked))
            assert walked == 0
            assert [one.count for one in pages] == [900 - 150 * i for i in range(6)]
            assert [kv.key for one in pages for kv in one.kvs] == KEYS

            with monkeypatch.context() as near:
                near.setattr(ranges, "_GAP_SLICES", 0)
                asked.key = KEYS[300]  # in the middle, and nobody has counted there
                first = page(asked)
                assert (first.count, walked > 0) == (600, True)
                asked.key = KEYS[600]
                page(asked)  # of another list
            walked, asked.key = 0, first.kvs[-1].key + b"\0"
            assert (page(asked).count, walked) == (450, 0)
            patched.setattr(ranges, "_RESTS", 3)
            for n in range(3):  # others' lists
                asked.range_end = b"l%d" % n
                page(asked)
            walked, asked.key, asked.range_end = 0, first.kvs[-1].key + b"\0", b"l"
            assert (page(asked).count, walked > 0) == (450, True)  # it is not kept for ever
    finally:
        replica.store.close()


def test_a_host_that_serves_a_page_in_three_counts_those_between_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients of three hosts ask them in turn: each page's host walked all that came behind it."""
    replica = Replica(tmp_path, 0, near=False)
    replica.store.apply([(1, 1, b"".join(records.put(key, 0, 1, b"", 0) for key in KEYS))])
    at = replica.store.revision
    replica.store.apply([(2, 1, b"".join(map(records.delete, KEYS[::2])))])
    walked: list[tuple[bytes, bytes]] = []
    counting = Reader.count

    def counted(reader: Reader, start: bytes, end: bytes, budget_us: int = 0) -> tuple[int, bytes | None]:
        walked.append((start, end))
        return counting(reader, start, end, budget_us)

    monkeypatch.setattr(Reader, "count", counted)

    def page(first: int, end: bytes = b"l") -> bool:
        """Whether what comes behind it was walked."""
        walked.clear()
        status, body = replica.ask(rpc_pb2.RangeRequest(
            key=KEYS[first], range_end=end, revision=at, limit=50))
        found = rpc_pb2.RangeResponse.FromString(body[HEAD.size :])
        assert (status, len(found.kvs), found.count) == (Status.OK, 50, 900 - first)
        return any(stop == end for _, stop in walked)

    assert page(0)
    assert not page(150)
    assert not page(300)
    assert walked[0] == (KEYS[199] + b"\0", KEYS[300]), "from the page before here"
    assert not page(100), "another list of this revision, or the same page again"
    assert page(100, b"m")
    replica.store.close()


@pytest.mark.parametrize("near", [False, True])
def test_a_front_hears_of_a_read_that_only_counts_or_passes_over_what_is_gone(
    tmp_path: Path, near: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the answer does not show was counted in silence, and timed out after 7 s."""
    monkeypatch.setattr(rows_of, "_COUNT_SLICE", 10)
    monkeypatch.setattr(ranges, "_LOOK", 10)
    store = StateStore.open(tmp_path, clock_ns=count(step=200_000).__next__)  # each look ends a slice
    replica = Replica(tmp_path, 0, near, store)
    store.apply([(1, 1, b"".join(records.put(key, 0, 1, b"", 0) for key in KEYS))])
    at = store.revision
    store.apply([(2, 1, b"".join(map(records.delete, KEYS)))])
    now = store.revision
    for limit, rows in ((0, 0), (3, 3)):
        asked = rpc_pb2.RangeRequest(
            key=b"k", range_end=b"l", revision=at, limit=limit, count_only=not limit)
        status, body = replica.ask(asked)
        first, *signs, _ = [part for _, part in replica.answers]
        assert (status, len(signs) > 5, set(signs)) == (Status.OK, True, {b""})
        assert first[: HEAD.size] == HEAD.pack(now, 1), "older fronts put pieces together, too"
        found = rpc_pb2.RangeResponse.FromString(body[HEAD.size :])
        assert (len(found.kvs), found.count) == (rows, 900)
        replica.serve.ranges.replaced()
        replica.ask(asked, Method.RANGE_STREAM)
        assert {len(part) for _, part in replica.answers[1:-1]} == {HEAD.size}
        replica.serve.ranges.replaced()
        assert replica.merged(asked, Method.RANGE_ROWS)
        assert len(replica.answers) > 5
    store.apply([(3, 1, records.put(b"m", 0, 1, b"", 0))])
    for limit in (0, 5):
        gone = rpc_pb2.RangeRequest(key=b"k", range_end=b"l", revision=now, limit=limit)
        for method in (Method.RANGE, Method.RANGE_ROWS, Method.RANGE_STREAM, Method.STREAM_ROWS):
            status, _ = replica.ask(gone, method)
            assert (status, len(replica.answers) > 5) == (Status.OK, True)
    store.close()


@pytest.mark.parametrize("limit", [0, 1, 5])
@pytest.mark.parametrize("keys", [(b"a2", b"b1"), (b"a2", b"b1", b"c1")])
def test_g6_the_revision_of_a_switch_has_the_keys_where_they_were_then(
    tmp_path: Path, keys: tuple[bytes, ...], limit: int
) -> None:
    """A switch takes no revision, so the counts of now are of another table than a read of that revision."""
    cluster = Cluster(tmp_path, 1, hosts=1)
    try:
        source, target = cluster.stores[0, 0], cluster.stores[0, SHARDS - 1]
        for key in keys:
            assert cluster.table.owner(key) == 0
            cluster.put(key)
        revision = cluster.model.revision
        cluster.place(move_item(Move(1, b"a", b"c", cluster.table.owners(b"a", b"c"), SHARDS - 1)))
        cluster.copy(0)
        while cluster.copiers[0].through < revision or not cluster.copiers[0].whole:
            cluster.page(0)
        before = Replica(tmp_path, 0, False, source)
        counted(source)
        ask = rpc_pb2.RangeRequest(key=b"a", range_end=b"d", limit=limit)
        assert shown(before, ask) == (list(keys[: limit or None]), len(keys)), "notes the rest of a page"
        cluster.place(moved_item(Moved(1, True, revision, 2)))
        moved, left = list(keys[:2]), list(keys[2:])
        for store, now, then in ((source, left, list(keys)), (target, moved, [])):
            for ready in (False, True):
                if ready:
                    counted(store)
                replica = before if store is source else Replica(tmp_path, 0, False, store)
                for at, rows in ((0, now), (revision, then), (0, now)):
                    ask.revision = at
                    assert shown(replica, ask) == (rows[: limit or None], len(rows))
    finally:
        cluster.close()


@pytest.mark.parametrize("ready", [False, True])
def test_g6_a_count_is_of_its_own_side_of_a_switch(tmp_path: Path, ready: bool) -> None:
    """Before the move and behind it a base shard's range is one part: only its keys differ."""
    cluster = Cluster(tmp_path, 1, hosts=1)
    try:
        keys = [b"a/", b"a1", b"g/"]
        for key in (*keys, b"d/"):
            cluster.put(key)
        assert [cluster.table.owner(key) for key in (*keys, b"d/")] == [1, 1, 1, 0]
        store, revision = cluster.stores[0, 1], cluster.model.revision
        replica, early = Replica(tmp_path, 0, False, store), store.reader()
        if ready:
            counted(store)
        ask = rpc_pb2.RangeRequest(key=b"a", range_end=b"z", limit=1)
        assert shown(replica, ask) == ([b"a/"], 3), "notes the rest of a page"
        cluster.move(b"d/", b"d0", 1)
        assert cluster.model.revision == revision
        page = rpc_pb2.RangeRequest(key=b"a/\0", range_end=b"z", limit=1)
        assert shown(replica, page) == ([b"a1"], 3)
        read = RangeRead(ask.SerializeToString())
        for _ in replica.serve.ranges._feed(early, read):
            pass
        assert rpc_pb2.RangeResponse.FromString(read.finish()).count == 3, "it was made before"
    finally:
        cluster.close()


def counted(store: StateStore) -> None:
    while not store.counts.build_step():
        pass


def shown(replica: Replica, asked: rpc_pb2.RangeRequest) -> tuple[list[bytes], int]:
    """The keys of an answer, and its count, which count_only has too."""
    only = rpc_pb2.RangeRequest(
        key=asked.key, range_end=asked.range_end, revision=asked.revision, count_only=True)
    answers = []
    for one in (asked, only):
        status, body = replica.ask(one)
        assert status == Status.OK
        answers.append(rpc_pb2.RangeResponse.FromString(body[HEAD.size :]))
    assert answers[0].count == answers[1].count
    return [kv.key for kv in answers[0].kvs], answers[0].count


def test_a_read_that_is_cancelled_while_it_waits_is_not_served() -> None:
    loop: Any = ManualLoop()
    served: list[int] = []
    applied = [4]
    reads = Reads(loop, Slicer(loop), lambda link: None, lambda: applied[0])
    link = FrontLink(b"front", lambda parts: True, b"", 1)
    for rid in (7, 8, 9):
        reads.submit(link, rid, 1000, READ.pack(5, 3), lambda link, rid, revision, body: served.append(rid))
    for rid in (7, 8, 8, 10):
        reads.cancel(link, rid)
    applied[0] = 5
    reads.waiting.release(5, loop.now)
    assert served == [9]
    reads.submit(link, 11, 1000, READ.pack(6, 3), lambda link, rid, revision, body: served.append(rid))
    told = link.pending
    assert len(reads._late) == 1
    loop.now += 2
    reads.sweep()
    assert not reads._late, "its time is over"
    assert told != link.pending, "a front waits longer for a hash"


def test_a_read_of_a_state_that_is_gone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot replaced it, and the read's client took its parts for a quarter of an hour."""
    monkeypatch.setattr(state, "RETIRE_S", 0)
    monkeypatch.setattr(state, "READERS_S", 0)
    replica = Replica(tmp_path, 0, False, with_many_tables(tmp_path / "node"))
    store, rows = replica.store, replica.store.reader().scan(b"\0", b"\0")
    donor = StateStore.open(tmp_path / "donor")
    donor.apply([(at, 1, records.put(b"k", 0, 1, b"", 0)) for at in range(1, 3)])
    next(rows)

    def work() -> Slices:
        for _ in rows:
            yield

    replica.reads.start(replica.link, 7, work())
    sink = received(donor, tmp_path / "outgoing", store.root)
    sink.finish()
    store.install(sink)
    store.flush()
    replica.loop.run()
    replica.link.flush()
    status, body = replica.answers[-1]
    assert (status, EtcdError.decode(body).kind) == (Status.ERROR, errors.TIMEOUT)
    store.close()
    donor.close()


def test_a_read_that_has_waited_leaves_nothing_to_the_garbage_collector() -> None:
    """On a follower most reads wait: the collector held the loop for some milliseconds every 5,000 reads."""
    loop: Any = ManualLoop()
    applied, served = [4], []
    reads = Reads(loop, Slicer(loop), lambda link: None, lambda: applied[0])
    link = FrontLink(b"front", lambda parts: True, b"", 1)

    def serve(link: FrontLink, rid: int, revision: int, request: bytes) -> None:
        served.append((rid, revision, request))

    with no_garbage("node", "tests"):
        reads.submit(link, 7, 1000, READ.pack(5, 3) + b"asked", serve, Method.RANGE)
        assert not served
        applied[0] = 5
        reads.waiting.release(5, loop.now)
        assert served == [(7, 3, b"asked")]


@pytest.mark.parametrize("revision", [0, 2], ids=["the newest", "of a revision"])
def test_large_values_of_many_clients_leave_as_their_front_reads_them(tmp_path: Path, revision: int) -> None:
    """All in one frame, they took longer than an election timeout, and the front's link ended."""
    replica = Replica(tmp_path, 0, near=False)
    value = bytes(1 << 20)
    replica.store.apply([(1, 1, records.put(b"k", 0, 1, value, 0))])
    asked = rpc_pb2.RangeRequest(key=b"k", revision=revision).SerializeToString()
    for rid in range(1, 41):
        replica.serve.request(replica.link, rid, Method.RANGE, 1000, READ.pack(0, 0) + asked)
    came: list[tuple[int, int, bytes]] = []

    def take(parts: list[bytes]) -> bool:
        came.extend(messages.decode_answers(parts[-1])[1])
        return True

    replica.link._send = take
    whole: dict[int, bytes] = {}
    got: dict[int, bytes] = {}
    read = 0
    while len(whole) < 40:
        replica.loop.run()
        came.clear()
        assert replica.link.flush()
        assert sum(len(body) for _, _, body in came) <= LINK_BYTES + 40 * PIECE_BYTES
        for rid, status, body in came:
            got[rid] = got.get(rid, b"") + body
            if status == Status.PARTIAL:
                read += len(body)
                replica.streams.credit(replica.link, rid, len(got[rid]))
            else:
                assert status == Status.OK
                whole[rid] = got[rid]
        replica.streams.credit(replica.link, 0, read)
    for body in whole.values():
        (kv,) = rpc_pb2.RangeResponse.FromString(body[HEAD.size :]).kvs
        assert kv.value == value
    replica.store.close()
