"""How many leases end in one attempt over all shards: so many that one turn of a loop stays short.

The sequencer learns from the last attempts how many keys the shards hold. A lease of very many keys is an
attempt of its own: its keys go in one revision, as etcd's do, unless their names take very many bytes.
"""

from __future__ import annotations

from typing import Any

from cluster.evaluate.footprint import Footprint
from cluster.order.sequencing.wide import Wide

KEYS = 500  # of one attempt, about: 5 ms for a shard's leader that holds them all
_MOST = 500  # leases
_FIRST = 32


class Expiries:
    def __init__(self) -> None:
        self._at_once = _FIRST
        self._running = 0  # leases

    def cut(self, wide: Wide[Any]) -> list[int]:
        """Cut off and return the leases of a larger expiry that wait for the next one."""
        if wide.token is not None or len(wide.leases) <= self._at_once:
            return []
        rest = wide.leases[self._at_once :]
        del wide.leases[self._at_once :]
        wide.footprint = Footprint(leases=set(wide.leases))
        return rest

    def full(self, wide: Wide[Any]) -> bool:
        return (wide.token is None and bool(self._running) and bool(wide.leases)
                and self._running + len(wide.leases) > self._at_once)

    def begun(self, wide: Wide[Any]) -> None:
        if wide.token is None:
            self._running += len(wide.leases)

    def ended(self, wide: Wide[Any], keys: int | None = None) -> None:
        """``keys``: how many went with its leases, None: the attempt was given up."""
        if wide.token is not None:
            return
        self._running -= len(wide.leases)
        if keys is None:
            return
        if wide.left:
            self._at_once = max(len(wide.leases) - len(wide.left), 1)
        elif keys > KEYS:
            self._at_once = max(min(self._at_once, len(wide.leases)) * KEYS // keys, 1)
        elif keys <= KEYS // 2 and len(wide.leases) >= self._at_once:
            self._at_once = min(2 * self._at_once, _MOST)
