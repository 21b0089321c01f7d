"""A range over several shards is what one shard with all the keys would answer."""

from __future__ import annotations

from itertools import islice
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.reading.ranges import RangeRead, Row
from cluster.evaluate.reading.row_parts import read_part, sizes_in
from cluster.evaluate.steps import finish
from cluster.pb import rpc_pb2
from cluster.wire.messages import HASH_OF_NOTHING, HEAD, READ, Method, Status
from cluster.wire.protobuf import key_value
from proxy.routing.router import MethodStats
from proxy.spanning.gather import Gather, hash_answer, range_requests
from proxy.spanning.merged_ranges import MergedRange
from proxy.spanning.row_merge import RowMerge
from proxy.spanning.sorted_ranges import range_pieces, range_rows
from tests.garbage import no_garbage
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.served import Served
from tests.unit.proxy.services.test_range_stream import Shards, tail

Store = dict[bytes, tuple[int, int, int, bytes, int]]  # of a key: created, changed, version, value, shard

KEYS = st.binary(min_size=1, max_size=2)
SMALL = st.integers(0, 6)
VERSIONS = st.tuples(SMALL, SMALL, st.integers(1, 3), KEYS, st.integers(0, 2))
LIMITS = st.one_of(st.integers(0, 5), st.sampled_from([-(1 << 63), 1 << 31, (1 << 63) - 2, (1 << 63) - 1]))


@st.composite
def requests(draw: st.DrawFn) -> Any:
    return rpc_pb2.RangeRequest(
        key=b"\0", range_end=b"\0", limit=draw(LIMITS), sort_order=draw(st.integers(0, 2)),
        sort_target=draw(st.integers(0, 4)), keys_only=draw(st.booleans()), count_only=draw(st.booleans()),
        min_mod_revision=draw(SMALL), max_mod_revision=draw(SMALL), min_create_revision=draw(SMALL),
        max_create_revision=draw(SMALL))


def rows_of(store: Store) -> list[tuple[bytes, bytes, int]]:
    """Its rows in order, each with its shard."""
    return [(key, key_value(key, 1 + create, 1 + mod, version, value, 0), shard)
            for key, (create, mod, version, value, shard) in sorted(store.items())]


def of_shard(rows: list[tuple[bytes, bytes, int]], shard: int) -> list[Row]:
    return [row[:2] for row in rows if row[2] == shard]


def over(*shards: int) -> Any:
    """A placement of every range in these."""
    return SimpleNamespace(shards_at=lambda key, range_end, revision: shards)


def answer(request: Any, rows: list[Row]) -> bytes:
    """As a replica with these rows answers."""
    read = RangeRead(request)
    read.feed(iter(rows))
    read.add_count(len(rows) - read.count)
    return read.finish()


@settings(max_examples=300, deadline=None)
@given(requests(), st.dictionaries(KEYS, VERSIONS, max_size=20))
def test_it_is_what_one_shard_would_answer(request: Any, store: Store) -> None:
    rows = rows_of(store)
    asked = range_requests(request, over(0, 1, 2))(0)
    tails = [answer(rpc_pb2.RangeRequest.FromString(body), of_shard(rows, shard)) for shard, body in asked]
    assert whole_of(request, [[tail] for tail in tails]) == answer(request, [r[:2] for r in rows])


def whole_of(request: Any, tails: list[list[bytes]]) -> bytes:
    return b"".join(finish(range_pieces(request, tails)))


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("target", [0, 1, 4])
def test_shards_are_asked_within_the_limits_type_where_one_more_is_wanted(order: Any, target: Any) -> None:
    asked = {"limit": (1 << 63) - 1, "sort_order": order, "sort_target": target}
    request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", **asked)
    assert len(range_requests(request, over(0, 1))(0)) == 2


