"""What of the order log must be kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.wire.frames import HIGHEST, MOVES_SINCE
from node.replica.shards.retention import Retention
from node.upkeep.log.floors import Floors

HOSTS = (1, 2, 3)


def floors(*own: int, others: dict[int, tuple[int, ...]] | None = None) -> Floors:
    """Of host 1, as its own nodes and other hosts' node 0s said."""
    mine = Floors(1, len(own) + 1)
    for shard, durable in enumerate(own, 1):
        mine.own_is(shard, durable)
    for member_id, said in (others or {}).items():
        other = Floors(member_id, len(said) + 1)
        for shard, durable in enumerate(said, 1):
            other.own_is(shard, durable)
        mine.came(member_id, other.encode())
    return mine


def test_the_own_hosts_nodes_get_what_they_want() -> None:
    assert floors(90, 70, others={2: (95, 95), 3: (99, 99)}).kept_after(10, HOSTS) == 70


def test_within_the_bound_only() -> None:
    # the second installs a state
    assert floors(90, 70, others={2: (95, 95), 3: (99, 99)}).kept_after(80, HOSTS) == 90


def test_a_node_that_wants_all_within_the_bound_gets_it() -> None:
    assert floors(90, 80, others={2: (95, 95), 3: (99, 99)}).kept_after(80, HOSTS) == 80


def test_a_node_that_has_not_said_what_it_wants_may_want_all_within_the_bound() -> None:
    assert floors(90, 0, others={2: (95, 95), 3: (99, 99)}).kept_after(80, HOSTS) == 80


def test_nothing_goes_that_a_majority_does_not_have() -> None:
    assert floors(90, 90, others={2: (95, 20), 3: (99, 30)}).kept_after(80, HOSTS) == 30


def test_a_host_that_is_down_is_not_waited_for() -> None:
    assert floors(90, 90, others={2: (95, 95), 3: (5, 5)}).kept_after(80, HOSTS) == 90


def test_who_has_said_nothing_has_nothing() -> None:
    assert floors(90).kept_after(80, HOSTS) == 0
    assert floors(90, others={2: (85,)}).kept_after(80, HOSTS) == 85


def test_the_last_word_counts() -> None:
    mine = floors(90, others={2: (85,)})
    mine.came(2, Floors(2, 2).encode())  # started again
    assert mine.kept_after(80, HOSTS) == 0


@pytest.mark.parametrize(
    ("voters", "kept_after"),
    [
        ((1,), 90),
        ((1, 2), 80),
        ((1, 2, 3), 80),
        ((1, 2, 3, 4), 70),
        ((1, 2, 3, 4, 5), 70),
        ((2, 3, 4), 70),
        ((2, 9), 0),
    ],
)
def test_a_majority_of_the_voters(voters: tuple[int, ...], kept_after: int) -> None:
    mine = floors(90, others={2: (80,), 3: (70,), 4: (60,), 5: (50,)})
    assert mine.of_majority(voters) == (kept_after, 1)


def test_the_shard_with_the_least_is_named() -> None:
    assert floors(90, 60, 70, others={2: (95, 20, 30)}).of_majority(HOSTS) == (20, 2)


def test_a_frame_of_another_layout_is_broken() -> None:
    with pytest.raises(ValueError):
        floors(90).came(2, bytes(16))


def test_it_is_said_now_and_then_that_more_is_kept_than_usual() -> None:
    node: Any = SimpleNamespace(
        applied_index=100,
        raft=SimpleNamespace(configuration=SimpleNamespace(voters=HOSTS)),
        loop=SimpleNamespace(time=lambda: now_s),
    )
    unused: Any = None
    retention = Retention(node, floors(90, 90, others={2: (95, 20), 3: (99, 30)}), unused, unused)
    said = []
    with capture_logs() as lines:
        for now_s in (0, 1, 59, 60, 61, 119, 120, 500):
            assert retention.kept_for_others(80) == 30
            said.append(len(lines))
            if now_s == 120:
                assert retention.kept_for_others(20) == 30  # as ever, for the moment
    assert said == [0, 0, 0, 1, 1, 1, 2, 2]
    assert (lines[0]["shard"], lines[0]["records"]) == (2, 70)


def with_files(begins: int, *hosts: tuple[int, int, int]) -> Floors:
    """Of host 1: what each host's replica has applied, and the first and the last record in its files."""
    mine = Floors(1, 2)
    mine.begins = begins
    for member_id, (applied, first, last) in enumerate(hosts, 1):
        other = Floors(member_id, 2)
        other.own_is(1, applied)
        other.own_keeps(1, first, last)
        mine.came(member_id, other.encode(9))
    return mine


