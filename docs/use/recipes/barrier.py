"""A barrier: nobody begins before all are there, nobody leaves before all are done.

Everyone writes a key below the barrier and waits until there are enough of them; afterwards everyone deletes
the own key and waits until there is none.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from gateway import Cluster, Lease

BARRIER = "/examples/barrier/"


def wait_until(cluster: Cluster, enough: Callable[[int], bool]) -> None:
    """Until the number of keys is as wanted."""
    while True:
        found, revision = cluster.all(BARRIER)
        if enough(len(found)):
            return
        next(cluster.watch(BARRIER, revision + 1))


class Barrier:
    """One participant's view."""

    def __init__(self, cluster: Cluster, count: int) -> None:
        self._cluster = cluster
        self._count = count
        self._lease: Lease = cluster.lease(60)

    def enter(self) -> None:
        """Wait for all; the last one opens it for good, since others may leave before this one looks."""
        self._cluster.put(f"{BARRIER}{self._lease.id:x}", "", self._lease.id)
        ready = f"{BARRIER.rstrip('/')}-open"
        if len(self._cluster.all(BARRIER)[0]) == self._count:
            self._cluster.put(ready, "yes")
            return
        found, revision = self._cluster.all(ready)
        if not found:
            next(self._cluster.watch(ready, revision + 1))

    def leave(self) -> None:
        """Wait until all have come so far."""
        self._lease.end()
        wait_until(self._cluster, lambda count: count == 0)


def main(endpoints: str) -> None:
    """Five take part."""
    cluster = Cluster(endpoints)
    cluster.delete(f"{BARRIER.rstrip('/')}-open")
    log: list[str] = []

    def participant() -> None:
        barrier = Barrier(cluster, 5)
        log.append("came")
        barrier.enter()
        log.append("began")
        barrier.leave()
        log.append("left")

    threads = [threading.Thread(target=participant) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cluster.delete(f"{BARRIER.rstrip('/')}-open")
    print(*log)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
