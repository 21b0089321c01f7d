"""One owner at a time, by the Lock service.

The lock is tied to a lease: an owner that dies loses it when the lease ends. A write under the lock is a
transaction that compares the owner's key, so an owner that was thought dead changes nothing any more.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from gateway import Cluster, b64, putting, text

COUNTER = "/examples/counter"


def locked(cluster: Cluster, name: str, work: Callable[[str], None]) -> None:
    """Do some work while nobody else does; it is told the key that stands for the ownership."""
    lease = cluster.lease(60)
    key = text(cluster.call("lock/lock", {"name": b64(name), "lease": lease.id})["key"])
    try:
        work(key)
    finally:
        cluster.call("lock/unlock", {"key": b64(key)})
        lease.end()


def add_one(cluster: Cluster, owner: str) -> None:
    """Read, add, write: right only if nobody else does the same meanwhile."""
    before = int(cluster.get(COUNTER) or "0")
    still_mine = {"key": b64(owner), "target": "CREATE", "result": "GREATER", "create_revision": 0}
    assert cluster.txn([still_mine], [putting(COUNTER, str(before + 1))])["succeeded"]


def main(endpoints: str) -> None:
    """Four workers add ten each."""
    cluster = Cluster(endpoints)
    cluster.put(COUNTER, "0")

    def worker() -> None:
        for _ in range(10):
            locked(cluster, "/examples/lock", lambda owner: add_one(cluster, owner))

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("counted:", cluster.get(COUNTER))
    cluster.delete(COUNTER)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
