"""What members have acknowledged is remembered by their peers, and a hello that falls below is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.raft import Configuration
from cluster.raft.promises import Promise, decode, encode, join
from cluster.wire.frames import HIGHEST
from node.links.promises import EVERY_S, NAME, Promises
from tests.unit.raft.raft_harness import Replica as Member


class Raft:
    """One replica, which knows what it is told."""

    def __init__(self, term: int = 5, last_index: int = 150) -> None:
        self.id, self.term, self.last_index = 1, term, last_index
        self.is_leader = True
        self.known: dict[int, Promise] = {}

    def promises(self) -> dict[int, Promise]:
        return dict(self.known)

    def remember(self, told: dict[int, Promise]) -> None:
        join(self.known, told)


class Replica:
    """A replica with two peers, one of an older version."""

    def __init__(self, memory: dict[str, bytes], judged: bool = True, **raft: int) -> None:
        self.memory = memory
        self.raft: Any = Raft(**raft)
        self.sent: list[tuple[int, bytes]] = []
        self.failed: list[str] = []
        self.peers: Any = SimpleNamespace(
            versions={2: HIGHEST, 3: 8},
            send=lambda member_id, kind, data: self.sent.append((member_id, kind + data)))
        node: Any = self
        kept: Any = SimpleNamespace(meta=memory.get, set_meta=memory.__setitem__)
        self.promises = Promises(node, kept, judged)

    def fail(self, reason: str) -> None:
        self.failed.append(reason)


def test_what_is_new_is_kept_and_told_every_few_seconds_and_no_more() -> None:
    memory: dict[str, bytes] = {}
    one = Replica(memory)
    one.promises.second(100.0)
    assert (one.sent, memory) == ([], {}), "nothing is known"
    one.raft.known = {2: Promise(5, 10, 9)}
    one.promises.second(100.0 + EVERY_S / 2)
    assert one.sent == []
    for turn in range(1, 9):
        one.promises.second(100.0 + turn * EVERY_S)
    told = encode(one.raft.known)
    assert (one.sent, memory) == ([(2, b"B" + told)], {NAME: told}), "and nobody of an older version hears it"
    one.raft.is_leader = False
    one.raft.known[3] = Promise(5, 1, 1)
    one.promises.second(200.0)
    assert (len(one.sent), decode(memory[NAME])) == (1, one.raft.known)
    assert Replica(memory).raft.known == one.raft.known, "after a restart"


def test_a_member_whose_hello_is_below_what_it_has_acknowledged_is_told_and_ends() -> None:
    asked = Replica({NAME: encode({1: Promise(5, 150, 140)})})

    def says(term: int, last_index: int, **others: Any) -> str:
        sender = Replica({}, term=term, last_index=last_index, **others)
        if not (promised := asked.promises.broken(1, sender.promises.standing())):
            return ""
        assert not sender.promises.keeps(promised)
        return sender.failed[0]

    assert says(5, 150) == says(6, 140) == ""
    assert "its log ends at 149 in term 5, but it had acknowledged 150 in term 5" in says(5, 149)
    assert "its log ends at 139 in term 6, but it had acknowledged 140 in term 5" in says(6, 139)
    assert 200 < len(says(4, 1 << 40)) < 300
    assert says(1, 1, judged=False) == "", "without syncs nothing was promised"
    assert asked.promises.broken(3, [b"", b"E", b"E" + bytes(16)]) == b"", "nothing is known of it"
    assert asked.promises.broken(1, []) == asked.promises.broken(1, [b"Other"]) == b"", "an older version"


def test_a_member_whose_hello_was_read_late_has_what_it_acknowledged() -> None:
    sender = Replica({}, term=1, last_index=38)
    hello = sender.promises.standing()
    sender.raft.term, sender.raft.last_index = 3, 60
    asked = Replica({NAME: encode({1: Promise(3, 60, 60)})})
    assert sender.promises.keeps(asked.promises.broken(1, hello))
    assert sender.failed == []
    assert asked.promises.broken(1, sender.promises.standing()) == b""
    with pytest.raises(ValueError, match="cut short"):
        sender.promises.keeps(b"x")


def test_a_copy_from_before_a_host_joined_ends_as_any_other() -> None:
    asked = Replica({NAME: encode({1: Promise(5, 150, 140)})})
    joined = Replica({})
    joined.raft = Member(1, Configuration(frozenset({2, 3}))).raft  # its log does not name it
    promised = asked.promises.broken(1, joined.promises.standing())
    assert not joined.promises.keeps(promised), "or it would say hello again, and be refused, without end"
    assert "had acknowledged 150" in joined.failed[0]


def test_a_replica_that_hears_of_its_own_acks_ends_if_it_has_lost_them() -> None:
    replica = Replica({}, last_index=149)
    replica.promises.came(2, encode({1: Promise(5, 149, 149), 3: Promise(5, 200, 200)}))
    assert replica.failed == []
    replica.promises.came(2, encode({1: Promise(5, 150, 149)}))
    assert "had acknowledged 150" in replica.failed[0]
    careless = Replica({}, judged=False, last_index=1)
    careless.promises.came(2, encode({1: Promise(5, 150, 149)}))
    assert careless.failed == []
    with pytest.raises(ValueError, match="cut short"):
        replica.promises.came(2, b"x")
