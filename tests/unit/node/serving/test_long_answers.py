"""Transactions that read or show many rows: the same answers as in one go, made in short steps at one
revision."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate import overlay
from cluster.evaluate import requests as evaluate
from cluster.evaluate.overlay import Overlay
from cluster.evaluate.reading import rows as reading_rows
from cluster.evaluate.replica import Leader
from cluster.evaluate.txns import compares, range_compares
from cluster.evaluate.txns import transactions as txn_eval
from cluster.features.lessor import Lessor
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2 as pb
from cluster.wire import messages
from cluster.wire.messages import HEAD, READ, Method, Status
from node.links.fronts import FrontLink
from node.replica.writes import Beside, Writes
from node.serving.reads import Reads
from node.serving.streams import Streams
from node.serving.txns.looking import Looking
from node.serving.txns.past import Past, PastView
from node.slicing.slicer import Slicer
from node.storage import StateStore
from tests.unit.node.replica.test_writes import FakeRaft
from tests.unit.node.serving.answering import serve_of
from tests.unit.proxy.fakes import ManualLoop

KEYS = [b"k%03d" % n for n in range(60)]


class Replica:
    """A store of one shard that leads, and its front; every step of its slicer is a turn of the loop."""

    def __init__(self, path: Path) -> None:
        self.store = StateStore.open(path)
        self.loop: Any = ManualLoop()
        self.raft = FakeRaft()
        self.reads = Reads(self.loop, Slicer(self.loop), lambda link: None, lambda: 0)
        self.streams = Streams(self.reads.start, self.loop.time, self.reads.refuse, 60.0)
        self.past = Past(
            self.store, self.raft, self.reads, self.streams, lambda link: None, max_txn_ops=128)
        self.looking = Looking(self.store, self.reads, lambda: None)
        self.serve = serve_of(
            self.store, self.raft, self.reads, self.streams, past=self.past,
            settings=SimpleNamespace(common=SimpleNamespace(max_txn_ops=128)))
        self.writes = Writes(
            self.raft,
            self.store,
            lambda link: None,
            lambda: Leader(self.store, self.raft.term, max_txn_ops=128, lessor=Lessor(1000),
                           new_lease_id=lambda: 7),
            refusal=lambda method, body: None,
            control_applied=lambda link, record, physical: None,
            beside=Beside(self.past.answer, self.looking.start, self.past.shown),
        )
        self.answers: list[tuple[int, int, bytes]] = []
        self.link = FrontLink(b"front", self._frame, b"", 1)
        self.index = 0
        self.rid = 0
        self.apply(self.raft.propose(b""))
        self.writes.lead()

    def _frame(self, parts: list[bytes]) -> bool:
        self.answers += messages.decode_answers(parts[-1])[1]
        return True

    def apply(self, index: int) -> None:
        term, data = self.raft.entries[index]
        self.store.apply([(index, term, data)], want_events=False)
        self.writes.applied(index, term)
        self.index = index

    def write(self, method: int, request: Any) -> int:
        """Log one write; its request ID."""
        self.rid += 1
        self.writes.submit(self.link, self.rid, method, request.SerializeToString())
        self.writes.run()
        return self.rid

    def settle(self) -> dict[int, tuple[int, bytes]]:
        """Apply what is logged and finish what is under way: status and body of each answer."""
        while self.index < self.raft.last or len(self.looking) or self.writes.queued:
            while self.index < self.raft.last:
                self.apply(self.index + 1)
                self.writes.run()
            self.loop.run()
            self.writes.run()
        found: dict[int, tuple[int, bytes]] = {}
        self.loop.run()
        while self.link.pending:
            self.link.flush()
            answers, self.answers = self.answers, []
            for rid, status, body in answers:  # as a front, which puts the pieces together
                whole = body if status == Status.ERROR else found.get(rid, (0, b""))[1] + body
                found[rid] = (status, whole)
                if status == Status.PARTIAL:
                    self.streams.credit(self.link, rid, len(whole))
            self.loop.run()
        return found

    def read(self, request: pb.TxnRequest) -> tuple[int, bytes]:
        self.rid += 1
        self.serve.request(
            self.link, self.rid, Method.READ_TXN, 1000, READ.pack(0, 0) + request.SerializeToString()
        )
        return self.settle()[self.rid]


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica(tmp_path / "state")
    yield replica
    replica.store.close()


def span(rng: random.Random) -> tuple[bytes, bytes]:
    start, end = sorted(rng.sample(KEYS, 2))
    return start, rng.choice((b"", end, end, b"\0", start))


def operation(
    rng: random.Random, revision: int, used: set[bytes], depth: int, reads_only: bool
) -> pb.RequestOp | None:
    what = rng.random()
    key, end = span(rng)
    if reads_only or what < 0.4:
        return pb.RequestOp(
            request_range=pb.RangeRequest(
                key=key,
                range_end=end,
                limit=rng.choice((0, 0, 1, 7)),
                count_only=rng.random() < 0.1,
                sort_order=rng.choice((0, 0, 1, 2)),
                sort_target=rng.choice((0, 0, 3, 4)),  # type: ignore[arg-type]  # numbers
                revision=rng.choice((0, 0, 0, rng.randint(1, revision), revision + 99)),
                min_mod_revision=rng.choice((0, 0, 3)),
            )
        )
    if what < 0.6:
        if key in used:
            return None
        used.add(key)
        return pb.RequestOp(
            request_put=pb.PutRequest(key=key, value=b"%d" % rng.randrange(99), prev_kv=rng.random() < 0.3)
        )
    if what < 0.85:
        return pb.RequestOp(
            request_delete_range=pb.DeleteRangeRequest(key=key, range_end=end, prev_kv=rng.random() < 0.6)
        )
    if depth:
        return pb.RequestOp(request_txn=transaction(rng, revision, depth - 1, False))
    return None


def transaction(rng: random.Random, revision: int, depth: int, reads_only: bool) -> pb.TxnRequest:
    request = pb.TxnRequest()
    for _ in range(rng.choice((0, 0, 1, 2))):
        key, end = span(rng)
        target = rng.choice((0, 1, 2, 3))
        result: Any = rng.choice((0, 1, 2, 3))
        compare = pb.Compare(key=key, range_end=end, result=result, target=target)  # type: ignore[arg-type]
        if target == 3:
            compare.value = b"5"
        elif target == 2:
            compare.mod_revision = rng.randint(0, revision)
        elif target == 1:
            compare.create_revision = rng.randint(0, revision)
        else:
            compare.version = 1
        request.compare.append(compare)
    for ops in (request.success, request.failure):
        used: set[bytes] = set()
        ops.extend(
            op
            for op in (
                operation(rng, revision, used, depth, reads_only) for _ in range(rng.choice((0, 1, 2, 4)))
            )
            if op is not None
        )
    return request


def whole(outcome: Any, revision: int) -> tuple[int, bytes]:
    return Status.OK, HEAD.pack(revision, 1) + outcome


@pytest.mark.parametrize("seed", range(30))
def test_late_answers_say_what_answers_in_one_go_say(
    replica: Replica, seed: int, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Writes that show rows, three of them in each entry, beside a leader that answers everything at once."""
    rng = random.Random(seed)
    for place, name, value in (
        (GRAIN, "late_rows", rng.choice((0, 3, 9))),
        (GRAIN, "late_bytes", (0, 30, 1 << 20)[seed % 3]),
        (GRAIN, "many_keys", rng.choice((4, 256))),
        (reading_rows, "_STEP_ROWS", rng.choice((1, 7))),
    ):
        monkeypatch.setattr(place, name, value)
    for key in KEYS[::2]:
        replica.write(Method.PUT, pb.PutRequest(key=key, value=b"5"))
    replica.settle()
    late = 0
    for _ in range(12):
        expected: dict[int, tuple[int, bytes]] = {}
        plain = Leader(replica.store, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 7,
                       late_answers=False)
        for _ in range(3):
            revision = replica.store.revision
            if rng.random() < 0.2:
                key, end = span(rng)
                method, request = (
                    Method.DELETE_RANGE,
                    pb.DeleteRangeRequest(key=key, range_end=end, prev_kv=True),
                )
            else:
                method, request = Method.TXN, transaction(rng, revision, 2, False)  # type: ignore[assignment]
            rid = replica.write(method, request)
            logged = replica.writes._under_way.entries
            late += bool(replica.writes._open.late) or any(own.late for own in logged)
            try:
                outcome = plain.execute(method, request.SerializeToString())
                expected[rid] = whole(outcome.tail, outcome.revision)
            except EtcdError as e:
                expected[rid] = Status.ERROR, e.encode()
        assert replica.settle() == expected
    assert late


