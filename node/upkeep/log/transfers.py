"""How transfers of states between members went, by peer: for ``etcd_network_snapshot_*``.

A peer is in it from the first transfer on, as in etcd.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cluster.histogram import SNAPSHOT_S, Histogram


@dataclass(slots=True)
class Transferred:
    done: int = 0
    failed: int = 0
    took: Histogram = field(default_factory=lambda: Histogram(SNAPSHOT_S))  # of the done ones


class Transfers:
    def __init__(self) -> None:
        self._by_peer: dict[int, Transferred] = {}

    def begun(self, peer: int) -> None:
        self._by_peer.setdefault(peer, Transferred())

    def done(self, peer: int, took_s: float) -> None:
        """A transfer's state is in use."""
        self._by_peer[peer].done += 1
        self._by_peer[peer].took.observe(took_s)

    def failed(self, peer: int) -> None:
        self._by_peer[peer].failed += 1

    def figures(self, under_way: Iterable[int]) -> dict[str, Any]:
        """By member ID, as JSON. ``under_way``: the peer of each transfer that goes on just now."""
        now = list(under_way)
        return {
            f"{peer:x}": {
                "success": found.done,
                "failures": found.failed,
                "inflights": now.count(peer),
                "took": found.took.observed(),
            }
            for peer, found in self._by_peer.items()
        }
