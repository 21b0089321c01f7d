"""Which role a shard's settings ask for."""

from __future__ import annotations

from collections.abc import Callable

from cluster.settings import NodeSettings
from node.machine import NodeMachine
from node.replica.lone import LoneRole
from node.replica.role import Kinds, Role
from node.replica.server import Node
from node.replica.shards.order_role import OrderRole
from node.replica.shards.shard_role import ShardRole

_KINDS = Kinds()


def make_node(settings: NodeSettings, machine: NodeMachine, kinds: Kinds = _KINDS) -> Node:
    """The node that these settings ask for; not started."""
    role: Callable[[Node, Kinds], Role] = OrderRole if settings.shard == 0 else ShardRole
    return Node(settings, machine, LoneRole if settings.common.shard_count == 1 else role, kinds)