@pytest.mark.parametrize(("writes", "times"), [(True, 60_000), (False, 60_000), (False, 30_000)])
def test_large_values_of_single_keys_are_shown_in_steps(replica: Replica, writes: bool, times: int) -> None:
    """100 of 1.4 MB took the leader's loop for half a second."""
    keys = [b"large/%d" % at for at in range(6)]
    for key in keys:
        replica.write(Method.PUT, pb.PutRequest(key=key, value=key * times))
    replica.settle()
    request = pb.TxnRequest(
        success=[pb.RequestOp(request_range=pb.RangeRequest(key=key)) for key in keys])
    if not writes:
        work = replica.serve.reading(Method.READ_TXN)(replica.link, 77, 0, request.SerializeToString())
        assert work is not None
        assert sum(1 for _ in work) >= sum(len(key) * times for key in keys) // (512 << 10)
        return
    request.success.append(pb.RequestOp(request_put=pb.PutRequest(key=b"small")))
    rid = replica.write(Method.TXN, request)
    assert any(own.late for own in (replica.writes._open, *replica.writes._under_way.entries))
    status, body = replica.settle()[rid]
    assert status == Status.OK
    answer = pb.TxnResponse.FromString(body[HEAD.size :])
    assert [one.response_range.kvs[0].value for one in answer.responses[:-1]] == [k * 60_000 for k in keys]


