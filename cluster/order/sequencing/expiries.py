"""How many leases end in one attempt over all shards: so many that one turn of a loop stays short.

The sequencer learns from the last attempts how many keys the shards hold. A lease of very many keys is an
attempt of its own: its keys go in one revision, as etcd's do, unless their names take very many bytes.

While a shard has no leader no lease ends, for it may have keys of each. A few expiries wait then; further
leases stay with the lessor (``enough``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cluster.evaluate.footprint import Footprint
from cluster.order.sequencing.wide import Wide

KEYS = 500  # of one attempt, about: 5 ms for a shard's leader that holds them all
_MOST = 500  # leases
_FIRST = 32
_WAITING = 8  # expiries; of 10,000, each run looked at hundreds, and others found no room in the queue


class Expiries:
    def __init__(self) -> None:
        self._at_once = _FIRST
        self._running = 0  # leases

    @staticmethod
    def enough(queue: Iterable[Wide[Any]]) -> bool:
        """Whether so many wait that no more leases are to be found due for now."""
        return sum([wide.token is None and bool(wide.leases) for wide in queue]) >= _WAITING

    @staticmethod
    def fresh(leases: list[int], *others: Iterable[Wide[Any]]) -> list[int]:
        """Those that none of the others ends: what is due is named again and again, until it is gone."""
        coming = {lease for some in others for wide in some for lease in wide.leases}
        return [lease for lease in leases if lease not in coming]

    def cut(self, wide: Wide[Any]) -> Wide[Any] | None:
        """Cut off and return the leases of a larger expiry that wait for the next one."""
        if wide.token is not None or len(wide.leases) <= self._at_once:
            return None
        rest = wide.leases[self._at_once :]
        del wide.leases[self._at_once :]
        wide.footprint = Footprint(leases=set(wide.leases))
        return Wide(None, wide.method, wide.body, Footprint(leases=set(rest)), rest)

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
