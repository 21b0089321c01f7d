"""Writes with large ranges while the keys are being counted, as after a start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.errors import EtcdError
from cluster.faults import faults
from cluster.features.auth.principal import NOBODY, SAID
from cluster.order.leading.shard_leader import ShardLeader, Start
from cluster.order.log import Attempt
from cluster.order.prepare import Base, Grant, Prepare, Touch
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method, Status
from node.links.fronts import FrontLink
from node.serving.auth.admission import Admission
from node.serving.txns import uncounted
from node.serving.txns.uncounted import Uncounted
from node.slicing import slicer
from node.slicing.slicer import Slicer
from node.storage.state import versions
from node.storage.state.counts import KeyCounts
from node.storage.state.reads import count_rows
from tests.unit.node.replica.moving.test_of_shard import moves
from tests.unit.node.replica.test_controls import Sequencer
from tests.unit.node.serving.test_long_answers import Replica
from tests.unit.order.stores import answers

MANY, FEW_ROWS = 3_000, 1_024  # keys


class Started(Replica):
    """Its keys are not counted yet."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.rid = MANY
        for number in range(MANY):
            put = pb.PutRequest(key=b"k%06d" % number).SerializeToString()
            self.writes.submit(self.link, number, Method.PUT, put)
        self.writes.run()
        super().settle()
        self.store.counts = KeyCounts(self.store)
        self.left = False
        self.now = 0
        self.submitted: list[int] = []
        self.role: Any = SimpleNamespace(submit=self._submit)
        self.slicer = Slicer(self.loop)
        self.uncounted = Uncounted(self)

    def now_ms(self) -> int:
        return self.now

    def wake(self) -> None: ...
    def mark_dirty(self, link: FrontLink) -> None: ...

    def settle(self) -> dict[int, tuple[int, bytes]]:
        while len(self.uncounted):
            self.loop.turn()
            self.writes.run()
        return super().settle()

    def _submit(self, link: Any, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        self.submitted.append(rid)
        self.writes.submit(link, rid, method, body)

    def ask(self, method: int, request: Any, said: bytes = b"") -> int:
        self.rid += 1
        body = said + request.SerializeToString()
        taker = self.uncounted.taker([(self.rid, method, 1000, body)])
        assert taker.submit_all(self.link, []) is False if taker is self.uncounted else True
        self.uncounted.submit(self.link, self.rid, method, 1000, body)
        self.writes.run()
        return self.rid


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    started = Started(tmp_path / "state")
    monkeypatch.setattr(versions, "_FEW_ROWS", FEW_ROWS)

    def short(*args: Any) -> Any:
        found = count_rows(*args)
        assert found[0] <= FEW_ROWS, "a turn walked over very many keys"
        return found

    monkeypatch.setattr(versions, "count_rows", short)
    yield started
    started.store.close()


ALL = pb.DeleteRangeRequest(key=b"k", range_end=b"l")
FEW = pb.DeleteRangeRequest(key=b"k002000", range_end=b"k002005")


def deleted_by(answer: tuple[int, bytes]) -> int:
    status, body = answer
    assert status == Status.OK
    return int(pb.DeleteRangeResponse.FromString(body[16:]).deleted)


def part(first: int, end: int) -> pb.DeleteRangeRequest:
    return pb.DeleteRangeRequest(key=b"k%06d" % first, range_end=b"k%06d" % end)


def test_a_delete_of_many_keys_waits_until_they_are_counted(started: Started) -> None:
    """Its turn walked over all of them: 1.3 s for 3 million."""
    rid = started.ask(Method.DELETE_RANGE, ALL)
    put = started.ask(Method.PUT, pb.PutRequest(key=b"other"))
    few = started.ask(Method.DELETE_RANGE, FEW)
    assert started.submitted == [put, few], "those of few keys do not wait"
    answers = started.settle()
    assert started.submitted == [put, few, rid]
    assert started.store.counts.ready
    assert [deleted_by(answers[each]) for each in (few, rid)] == [5, MANY - 5]
    assert started.store.quick_count(b"\0", b"\0") == 1


@pytest.mark.parametrize("said", [False, True])
def test_a_transaction_over_many_keys_waits(started: Started, said: bool) -> None:
    ops = [pb.RequestOp(request_put=pb.PutRequest(key=b"a")), pb.RequestOp(request_delete_range=ALL)]
    method, who = (Method.TXN | SAID, NOBODY.encode()) if said else (Method.TXN, b"")
    rid = started.ask(method, pb.TxnRequest(success=ops), who)
    assert not started.submitted
    assert started.settle()[rid][0] == Status.OK
    assert started.submitted == [rid]
    assert started.store.quick_count(b"\0", b"\0") == 1


def test_what_is_counted_by_now_does_not_wait(started: Started) -> None:
    for _ in range(8):
        started.store.counts.build_step()
    before = pb.DeleteRangeRequest(key=b"k000010", range_end=b"k001900")
    rid = started.ask(Method.DELETE_RANGE, before)
    assert started.submitted == [rid]
    assert deleted_by(started.settle()[rid]) == 1_890


def test_one_waits_for_its_own_ranges_alone(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited until all keys of the store were counted: minutes for 100 million."""
    monkeypatch.setattr(uncounted, "_STEPS", 2)
    monkeypatch.setattr(slicer, "SLICE_S", 0)
    last = started.ask(Method.DELETE_RANGE, part(1_500, MANY))
    first = started.ask(Method.DELETE_RANGE, part(10, 1_400))
    assert (started.submitted, len(started.uncounted)) == ([], 2)
    while not started.submitted:
        started.loop.turn()
    assert started.submitted == [first]
    assert not started.store.counts.knows(b"k", b"l")
    answers = started.settle()
    assert [deleted_by(answers[rid]) for rid in (first, last)] == [1_390, 1_500]


def test_ranges_of_few_keys_are_few_together(started: Started) -> None:
    spans = [(first, first + FEW_ROWS // 4) for first in range(1_000, 2_000, FEW_ROWS // 4)]
    ops = [pb.RequestOp(request_delete_range=part(*span)) for span in spans]
    few = started.ask(Method.TXN, pb.TxnRequest(success=ops[:3]))
    assert started.submitted == [few]
    started.ask(Method.TXN, pb.TxnRequest(success=ops))
    assert (started.submitted, len(started.uncounted)) == ([few], 1)


def test_those_that_wait_take_no_turns_of_others(started: Started) -> None:
    rids = [started.ask(Method.DELETE_RANGE, ALL) for _ in range(40)]
    assert (len(started.uncounted), len(started.looking), started.slicer.pending) == (40, 0, 1)
    answers = started.settle()
    assert started.submitted == rids
    assert sum(deleted_by(answers[rid]) for rid in rids) == MANY
    assert not started.slicer.pending


@pytest.mark.parametrize("limit", ["_MOST", "_MOST_BYTES"])
def test_few_wait(started: Started, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    size = ALL.ByteSize()
    monkeypatch.setattr(uncounted, limit, 2 if limit == "_MOST" else 2 * size)
    rids = [started.ask(Method.DELETE_RANGE, ALL) for _ in range(2)]
    with pytest.raises(EtcdError, match="too many requests"):
        started.ask(Method.DELETE_RANGE, ALL)
    started.settle()
    assert started.submitted == rids
    assert started.uncounted._bytes == 0


def test_who_does_not_lead_says_so_at_once(started: Started) -> None:
    started.raft.is_leader = False
    assert started.ask(Method.DELETE_RANGE, ALL) in started.submitted


def test_who_leads_no_longer_says_so_at_once(started: Started) -> None:
    """They waited until all was counted, and their fronts for them."""
    rid = started.ask(Method.DELETE_RANGE, ALL)
    started.raft.is_leader = False
    started.loop.run()
    assert (started.submitted, len(started.uncounted)) == ([rid], 0)
    assert not started.store.counts.ready


def test_a_node_that_ends_refuses_what_waits_as_never_logged(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their fronts told clients of an unknown outcome. Now they ask the next leader."""
    monkeypatch.setattr(slicer, "SLICE_S", 0.0)
    monkeypatch.setattr(uncounted, "_STEPS", 1)
    before = [started.ask(Method.DELETE_RANGE, ALL) for _ in range(3)]
    for _ in range(2):
        started.loop.turn()  # the piece of work is in the midst of them
    started.left = True
    started.uncounted.refuse()
    behind = started.ask(Method.DELETE_RANGE, ALL)
    few = started.ask(Method.DELETE_RANGE, FEW)
    assert (len(started.uncounted), started.uncounted._bytes) == (0, 0)
    started.loop.run()
    answers = started.settle()
    assert [answers[rid][0] for rid in (*before, behind)] == [Status.NOT_LEADER] * 4
    assert started.submitted == [few]
    assert not started.slicer.pending


def test_one_that_meets_a_mistake_ends_alone(started: Started) -> None:
    bad, good = (started.ask(Method.DELETE_RANGE, ALL) for _ in range(2))

    def submit(link: Any, rid: int, *request: Any) -> None:
        if rid == bad:
            raise ValueError("a mistake")
        started._submit(link, rid, *request)

    started.role.submit = submit
    answers = started.settle()
    assert answers[bad][0] == Status.ERROR
    assert deleted_by(answers[good]) == MANY
    assert [where for where, _ in faults.take()] == [f"taking in a request of method {Method.DELETE_RANGE}"]


def test_nothing_is_done_for_a_front_that_has_gone(started: Started) -> None:
    started.ask(Method.DELETE_RANGE, ALL)
    started.link.alive = False
    started.loop.run()
    assert (started.submitted, len(started.uncounted)) == ([], 0)


def test_a_malformed_one_is_refused_in_its_turn(started: Started) -> None:
    started.uncounted.submit(started.link, 9, Method.DELETE_RANGE, 1000, b"\xff")
    assert started.submitted == [9]


def test_once_all_is_counted_the_role_takes_all(started: Started) -> None:
    request = 1, int(Method.TXN), 1000, b""
    assert started.uncounted.taker([request]) is started.uncounted
    assert started.uncounted.taker([(1, int(Method.PUT), 1000, b"")]) is started.role
    while not started.store.counts.build_step():
        pass
    assert started.uncounted.taker([request]) is started.role


@pytest.mark.parametrize("said", [False, True])
def test_one_over_shards_waits_before_it_is_coordinated(
    started: Started, monkeypatch: pytest.MonkeyPatch, said: bool
) -> None:
    """The sequencer counted in a turn what shard 0 has of it."""
    coordinated: list[tuple[int, ...]] = []
    started.role = role = Sequencer()
    monkeypatch.setattr(role, "wide", lambda link, *asked: coordinated.append(asked[:3]))
    node: Any = role.node
    node.uncounted, node.role, node.settings = started.uncounted, role, SimpleNamespace(shard=0, growth="off")
    admission = Admission(node)

    def ask(rid: int, request: Any) -> None:
        body = bytes((Method.DELETE_RANGE,)) + request.SerializeToString()
        if said:
            assert admission.take(started.link, rid, Method.WIDE | SAID, 1000, NOBODY.encode() + body)
        else:
            node.handlers.update.call_args.args[0][Method.WIDE](started.link, rid, 1000, body)

    ask(1, ALL)
    ask(2, FEW)
    assert coordinated == [(2, Method.DELETE_RANGE, 1000)]
    started.now += 400
    while len(started.uncounted):
        started.loop.turn()
    assert coordinated[1:] == [(1, Method.DELETE_RANGE, 600)], "its deadline stays"


def test_a_switch_is_not_granted_that_would_count_very_many(started: Started) -> None:
    leading: ShardLeader[str] = ShardLeader(started.store, 1, 3, Start(5, 0, 0), max_txn_ops=128)
    role: Any = moves(leading)
    role._node, role.copying = started, SimpleNamespace(copied=None, placed=lambda table: None)
    role.lead(leading)
    leading.applied_records([(1, 2, [])])
    leading.serve()
    many = Touch(b"", b"\0", write=True, count=True)
    for number, touch in enumerate((Touch(FEW.key, FEW.range_end, write=True, count=True), many)):
        leading.prepare(f"{number}", Prepare(Attempt(2, number), 0, 1, [touch], base=Base(0)))
        leading.release(Attempt(2, number))
    assert [token for token, _, _ in answers(leading)] == ["0"]
    while not started.store.counts.build_step():
        pass
    leading.prepare("2", Prepare(Attempt(2, 2), 0, 1, [many], base=Base(0)))
    (_, status, body), = answers(leading)
    assert (status, Grant.decode(body, 1).counts) == (Status.OK, {0: started.store.counts.keys()})
