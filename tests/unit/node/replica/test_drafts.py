"""Transactions of very many operations, evaluated ahead of their turn: as if they were evaluated in it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate import steps, validate
from cluster.evaluate.overlay import NotYet, Overlay
from cluster.evaluate.reading import rows as reading_rows
from cluster.evaluate.replica import Leader
from cluster.evaluate.spans import Intervals, Span
from cluster.evaluate.txns import draft
from cluster.evaluate.txns import transactions as txn_eval
from cluster.evaluate.txns.compares import Unlooked
from cluster.evaluate.txns.draft import Draft
from cluster.evaluate.view import Outcome
from cluster.features.auth.principal import SAID, Kind, Principal
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import HEAD, Method, Status
from node.replica import writes
from node.slicing import slicer
from tests.tries import best_of_three
from tests.unit.many_ops import very_many
from tests.unit.node.serving.test_long_answers import KEYS, Replica, transaction
from tests.unit.node.serving.test_looking import compare, noise
from tests.unit.turns import short_turns


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica(tmp_path / "state")
    yield replica
    replica.store.close()


def compared(monkeypatch: pytest.MonkeyPatch) -> tuple[list[bytes], list[bool]]:
    """Each evaluation of a draft is compared with one in its turn: answers that are due, which were fit."""
    txn = Leader._txn
    answers: list[bytes] = []
    fit: list[bool] = []

    def both(self: Leader, body: bytes, looked: Any) -> Any:
        if not isinstance(looked, Draft):
            return txn(self, body, looked)
        expected: Any = None
        try:
            expected = evaluate.txn(self.view, body, 128)
        except EtcdError as e:
            expected = e.encode()
        except NotYet:
            pass
        try:
            outcome = txn(self, body, looked)
        except EtcdError as e:
            answers.append(e.encode())
            fit.append(answers[-1] == expected)
            raise
        except (Unlooked, NotYet):
            fit.append(False)
            raise
        fit.append(looked.fit)
        assert expected is not None
        assert (outcome.items, outcome.revision) == (expected.items, expected.revision)
        assert outcome.changed == expected.changed
        assert (outcome.writes, list(outcome.ranges)) == (expected.writes, list(expected.ranges))
        answers.append(HEAD.pack(outcome.revision, self.term) + expected.tail)
        return outcome

    monkeypatch.setattr(Leader, "_txn", both)
    return answers, fit


@pytest.mark.parametrize("seed", range(60))
def test_a_draft_does_what_an_evaluation_in_its_turn_does(
    replica: Replica, seed: int, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside writes that are logged, applied and compacted, and leases that end, at any moment of it."""
    rng = random.Random(seed)
    for module, name, value in (
        (draft, "LARGE_OPS", 0), (draft, "_LOOKS", rng.choice((1, 4, 1024))),
        (draft, "_FEW", rng.choice((0, 1, 64))),
        (draft, "_STEP_CHANGES", 2), (draft, "ROUNDS", rng.choice((1, 8, 8))), (slicer, "SLICE_S", 0.0),
        (GRAIN, "many_keys", rng.choice((4, 256))), (GRAIN, "turn_rows", rng.choice((9, 256))),
        (GRAIN, "delete_bytes", rng.choice((0, 200, 1 << 20))),
        (txn_eval, "STEP_OPS", 2), (draft, "STEP_OPS", 2), (validate, "STEP_OPS", 2), (steps, "STEP_OPS", 2),
        (reading_rows, "_STEP_ROWS", (1, 256)[seed % 2]),
    ):
        monkeypatch.setattr(module, name, value)
    replica.write(Method.LEASE_GRANT, pb.LeaseGrantRequest(ID=1, TTL=60))
    for key in rng.sample(KEYS, rng.choice((0, 2, 40))):
        replica.write(Method.PUT, pb.PutRequest(key=key, value=b"%d" % rng.randrange(4)))
    replica.settle()
    answers, fit = compared(monkeypatch)
    for _ in range(15):
        request = transaction(rng, replica.store.revision, 2, False)
        if rng.random() < 0.5:
            request.compare.append(compare(rng, replica.store.revision))
        for op in request.success:
            if op.HasField("request_put") and rng.random() < 0.3:
                op.request_put.lease = rng.choice((1, 1, 2))
        judged = len(answers)
        rid = replica.write(Method.TXN, request)
        for _ in range(rng.choice((0, 5, 30))):
            replica.loop.turn()
            if rng.random() < 0.4:
                noise(rng, replica)
            if rng.random() < 0.05:
                if rng.random() < 0.5:
                    replica.write(Method.LEASE_GRANT, pb.LeaseGrantRequest(ID=1, TTL=60))
                else:
                    replica.write(Method.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=1))
            replica.writes.run()
        _, body = replica.settle()[rid]
        assert len(answers) == judged or body == answers[-1]
    assert True in fit


