"""A transaction of very many operations on a shard other than 0, evaluated ahead of its turn."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate.steps import STEP_OPS
from cluster.evaluate.txns import pending
from cluster.evaluate.txns.draft import Draft
from cluster.evaluate.view import Current
from cluster.grain import GRAIN
from cluster.order.leading.shard_batch import ShardBatch
from cluster.order.leading.shard_leader import ShardLeader
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method, Status
from tests.unit.many_ops import very_many
from tests.unit.order.leading.several import Part
from tests.unit.order.leading.test_shown import leader_of

OPS = 4000
BODY = very_many(OPS).SerializeToString()


class Counting(Part):
    """How many keys were looked at."""

    keys = 0

    def current(self, key: bytes) -> Current | None:
        self.keys += 1
        return super().current(key)


class Turns:
    """A leader, and what each turn of its loop looks at."""

    def __init__(self) -> None:
        self.part = Counting()
        self.leader: ShardLeader[str] = leader_of(self.part)
        self.leader._intake._pace.full_requests = 1  # an entry may leave while another one is under way
        self.longest = 0

    def over(self) -> None:
        """A turn is over."""
        self.longest, self.part.keys = max(self.longest, self.part.keys), 0

    def submit(self) -> Draft:
        self.leader.submit("large", Method.TXN, BODY)
        self.leader.run()
        self.over()
        ((token, body, ahead),) = self.leader.take_unlooked()
        assert (token, body) == ("large", BODY)
        assert isinstance(ahead, Draft)
        return ahead

    def steps(self, draft: Draft) -> Iterator[int]:
        """How many there were of the evaluation."""
        evaluated = 0
        for _ in draft.steps():
            evaluated += self.part.keys > 0
            self.over()
            yield evaluated
        self.over()

    def work_off(self, draft: Draft) -> None:
        for _ in self.steps(draft):
            pass

    def put(self, key: bytes) -> None:
        """Another's, which is logged and not applied."""
        self.leader.submit("put", Method.PUT, pb.PutRequest(key=key, value=b"v").SerializeToString())
        self.leader.run()
        self.leader.seal()
        self.leader.logged(9)
        self.over()


@pytest.fixture
def turns() -> Turns:
    return Turns()


def test_no_turn_looks_at_more_keys_than_a_step(turns: Turns) -> None:
    draft = turns.submit()
    turns.work_off(draft)
    assert 0 < turns.longest <= 2 * STEP_OPS
    turns.leader.resume("large", draft)
    turns.over()
    assert turns.longest <= 2 * STEP_OPS
    assert turns.leader.seal()
    assert not turns.leader.take_unlooked()


