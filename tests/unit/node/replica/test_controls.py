"""A compaction is acknowledged when every shard's leader has applied it (I20): what becomes of it when the
sequencer changes."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest

import node.replica.shards.controls as controls
from cluster import errors
from cluster.errors import EtcdError
from cluster.order.log import Cut, Fold
from cluster.order.prepare import REPORT
from cluster.raft import Role
from cluster.settings import Common, Peer
from cluster.wire.messages import ANSWER, HEAD, Method, Status, decode_answers
from node.links.fronts import FrontLink
from node.replica.roles.role import Kinds
from node.replica.shards.order_role import OrderRole

RID = 5


class Sequencer(OrderRole):
    """Of two shards; shard 1's leader has applied the order up to 10, and a compaction is applied here at
    11."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        node: Any = MagicMock(applied_index=11)
        node.settings.common = Common(7, 1, "h1", 2, 1, (Peer(1, "h1", "h1", 1),), "/run/1")
        node.store.meta.return_value, node.store.revision = Fold(9, {1: Cut(20, 3, 2)}).encode(), 9
        node.store.placement.return_value = None
        node.raft.role, node.raft.term, node.writes.leader.term = Role.LEADER, 4, 4
        super().__init__(node, Kinds())
        self.link = FrontLink(b"front", self._take, b"", 1)
        self.reported(10)

    def _take(self, parts: list[bytes]) -> bool:
        self.sent.append(parts[-1])
        return True

    def compacted(self) -> None:
        self.controls.acknowledge(
            self.link, ANSWER.pack(RID, Status.OK, HEAD.size) + HEAD.pack(9, 4), FrontLink.put)

    def reported(self, applied_order: int) -> None:
        self._report(MagicMock(member_id=2), REPORT.pack(1, 20, 3, 2, applied_order))

    def deposed(self) -> None:
        self.raft.role, self.raft.term = Role.FOLLOWER, 5
        self.writes.leader = None  # type: ignore[assignment]
        self.leader_changed()

    def answers(self) -> list[tuple[int, int, bytes]]:
        if self.link.pending:
            self.link.flush()
        found = [
            (rid, status, bytes(body))
            for frame in self.sent
            for rid, status, body in decode_answers(frame)[1]
        ]
        self.sent.clear()
        return found


@pytest.fixture
def node() -> Sequencer:
    return Sequencer()


UNKNOWN = [(RID, Status.UNKNOWN, EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL).encode())]


def test_a_refused_one_waits_for_no_other_leader(node: Sequencer) -> None:
    node.controls.acknowledge(node.link, ANSWER.pack(RID, Status.ERROR, 0), FrontLink.put)
    assert node.answers() == [(RID, Status.ERROR, b"")]


def test_it_is_done_when_the_last_leader_has_applied_it(node: Sequencer) -> None:
    node.compacted()
    assert node.answers() == []
    node.reported(11)
    assert [(rid, status) for rid, status, _ in node.answers()] == [(RID, Status.OK)]


def test_a_sequencer_that_is_deposed_tells_nobody_that_it_is_lost_and_lets_nobody_wait(
    node: Sequencer,
) -> None:
    """The leaders report to another one from now on. It is applied: asked for again, it would be refused
    (I23)."""
    node.compacted()
    node.deposed()
    assert node.answers() == UNKNOWN
    node.reported(11)
    assert node.answers() == []


def test_nor_does_one_that_applies_it_only_then(node: Sequencer) -> None:
    node.deposed()
    node.compacted()
    assert node.answers() == UNKNOWN


def test_what_every_leader_is_known_to_have_applied_is_done_all_the_same(node: Sequencer) -> None:
    node.reported(11)
    node.deposed()
    node.compacted()
    assert [(rid, status) for rid, status, _ in node.answers()] == [(RID, Status.OK)]


def test_who_leads_again_at_once_is_told_as_before(node: Sequencer) -> None:
    node.compacted()
    node.raft.term = 6
    node.leader_changed()
    assert node.answers() == []
    node.reported(11)
    assert [(rid, status) for rid, status, _ in node.answers()] == [(RID, Status.OK)]


def test_i23_nobody_waits_longer_than_its_front_does(node: Sequencer) -> None:
    """A shard without a leader reports nothing for ever."""
    node.compacted()
    node.controls.forget()
    assert len(node.controls) == 1
    node.link.overdue = RID
    node.controls.forget()
    assert len(node.controls) == 0


def test_i23_so_many_wait_and_no_more(node: Sequencer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "MAX_WAITING", 2)
    refused: list[tuple[int, EtcdError]] = []
    reads: Any = node.node.reads
    reads.refuse.side_effect = lambda link, rid, error: refused.append((rid, error))
    for _ in range(2):
        node.submit(node.link, 1, Method.COMPACT, 5000, b"")
        node.compacted()
    assert node.node.writes.submit.call_count == 2
    node.submit(node.link, 2, Method.COMPACT, 5000, b"")
    node.submit(node.link, 3, Method.SET_ALARM, 5000, b"")
    assert [(rid, error.text) for rid, error in refused] == [
        (2, errors.TOO_MANY_REQUESTS.text),
        (3, errors.TOO_MANY_REQUESTS.text),
    ]
    node.submit(node.link, 4, Method.PUT, 5000, b"")
    assert node.node.writes.submit.call_count == 3, "nothing else is refused"
    node.compacted()  # one that was logged before so many waited
    assert node.answers() == UNKNOWN
    node.reported(11)
    assert len(node.answers()) == 2


def test_h7_what_one_sequencer_found_due_another_does_not_end(node: Sequencer) -> None:
    """The keys of a lease are read between: by then another term may have let it live."""
    first, second = MagicMock(), MagicMock()
    node.sequencer = MagicMock(coordinator=first)
    node._revoke_expired([7])
    node._revoke_expired([9])
    (_, one), (_, other) = (call.args for call in node.node.expiry.as_read.call_args_list)  # type: ignore[attr-defined]
    one([7])
    first.submit.assert_called_once_with(None, Method.LEASE_REVOKE, b"", [7])
    node.sequencer = MagicMock(coordinator=second)
    other([9])
    first.submit.assert_called_once()
    second.submit.assert_not_called()
