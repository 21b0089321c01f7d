"""What follows a run of records that is applied."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest

from cluster.features.lessor import Lessor
from cluster.raft import Role
from node.replica.consequences import Consequences
from node.replica.roles import made
from node.replica.roles.role import Kinds
from node.storage.state.changes.run import Applied
from tests.unit.proxy.fakes import ManualLoop


def test_a_node_leads_by_the_members_that_its_last_run_says() -> None:
    """The run that holds the first entry of its term may hold rows before that: a forced start removes hosts
    there."""
    node, said = MagicMock(), list[str]()
    node.raft.role, node.raft.term, node.store.position.term = Role.LEADER, 3, 3
    node.writes.leader, node.settings.shard = None, 1
    node.roster.applied.side_effect = lambda rows: said.append("rows")
    node.roster.changes.leading.side_effect = lambda: said.append("leads")
    Consequences(node).applied([(8, 2, b""), (9, 3, b"")], Applied(7, hosts=[b"a host"]))
    assert said == ["rows", "leads"]


def test_a_sequencer_that_was_deposed_in_this_turn_takes_over_the_leases_of_a_state() -> None:
    lessor = Lessor(1000)
    lessor.promote(0)
    node = MagicMock(lessor=lessor, applied_index=9)
    node.raft.role, node.raft.announced_index = Role.FOLLOWER, 9
    node.store.leases.return_value = [(7, 60, 0)]
    Consequences(node).replaced()
    assert (lessor.primary, lessor.unordered()) == (False, [7])


def test_a_layout_that_comes_with_a_state_is_compared() -> None:
    """A host with another one served nobody until it was started again."""
    node = MagicMock(applied_index=9)
    node.raft.announced_index = 9
    node.store.bootstrap.return_value = (1, 4, 2)
    Consequences(node).replaced()
    node.upkeep.agreed.check_bootstrap.assert_called_once_with((1, 4, 2))


def test_h10_the_role_of_grown_data_applies_nothing_that_this_disk_may_not_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A leader says more as committed than its follower has synced; the state is never ahead of the log."""
    monkeypatch.setattr(made, "OrderRole", MagicMock())
    node = MagicMock(loop=ManualLoop(), applied_index=3)
    node.raft.announced_index, node.raft.commit_index = 4, 6
    made._orders_from_here(node, Kinds())
    node.role.apply.assert_called_once_with(4)