def test_one_that_keeps_too_large_values_is_refused(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its first look: eight looks and one turn for all of it made its leader fall."""
    monkeypatch.setattr(pending, "MOST_KEPT_BYTES", 100)
    request = very_many(OPS)
    for part in (inner.request_txn for outer in request.success for inner in outer.request_txn.success):
        for op in part.success:
            if op.HasField("request_put"):
                turns.part.execute(Method.PUT, op.request_put.SerializeToString())
                op.request_put.ClearField("value")
                op.request_put.ignore_value = True
    monkeypatch.setattr(sys.modules[__name__], "BODY", request.SerializeToString())
    turns.part.keys = 0
    draft = turns.submit()
    turns.work_off(draft)
    turns.leader.resume("large", draft)
    turns.over()
    assert 0 < turns.longest <= 2 * STEP_OPS
    turns.leader.seal()
    turns.leader.logged(9)
    (reply,) = turns.leader._sealed.entries[0].replies
    assert reply.error == EtcdError(errors.REQUEST_TOO_LARGE).encode()


def test_many_ranges_are_deleted_ahead_of_the_turn(turns: Turns) -> None:
    one = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"a", range_end=b"b"))
    turns.part.execute(Method.PUT, pb.PutRequest(key=b"aa").SerializeToString())
    for times in (GRAIN.turn_deletes, GRAIN.turn_deletes + 1):
        body = pb.TxnRequest(success=[one] * times).SerializeToString()
        turns.leader.submit("many", Method.TXN, body)
        turns.leader.run()
        looked = turns.leader.take_unlooked()
        assert len(looked) == times - GRAIN.turn_deletes
        if not looked:
            turns.leader.view = type(turns.leader.view)(turns.part)  # type: ignore[arg-type]
            turns.leader._open = ShardBatch(1, turns.leader.view.revision, turns.leader._bound)
    ((_, _, draft),) = looked
    assert isinstance(draft, Draft)
    turns.work_off(draft)
    turns.leader.resume("many", draft)
    assert not turns.leader.take_unlooked()
    assert [reply.changed for reply in turns.leader._open.replies] == [True]
    assert turns.leader._open.items == [records.delete(b"aa")]


def test_others_puts_go_on_beside_it(turns: Turns) -> None:
    draft = turns.submit()
    puts = 0
    for at in turns.steps(draft):
        if at == 5 and not puts:
            turns.put(b"elsewhere")
            puts += 1
    assert puts
    turns.leader.resume("large", draft)
    assert turns.leader.dirty


@pytest.mark.parametrize("applied", [True, False])
def test_what_changed_meanwhile_has_it_evaluated_again(applied: bool, turns: Turns) -> None:
    draft = turns.submit()
    puts = 0
    for at in turns.steps(draft):
        if at < 5 or puts:
            continue
        puts += 1
        if applied:
            turns.part.execute(Method.PUT, pb.PutRequest(key=b"t00000", value=b"v").SerializeToString())
        else:
            turns.put(b"t00000")
    turns.leader.resume("large", draft)
    ((_, _, again),) = turns.leader.take_unlooked()
    assert again is draft
    assert not turns.leader.dirty


def test_it_waits_for_what_is_pending(turns: Turns) -> None:
    """Whose revision nobody knows yet."""
    turns.put(b"t00000")
    draft = turns.submit()
    turns.work_off(draft)
    turns.leader.resume("large", draft)
    assert not turns.leader.take_unlooked()
    assert len(turns.leader._table) == 1
    turns.part.execute(Method.PUT, pb.PutRequest(key=b"t00000", value=b"v").SerializeToString())
    turns.leader.applied_entries(9, turns.part.revision - 1)
    turns.leader.applied_records([(2, 5, [])])
    ((_, _, again),) = turns.leader.take_unlooked()
    assert again is draft
    turns.work_off(draft)
    turns.leader.resume("large", draft)
    assert turns.leader.dirty


def test_a_lease_that_is_not_known_here_is_the_sequencers_to_look_for(turns: Turns) -> None:
    request = very_many(OPS)
    request.success.add().request_put.CopyFrom(pb.PutRequest(key=b"leased", lease=7))
    body = request.SerializeToString()
    turns.leader.submit("large", Method.TXN, body)
    turns.leader.run()
    ((_, _, draft),) = turns.leader.take_unlooked()
    assert isinstance(draft, Draft)
    turns.work_off(draft)
    turns.leader.resume("large", draft)
    ((token, status, _),) = turns.leader.take_answers()
    assert (token, status) == ("large", Status.ELSEWHERE)


def test_i23_what_is_looked_at_ahead_counts_among_those_that_wait(turns: Turns) -> None:
    turns.submit()
    turns.leader._intake.most = 2
    for token in ("one", "one too many"):
        turns.leader.submit(token, Method.PUT, pb.PutRequest(key=b"k").SerializeToString())
    ((token, status, _),) = turns.leader.take_answers()
    assert (token, status) == ("one too many", Status.ERROR)


def test_a_look_ahead_ends_with_the_term(turns: Turns) -> None:
    draft = turns.submit()
    turns.work_off(draft)
    lost, _ = turns.leader.resign()
    assert lost == ["large"]
    assert "large" not in turns.leader.aside
    turns.leader.resume("large", draft)
    assert not turns.leader.dirty


def test_whoever_is_not_waited_for_has_nothing_looked_at(turns: Turns) -> None:
    draft = turns.submit()
    assert "large" in turns.leader.aside
    turns.leader.forget(lambda token: token == "large")
    assert "large" not in turns.leader.aside
    turns.work_off(draft)
    turns.leader.resume("large", draft)
    assert not turns.leader.dirty
