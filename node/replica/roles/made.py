"""Which role a shard's settings, and its data, ask for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from cluster.features.auth.principal import SAID
from cluster.features.growth import BIRTHS
from cluster.settings import NodeSettings
from cluster.wire.messages import Method
from node.machine import NodeMachine
from node.replica.pacing.pauses import GatheringTimer
from node.replica.roles.lone import LoneRole
from node.replica.roles.role import Kinds, Role
from node.replica.server import Node
from node.replica.shards.order_role import OrderRole
from node.replica.shards.shard_role import ShardRole
from node.replica.writes import Writes

log = structlog.get_logger("node")

_KINDS = Kinds()
_REVOKE_MS = 5000  # for one that is handed over: it has waited here without a limit


def make_node(settings: NodeSettings, machine: NodeMachine, kinds: Kinds = _KINDS) -> Node:
    """The node that these settings ask for; not started."""
    role: Callable[[Node, Kinds], Role] = ShardRole if settings.shard else _of_shard_0
    return Node(settings, machine, role, kinds)


def _of_shard_0(node: Node, kinds: Kinds) -> Role:
    """Shard 0 orders where there are other shards, or where the data has grown so far that there may be."""
    if node.settings.common.shard_count > 1 or node.store.growth().level >= BIRTHS:
        return OrderRole(node, kinds)
    return LoneRole(node, kinds, partial(_orders_from_here, node, kinds))


def _orders_from_here(node: Node, kinds: Kinds) -> None:
    """The data has just grown: the role changes between two applies. What is logged stays as it is, for the
    order of one shard is its log."""
    committed = node.gathering
    node.gathering = GatheringTimer(node.loop, lambda last: node.role.apply(last), lambda: False, node.wake)
    committed.stop()
    node.role = role = OrderRole(node, kinds)
    node.catch_up = role.catch_up
    if (leader := node.writes.leader) is not None and role.sequencing:
        role.sequence(leader)
    hand_over(node.writes, role)
    log.info("this node now orders all shards' writes: shards may be added", shard=0,
             applied=node.applied_index)
    if node.raft.announced_index > node.applied_index:
        node.gathering.take(node.raft.announced_index)
    node.wake()


def hand_over(writes: Writes, role: Role) -> None:
    """Revokes that are queued. One may have ended in part, and comes back until its last keys have gone;
    another shard may be born meanwhile, and get keys of the lease (I15)."""
    kept = []
    for request in writes.take_queued():
        link, rid, method, body = request
        if method & ~SAID == Method.LEASE_REVOKE:
            writes.goes_on(link, rid)
            role.submit(link, rid, method, _REVOKE_MS, body)
        else:
            kept.append(request)
    writes.put_back(kept)