def parts(request: Any, rows: list[Row], random: Random) -> list[bytes]:
    """As a replica with these rows answers who merges them: in parts of any size, the last one OK."""
    read = RangeRead(request, sized=True)
    found = []
    left = iter(rows)
    while not read.satisfied and (some := list(islice(left, random.choice((1, 2, 7))))):
        read.feed(some)
        if not random.randrange(3):
            found.append(b"".join([HEAD.pack(9, 2), *read.take_sized()]))
    read.add_count(len(rows) - read.count)
    read.end()
    return [*found, b"".join([HEAD.pack(9, 2), *read.take_sized()])]


@settings(max_examples=300, deadline=None)
@given(requests(), st.dictionaries(KEYS, VERSIONS, max_size=40), st.integers())
def test_rows_that_are_merged_in_runs_are_what_one_shard_would_answer(
        request: Any, store: Store, seed: int) -> None:
    request.sort_order, request.sort_target = min(request.sort_order, 1), 0
    random, rows = Random(seed), rows_of(store)
    shards, call = Shards(3), FakeCall()
    replied: list[tuple[int, int, bytes]] = []
    merged = MergedRange(
        shards, call, request, over(0, 1, 2), MethodStats(),  # type: ignore[arg-type]
        lambda call, revision, term, pieces: replied.append((revision, term, b"".join(pieces))),
        lambda call, stats, error: call.finish(error.code, error.text))
    merged.start()
    left = {shard: parts(rpc_pb2.RangeRequest.FromString(asked.body), of_shard(rows, shard), random)
            for shard, asked in shards.asked.items()}
    assert {w.method for w in shards.asked.values()} == {Method.RANGE_ROWS}
    while left:
        shard = random.choice(list(left))
        assert not replied
        body = left[shard].pop(0)
        shards.answer(shard, Status.PARTIAL if left[shard] else Status.OK, body)
        if not left[shard]:
            del left[shard]
    assert replied == [(9, 2, answer(request, [r[:2] for r in rows]))]


def asked_of_two(shards: Any, request: Any, merged: bool, shown: list[int]) -> Gather:
    """A range over two shards, their rows merged or their answers joined. ``shown``: revisions of answers."""
    where, call, stats = over(0, 1), FakeCall(), MethodStats()

    def replied(call: Any, revision: int, term: int, rest: Any) -> None:
        shown.append(revision)

    if merged:
        return MergedRange(shards, call, request, where, stats, replied, lambda *refused: None)
    return Gather(shards, call, Method.RANGE, range_requests(request, where), request.serializable, stats,
                  replied, lambda *refused: None)


@pytest.mark.parametrize("merged", [False, True])
def test_i14_an_answer_of_a_replica_that_lacks_what_was_asked_for_is_not_shown(merged: bool) -> None:
    shards, shown = Shards(2), []  # type: ignore[var-annotated]
    request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0")
    asked_of_two(shards, request, merged, shown).start()
    nothing = parts(request, [], Random(0))[0][HEAD.size :] if merged else b""
    shards.answer(0, Status.OK, HEAD.pack(10, 2) + nothing)  # further on than it need be
    with pytest.raises(AssertionError, match="I14"):
        shards.answer(1, Status.OK, HEAD.pack(8, 2) + nothing)  # they are asked at 9
    assert not shown


