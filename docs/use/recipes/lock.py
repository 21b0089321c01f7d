"""One owner at a time.

The lock is tied to a lease: an owner that dies loses it when the lease ends. A write under the lock is a
transaction with the condition that it is held, so an owner that was thought dead changes nothing any more.
"""

from __future__ import annotations

import sys
import threading

import muster_client as m
from muster_client import sync

COUNTER = "/examples/counter"


def add_one(client: sync.Client) -> None:
    """Read, add, write: right only if nobody else does the same meanwhile."""
    with client.lock("/examples/lock") as lock:
        before = client.get(COUNTER)
        assert before is not None
        assert client.when(lock.held).then(m.put(COUNTER, str(int(before.text) + 1))).commit()


def main(endpoints: str) -> None:
    """Four workers add ten each."""

    def worker() -> None:
        for _ in range(10):
            add_one(client)

    with sync.Client(endpoints) as client:
        client.put(COUNTER, "0")
        threads = [threading.Thread(target=worker) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counted = client.delete(COUNTER, previous=True).previous[0]
    print("counted:", counted.text)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