def test_many_ranges_are_deleted_ahead_of_the_turn(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """128 of them held the leader for 2 s."""
    answers, fit = compared(monkeypatch)
    for key in KEYS:
        replica.write(Method.PUT, pb.PutRequest(key=key, value=b"v"))
    for many in (False, True):
        replica.settle()
        ranges = [
            pb.DeleteRangeRequest(key=key, range_end=key + b"~")
            for key in KEYS[: GRAIN.turn_deletes + many]
        ]
        request = pb.TxnRequest(success=[pb.RequestOp(request_delete_range=each) for each in ranges])
        rid = replica.write(Method.TXN, request)
        _, body = replica.settle()[rid]
        assert fit == [True] * many
        response = pb.TxnResponse.FromString(body[HEAD.size :])
        deleted = [op.response_delete_range.deleted for op in response.responses]
        assert deleted == ([0] * GRAIN.turn_deletes + [1] if many else [1] * GRAIN.turn_deletes)
    assert answers == [body]


@best_of_three
def test_18_432_operations_hold_nobodys_puts_up(replica: Replica) -> None:
    """They took 0.2 s of the leader's loop, beside 0.06 s of the front's."""
    for _ in range(2):  # of keys that are new, then of keys that are there
        replica.settle()
        request = very_many()
        with short_turns(0.06) as turns:
            with turns.turn():
                rid = replica.write(Method.TXN, request)
            done, others = False, 0
            while not done:
                with turns.turn():
                    replica.loop.turn()
                with turns.turn():
                    other = replica.write(Method.PUT, pb.PutRequest(key=b"other", value=b"v"))
                done = not replica.looking and not replica.writes.queued
                if not done:
                    replica.apply(replica.index + 1)
                    replica.link.flush()
                    assert (other, Status.OK) in [answer[:2] for answer in replica.answers]
                    replica.answers.clear()
                    others += 1
            assert others > 50, "it is done in steps, and others' puts between them"
        answers = replica.settle()
        assert answers[rid][0] == Status.OK
        found = pb.TxnResponse.FromString(answers[rid][1][HEAD.size :])
        assert len(found.responses) == 24
        assert replica.store.live_count(b"t", b"u") == 24 * 24 * 16


def test_what_needs_no_state_is_refused_at_once(replica: Replica) -> None:
    request = very_many(1024)
    request.success.append(request.success[0])
    rid = replica.write(Method.TXN, request)
    assert replica.settle()[rid] == (Status.ERROR, EtcdError(errors.DUPLICATE_KEY).encode())
    assert replica.store.live_count(b"t", b"u") == 0


def test_a_draft_ends_with_the_term(replica: Replica) -> None:
    rid = replica.write(Method.TXN, very_many(1024))
    replica.loop.turn()
    replica.raft.term += 1
    replica.writes.resign()
    assert replica.settle()[rid][0] == Status.NOT_LEADER
    assert replica.store.live_count(b"t", b"u") == 0


def test_keys_that_others_write_all_the_time_have_it_evaluated_in_one_turn(replica: Replica) -> None:
    rid = replica.write(Method.TXN, very_many(1024))
    for _ in range(10_000):
        replica.loop.turn()
        replica.write(Method.PUT, pb.PutRequest(key=b"t00000", value=b"hot"))
        replica.apply(replica.index + 1)
        if not replica.looking and not replica.writes.queued:
            break
    assert replica.settle()[rid][0] == Status.OK


@pytest.mark.parametrize("meets", [False, True])
def test_deletes_of_ranges_all_the_time_hold_none_up(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, meets: bool,
) -> None:
    """It waited for any delete of a range, then for the next one, and was answered after 7 s."""
    monkeypatch.setattr(GRAIN, "many_keys", 4)
    # as where very much is queued: several entries are under way at once
    monkeypatch.setattr(type(replica.writes._intake), "due", lambda self, under_way: True)
    _, fit = compared(monkeypatch)
    low, high = (0, 6) if meets else (40, 46)
    ranges = [pb.DeleteRangeRequest(key=key, range_end=key + b"~") for key in KEYS[:20]]
    ranges.append(pb.DeleteRangeRequest(key=KEYS[25]))
    rid = 0
    for turn in range(2 * draft.ROUNDS):
        for key in KEYS[low:high]:
            replica.write(Method.PUT, pb.PutRequest(key=key, value=b"v"))
        if not turn:
            request = pb.TxnRequest(success=[pb.RequestOp(request_delete_range=each) for each in ranges])
            rid = replica.write(Method.TXN, request)
        replica.write(Method.DELETE_RANGE, pb.DeleteRangeRequest(key=KEYS[low], range_end=KEYS[high]))
        while replica.index < replica.raft.last - 1:
            replica.apply(replica.index + 1)
            replica.writes.run()
        assert not turn or meets or not replica.writes._later
        replica.loop.run()
        replica.writes.run()
    assert not replica.writes._later
    assert fit[-1] is not meets
    assert replica.settle()[rid][0] == Status.OK


@pytest.mark.parametrize("ranges", [0, 3, 300])
@pytest.mark.parametrize("meets", [False, True])
def test_many_pending_deletes_of_ranges_are_not_walked_for_each_draft(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, ranges: int, meets: bool,
) -> None:
    """10,000 of them took 33 ms of the turn of each."""
    touched = [(b"n%04d" % n, b"n%04d~" % n) for n in range(ranges)]
    request = pb.TxnRequest(success=[
        pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=end))
        for key, end in ((b"mid", b""), *touched)])
    overlay = Overlay(replica.store)
    ahead = Draft(overlay, request, 10_000)
    assert list(ahead.steps())
    gone = [(b"%c%04d" % (b"az"[n % 2], n), b"%c%04d~" % (b"az"[n % 2], n)) for n in range(200)]
    gone += [((b"mid", b"mid~"), *touched)[-1]] * meets
    overlay.take(Outcome(b"", True, b"", [], overlay.revision + 1, gone))
    looked: list[Span] = []
    look = Intervals.meets
    monkeypatch.setattr(Intervals, "meets", lambda self, span: looked.append(span) or look(self, span))
    if meets:
        with pytest.raises(NotYet):
            ahead.outcome()
    else:
        assert ahead.outcome() is not None
    assert len(looked) <= 1 + min(ranges, len(gone))


@pytest.mark.parametrize("revoked", [False, True])
def test_who_asks_is_judged_anew_in_the_turn(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, revoked: bool,
) -> None:
    """A permission may be revoked while his transaction is looked at ahead."""
    judged: list[str] = []

    def judge(auth: Any, principal: Principal, method: int, body: bytes, view: Any) -> None:
        judged.append(principal.user)
        if revoked and len(judged) > 1:
            raise EtcdError(errors.PERMISSION_DENIED)

    monkeypatch.setattr(writes, "judge", judge)
    replica.rid += 1
    body = Principal(Kind.SIMPLE, "anna", 1).encode() + very_many(1024).SerializeToString()
    replica.writes.submit(replica.link, replica.rid, Method.TXN | SAID, body)
    replica.writes.run()
    status, _ = replica.settle()[replica.rid]
    assert judged == ["anna"] * 2
    assert status == (Status.ERROR if revoked else Status.OK)
    assert replica.store.live_count(b"t", b"u") == (0 if revoked else 512)
