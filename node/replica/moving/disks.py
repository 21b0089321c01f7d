"""How much of the order is on the disks of a shard's nodes, as they answer when they are asked (DURABLE)."""

from __future__ import annotations

from collections.abc import Callable, Collection

from cluster.wire.frames import MOVES_SINCE
from cluster.wire.messages import Method, Status
from node.links.siblings import NodeLinks
from node.replica.moving.sources import DURABLE


class Disks:
    def __init__(self, links: NodeLinks) -> None:
        self._links = links
        self._said: dict[tuple[int, int], int] = {}  # host, shard -> order record that is on disk there
        self._asked: set[tuple[int, int]] = set()

    def ask(self, hosts: Collection[int], shard: int, order_index: int) -> None:
        """Their nodes flush for it, too."""
        for host in sorted(hosts):
            link = self._links.find(host, shard)
            if link is not None and not (link.up and link.version < MOVES_SINCE):
                self._asked.add((host, shard))
                link.request(Method.DURABLE, DURABLE.pack(order_index), self._answered(host, shard))
        self._links.flush()

    def _answered(self, host: int, shard: int) -> Callable[[int, bytes], bool]:
        def answered(status: int, body: bytes) -> bool:
            if status == Status.OK and len(body) == DURABLE.size:
                # a disk may be lost, and the place with it: what is said now counts
                self._said[host, shard] = DURABLE.unpack(body)[0]
            return False

        return answered

    def have(self, hosts: Collection[int], shard: int, order_index: int) -> set[int]:
        """Those of the hosts that have it on disk, as they said last."""
        return {host for host in hosts if self._said.get((host, shard), 0) >= order_index}

    def forget(self) -> None:
        self._said.clear()

    def release(self) -> None:
        """Each second: drop links that asked, and are not used any more."""
        if self._asked:
            self._links.drop_unused(None, self._asked)
            self._asked = {name for name in self._asked if name in self._links}
