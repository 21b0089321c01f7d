"""How this node and its shard are now: for ``musterctl shard list``, ``/muster/shards`` and the gauges of
/metrics.

Answered as JSON to ``Method.FACTS``. Counters that only grow are in ``node.upkeep.counters``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from cluster.raft import Raft
from cluster.raft import Role as RaftRole
from cluster.settings import NodeSettings
from node.upkeep.growth.host import CpuShare

if TYPE_CHECKING:
    from node.links.mail import Mail
    from node.links.standing import Standing
    from node.machine import NodeMachine
    from node.replica.roles.role import Role
    from node.storage import StateStore
    from node.upkeep.space.defragments import Defragments
    from node.upkeep.upkeep import Upkeep

class FactsNode(Protocol):
    settings: NodeSettings
    machine: NodeMachine
    raft: Raft
    store: StateStore
    defragments: Defragments
    mail: Mail
    role: Role
    standing: Standing
    upkeep: Upkeep
    applied_index: int
    order_index: int

    def now_ms(self) -> int: ...


class Facts:
    """What one node reports about itself; ``Role.facts`` adds its role's."""

    def __init__(self, node: FactsNode) -> None:
        self._node = node
        self._cpu = CpuShare(node.machine)

    def now(self) -> dict[str, Any]:
        """Indexes are of the shard's own Raft log, but for ``order_index``; sizes in bytes."""
        node, raft, store = self._node, self._node.raft, self._node.store
        now_ms = node.now_ms()
        return {
            "shard": node.settings.shard,
            "member_id": f"{node.settings.common.member_id:x}",
            "pid": os.getpid(),
            "role": raft.role.name.lower(),
            "leader": f"{raft.leader_id:x}" if raft.leader_id else "",
            "leader_for_ms": now_ms - node.standing.followed_ms,
            "host_name": node.settings.common.name,
            "host_started_ns": node.settings.common.started_ns,  # by the calendar
            "term": raft.term,
            "last_index": raft.last_index,
            "commit_index": raft.commit_index,
            "applied_index": node.applied_index,
            "order_index": node.order_index,
            "revision": store.revision,
            "compact_revision": store.compact_revision,
            "compacting": int(store.compacting),
            "keys": store.counts.keys(),
            "size_bytes": store.size_bytes(),
            "size_in_use_bytes": store.size_in_use_bytes(),
            "defragmenting": int(node.defragments.running),
            "cpu_share": self._cpu.now(),
            "resident_bytes": node.machine.resident_bytes(),
            "appends_received": node.mail.received.messages,
            "appends_sent": node.mail.sent.messages,
            "append_rates": [*node.mail.received.rates(now_ms), *node.mail.sent.rates(now_ms)],
            # entries that each other member is not known to have; a leader's view
            "behind": {
                f"{member:x}": raft.last_index - peer.match for member, peer in raft.peers().items()
            } if raft.role is RaftRole.LEADER else {},
            **node.upkeep.growing.facts(),
            **node.role.facts(),
        }
