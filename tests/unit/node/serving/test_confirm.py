"""Questions that wait for a confirmation are bounded, and those that were answered make room."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.faults import faults
from cluster.pb import rpc_pb2
from cluster.wire import messages
from cluster.wire.messages import Method, Status
from node.links.fronts import FrontLink
from node.serving import confirm
from node.serving.confirm import Confirmations, Times


class Leader:
    """A leader whose rounds are confirmed when the test says so."""

    def __init__(self) -> None:
        self.rounds: list[int] = []
        raft: Any = SimpleNamespace(term=3, leader_id=1, is_leader=True, read_index=self.rounds.append)
        store: Any = SimpleNamespace(revision=9)
        lessor: Any = SimpleNamespace(primary=True)
        self.confirmations = Confirmations(
            raft, store, lessor, lambda link: None, applied_index=lambda: 5,
            times=Times(lambda: 0.0, lambda: 0, 7), beside=lambda link, rid, work: None,
        )
        self.frames: list[bytes] = []
        self.link = FrontLink(b"front", self._frame, b"", 1)
        self.rid = 0

    def _frame(self, parts: list[bytes]) -> bool:
        self.frames.append(parts[-1])
        return True

    def ask(self) -> None:
        self.rid += 1
        self.confirmations.ask(self.link, self.rid, Method.READ_INDEX, b"")

    def answers(self) -> list[tuple[int, int, bytes]]:
        self.link.flush()
        frames, self.frames = self.frames, []
        return [record for frame in frames for record in messages.decode_answers(frame)[1]]


def test_too_many_open_questions_are_refused_until_some_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm, "MOST_OPEN", 4)
    leader = Leader()
    for _ in range(2):
        leader.ask()
    leader.confirmations.run(True)
    for _ in range(3):
        leader.ask()
    ((rid, status, body),) = leader.answers()
    assert (rid, status, EtcdError.decode(body).kind) == (5, Status.ERROR, errors.TOO_MANY_REQUESTS)
    leader.confirmations.confirmed(leader.rounds[0], 5)
    assert [(rid, status) for rid, status, _ in leader.answers()] == [(1, Status.OK), (2, Status.OK)]
    leader.ask()
    assert leader.answers() == []
    leader.confirmations.run(True)
    leader.confirmations.failed(leader.rounds[1:])
    assert [(rid, status) for rid, status, _ in leader.answers()] == [
        (r, Status.NOT_LEADER) for r in (3, 4, 6)
    ]
    for _ in range(4):
        leader.ask()
    assert leader.answers() == []


def test_questions_that_their_front_has_given_up_before_any_was_confirmed_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A leader that does not serve yet begins no round."""
    monkeypatch.setattr(confirm, "MOST_OPEN", 2)
    leader = Leader()
    for _ in range(2):
        leader.ask()
    leader.confirmations.run(False)
    leader.link.overdue = 1
    leader.confirmations.sweep()
    leader.ask()
    assert leader.answers() == []
    leader.confirmations.run(True)
    leader.confirmations.confirmed(leader.rounds[0], 5)
    assert [(rid, status) for rid, status, _ in leader.answers()] == [(2, Status.OK), (3, Status.OK)]


def test_i13_what_was_committed_when_they_asked_is_applied_before_they_are_answered() -> None:
    leader = Leader()
    leader.ask()
    leader.confirmations.run(True)
    leader.confirmations.confirmed(leader.rounds[0], 6)
    assert leader.answers() == []
    with pytest.raises(AssertionError, match="I13"):
        leader.confirmations.applied(6)  # which is not so: 5 is


def test_what_waits_for_an_apply_is_asked_of_the_next_leader_once_the_term_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a leader's disk hangs nothing is applied: its fronts had no answer, and asked nobody else."""
    monkeypatch.setattr(confirm, "MOST_OPEN", 3)
    leader = Leader()
    for method in (Method.READ_INDEX, Method.LEASE_KEEPALIVES, Method.LEASE_TTL):
        leader.rid += 1
        leader.confirmations.ask(leader.link, leader.rid, method, b"")
        leader.confirmations.run(True)
        leader.confirmations.confirmed(leader.rounds[-1], 6 + leader.rid)
    leader.confirmations.applied(6)
    assert leader.answers() == []
    leader.ask()
    assert [(rid, status) for rid, status, _ in leader.answers()] == [(4, Status.ERROR)], "they are open"
    leader.confirmations.resign()
    assert [(rid, status) for rid, status, _ in leader.answers()] == [
        (rid, Status.NOT_LEADER) for rid in (1, 2, 3)]
    leader.confirmations.applied(9)
    for _ in range(3):
        leader.ask()
    assert leader.answers() == [], "once each, and there is room again"


def test_keep_alives_that_wait_for_a_revocation_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm, "MOST_OPEN", 2)
    leader = Leader()
    expired: Any = SimpleNamespace(primary=True, renew=lambda lease, now_ms: None)
    leader.confirmations._lessor = expired

    def keep_alive(lease: int) -> None:
        leader.rid += 1
        body = rpc_pb2.LeaseKeepAliveRequest(ID=lease).SerializeToString()
        leader.confirmations.ask(leader.link, leader.rid, Method.LEASE_KEEPALIVE, body)
        leader.confirmations.run(True)
        leader.confirmations.confirmed(leader.rounds[-1], 5)

    keep_alive(7)
    keep_alive(8)
    assert leader.answers() == []
    keep_alive(7)
    ((rid, status, body),) = leader.answers()
    assert (rid, status, EtcdError.decode(body).kind) == (3, Status.ERROR, errors.TOO_MANY_REQUESTS)
    expired.renew = lambda lease, now_ms: 0  # gone
    leader.confirmations.decided([7])
    assert [(rid, status) for rid, status, _ in leader.answers()] == [(1, Status.OK)]
    expired.renew = lambda lease, now_ms: None
    keep_alive(9)
    assert leader.answers() == [], "there is room again"
    leader.confirmations.resign()
    assert [(rid, status) for rid, status, _ in leader.answers()] == [
        (2, Status.NOT_LEADER),
        (4, Status.NOT_LEADER),
    ]
    keep_alive(7)
    keep_alive(7)
    assert leader.answers() == []


@pytest.mark.parametrize("method", [Method.LEASE_KEEPALIVE, Method.LEASE_TTL, Method.LEASE_KEEPALIVES])
def test_a_question_that_cannot_be_read_is_its_own_answer(method: Method) -> None:
    """It ended the sequencer once its round was confirmed, and with it everybody's questions."""
    leader = Leader()
    leader.ask()
    leader.confirmations.ask(leader.link, 2, method, b"\xff")
    leader.rid = 2
    leader.ask()
    leader.confirmations.run(True)
    leader.confirmations.confirmed(leader.rounds[0], 5)
    answered = leader.answers()
    assert [(rid, status) for rid, status, _ in answered] == [
        (1, Status.OK), (2, Status.ERROR), (3, Status.OK),
    ]
    assert EtcdError.decode(answered[1][2]).kind is errors.INTERNAL_FAULT
    assert len(faults.take()) == 1
