"""Which kind of node a shard's settings ask for."""

from __future__ import annotations

from cluster.settings import NodeSettings
from node.machine import NodeMachine
from node.replica.server import Node
from node.replica.shards.order_node import OrderNode
from node.replica.shards.shard_node import ShardNode


def make_node(settings: NodeSettings, machine: NodeMachine) -> Node:
    """The node that these settings ask for; not started."""
    return kind_of(settings)(settings, machine)


def kind_of(settings: NodeSettings) -> type[Node]:
    """A store of one shard has one kind; else node 0 keeps the order, and the others follow it."""
    if settings.common.shard_count == 1:
        return Node
    return OrderNode if settings.shard == 0 else ShardNode
