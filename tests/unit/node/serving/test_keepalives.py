"""A front's keep-alives of one tick: one question, one round, one answer (H7)."""

from __future__ import annotations

from struct import Struct
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.features.lessor import Lessor
from cluster.pb import rpc_pb2
from cluster.wire import messages
from cluster.wire.messages import HEAD, LEASE_DUE, Method, Status
from node.links.fronts import FrontLink
from node.serving import confirm
from node.serving.confirm import Confirmations, Times


class Sequencer:
    """A sequencer with the leases 1 (10 s) and 2 (60 s) granted at 0 ms."""

    def __init__(self, **named: Any) -> None:
        self.now_ms = 0
        self.rounds: list[int] = []
        self.frames: list[bytes] = []
        self.lessor = Lessor(1000)
        self.lessor.promote(0)
        self.lessor.granted(1, 10, 0)
        self.lessor.granted(2, 60, 0)
        raft: Any = SimpleNamespace(term=3, leader_id=1, is_leader=True, read_index=self.rounds.append)
        store: Any = SimpleNamespace(revision=9)
        self.confirmations = Confirmations(
            raft, store, self.lessor, lambda link: None, applied_index=lambda: 5,
            times=Times(lambda: 0.0, lambda: self.now_ms, 7), beside=lambda link, rid, work: None, **named)
        self.link = FrontLink(b"front", self._frame, b"", 1)

    def _frame(self, parts: list[bytes]) -> bool:
        self.frames.append(parts[-1])
        return True

    def ask(self, rid: int, *leases: int) -> None:
        body = Struct(f"<{len(leases)}q").pack(*leases)
        self.confirmations.ask(self.link, rid, Method.LEASE_KEEPALIVES, body)
        self.confirmations.run(True)

    def answers(self) -> list[tuple[int, int, bytes]]:
        self.link.flush()
        frames, self.frames = self.frames, []
        return [record for frame in frames for record in messages.decode_answers(frame)[1]]


def test_h7_nothing_is_renewed_or_said_before_the_round_is_confirmed() -> None:
    sequencer = Sequencer()
    sequencer.now_ms = 5_000
    sequencer.ask(1, 1, 2, 77, 1)
    assert sequencer.answers() == []
    assert sequencer.lessor.time_to_live(1, 5_000) == (4, 10)
    assert len(sequencer.rounds) == 1
    sequencer.now_ms = 6_000
    sequencer.confirmations.confirmed(sequencer.rounds[0], 5)
    ((rid, status, body),) = sequencer.answers()
    assert (rid, status, HEAD.unpack_from(body)) == (1, Status.OK, (9, 3))
    assert Struct("<4q").unpack_from(body, HEAD.size) == (10, 60, 0, 10)
    assert sequencer.lessor.time_to_live(1, 6_000) == (9, 10)


def test_a_lease_that_is_due_is_named_and_one_asked_for_alone_waits_for_its_end() -> None:
    sequencer = Sequencer()
    sequencer.now_ms = 10_000
    sequencer.ask(1, 1, 2)
    sequencer.confirmations.confirmed(sequencer.rounds[0], 5)
    ((_, _, body),) = sequencer.answers()
    assert Struct("<2q").unpack_from(body, HEAD.size) == (LEASE_DUE, 60)
    alone = rpc_pb2.LeaseKeepAliveRequest(ID=1).SerializeToString()
    sequencer.confirmations.ask(sequencer.link, 2, Method.LEASE_KEEPALIVE, alone)
    sequencer.confirmations.run(True)
    sequencer.confirmations.confirmed(sequencer.rounds[1], 5)
    assert sequencer.answers() == []
    sequencer.lessor.revoked(1)
    sequencer.confirmations.decided([1])
    ((rid, status, body),) = sequencer.answers()
    answer = rpc_pb2.LeaseKeepAliveResponse.FromString(body[HEAD.size :])
    assert (rid, status, answer.ID, answer.TTL) == (2, Status.OK, 1, 0)


