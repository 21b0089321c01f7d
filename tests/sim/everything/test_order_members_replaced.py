"""What a node may go by after a forced start, which replaces all members of a group at once (I21, H18)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.raft import Configuration
from tests.sim.world.order_members import Configurations
from tests.sim.world.order_world import Violation

HOST, JOINED = 7, 9
BEFORE = Configuration(frozenset({2}), frozenset({HOST}))
ONLY = Configuration(frozenset({HOST}))
BEGINS, FORCED = 34, 37  # the kept log, and what the forced start has logged


def goes_by(configuration: Configuration, host: int, log_ends: int) -> None:
    """A node of group 1 after a step."""
    groups = Configurations(range(2), ONLY)
    groups.replaced(1, [(BEGINS, BEFORE), (FORCED, ONLY)])
    node = SimpleNamespace(raft=SimpleNamespace(log=SimpleNamespace(last_index=log_ends)))
    process: Any = SimpleNamespace(name=f"node {host}.1", shard=1, node=node)
    groups.in_effect(process, configuration)


def test_a_host_that_joins_begins_with_a_state_of_before_the_start() -> None:
    """The start changes two members at once. The state ends before it, so the node's log names those."""
    goes_by(BEFORE, JOINED, FORCED - 1)
    goes_by(ONLY, JOINED, FORCED)


@pytest.mark.parametrize("host", [HOST, JOINED])
def test_nobody_goes_by_the_members_of_before_once_its_log_has_the_start(host: int) -> None:
    with pytest.raises(Violation, match="I21 one change"):
        goes_by(BEFORE, host, FORCED)


@pytest.mark.parametrize(
    ("configuration", "log_ends"),
    [
        (Configuration(frozenset({2, 3}), frozenset({HOST})), FORCED - 1),  # of no place of that log
        (BEFORE, BEGINS - 1),  # of a state that the log does not reach
    ],
)
def test_a_state_of_before_names_members_of_its_place(configuration: Configuration, log_ends: int) -> None:
    with pytest.raises(Violation, match="I21 one change"):
        goes_by(configuration, JOINED, log_ends)
