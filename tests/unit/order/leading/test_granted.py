"""Transactions over several shards do what they would do in one store, whatever is granted, read ahead
or walked."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate.footprint import footprint, inverted
from cluster.evaluate.spans import Span, holds, merged
from cluster.evaluate.txns.transactions import finish
from cluster.grain import GRAIN
from cluster.order.leading import attempts
from cluster.order.leading.shard_leader import ShardLeader, Start
from cluster.order.leading.verdicts import HOLDS, THERE
from cluster.order.log import Attempt
from cluster.order.prepare import Grant, Prepare, Row, Touch
from cluster.order.sequencing import granted
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method, Status
from cluster.wire.protobuf import key_value
from tests.unit.order.leading.several import KEYS, PLACEMENT, TERM, VALUES, Part, Store
from tests.unit.order.stores import EmptyStore
from tests.unit.semantics.memory import MemoryShard
from tests.unit.semantics.test_footprint import UNIVERSE, spans

key_spans = st.tuples(st.sampled_from(KEYS), st.sampled_from([*KEYS, b"z", b"\0", b"\0", b""]))


@st.composite
def compares(draw: Any) -> pb.Compare:
    """Of ranges and of single keys."""
    key, end = draw(key_spans)
    target = draw(st.sampled_from((0, 1, 2, 3, 4, 9)))
    found = pb.Compare(key=key, range_end=end, result=draw(st.sampled_from((0, 1, 2, 3, 3, 7))),
                       target=target)
    number = draw(st.integers(0, 30))
    if target == 0:
        found.version = number % 3
    elif target == 1:
        found.create_revision = number
    elif target == 2:
        found.mod_revision = number
    elif target == 3:
        found.value = draw(st.sampled_from(VALUES))
    return found


@st.composite
def branches(draw: Any) -> list[pb.RequestOp]:
    """Operations that may stand beside each other: of each kind, one."""
    found = []
    if draw(st.booleans()):
        key, end = draw(key_spans)
        found.append(pb.RequestOp(request_range=pb.RangeRequest(
            key=key, range_end=end, limit=draw(st.sampled_from((0, 0, 2))))))
    if draw(st.booleans()):
        key, end = draw(key_spans)
        found.append(pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(
            key=key, range_end=end, prev_kv=draw(st.booleans()))))
    if draw(st.booleans()):
        key, end = draw(key_spans)
        found.append(pb.RequestOp(request_range=pb.RangeRequest(
            key=key, range_end=end, count_only=draw(st.booleans()))))
    return found


def one_by_one(whole: MemoryShard, request: pb.TxnRequest) -> bytes:
    try:
        return evaluate.txn(whole, request.SerializeToString(), 128).tail
    except EtcdError as e:
        return e.encode()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=40),
       st.lists(compares(), max_size=4), branches(), branches(), st.lists(compares(), max_size=2),
       st.sampled_from((0, 9, 256)), st.sampled_from((3, 256)),
       st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=6),
       st.sampled_from((0, 3, 10, 256)))
@example(  # a first attempt pins rows of the other branch, and a second one needs none
    [(b"k00", b"1"), (b"k03", b"1"), (b"k05", b"1"), (b"k06", b"1")], [],
    [pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"k00", range_end=b"k01"))],
    [pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"k00", range_end=b"k07", prev_kv=True))],
    [], 0, 3, [], 0)
def test_a_transaction_over_several_shards_does_what_it_does_in_one(
    puts: list[tuple[bytes, bytes]], first: list[pb.Compare], then: list[pb.RequestOp],
    otherwise: list[pb.RequestOp], nested: list[pb.Compare], turn_rows: int, many: int,
    noise: list[tuple[bytes, bytes]], late: int,
) -> None:
    """Whatever its compares take, in one turn or looked at ahead while others write."""
    store = Store()
    store.noise = noise
    for key, value in puts:
        store.put(key, value)
    request = pb.TxnRequest(compare=first, success=then, failure=otherwise)
    request.success.append(pb.RequestOp(request_txn=pb.TxnRequest(compare=nested, success=[
        pb.RequestOp(request_put=pb.PutRequest(key=b"put", value=b"yes"))])))
    request.failure.append(pb.RequestOp(request_put=pb.PutRequest(key=b"put", value=b"no")))
    late_bytes = (0, 1 << 20)[late % 3]
    with GRAIN.finer(
        turn_rows=turn_rows, many_keys=many, late_rows=late, piece_rows=2, late_bytes=late_bytes
    ):
        outcome = store.run(request)
        expected = one_by_one(store.whole, request)
    assert outcome.tail == expected


@st.composite
def single_ops(draw: Any) -> list[pb.RequestOp]:
    """Of single keys, each written once."""
    free = draw(st.permutations(KEYS))
    value = st.sampled_from(VALUES)
    kinds = [lambda: pb.RequestOp(request_range=pb.RangeRequest(key=draw(st.sampled_from(KEYS)))),
             lambda: pb.RequestOp(request_put=pb.PutRequest(key=free.pop(), value=draw(value))),
             lambda: pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=free.pop()))]
    chosen = st.lists(st.sampled_from((0, 0, 0, 1, 2)), min_size=2, max_size=9)
    return [kinds[kind]() for kind in draw(chosen)]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=40), single_ops(),
       single_ops(), st.booleans(), st.sampled_from((0, 20, 1 << 20)))
def test_gets_of_single_keys_show_the_same_whether_that_is_late_or_not(
    puts: list[tuple[bytes, bytes]], then: list[pb.RequestOp], otherwise: list[pb.RequestOp],
    succeeds: bool, late_bytes: int,
) -> None:
    """Over several shards, and in one; what is written before the answer is made is not in it."""
    store = Store()
    for key, value in puts:
        store.put(key, value)
    request = pb.TxnRequest(
        compare=[pb.Compare(key=b"none", result=pb.Compare.EQUAL if succeeds else pb.Compare.GREATER)],
        success=then, failure=otherwise)
    body = request.SerializeToString()
    touched = footprint(Method.TXN, body)
    with GRAIN.finer(late_bytes=late_bytes):
        alone = evaluate.txn(store.whole, body, 128, store.whole.count)
        expected = evaluate.txn(store.whole, body, 128)
        assert alone.items == expected.items
        if alone.late is not None:
            alone.tail = b"".join(finish(alone.late.pieces(store.whole)))  # which nothing has written to
        assert alone.tail == expected.tail
        if len({PLACEMENT.shard_of(key) for key, _ in [*touched.reads, *touched.writes]}) > 1:
            outcome = store.run(request)
            assert (outcome.items, outcome.tail) == (expected.items, expected.tail)


@given(st.lists(spans, max_size=8))
@settings(max_examples=500, deadline=None)
def test_merged_spans_are_of_the_same_keys_and_no_two_meet(some: list[Span]) -> None:
    found = merged(some)
    for key in UNIVERSE:
        assert any(holds(span, key) for span in some if not inverted(span)) == (
            sum(holds(span, key) for span in found if not inverted(span)) == 1)


@pytest.mark.parametrize("distinct", [1, 50])
def test_what_is_only_compared_is_decided_where_it_is_and_looked_at_once(distinct: int) -> None:
    """Issue 11: 50 compares of 60,000 keys are 1 KB."""
    store = Store()
    keys = [b"/many/%02d/%02d" % (at % 20, at // 20) for at in range(900)]
    for key in keys:
        store.put(key, b"v")
    request = pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=b"/done", value=b"v"))])
    for at in range(50):
        request.compare.append(pb.Compare(
            key=b"/many", range_end=b"/manz%02d" % (at % distinct),
            target=3, result=3, value=b"%d" % at))  # type: ignore[arg-type]
    for part in store.parts:
        part.rows = 0
    outcome = store.run(request)
    assert outcome.tail.startswith(b"\x10\x01")
    assert outcome.changed
    assert store.looks == [0, 1, 2]
    assert sum(part.rows for part in store.parts) == len(keys)
    assert store.granted_bytes < 1000


def shown(key: bytes, end: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=end))


DONE = pb.RequestOp(request_put=pb.PutRequest(key=b"/done", value=b"v"))
GONE = pb.DeleteRangeRequest(key=b"/many", range_end=b"/manz", prev_kv=True)


@pytest.mark.parametrize("request_", [
    pb.TxnRequest(success=[shown(b"/many", b"/manz"), DONE]),
    pb.TxnRequest(success=[DONE, shown(b"/", b"0")], failure=[shown(b"\0", b"\0")]),
    pb.TxnRequest(success=[*(shown(b"/many/%02d/" % at, b"/many/%02d0" % at) for at in range(20)), DONE]),
    pb.TxnRequest(success=[DONE, pb.RequestOp(request_delete_range=GONE), shown(b"/", b"0")]),
    GONE,
], ids=("range", "both branches", "many ranges", "delete", "delete by itself"))
def test_no_loop_reads_more_than_a_step_of_rows_in_one_turn(
    request_: pb.TxnRequest | pb.DeleteRangeRequest
) -> None:
    """Issue 10: some 0.1 s for 50,000 rows."""
    store = Store()
    for at in range(4000):
        store.put(b"/many/%02d/%03d" % (at % 20, at // 20), b"v")
    for part in store.parts:
        part.rows = 0
    whole: Any = evaluate.txn if isinstance(request_, pb.TxnRequest) else evaluate.delete_range
    ops = (128,) if isinstance(request_, pb.TxnRequest) else ()
    expected = whole(store.whole, request_.SerializeToString(), *ops).tail
    store.rewrites = False
    assert store.run(request_).tail == expected
    assert store.pieces > 10
    assert store.granted_bytes < 60_000
    assert store.longest <= 2 * GRAIN.late_rows


@pytest.mark.parametrize("ranges", [0, 1])
@pytest.mark.parametrize("late_bytes", [1, 1 << 20])
def test_a_key_of_the_past_is_shown_beside_many_rows(ranges: int, late_bytes: int) -> None:
    """A shard's leader sends such a transaction to the sequencer, even if it touches that shard alone."""
    store = Store()
    store.rewrites = False  # it is asked again
    for at in range(1200):
        store.put(b"/many/%02d/%03d" % (at % 20, at // 20), b"v%d" % at)
    for shard in range(3):
        key = next(key for at in range(20) if PLACEMENT.shard_of(key := b"/many/%02d/003" % at) == shard)
        past = pb.RequestOp(request_range=pb.RangeRequest(key=key, revision=store.whole.revision))
        for _ in range(2):
            store.put(key, b"newer")
        request = pb.TxnRequest(success=[DONE, past, *[shown(b"/many", b"/manz")] * ranges])
        with GRAIN.finer(late_bytes=late_bytes):
            assert store.run(request).tail == evaluate.txn(store.whole, request.SerializeToString(), 128).tail


def test_what_a_delete_finds_gone_already_is_not_walked_under_its_lock() -> None:
    """2 million keys, deleted before, held each shard but the first for 0.5 to 1 s."""
    class Gone(EmptyStore):
        def scan(self, *given: Any, **named: Any) -> Iterator[Row]:
            raise AssertionError("no key is there")

    touches = [Touch(b"k", b"l", write=True, count=True), Touch(b"m", b"\0", write=True, shown=True)]
    found = finish(granted.rows_in_steps(
        Gone(), Prepare(Attempt(5, 1), 0, 1, touches)))  # type: ignore[arg-type]
    assert found == ([[], []], {}, [])


def test_the_few_keys_among_very_many_that_are_gone_are_read_in_steps() -> None:
    """The walk over 2 million took a turn of 0.5 to 1 s."""
    class Sparse(Part):
        def scan(self, *given: Any) -> Iterator[Row]:
            for row in super().scan(*given[:3]):
                yield from [(b"", b"")] * 40  # PAUSE
                yield row

    part = Sparse()
    part.execute(Method.PUT, pb.PutRequest(key=b"k1", value=b"v").SerializeToString())
    leader: ShardLeader[str] = ShardLeader(
        part, 1, TERM, Start(5, 0), max_txn_ops=128)  # type: ignore[arg-type]
    leader.applied_records([(1, 5, [])])
    leader.serve()
    leader.prepare("sequencer", Prepare(
        Attempt(5, 1), 0, 1, [Touch(b"k", b"l", write=True, count=True, brief=True)]))
    assert not leader.take_answers()
    ((_, attempt, looked),) = leader.take_unlooked()
    assert len(list(looked.steps())) == 8  # 32 at once
    leader.looked_at(attempt, looked)
    ((_, status, answer),) = leader.take_answers()
    assert status == Status.OK
    ((row,),) = Grant.decode(answer).rows
    assert row[0] == b"k1"


class Full(EmptyStore):
    """Every range has ``rows`` keys, with values of ``size``. Counts what is read of them."""

    def __init__(self, rows: int, size: int) -> None:
        super().__init__()
        self._rows = rows
        self._value = bytes(size)
        self._read = 0

    def read(self) -> int:
        """Of rows, and of 4 KiB of values, since the last call."""
        read, self._read = self._read, 0
        return read

    def get(self, key: bytes, revision: int = 0) -> bytes | None:
        self._read += 1 + len(self._value) // 4096
        return key_value(key, 1, 2, 1, self._value, 0)

    def scan(self, start: bytes, *given: Any, **named: Any) -> Iterator[Row]:
        for at in range(self._rows):
            yield start + b"%05d" % at, self.get(start) or b""

    def live_count(self, start: bytes, end: bytes) -> int:
        return self._rows

    def reader(self, revision: int = 0) -> Full:
        return self


@pytest.mark.parametrize(("count", "rows", "size", "wanted"), [
    (128, 300, 1, {"shown": True}),
    (128, 3, 500_000, {"shown": True}),
    (128, 300, 1, {"shown": True, "revision": 5}),
    (128, 0, 1_000_000, {}),
    (1, 20_000, 1, {"write": True, "brief": True}),
    (20, 250, 60_000, {"write": True, "count": True}),
], ids=("rows", "large rows", "rows of the past", "large values", "all that is deleted", "few deleted"))
def test_a_grant_reads_no_more_than_some_steps_in_one_turn(
    count: int, rows: int, size: int, wanted: dict[str, Any]
) -> None:
    """128 ranges of 257 rows or more were read in one turn of each shard's leader, under the lock."""
    store = Full(rows, size)
    leader: ShardLeader[str] = ShardLeader(
        store, 1, TERM, Start(5, 0), max_txn_ops=128)  # type: ignore[arg-type]
    leader.applied_records([(1, 5, [])])
    leader.serve()
    touches = [Touch(b"k%03d" % at, b"k%03de" % at if rows else b"", **wanted) for at in range(count)]
    leader.prepare("sequencer", Prepare(Attempt(5, 1), 0, 1, touches))
    large = 1 + size // 4096
    turns = [store.read()]
    assert turns[0] <= 32 * 64 + large
    ((_, attempt, looked),) = leader.take_unlooked()
    for _ in looked.steps():
        turns.append(store.read())
    turns.append(store.read())
    assert max(turns[1:]) <= 64 + large
    leader.looked_at(attempt, looked)
    ((_, status, _),) = leader.take_answers()
    assert status == Status.OK


def test_a_grant_reads_no_more_values_than_it_may_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows of one range were read, and held, before they were weighed."""
    monkeypatch.setattr(granted, "MOST_GRANTED_BYTES", 1_000_000)
    store = Full(20_000, 10_000)
    with pytest.raises(granted.TooLarge):
        finish(granted.rows_in_steps(
            store, Prepare(Attempt(5, 1), 0, 1, [Touch(b"k", b"l", write=True)])))  # type: ignore[arg-type]
    assert store.read() < 400


def leader_of_many() -> tuple[ShardLeader[str], Prepare]:
    """A shard's leader whose 300 keys a prepare compares."""
    part = Part()
    for at in range(300):
        part.execute(Method.PUT, pb.PutRequest(key=b"k%03d" % at, value=b"v").SerializeToString())
    leader: ShardLeader[str] = ShardLeader(
        part, 1, TERM, Start(5, 0), max_txn_ops=128)  # type: ignore[arg-type]
    leader.applied_records([(1, 5, [])])
    leader.serve()
    compare = pb.Compare(key=b"k", range_end=b"l", target=pb.Compare.VERSION, version=1)
    return leader, Prepare(Attempt(5, 1), 0, 1, compares=[compare])


def test_nothing_is_locked_while_a_shard_looks_ahead() -> None:
    """Nor is it looked at twice for a prepare that is sent again, and the answer goes to who asked last."""
    leader, prepare = leader_of_many()
    leader.prepare("first", prepare)
    leader.prepare("again", prepare)
    ((_, attempt, looked),) = leader.take_unlooked()
    assert not leader.undecided()
    assert attempt == prepare.attempt
    finish(looked.walk(leader.view))
    leader.looked_at(prepare.attempt, looked)
    ((token, status, body),) = leader.take_answers()
    assert (token, status) == ("again", Status.OK)
    assert isinstance(body, bytes)
    assert Grant.decode(body) == Grant(TERM, [], [], verdicts=bytes((THERE | HOLDS,)))
    assert leader.undecided() == [prepare.attempt]


def test_h5_an_attempt_that_is_released_while_a_shard_looks_ahead_locks_nothing() -> None:
    leader, prepare = leader_of_many()
    leader.prepare("sequencer", prepare)
    ((_, _, looked),) = leader.take_unlooked()
    assert leader.looks(prepare.attempt)
    leader.release(prepare.attempt)
    assert not leader.looks(prepare.attempt)
    finish(looked.walk(leader.view))
    leader.looked_at(prepare.attempt, looked)
    assert not leader.undecided()
    assert not leader.take_answers()


def test_a_look_ahead_that_was_given_up_is_begun_again_by_the_next_prepare() -> None:
    leader, prepare = leader_of_many()
    leader.prepare("sequencer", prepare)
    assert len(leader.take_unlooked()) == 1
    leader.looked_at(prepare.attempt, None)
    leader.prepare("sequencer", prepare)
    assert len(leader.take_unlooked()) == 1


def test_i9_what_a_prepare_compares_is_locked() -> None:
    """Whatever else it touches: a verdict stands until the transaction is in order."""
    leader, prepare = leader_of_many()
    leader.prepare("sequencer", prepare)
    ((_, _, looked),) = leader.take_unlooked()
    finish(looked.walk(leader.view))
    leader.looked_at(prepare.attempt, looked)
    for key in (b"k100", b"other"):
        leader.submit(key.decode(), Method.PUT, pb.PutRequest(key=key, value=b"x").SerializeToString())
    leader.run()
    assert leader.statistics()["locks"] == 2  # the attempt's, and the put that waits for it


def test_a_prepare_waits_for_what_is_pending_in_what_it_compares() -> None:
    """H1: its verdict is about everything that was logged before."""
    leader, prepare = leader_of_many()
    leader.submit("put", Method.PUT, pb.PutRequest(key=b"k100", value=b"x").SerializeToString())
    leader.run()
    leader.prepare("sequencer", prepare)
    for _, _, looked in leader.take_unlooked():
        leader.looked_at(prepare.attempt, looked)
    assert leader.undecided() == [prepare.attempt]
    assert not leader.take_answers()


def test_large_values_of_single_keys_are_fetched_and_not_granted() -> None:
    """127 of 1.4 MB were one grant, which came too late on a busy machine, again and again."""
    store = Store()
    for key in KEYS:
        store.put(key, key * 30_000)
    request = pb.TxnRequest(
        compare=[pb.Compare(key=KEYS[0], target=pb.Compare.MOD, result=pb.Compare.GREATER)],
        success=[pb.RequestOp(request_range=pb.RangeRequest(key=key)) for key in KEYS])
    request.success.append(pb.RequestOp(request_put=pb.PutRequest(key=KEYS[1], value=b"new")))
    expected = one_by_one(store.whole, request)
    with GRAIN.finer(late_bytes=200_000):
        assert store.run(request).tail == expected
    assert store.pieces > 10
    assert store.granted_bytes < 2 * 200_000 + 2 * 90_000 + 2_000


@pytest.mark.parametrize("many", [False, True])
def test_values_beyond_a_message_are_not_granted(many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 of 1.4 MB, kept by puts that name no value, made their leader fall; each resend did so again."""
    monkeypatch.setattr(granted, "MOST_GRANTED_BYTES", 1000)
    monkeypatch.setattr(attempts, "_STEPS_AT_ONCE", 0 if many else 32)  # they are read in steps, or at once
    leader, _ = leader_of_many()
    keys = [b"k%03d" % at for at in range(100)]
    prepare = Prepare(Attempt(5, 1), 0, 1, [Touch(key, b"", write=True) for key in keys])
    leader.prepare("sequencer", prepare)
    for _, attempt, looked in leader.take_unlooked():
        finish(looked.steps())
        leader.looked_at(attempt, looked)
    too_large = EtcdError(errors.REQUEST_TOO_LARGE).encode()
    assert leader.take_answers() == [("sequencer", Status.ERROR, too_large)]
    leader.prepare("again", prepare)  # the answer was lost
    assert leader.take_answers() == [("again", Status.ERROR, too_large)]
    assert leader.undecided() == [prepare.attempt]
    leader.release(prepare.attempt)
    assert not leader.undecided()
    brief = Prepare(Attempt(5, 2), 0, 1, [Touch(key, b"", write=True, brief=True) for key in keys])
    leader.prepare("sequencer", brief)
    for _, attempt, looked in leader.take_unlooked():
        finish(looked.steps())
        leader.looked_at(attempt, looked)
    ((_, status, _),) = leader.take_answers()
    assert status == Status.OK


def test_what_is_refused_is_not_kept_by_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is kept has the frames of its way, with all rows; the collector comes very rarely."""
    monkeypatch.setattr(granted, "MOST_GRANTED_BYTES", 1000)
    part = Part()
    keys = [b"k%03d" % at for at in range(100)]
    for key in keys:
        part.execute(Method.PUT, pb.PutRequest(key=key, value=b"v").SerializeToString())
    prepare = Prepare(Attempt(5, 1), 0, 1, [Touch(key, b"", write=True) for key in keys])
    reading = attempts.Reading(part, prepare)  # type: ignore[arg-type]
    finish(reading.steps())
    assert reading.too_large
    kept = weakref.ref(reading)
    gc.disable()
    try:
        del reading
        assert kept() is None
    finally:
        gc.enable()
