"""Who is corrupt, judged from the members' hashes."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest

from proxy.metrics.shard_facts import ShardFacts
from proxy.services.upkeep.corruption import NOBODY, CorruptionChecks, Hash, judge


def _hashes(*values: int, compacted: tuple[int, ...] = ()) -> dict[int, Hash]:
    revisions = compacted or (0,) * len(values)
    return {
        member: Hash(value, 9, at)
        for member, (value, at) in enumerate(zip(values, revisions, strict=True), 1)
    }


@pytest.mark.parametrize(
    ("hashes", "members", "corrupt"),
    [
        (_hashes(), 3, []),
        (_hashes(5), 1, []),
        (_hashes(5, 5, 5), 3, []),
        (_hashes(5, 5, 6), 3, [3]),
        (_hashes(5, 6, 6), 3, [1]),
        (_hashes(5, 6), 2, [NOBODY]),
        (_hashes(5, 6), 3, [NOBODY]),
        (_hashes(5, 6, 7), 3, [NOBODY]),
        (_hashes(5, 5, 5, 6, 7), 5, [4, 5]),
        (_hashes(5, 5), 5, []),
    ],
)
def test_who_differs_from_a_majority_is_corrupt(
    hashes: dict[int, Hash], members: int, corrupt: list[int]
) -> None:
    assert judge(hashes, members) == corrupt


def test_only_those_that_have_compacted_the_same_are_compared() -> None:
    assert judge(_hashes(5, 6, compacted=(3, 4)), 3) == []
    assert judge(_hashes(5, 5, 6, compacted=(3, 3, 4)), 3) == []
    assert judge(_hashes(5, 6, 6, compacted=(3, 4, 4)), 3) == []
    assert judge(_hashes(5, 5, 6, 7, compacted=(3, 3, 3, 4)), 4) == [NOBODY], "two of four are no majority"


@pytest.mark.parametrize(("own", "leader", "compares"), [(1, 1, True), (1, 2, False), (0, 0, False)])
def test_the_leaders_front_compares_at_each_interval_and_a_proxys_never(
    own: int, leader: int, compares: bool
) -> None:
    checks = CorruptionChecks(MagicMock(**{
        "router.loop.time.return_value": 0.0, "router.routes": {0: MagicMock(leader=leader)},
        "common.member_id": own, "settings.corrupt_check_ms": 1000, "settings.compact_hash_check_ms": 0}))
    started: list[None] = []
    checks.compare = lambda: started.append(None)  # type: ignore[method-assign]
    checks._tick(0.0)
    checks._tick(1.0)
    assert bool(started) == compares


def test_a_node_that_is_down_or_forms_holds_up_no_comparison_after_a_compaction() -> None:
    checks = CorruptionChecks(MagicMock(**{"router.loop.time.return_value": 0.0}))
    started: list[int] = []
    checks.compare = lambda: started.append(checks._compacted)  # type: ignore[method-assign]

    def up(revision: int, state: str = "serving") -> ShardFacts:
        return {"up": True, "state": state, "compact_revision": revision}

    down: ShardFacts = {"up": False, "state": "serving"}
    for found in ([up(5), up(3)], [up(5), down], [down], [up(7), up(0, "forming")]):
        checks._look_at_compactions(found)
    assert started == [3, 5, 7]