@pytest.mark.parametrize(
    ("begins", "hosts", "kept_after"),
    [
        (40, ((0, 41, 90), (20, 31, 85), (0, 0, 0)), 85),  # files of two count
        (40, ((0, 41, 60), (20, 31, 85), (0, 41, 90)), 60),  # this host's log is for its own
        (40, ((0, 41, 90), (0, 42, 85), (0, 0, 0)), 0),  # a record is missing before those files
        (40, ((0, 41, 90), (41, 43, 85), (0, 0, 0)), 41),
        (40, ((0, 41, 90), (41, 42, 85), (0, 0, 0)), 85),
        (40, ((0, 41, 90), (95, 0, 0), (0, 0, 0)), 90),  # and so does what is applied
        (40, ((60, 41, 90), (70, 75, 85), (0, 0, 0)), 70),
        (40, ((60, 41, 90), (10, 61, 85), (70, 0, 0)), 85),  # a majority has applied what is before them
    ],
)
def test_files_count_as_what_is_applied_where_nothing_is_missing(
    begins: int, hosts: tuple[tuple[int, int, int], ...], kept_after: int
) -> None:
    assert with_files(begins, *hosts).of_majority(HOSTS) == (kept_after, 1)


def test_for_those_that_vote_next_files_do_not_count() -> None:
    """They go by those that vote now: host 3's would, as hosts 1 and 2 have applied the end."""
    mine = with_files(0, (100, 0, 0), (100, 0, 0), (0, 1, 100))
    assert mine.durable(1, HOSTS) == 100
    assert mine.on_disk(HOSTS) == 100
    assert mine.on_disk((2, 3)) == 0


def test_a_host_of_an_older_version_says_and_hears_nothing_of_files() -> None:
    mine = with_files(40, (0, 41, 90), (20, 31, 85))
    assert len(mine.encode(8)) == 8
    mine.came(2, Floors(2, 2).encode(8))
    assert mine.of_majority(HOSTS) == (0, 1)


def at_moves(last_move: int) -> tuple[Floors, Retention]:
    """Of host 1, where shard 0 has all up to record 100 on disk, and no other shard is left."""
    node: Any = SimpleNamespace(
        store=SimpleNamespace(durable_position=SimpleNamespace(order_index=100)),
        upkeep=SimpleNamespace(flushes_for_changes=False))
    placement: Any = SimpleNamespace(table=SimpleNamespace(last_move=last_move))
    unused: Any = None
    mine = Floors(1, 1)
    return mine, Retention(node, mine, unused, placement)


def zero(durable: int, version: int = HIGHEST) -> bytes:
    """What another host's node 0 says, in a cluster of one first shard."""
    other = Floors(9, 1)
    other.own_is(0, durable)
    return other.encode(version)


def test_g5_a_change_of_members_waits_for_what_moved_to_shard_0() -> None:
    """It is in no log, so that a voter may have the whole log and lack it."""
    mine, retention = at_moves(1)
    mine.came(2, zero(100))
    mine.came(3, zero(40))
    mine.came(4, zero(0))  # it is new, and has not said that keys have moved
    assert retention.covers((1, 2, 3), 100)
    assert not retention.covers((1, 3, 4), 100)
    assert not retention.covers((2, 5, 6), 100), "who has said nothing has nothing"
    mine.came(3, zero(100))
    assert retention.covers((1, 3, 4), 100)


def test_shard_0_flushes_for_a_change_of_members_once_keys_have_moved() -> None:
    for last_move in (0, 1):
        _, retention = at_moves(last_move)
        retention.covers((1,), 100)
        assert retention._node.upkeep.flushes_for_changes is (last_move > 0)


def test_without_moves_who_has_the_log_of_shard_0_has_it_all() -> None:
    mine, retention = at_moves(0)
    mine.came(2, zero(0))
    assert retention.covers((2, 3, 4), 100)


def test_a_host_that_says_nothing_of_shard_0_is_waited_for() -> None:
    """A new one, or one that has just connected again, says so seconds later. It counted as having all."""
    mine, retention = at_moves(1)
    for version in (8, 9, MOVES_SINCE - 1):
        assert zero(40, version) == b""
    mine.came(2, zero(100))
    assert retention.covers((1, 2, 3), 100)
    mine.came(2, zero(100, MOVES_SINCE - 1))
    assert not retention.covers((1, 2, 3), 100)
