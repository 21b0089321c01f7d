"""A node 0 whose order waits for a copy that no source has any more (G5)."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster import errors
from cluster.effects.newer import NewerRecord
from cluster.errors import EtcdError
from cluster.features.moves import CANCEL, cancel_body
from cluster.placement.changes import shard_item
from cluster.placement.table import State
from cluster.raft import EntryKind, Role
from cluster.repeats import Repeats
from cluster.wire.messages import Method
from node.replica.moving import of_order
from node.replica.moving.of_order import OrderMoves

DROPPED, LATER, OTHER = (shard_item(shard, State.DROPPED) for shard in (2, 3, 4))


class World:
    def __init__(self, role: Role = Role.FOLLOWER, leader: int = 3) -> None:
        self.sent: list[tuple[int, bytes]] = []
        self.heirs: list[int] = []
        self.matches: dict[int, int] = {}
        self.led_by: list[int] = []
        kinds = EntryKind.RECORD, EntryKind.NOOP, EntryKind.RECORD, EntryKind.RECORD, EntryKind.RECORD
        self._log = [SimpleNamespace(kind=kind, data=data, index=at + 1) for at, (kind, data) in enumerate(
            zip(kinds, (DROPPED, OTHER, b"", DROPPED + LATER, OTHER), strict=True))]
        self.read = 0
        raft = SimpleNamespace(
            role=role, leader_id=leader, id=1, commit_index=4, transfer_leadership=self.led_by.append,
            log_entries=self._entries, last_index=5,
            peers=lambda: {host: SimpleNamespace(match=self.matches.get(host, 5)) for host in range(1, 6)})
        node: Any = SimpleNamespace(
            raft=raft, applied_index=0, peers=SimpleNamespace(send=self._send),
            upkeep=SimpleNamespace(succession=SimpleNamespace(successors=lambda: self.heirs)))
        self.moves = OrderMoves.__new__(OrderMoves)
        self.moves._node = node
        self.moves._drops, self.moves._looked_at, self.moves._handed = set(), 0, 0
        self.moves._handed = 0
        self.copying: Any = SimpleNamespace(waits=True)
        self.moves.copying = self.copying

    def _entries(self, first: int, last: int, most_bytes: int) -> list[SimpleNamespace]:
        self.read += last - first + 1
        return self._log[first - 1 : last]

    def _send(self, peer: int, *parts: bytes) -> None:
        self.sent.append((peer, b"".join(parts)))


def test_what_committed_records_drop_behind_a_switch_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.copying.waits = False
    assert not world.moves._dropping()
    world.copying.waits = True
    monkeypatch.setattr(of_order, "_LOOK_ENTRIES", 2)
    assert set(world.moves._dropping()) == {2}
    assert set(world.moves._dropping()) == {2, 3}
    read = world.read
    assert set(world.moves._dropping()) == {2, 3}, "the last one is not committed"
    assert world.read == read == 4, "each is read once"


def test_a_record_that_only_a_newer_program_can_apply_ends_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(data: bytes, place: object) -> bytes:
        raise NewerRecord("level 99")

    monkeypatch.setattr(of_order, "sound", refuses)
    assert not World().moves._dropping()


def test_a_follower_asks_its_leader_for_its_state() -> None:
    world = World()
    world.moves.ask_for_state()
    assert [peer for peer, _ in world.sent] == [3]
    assert not world.led_by


def test_without_a_leader_none_is_asked() -> None:
    world = World(leader=0)
    world.moves.ask_for_state()
    assert not world.sent


def test_a_leader_hands_over_for_it_is_sent_no_state() -> None:
    world = World(Role.LEADER, leader=1)
    world.moves.ask_for_state()
    assert not world.led_by, "no other voter is heard"
    world.heirs = [2, 3]
    world.moves.ask_for_state()
    assert world.led_by == [2]
    assert not world.sent
    world.matches = {2: 5, 3: 4}
    world.moves.ask_for_state()
    assert world.led_by == [2, 2], "the other one's log is not whole"


def test_two_hosts_that_both_wait_do_not_hand_over_to_each_other_for_ever() -> None:
    worlds = {1: World(Role.LEADER, leader=1), 2: World(Role.LEADER, leader=2)}
    leader = 1
    for _ in range(4):
        if leader not in worlds:
            break
        world = worlds[leader]
        world.heirs = [host for host in range(1, 6) if host != leader]  # all have the whole log
        world.moves.ask_for_state()
        leader = world.led_by[-1]
    assert leader not in worlds


class Cancelling:
    """A sequencer whose move's copy finds no room, where data is refused."""

    def __init__(self) -> None:
        self.executed: list[tuple[int, bytes]] = []
        self.refusal: EtcdError | None = None
        self.woken = 0
        node: Any = SimpleNamespace(
            raft=SimpleNamespace(takes_proposals=True), now_ms=lambda: 5, wake=self._wake,
            upkeep=SimpleNamespace(quota=SimpleNamespace(closed=True)))
        role: Any = SimpleNamespace(writes=SimpleNamespace(leader=SimpleNamespace(execute=self._execute)))
        mover: Any = SimpleNamespace(
            starves=lambda now_ms: 7, late=lambda now_ms: now_ms < 10,
            facts=lambda: {"move": 7, "waits_for": ["2", "3"], "without_room": ["3"]})
        self.moves = OrderMoves.__new__(OrderMoves)
        self.moves._node, self.moves._role, self.moves.mover = node, role, mover
        self.moves._late = Repeats()

    def _wake(self) -> None:
        self.woken += 1

    def _execute(self, method: int, body: bytes) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.executed.append((method, body))


def test_a_move_without_room_is_cancelled_where_data_is_refused() -> None:
    world = Cancelling()
    world.refusal = EtcdError(errors.MOVE_SETTLES)
    world.moves.second()
    assert not world.woken
    world.refusal = None
    world.moves.second()
    assert world.executed == [(Method.SHARD_CHANGE, bytes((CANCEL,)) + cancel_body(7))]
    assert world.woken == 1


@pytest.mark.parametrize("change", [
    lambda moves: setattr(moves, "mover", None),
    lambda moves: setattr(moves._role.writes, "leader", None),
    lambda moves: setattr(moves._node.raft, "takes_proposals", False),
    lambda moves: setattr(moves._node.upkeep.quota, "closed", False),
    lambda moves: setattr(moves.mover, "starves", lambda now_ms: 0),
])
def test_else_it_waits(change: Callable[[Any], None]) -> None:
    world = Cancelling()
    change(world.moves)
    world.moves.second()
    assert not world.executed


def test_that_a_move_waits_for_hosts_is_told_once_a_minute() -> None:
    world = Cancelling()
    world.moves._node.upkeep.quota.closed = False  # type: ignore[attr-defined]
    with capture_logs() as logs:
        for _ in range(3):
            world.moves.second()
        world.moves._node.now_ms = lambda: 60_005  # type: ignore[method-assign]
        world.moves.second()
    assert logs == [{"event": "a move waits for the copies of hosts", "log_level": "info", "move": 7,
                     "hosts": ["2", "3"], "without_room": ["3"]}]
