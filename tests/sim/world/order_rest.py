"""Whether a simulated run has come to rest once its faults are over. Leases end by themselves
(``order_leases``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.raft import EntryKind, Role
from node.replica.shards.order_role import OrderRole
from node.replica.shards.shard_role import ShardRole

if TYPE_CHECKING:
    from tests.sim.world.order_sim import Simulation


def why_not(simulation: Simulation) -> str:
    """What is still under way; empty: nothing."""
    if simulation.members is not None and not simulation.members.at_rest:
        return f"not every host is a voter everywhere again: {simulation.checker.configurations.now()}"
    for operator in (simulation.growth, simulation.births, simulation.moves):
        if operator is not None and (why := operator.why_not()):
            return why
    if simulation.clients.waiting:
        return "I23: never answered: " + "; ".join(
            repr(w[0]) for w in list(simulation.clients.waiting.values())[:3])
    return _at_nodes(simulation) or simulation.hard.snapshots_left() or _at_fronts(simulation)


def _at_nodes(simulation: Simulation) -> str:
    nodes: list[tuple[str, int, Any]] = [
        (f"node {host}.{shard}", shard, process.node)
        for (host, shard), process in sorted(simulation.nodes.items())]
    for name, shard, node in nodes:
        if why := _of_role(name, node.role):
            return why
        if not any(of == shard and other.raft.role is Role.LEADER and other.raft.id == node.raft.leader_id
                   for _, of, other in nodes):
            return f"{name} follows no leader"
        if node.raft.commit_index != max(other.raft.commit_index for _, of, other in nodes if of == shard):
            return f"{name} is behind its group"
        if shard and node.applied_index < _last_to_be_ordered(node.raft):
            return f"{name} has entries that are committed and not in order"
    if len({node.order_index for _, _, node in nodes}) != 1:
        return f"order indexes differ: { {name: node.order_index for name, _, node in nodes} }"
    return ""


def _of_role(name: str, role: object) -> str:
    if isinstance(role, ShardRole):
        if role.leading is not None and len(role.leading._table):
            return f"I23: locks or waiting requests left at {name}: {role.leading.undecided()}"
        if role.fates:
            return f"I23: {name} holds answers whose fate is open"
    if isinstance(role, OrderRole):
        if role.coordinator is not None and role.coordinator.busy:
            return f"I23: {name} still coordinates: {role.coordinator.statistics()}"
        if role.controls:
            return f"{name} owes answers for compactions that are applied"
    return ""


def _last_to_be_ordered(raft: Any) -> int:
    """The last committed entry but for changes of the configuration, which nobody waits for."""
    index = raft.commit_index
    while index > raft.log.position.index and raft.log_entries(index, index)[0].kind == EntryKind.CONFIG:
        index -= 1
    return int(index)


def _at_fronts(simulation: Simulation) -> str:
    revision = simulation.nodes[simulation.hosts[0], 0].node.store.revision
    for host, front in sorted(simulation.fronts.items()):
        for watched in front.context.hub.subscriptions.values():
            if watched.lagging or watched.through() < revision:
                return f"front {host} has not got every event of {watched.key!r}: {watched.emitted}"
    return ""