def test_rows_that_puts_replace_are_shown_in_steps(replica: Replica) -> None:
    """128 of 1.4 MB were read in one turn, twice."""
    keys = [b"large/%d" % at for at in range(6)]
    for key in keys:
        replica.write(Method.PUT, pb.PutRequest(key=key, value=key * 60_000))
    replica.settle()
    request = pb.TxnRequest(
        success=[pb.RequestOp(request_put=pb.PutRequest(key=key, prev_kv=True)) for key in keys])
    rid = replica.write(Method.TXN, request)
    [(_, _, due)] = replica.writes._under_way.entries[-1].late
    work = due.late.pieces(PastView(replica.store.reader()))
    assert sum(1 for _ in work) >= len(keys)
    status, body = replica.settle()[rid]
    assert status == Status.OK
    answer = pb.TxnResponse.FromString(body[HEAD.size :])
    assert [one.response_put.prev_kv.value for one in answer.responses] == [k * 60_000 for k in keys]


def test_a_turn_ends_by_what_it_has_read(replica: Replica) -> None:
    """Thousands of compares of a large value that log nothing held the loop for seconds."""
    replica.write(Method.PUT, pb.PutRequest(key=b"large", value=bytes(1 << 20)))
    replica.settle()
    request = pb.TxnRequest(compare=[pb.Compare(key=b"large", target=pb.Compare.VALUE, value=b"other")])
    for rid in range(20, 40):
        replica.writes.submit(replica.link, rid, Method.TXN, request.SerializeToString())
    replica.writes.run()
    entries = replica.writes._under_way.entries
    assert entries
    assert all(own.count <= 4 for own in entries)
    assert set(replica.settle()) == set(range(20, 40))


