"""What a node answers from its state, of the parts that a test has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cluster.raft import Raft
from node.serving.maintenance import Maintenance
from node.serving.ranges import Ranges
from node.serving.reads import Reads
from node.serving.serve import Serve
from node.serving.streams import Streams
from node.storage import StateStore
from tests.unit.machines import machine_on


def serve_of(store: StateStore, raft: Raft, reads: Reads, streams: Streams, **others: Any) -> Serve:
    """Without leases, users, and the tree of version 2. ``others``: what else the test has of a node."""
    node: Any = SimpleNamespace(machine=machine_on(), store=store, raft=raft, reads=reads, **others)
    nothing: Any = None
    return Serve(
        node, ranges=Ranges(store, raft, streams), maintenance=Maintenance(node, dict, dict), v2=nothing,
        lease_list=nothing, defragment=nothing)
