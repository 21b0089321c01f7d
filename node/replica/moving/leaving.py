"""When a source drops what has left it (G10).

Once a compaction is behind the switch no read can ask for it; for what was owned at no revision none ever
could. But the target's replicas may still lack it: each host's node of the target says how far it is on disk.
The own host and a majority of the voters have to be beyond the switch; a learner's host counts for itself
alone. A target that is dropped by now has passed its keys on in the same way. Where the order waits for a
base, the record of that drop may stand behind what waits: for these rows to go (G11).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import structlog

from cluster.effects.records import ITEM
from cluster.placement.changes import shard_item
from cluster.placement.table import State
from node.links.siblings import NodeLinks
from node.replica.moving.disks import Disks
from node.replica.moving.moved import MovedKeys
from node.replica.moving.steps import Steps

if TYPE_CHECKING:
    from node.replica.shards.linked import RoleNode

log = structlog.get_logger("move")

SHARD = shard_item(0, State.DROPPED)[: ITEM.size]  # bytes that seldom stand in a record without one


class Leaving:
    def __init__(
        self, node: RoleNode, links: NodeLinks, moved: MovedKeys, voters: Callable[[], Collection[int]],
        drops: Callable[[], Collection[int]] = tuple,
    ) -> None:
        """``voters``: of every shard. ``drops``: shards whose drop is committed and waits here for a base
        (G5)."""
        self._node = node
        self._moved = moved
        self._shard = node.settings.shard
        self._member_id = node.settings.common.member_id
        self._voters = voters
        self._drops = drops
        self._steps = Steps(node.loop, node.machine.perf_counter)
        self._disks = Disks(links)

    def second(self) -> None:
        """Every second."""
        table = self._moved.table
        if table is not None and table.emptied:  # its drop waits for what has moved to be on disk
            self._node.upkeep.flushes.owe()
        if self._steps.busy:
            return
        for number, left in sorted(self._moved.left.items()):
            whole = self._moved.may_drop(number)
            if not whole and not self._moved.may_bare(number):
                continue
            if self._is_safe(left.target, left.order_index):
                log.info("deleting keys that moved away", shard=self._shard, move=number, whole=whole)
                work = (self._moved.drop if whole else self._moved.bare)(number)
                self._steps.run(work, self._node.upkeep.moved_rows_went)
                return
            self._disks.ask(self._asked(), left.target, left.order_index)

    def release(self) -> None:
        """Every second, where nothing else drops links that are not used."""
        self._disks.release()

    def _is_safe(self, target: int, order_index: int) -> bool:
        table = self._moved.table
        known = table.shards.get(target) if table is not None else None
        if (known is not None and known.state == State.DROPPED) or target in self._drops():
            return True
        voters = set(self._voters())
        have = self._disks.have(self._asked(), target, order_index)
        return self._member_id in have and 2 * len(have & voters) > len(voters)

    def _asked(self) -> set[int]:
        return {self._member_id, *self._voters()}

    def replaced(self) -> None:
        """Another state was installed."""
        self._steps.abandon()

    def close(self) -> None:
        self._steps.abandon()