@pytest.mark.parametrize("waits", [False, True])
def test_what_is_read_for_what_comes_back_keeps_no_leader_from_writing(replica: Replica, waits: bool) -> None:
    """It counted as logged: the entry was full, and nothing was evaluated or logged any more. ``waits``: for
    a revision to be applied; otherwise for a look ahead."""
    request = pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=b"done"))])
    for at in range(5):
        put = pb.PutRequest(key=b"large%d" % at, value=bytes(1 << 20))
        replica.write(Method.PUT, put)
        request.compare.add(key=put.key, target=pb.Compare.VALUE, result=pb.Compare.NOT_EQUAL, value=b"x")
    for at in range(600):
        replica.write(Method.PUT, pb.PutRequest(key=b"row%04d" % at))
    replica.settle()
    replica.writes._intake._pace.full_requests = 1  # each has an entry of its own
    if waits:
        for key in (b"a", b"b"):
            replica.write(Method.PUT, pb.PutRequest(key=key))
        request.success.add(request_range=pb.RangeRequest(key=b"a", revision=replica.store.revision + 1))
    else:
        request.compare.add(key=b"row", range_end=b"rox", result=pb.Compare.GREATER)
    rid = replica.write(Method.TXN, request)
    assert len(replica.writes._later if waits else replica.looking) == 1
    other = replica.write(Method.PUT, pb.PutRequest(key=b"other"))
    assert not replica.writes.queued
    assert {status for at, (status, _) in replica.settle().items() if at in (rid, other)} == {Status.OK}


@pytest.mark.parametrize("seed", range(20))
def test_reads_in_steps_say_what_reads_in_one_go_say(
    replica: Replica, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(reading_rows, "_STEP_ROWS", rng.choice((1, 3)))
    for number in range(80):
        replica.write(Method.PUT, pb.PutRequest(key=rng.choice(KEYS), value=b"%d" % (number % 10)))
    replica.write(Method.DELETE_RANGE, pb.DeleteRangeRequest(key=KEYS[10], range_end=KEYS[20]))
    replica.write(Method.COMPACT, pb.CompactionRequest(revision=3))
    replica.settle()
    for _ in range(20):
        request = transaction(rng, replica.store.revision, 0, True)
        try:
            outcome = evaluate.txn(Overlay(replica.store), request.SerializeToString(), 128)
            expected = whole(outcome.tail, outcome.revision)
        except EtcdError as e:
            expected = Status.ERROR, e.encode()
        assert replica.read(request) == expected


def fill(replica: Replica, keys: int) -> None:
    """In one entry each some hundred."""
    for first in range(0, keys, 500):
        data = b"".join(
            records.put(b"f%06d" % n, 0, 1, b"v" * 20, 0) for n in range(first, min(first + 500, keys))
        )
        replica.apply(replica.raft.propose(data))
    replica.writes.resign()
    replica.writes.lead()


ALL = pb.RequestOp(request_range=pb.RangeRequest(key=b"f", range_end=b"g"))


@pytest.mark.parametrize(
    "request_",
    [
        pb.TxnRequest(success=[ALL] * 15),
        pb.TxnRequest(
            compare=[pb.Compare(key=b"f", range_end=b"g", target=pb.Compare.VERSION, version=1)] * 50,
            success=[ALL],
        ),
        pb.TxnRequest(
            success=[
                pb.RequestOp(
                    request_range=pb.RangeRequest(
                        key=b"f", range_end=b"g", sort_order=2, sort_target=4, limit=1
                    )
                )
            ]
            * 10
        ),
    ],
    ids=["ranges", "compares", "sorts"],
)
def test_a_read_only_transaction_over_many_keys_is_read_in_slices(
    replica: Replica, request_: pb.TxnRequest, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """315 bytes with 15 full ranges held the leader for 3.8 s; writes between its slices are not seen."""
    fill(replica, 5000)
    steps = watched_steps(monkeypatch)
    replica.serve.request(
        replica.link, 99, Method.READ_TXN, 1000, READ.pack(0, 0) + request_.SerializeToString()
    )
    assert not replica.link.pending
    revision = replica.store.revision
    replica.write(Method.DELETE_RANGE, pb.DeleteRangeRequest(key=b"f", range_end=b"g"))
    status, body = replica.settle()[99]
    assert (status, HEAD.unpack_from(body)[0]) == (Status.OK, revision)
    answer = pb.TxnResponse.FromString(body[HEAD.size :])
    assert {r.response_range.count for r in answer.responses} == {5000}
    assert len(steps) > 15
    assert max(steps) <= 256


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        (
            Method.TXN,
            pb.TxnRequest(
                success=[pb.RequestOp(request_put=pb.PutRequest(key=b"f000001", value=b"new")), ALL]
            ),
        ),
        (
            Method.TXN,
            pb.TxnRequest(
                success=[
                    pb.RequestOp(
                        request_delete_range=pb.DeleteRangeRequest(
                            key=b"f", range_end=b"f004999", prev_kv=True
                        )
                    ),
                    ALL,
                ]
            ),
        ),
        (Method.DELETE_RANGE, pb.DeleteRangeRequest(key=b"f", range_end=b"g", prev_kv=True)),
    ],
    ids=["put and range", "delete and range", "delete"],
)
def test_a_write_that_shows_many_rows_reads_none_of_them_in_its_turn(
    replica: Replica, method: int, request_: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """50,000 rows held the loop for 0.12 s. They are read once the write is applied, as they were before it;
    what comes after it does not wait, a compaction neither."""
    fill(replica, 5000)
    plain = Leader(replica.store, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 7,
                       late_answers=False)
    expected = plain.execute(method, request_.SerializeToString())
    steps = watched_steps(monkeypatch)
    rid = replica.write(method, request_)
    after = replica.write(Method.PUT, pb.PutRequest(key=b"f000002", value=b"after"))
    compacted = replica.write(Method.COMPACT, pb.CompactionRequest(revision=replica.store.revision + 2))
    assert not steps
    found = replica.settle()
    assert found[rid] == whole(expected.tail, expected.revision)
    assert {found[after][0]} == {Status.OK}
    assert compacted
    assert len(steps) > 15
    assert max(steps) <= 256


GONE_TOO = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"f", range_end=b"g", prev_kv=True))
OLD = pb.RequestOp(request_range=pb.RangeRequest(key=b"f", range_end=b"g", revision=1))
PUT = pb.RequestOp(request_put=pb.PutRequest(key=b"a", value=b"new"))