def test_keep_alives_that_were_given_up_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease may be due for long: its keys' shard has no leader. Each time limit its clients ask again."""
    monkeypatch.setattr(confirm, "MOST_OPEN", 3)
    sequencer = Sequencer()
    sequencer.now_ms = 60_000

    def alone(rid: int, lease: int) -> list[int]:
        body = rpc_pb2.LeaseKeepAliveRequest(ID=lease).SerializeToString()
        sequencer.confirmations.ask(sequencer.link, rid, Method.LEASE_KEEPALIVE, body)
        sequencer.confirmations.run(True)
        sequencer.confirmations.confirmed(sequencer.rounds[-1], 5)
        sequencer.confirmations.sweep()
        return [status for _, status, _ in sequencer.answers()]

    assert [alone(rid, lease) for rid, lease in ((1, 1), (2, 1), (3, 2))] == [[], [], []]
    assert alone(4, 1) == [Status.ERROR], "none was given up"
    sequencer.link.overdue = 2
    sequencer.confirmations.sweep()
    assert [alone(5, 2), alone(6, 2)] == [[], []]
    sequencer.lessor.revoked(2)
    sequencer.confirmations.decided([1, 2])
    assert [rid for rid, _, _ in sequencer.answers()] == [3, 5, 6]


def test_only_keep_alives_that_were_given_up_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full list was walked each second, 100 ms at a time, though its questions were awaited."""
    monkeypatch.setattr(confirm, "MOST_OPEN", 1000)
    sequencer = Sequencer()
    sequencer.now_ms = 60_000
    for rid in range(1, 1001):
        body = rpc_pb2.LeaseKeepAliveRequest(ID=rid & 1 or 2).SerializeToString()
        sequencer.confirmations.ask(sequencer.link, rid, Method.LEASE_KEEPALIVE, body)
    sequencer.confirmations.run(True)
    sequencer.confirmations.confirmed(sequencer.rounds[-1], 5)
    asked: list[int] = []
    awaits = FrontLink.awaits
    monkeypatch.setattr(FrontLink, "awaits", lambda link, rid: asked.append(rid) or awaits(link, rid))
    sequencer.confirmations.sweep()
    assert asked == [1]
    sequencer.lessor.revoked(2)
    sequencer.confirmations.decided([2])
    assert [rid for rid, _, _ in sequencer.answers()] == list(range(2, 1001, 2))
    sequencer.link.overdue = 9
    sequencer.confirmations.sweep()
    assert asked == [1, 1, 3, 5, 7, 9, 11]
    sequencer.lessor.revoked(1)
    sequencer.confirmations.decided([1])
    assert [rid for rid, _, _ in sequencer.answers()] == list(range(11, 1001, 2))
    sequencer.confirmations.sweep()
    assert not sequencer.confirmations._waiting


def test_few_keep_alives_that_are_answered_are_passed_over_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """They gather behind one that is awaited: all of them went in the turn in which it was given up."""
    monkeypatch.setattr(confirm, "_PASSED", 300)
    sequencer = Sequencer()
    sequencer.now_ms = 60_000
    for rid in range(1, 1001):
        body = rpc_pb2.LeaseKeepAliveRequest(ID=1 if rid == 1 else 2).SerializeToString()
        sequencer.confirmations.ask(sequencer.link, rid, Method.LEASE_KEEPALIVE, body)
    sequencer.confirmations.run(True)
    sequencer.confirmations.confirmed(sequencer.rounds[-1], 5)
    sequencer.lessor.revoked(2)
    sequencer.confirmations.decided([2])
    sequencer.confirmations.sweep()
    waiting = sequencer.confirmations._waiting
    assert len(waiting) == 1000
    sequencer.link.overdue = 2
    lengths = []
    while waiting:
        sequencer.confirmations.sweep()
        lengths.append(len(waiting))
    assert lengths == [700, 400, 100, 0]
    assert sequencer.confirmations._blocking == 0


def test_a_sequencer_that_lost_its_term_renews_nothing() -> None:
    sequencer = Sequencer()
    sequencer.ask(1, 1)
    sequencer.confirmations.failed(sequencer.rounds)
    ((_, status, _),) = sequencer.answers()
    assert status == Status.NOT_LEADER
