"""Plain puts at a shard's leader: evaluated in a shorter way, with the same result."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.effects import later_puts
from cluster.effects.records import ITEM, Item
from cluster.evaluate.view import Current
from cluster.features.auth.permissions import Ranges
from cluster.order.leading.shard_leader import ShardLeader, Start
from cluster.order.log import ENTRY_ITEMS, Attempt
from cluster.order.prepare import Prepare, Touch
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from tests.unit.order.stores import answers

KEYS = [b"a", b"b", b"c", b"k" * 127, b"k" * 128]
APPLIED = {b"a": Current(3, 5, 2, 0), b"c": Current(4, 4, 1023, 9)}


class Store:
    """An applied state with two keys."""

    revision = 7
    compact_revision = 0

    def current(self, key: bytes) -> Current | None:
        return APPLIED.get(key)

    def get(self, key: bytes, revision: int = 0) -> bytes | None:
        return None

    def scan(self, start: bytes, end: bytes, revision: int = 0, look: int = 0) -> Iterator[tuple[bytes, bytes]]:
        return iter(())

    def lease(self, lease: int) -> tuple[int, int] | None:
        return 60, 0

    def live_count(self, start: bytes, end: bytes) -> int:
        return 0

    def alarms(self) -> list[tuple[int, int]]:
        return []

    def lease_keys(self, lease: int, limit: int = 0, *, but: Ranges | None = None) -> list[bytes]:
        return []


class Parsing(ShardLeader[int]):
    """Without the shorter way."""

    def _puts(self) -> None:
        """None of them is plain."""


def singly(data: bytes) -> bytes:
    """An entry with single items where it holds many puts in one."""
    record = data[ENTRY_ITEMS:]
    if record[:1] != bytes((Item.PUTS_LATER,)):
        return data
    return data[:ENTRY_ITEMS] + b"".join(later_puts.read(record, ITEM.size, len(record)).items())


def serving(kind: type[ShardLeader[int]]) -> ShardLeader[int]:
    found = kind(Store(), 1, 3, Start(5, 0), max_txn_ops=128)
    found.applied_records([(1, 2, [])])
    found.serve()
    return found


puts = st.builds(
    lambda key, size, lease: (Method.PUT, pb.PutRequest(key=key, value=b"v" * size, lease=lease).SerializeToString()),
    st.sampled_from(KEYS), st.sampled_from([0, 1, 127, 128, 16383, 16384]), st.sampled_from([0, 0, 0, 8]))
deletes = st.builds(
    lambda key: (Method.DELETE_RANGE, pb.DeleteRangeRequest(key=key).SerializeToString()), st.sampled_from(KEYS))
requests = st.lists(st.lists(st.one_of(puts, puts, puts, deletes), max_size=6), max_size=4)


@given(entries=requests)
@settings(max_examples=100, deadline=None)
def test_the_shorter_way_logs_and_answers_what_the_longer_one_does(entries: list[list[tuple[Method, bytes]]]) -> None:
    leaders = serving(ShardLeader), serving(Parsing)
    logged: list[list[bytes]] = [[], []]
    for number, entry in enumerate(entries):
        for which, leader in enumerate(leaders):
            for token, (method, body) in enumerate(entry):
                leader.submit(token, method, body)
            leader.run()
            logged[which].append(singly(leader.seal()))
            leader.logged(6 + number)
            if number % 2:  # else the next one finds its keys pending
                leader.applied_entries(6 + number, 7)
    assert logged[0] == logged[1]
    for leader in leaders:
        leader.applied_entries(6 + len(entries), 100)
    assert sorted(answers(leaders[0])) == sorted(answers(leaders[1]))


@pytest.mark.parametrize("key", [b"a", b"d"])
def test_a_plain_put_waits_for_a_lock_like_any_other(key: bytes) -> None:  # I9
    leader = serving(ShardLeader)
    leader.prepare(1, Prepare(Attempt(2, 1), 0, 1, [Touch(key, b"", True)]))
    leader.submit(2, Method.PUT, pb.PutRequest(key=key, value=b"v").SerializeToString())
    leader.run()
    assert not leader.dirty
    leader.release(Attempt(2, 1))
    assert leader.dirty