@pytest.mark.parametrize(("method", "request_", "live"), [
    (Method.TXN, pb.TxnRequest(success=[PUT, ALL]), 0),
    (Method.TXN, pb.TxnRequest(success=[PUT, ALL]), 50),
    (Method.TXN, pb.TxnRequest(success=[PUT, OLD]), 200),
    (Method.TXN, pb.TxnRequest(success=[PUT, GONE_TOO]), 1),
    (Method.DELETE_RANGE, GONE_TOO.request_delete_range, 1),
], ids=["range", "range of some", "range of the past", "delete in a transaction", "delete"])
def test_a_write_that_shows_a_range_of_keys_that_are_gone_does_not_walk_it_in_its_turn(
    replica: Replica, method: int, request_: Any, live: int, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """4 million rows that are passed over held the leader for longer than an election takes."""
    monkeypatch.setattr(overlay, "LOOK", 4)
    fill(replica, 200)
    if live < 200:
        replica.apply(replica.raft.propose(b"".join(
            records.delete(b"f%06d" % at) for at in range(200) if not live or at % (200 // live))))
    plain = Leader(replica.store, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 7,
                   late_answers=False)
    expected = plain.execute(method, request_.SerializeToString())
    replica.writes.resign()
    replica.writes.lead()
    steps = watched_steps(monkeypatch)
    rid = replica.write(method, request_)
    assert len(steps) < 10
    assert replica.settle()[rid] == whole(expected.tail, expected.revision)


COUNTS = pb.RequestOp(request_range=pb.RangeRequest(key=b"f", range_end=b"g", count_only=True))
FIRST = pb.RequestOp(request_range=pb.RangeRequest(key=b"f", range_end=b"g", limit=1))
NONE = pb.Compare(key=b"f", range_end=b"g", target=pb.Compare.VERSION, version=1)


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("request_", [
    pb.TxnRequest(success=[COUNTS, FIRST]), pb.TxnRequest(compare=[NONE, NONE], success=[FIRST]),
    pb.TxnRequest(success=[PUT, COUNTS, FIRST]),
], ids=["reads", "compares", "writes"])
def test_a_front_hears_of_a_transaction_that_reads_very_much(
    replica: Replica, request_: pb.TxnRequest, near: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing left before all was read, and the front said after 7 s that it timed out."""
    monkeypatch.setattr(reading_rows, "_STEP_ROWS", 5)
    fill(replica, 300)
    answers: list[tuple[int, bytes]] = []
    if near:
        replica.link.pass_on = lambda rid, status, parts: answers.append((status, b"".join(parts)))
    revision = replica.store.revision + (request_.success[0] == PUT)
    if request_.success[0] == PUT:
        replica.write(Method.TXN, request_)
        replica.apply(replica.raft.last)
    else:
        replica.serve.request(
            replica.link, 99, Method.READ_TXN, 1000, READ.pack(0, 0) + request_.SerializeToString())
    replica.loop.run()
    if not near:
        replica.link.flush()
        answers += [answer[1:] for answer in replica.answers]
    first, *signs, (status, tail) = answers
    assert (first, len(signs) > 3) == ((Status.PARTIAL, HEAD.pack(revision, 1)), True)
    assert set(signs) == {(Status.PARTIAL, b"")}
    found = pb.TxnResponse.FromString(tail)
    assert (status, found.responses[-1].response_range.count) == (Status.OK, 300)
    assert not replica.streams.count


def test_a_late_answer_of_a_term_that_is_lost_is_not_given(replica: Replica) -> None:
    fill(replica, 600)
    rid = replica.write(Method.DELETE_RANGE, pb.DeleteRangeRequest(key=b"f", range_end=b"g", prev_kv=True))
    assert replica.writes._under_way.entries[-1].late
    replica.raft.term += 1
    replica.raft.entries[replica.raft.last] = (replica.raft.term, b"")
    replica.writes.resign()
    assert replica.settle()[rid][0] == Status.NOT_LEADER


def watched_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each step takes."""
    steps: list[int] = []
    some_rows = reading_rows.some_rows

    def counted(rows: Any) -> Any:
        found = some_rows(rows)
        steps.append(len(found[0]))
        return found

    for module in (reading_rows, compares, range_compares, txn_eval):
        monkeypatch.setattr(module, "some_rows", counted)
    return steps


@pytest.mark.parametrize("given_up", [False, True], ids=["no room", "given up"])
def test_a_write_whose_long_answer_finds_no_room_is_not_told_that_it_was_not_done(
    replica: Replica, given_up: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(GRAIN, "late_rows", 3)
    monkeypatch.setattr(reading_rows, "_STEP_ROWS", 7)
    for key in KEYS:
        replica.write(Method.PUT, pb.PutRequest(key=key, value=b"v" * 50_000))
    replica.settle()
    if not given_up:
        monkeypatch.setattr("node.serving.streams._MOST", 0)
    monkeypatch.setattr(replica.streams, "credit", lambda *given: None)
    rid = replica.write(Method.DELETE_RANGE, pb.DeleteRangeRequest(key=b"k", range_end=b"l", prev_kv=True))
    found = replica.settle()
    if given_up:
        replica.loop.now += 61.0
        replica.streams.sweep()
        found = replica.settle()
    status, body = found[rid]
    assert status == Status.ERROR
    assert EtcdError.decode(body).kind is errors.TIMEOUT
    assert replica.store.get(KEYS[0]) is None


@pytest.mark.parametrize(("method", "answer"), [
    (Method.HASH_KV, pb.HashKVResponse), (Method.HASH, pb.HashResponse)])
def test_a_hash_is_of_the_state_that_its_client_was_judged_by(
    replica: Replica, method: Method, answer: Any,
) -> None:
    """Users may be enabled before its first step."""
    def asked(rid: int, revision: int = 0) -> None:
        request = pb.HashKVRequest(revision=revision).SerializeToString()
        replica.reads.submit(
            replica.link, rid, 1000, READ.pack(0, 0) + request, replica.serve.reading(method), method)

    asked(70)
    if method == Method.HASH_KV:
        asked(71, revision=2)  # it is refused now, though it could be read at its first step
    replica.write(Method.PUT, pb.PutRequest(key=b"k", value=b"v"))
    while replica.index < replica.raft.last:  # applied before the loop turns
        replica.apply(replica.index + 1)
    asked(72)
    found = replica.settle()
    before, after = (answer.FromString(found[rid][1][HEAD.size:]) for rid in (70, 72))
    assert before.hash != after.hash
    assert [HEAD.unpack_from(found[rid][1])[0] for rid in (70, 72)] == [1, 2]
    if method == Method.HASH_KV:
        assert EtcdError.decode(found[71][1]).kind is errors.FUTURE_REV
