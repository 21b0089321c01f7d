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
    return Node(settings, machine, role_of(settings), kinds)


def role_of(settings: NodeSettings) -> Callable[[Node, Kinds], Role]:
    """A store of one shard has one role; else node 0 keeps the order, and the others follow it."""
    if settings.common.shard_count == 1:
        return LoneRole
    return OrderRole if settings.shard == 0 else ShardRole