@pytest.mark.parametrize("revision", [0, 5])
@pytest.mark.parametrize("merged", [False, True])
def test_a_large_range_over_shards_whose_link_breaks_halfway_is_asked_again(
        merged: bool, revision: int) -> None:
    """Nothing of it has gone to the client: what had come is dropped, and held no longer."""
    net, call = Net(shards=2).started(leader=2), FakeCall()
    request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", revision=revision)
    replied: list[bytes] = []
    rows = [(b"k%02d" % i, key_value(b"k%02d" % i, 2, 2, 1, b"v", 0)) for i in range(20)]

    def begin() -> tuple[dict[int, Any], dict[int, list[bytes]]]:
        """Both shards are asked; what each says, in two pieces."""
        net.run()
        (question,) = net.nodes[2].take(Method.READ_INDEX)
        net.nodes[2].index(question, 7, 9)
        net.run()
        method = Method.RANGE_ROWS if merged else Method.RANGE
        (first,) = [*net.every[0, 1].take(method), *net.every[0, 2].take(method)]
        (second,) = net.every[1, 1].take(method)
        assert READ.unpack_from(first.body) == READ.unpack_from(second.body) == (7, revision or 9)
        said: dict[int, list[bytes]] = {}
        for shard in (0, 1):
            read = RangeRead(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"), sized=merged)
            read.feed(iter(rows[shard:10:2]))
            begun = b"".join([HEAD.pack(9, 1), *(read.take_sized if merged else read.take_parts)()])
            read.feed(iter(rows[10 + shard :: 2]))
            read.end()
            rest = b"".join((read.take_sized if merged else read.take_parts)())
            said[shard] = [begun, HEAD.pack(9, 1) * merged + rest]
        return {0: first, 1: second}, said

    def show(call: Any, revision: int, term: int, rest: list[bytes]) -> None:
        replied.append(b"".join(rest) if merged else whole_of(request, [[tail] for tail in rest]))

    def refuse(call: Any, stats: Any, error: EtcdError) -> None:
        call.finish(error.code, error.text)

    where, stats = over(0, 1), MethodStats()
    if merged:
        MergedRange(net.router, call, request, where, stats, show, refuse).start(revision)
    else:
        ask = range_requests(request, where)
        Gather(net.router, call, Method.RANGE, ask, False, stats, show, refuse).start(revision)
    asked, said = begin()
    net.every[0, 1].answer(asked[0].rid, Status.PARTIAL, said[0][0])
    net.every[1, 1].answer(asked[1].rid, Status.PARTIAL, said[1][0])
    net.run()
    assert call.gathered == len(said[0][0]) + len(said[1][0])
    net.cut(1)
    late = asked[1].rid
    asked, said = begin()
    net.every[1, 1].answer(late, Status.PARTIAL, said[1][1])  # of the first time
    net.run()
    assert (call.status, call.gathered) == (None, 0)
    for shard, node in ((0, net.every[0, 2]), (1, net.every[1, 1])):
        node.answer(asked[shard].rid, Status.PARTIAL, said[shard][0])
        node.answer(asked[shard].rid, Status.OK, said[shard][1])
    net.run()
    assert replied == [answer(request, rows)]
    assert call.gathered == len(said[0][0]) + len(said[1][0])


@pytest.mark.parametrize("merged", [False, True])
def test_what_had_come_of_a_large_range_is_let_go_once_whose_host_ends(merged: bool) -> None:
    """Its links to two shards end one behind the other, and the range has begun again between them."""
    net, call = Net(shards=2).started(leader=2), FakeCall()
    for node in net.every.values():
        node.watermark(9)
    net.run()
    request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", serializable=True)
    method = Method.RANGE_ROWS if merged else Method.RANGE
    read = RangeRead(request, sized=merged)
    read.feed([(b"k", key_value(b"k", 2, 2, 1, bytes(1000), 0))])
    body = HEAD.pack(9, 1) + b"".join((read.take_sized if merged else read.take_parts)())

    def come(*members: int) -> None:
        for shard in (0, 1):
            (node, asked), = [(net.every[shard, m], asked) for m in members
                              for asked in net.every[shard, m].take(method)]
            node.answer(asked.rid, Status.PARTIAL, body)
        net.run()

    if merged:
        range_ = MergedRange(net.router, call, request, over(0, 1), MethodStats(), lambda *_: None,
                             lambda *_: None)
    else:
        range_ = Gather(net.router, call, Method.RANGE, range_requests(request, over(0, 1)), True,
                        MethodStats(), lambda *_: None, lambda *_: None)
    range_.start()
    net.run()
    come(1)
    assert call.gathered == 2 * len(body)
    net.cut(1, 0)
    net.run()
    assert len(net.every[1, 1].take(Method.CANCEL)) == 1, "it sends no more of it"
    net.cut(1, 1)
    assert call.gathered == 0
    net.pass_time(0.2)
    come(2, 3)
    assert call.gathered == 2 * len(body)


@pytest.mark.parametrize("end", ["answered", "closed", "failed"])
@pytest.mark.parametrize("merged", [False, True])
def test_nothing_of_a_range_over_shards_is_left_to_the_garbage_collector(merged: bool, end: str) -> None:
    shards = Shards(2)
    request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0")
    begun, last = parts(request, [(b"a", key_value(b"a", 2, 2, 1, b"v", 0))], Random(0))[0], b""
    if merged:
        last = parts(request, [], Random(0))[0]
    with no_garbage("proxy"):
        range_ = asked_of_two(shards, request, merged, [])
        range_.start()
        call = range_._call
        shards.answer(0, Status.PARTIAL, begun)
        if end == "closed":
            call.closed = True
            shards.answer(0, Status.PARTIAL, begun)
            assert {*shards.cancelled} == {0, 1}
        elif end == "failed":
            shards.answer(0, Status.ERROR, EtcdError(errors.CORRUPT).encode())
            assert shards.cancelled == [1]
        else:
            shards.answer(0, Status.OK, last)
            shards.answer(1, Status.OK, last if merged else HEAD.pack(9, 2))
        shards.asked.clear()
        del range_


@pytest.mark.parametrize("lost", [False, True])
def test_what_has_come_of_a_range_over_shards_goes_with_its_client(lost: bool) -> None:
    """It stayed until a shard that hung had answered, or for 7 s, and counted as nobody's memory. The node of
    that shard went on with what nobody waited for."""
    served = Served(shards=2)
    call = served.call("Range", rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", serializable=True))
    one, other = served.net.every[0, 1], served.net.every[1, 1]
    (asked,) = one.take(Method.RANGE_ROWS)
    one.answer(asked.rid, Status.OK, tail([b"a"], bytes(1 << 20), count=1))
    served.net.run()
    (asked,) = other.take(Method.RANGE_ROWS)
    if lost:
        for member in served.net.nodes:
            served.net.cut(member, 1)
    call.closed = True
    served.net.pass_time(0.1)
    router = served.net.router.statistics()
    assert (router["pending"], router["queued"]) == (0, 0)
    assert [request.rid for request in other.take(Method.CANCEL)] == ([] if lost else [asked.rid])
    assert served.count("etcdserverpb.KV", "Range", 1) == 1


def test_a_range_over_shards_whose_links_keep_breaking_halfway_fails() -> None:
    shards = Shards(2)
    answered, refused = gathered(shards, Method.RANGE)
    lost = EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL)
    while not refused:
        assert len(shards.prefixes) < 100
        shards.answer(0, Status.PARTIAL, HEAD.pack(9, 2))
        shards.answer(0, Status.ERROR, lost.encode())
    assert [error.kind for error in refused] == [lost.kind]
    assert not answered


@settings(max_examples=200, deadline=None)
@given(st.integers(), st.integers(2, 4), st.sampled_from((0, 0, 1, 7, 40)), st.sampled_from((1, 3, 50)))
def test_runs_of_any_length_are_merged_in_order_and_as_few_as_there_are(
        seed: int, sources: int, limit: int, most: int) -> None:
    random = Random(seed)
    directories = [(b"%03d/" % d, random.randrange(sources), random.randint(1, most)) for d in range(12)]
    rows = [(name + b"%0*d" % (random.choice((3, 3, 3, 150)), n), source)
            for name, source, size in directories for n in range(size)]
    rows.sort()
    merge = RowMerge(sources, limit)
    own = [[k for k, s in rows if s == source] for source in range(sources)]
    read = [RangeRead(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"), sized=True) for _ in own]
    runs: list[bytes] = []
    while not merge.ended:
        source = random.randrange(sources)
        some, own[source] = own[source][: (size := random.choice((1, 5, 100)))], own[source][size:]
        if not some and merge._sources[source].ended:
            continue
        read[source].feed(
            (key, key_value(key, 2, 2, 1, bytes(random.choice((0, 5, 300))), 0)) for key in some)
        body = b"".join(read[source].take_sized())
        merge.add(source, body, read_part(body, 0)[0], last=not own[source])
        while merge.take(runs, random.choice((1, 100, 1 << 30))):
            pass
    whole = b"".join(runs)
    assert [key for key, _ in range_rows(whole)[0]] == [k for k, _ in rows][: limit or None]
    assert merge.rows == len(rows)


def test_a_run_out_of_one_shard_is_one_piece_however_many_rows_it_has() -> None:
    merge = RowMerge(2)
    runs: list[bytes] = []
    first, second = [b"a%04d" % n for n in range(1000)], [b"b%04d" % n for n in range(500)]
    for source, keys in enumerate(([*first, b"c"], second)):
        read = RangeRead(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"), sized=True)
        read.feed((key, key_value(key, 2, 2, 1, b"v", 0)) for key in keys)
        body = b"".join(read.take_sized())
        merge.add(source, body, read_part(body, 0)[0], last=True)
    merge.take(runs)
    assert [len(sizes_in(run)) // 4 for run in runs] == [1000, 500, 1]


def test_the_last_row_of_many_costs_two_rows_of_each_shard() -> None:
    """What locks and elections ask for."""
    request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", limit=1, sort_order=2, sort_target=2)
    asked = range_requests(request, over(0, 1))(0)
    rows = [(b"k%03d" % i, key_value(b"k%03d" % i, 2 + i, 2 + i, 1, b"v", 0)) for i in range(500)]
    sent = [answer(rpc_pb2.RangeRequest.FromString(body), rows[shard::2]) for shard, body in asked]
    assert [len(range_rows(one)[0]) for one in sent] == [2, 2]


def test_ranges_over_several_shards_and_other_reads_of_a_tick_share_one_read_index() -> None:
    net = Net(shards=3).started(leader=2)
    sequencer = net.nodes[2]
    answered: list[int] = []

    def span() -> None:
        Gather(net.router, FakeCall(), Method.RANGE, lambda revision: [(shard, b"") for shard in range(3)],
               False, MethodStats(), lambda call, revision, term, tail: answered.append(revision),
               lambda *_: None).start()

    for _ in range(10):
        span()
        net.router.get(FakeCall(), b"", b"k", False, 0, MethodStats())
    net.run()
    (question,) = sequencer.take(Method.READ_INDEX)
    span()  # H2: it has come while a question is under way, and belongs to a later one
    net.run()
    (later,) = sequencer.take(Method.READ_INDEX)
    sequencer.index(question, 7, revision=5)
    net.run()
    own = [net.every[shard, 1] for shard in range(3)]
    for node in own:
        asked = node.take(Method.RANGE)
        assert [READ.unpack_from(r.body)[0] for r in asked] == [7] * (20 if node.shard == 0 else 10)
        for request in asked:
            node.ok(request, revision=5)
    net.run()
    assert answered == [5] * 10
    sequencer.index(later, 9, revision=6)
    net.run()
    for node in own:
        (request,) = node.take(Method.RANGE)
        assert READ.unpack_from(request.body)[0] == 9
        node.ok(request, revision=6)
    net.run()
    assert answered[10:] == [6]
    assert net.router.read_index.rounds == 2


def gathered(shards: Any, method: int, revision: int = 0) -> tuple[list[int], list[EtcdError]]:
    """A serializable question to all shards: where the revisions of its answer and its refusal will be."""
    answered: list[int] = []
    refused: list[EtcdError] = []
    Gather(shards, FakeCall(), method, lambda revision: [(shard, b"") for shard in range(len(shards.routes))],
           True, MethodStats(), lambda call, revision, term, tail: answered.append(revision),
           lambda call, stats, error: refused.append(error)).start(revision)
    return answered, refused


def test_h16_the_latest_is_never_compacted_however_far_behind_a_replica_of_the_host_is() -> None:
    shards = Shards(2)
    shards.routes[0].replica.revision = 3
    answered, failed = gathered(shards, Method.RANGE)
    while shards.prefixes[-1] == (0, 3):
        assert len(shards.prefixes) < 100
        shards.answer(1, Status.ERROR, EtcdError(errors.COMPACTED).encode())
        assert not failed
    assert shards.prefixes[-1] == (5, 9)  # a quorum was asked
    for shard in range(2):
        shards.answer(shard, Status.OK, HEAD.pack(9, 2))
    assert answered == [9]


@pytest.mark.parametrize("merged", [False, True])
def test_a_replica_that_is_behind_the_header_is_not_asked_of_the_past(merged: bool) -> None:
    """It would judge by the users of its own time, which may be none."""
    shards, answered = Shards(2), []  # type: ignore[var-annotated]  # the front knows of 9
    request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", serializable=True, revision=3)
    asked_of_two(shards, request, merged, answered).start(3)
    nothing = parts(request, [], Random(0))[0][HEAD.size :] if merged else b""
    while shards.prefixes[-1] == (0, 3):
        assert len(shards.prefixes) < 100
        shards.answer(0, Status.OK, HEAD.pack(9, 2) + nothing)
        shards.answer(1, Status.OK, HEAD.pack(5, 2) + nothing)  # another one, sent on to by the router
        assert not answered
    assert shards.prefixes[-1] == (5, 3)  # a quorum was asked
    for shard in range(2):
        shards.answer(shard, Status.OK, HEAD.pack(9, 2) + nothing)
    assert answered == [9]


def test_a_revision_that_the_replicas_have_is_in_no_future_though_the_front_has_not_heard_of_it() -> None:
    shards = Shards(2)  # the front knows of 9
    answered, refused = gathered(shards, Method.HASH_KV, 11)
    assert shards.prefixes == [(0, 11)] * 2
    for shard in range(2):
        shards.answer(shard, Status.OK, HEAD.pack(12, 2))
    assert (answered, refused) == ([11], [])
    answered, refused = gathered(shards, Method.HASH_KV, 13)
    shards.answer(0, Status.ERROR, EtcdError(errors.FUTURE_REV).encode())  # a replica knows
    assert not answered
    assert [e.kind for e in refused] == [errors.FUTURE_REV]


def test_hashes_of_shards_that_have_removed_different_versions_make_none() -> None:
    def part(value: int, compacted: int) -> bytes:
        answered = rpc_pb2.HashKVResponse(hash=value, compact_revision=compacted, hash_revision=9)
        return answered.SerializeToString()

    assert hash_answer([part(1, 4), part(2, -1)], 9) is None
    assert hash_answer([part(1, -1), part(2, 4)], 9) is None
    whole = hash_answer([part(1, 4), part(2, 4)], 9)
    assert whole is not None
    assert rpc_pb2.HashKVResponse.FromString(whole).compact_revision == 4
    assert whole != hash_answer([part(2, 4), part(1, 4)], 9)


@pytest.mark.parametrize("others", [0, 1, 3])
def test_a_shard_that_counts_nothing_leaves_no_trace_in_a_hash(others: int) -> None:
    """I19: one born behind a revision, or dropped since, does not change that revision's hash."""
    def part(value: int) -> bytes:
        return rpc_pb2.HashKVResponse(hash=value, compact_revision=4, hash_revision=9).SerializeToString()

    nothing = part(HASH_OF_NOTHING)
    assert hash_answer([part(1), *[nothing] * others], 9) == part(1), "that of a store of one shard"
    assert hash_answer([nothing] * (1 + others), 9) == nothing
    assert hash_answer([part(1), *[nothing] * others, part(2)], 9) == hash_answer([part(1), part(2)], 9)
