"""A node 0 whose order waits for a copy that no source has any more (G5)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.effects.newer import NewerRecord
from cluster.placement.changes import shard_item
from cluster.placement.table import State
from cluster.raft import EntryKind, Role
from node.replica.moving import of_order
from node.replica.moving.of_order import OrderMoves

DROPPED, LATER = shard_item(2, State.DROPPED), shard_item(3, State.DROPPED)


class World:
    def __init__(self, role: Role = Role.FOLLOWER, leader: int = 3) -> None:
        self.sent: list[tuple[int, bytes]] = []
        self.heirs: list[int] = []
        self.led_by: list[int] = []
        kinds = EntryKind.RECORD, EntryKind.NOOP, EntryKind.RECORD, EntryKind.RECORD, EntryKind.RECORD
        log = [SimpleNamespace(kind=kind, data=data, index=at + 1) for at, (kind, data) in enumerate(
            zip(kinds, (DROPPED, DROPPED, b"", DROPPED + LATER, LATER), strict=True))]
        raft = SimpleNamespace(
            role=role, leader_id=leader, id=1, commit_index=4, transfer_leadership=self.led_by.append,
            log_entries=lambda first, last: log[first - 1 : last])
        node: Any = SimpleNamespace(
            raft=raft, applied_index=0, peers=SimpleNamespace(send=self._send),
            upkeep=SimpleNamespace(succession=SimpleNamespace(successors=lambda: self.heirs)))
        self.moves = OrderMoves.__new__(OrderMoves)
        self.moves._node = node
        self.moves._handed = 0
        self.copying: Any = SimpleNamespace(waits=True)
        self.moves.copying = self.copying

    def _send(self, peer: int, *parts: bytes) -> None:
        self.sent.append((peer, b"".join(parts)))


def test_committed_records_behind_a_switch_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_order, "_LOOK_ENTRIES", 1)
    world = World()
    assert list(world.moves._waiting()) == [DROPPED, DROPPED + LATER]
    world.copying.waits = False
    assert not list(world.moves._waiting())


def test_a_record_that_only_a_newer_program_can_apply_ends_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(data: bytes, place: object) -> bytes:
        raise NewerRecord("level 99")

    monkeypatch.setattr(of_order, "sound", refuses)
    assert not list(World().moves._waiting())


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
