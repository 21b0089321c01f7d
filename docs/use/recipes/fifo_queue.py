"""A queue: first in, first out, every item to one taker.

An item is a key of any name; the revision at which it came to be is its place. A taker reads the oldest one
and deletes it in a transaction that fails if another taker was faster. An empty queue is waited for with a
watch.
"""

from __future__ import annotations

import sys
import threading
import uuid

from gateway import Cluster, b64, deleting

QUEUE = "/examples/queue/"


def enqueue(cluster: Cluster, item: str) -> None:
    """Append."""
    cluster.put(f"{QUEUE}{uuid.uuid4()}", item)


def dequeue(cluster: Cluster) -> str:
    """Take the oldest item, waited for."""
    while True:
        items, revision = cluster.all(QUEUE)
        for item in items:
            there = {"key": b64(item.key), "target": "CREATE", "result": "EQUAL"}
            there["create_revision"] = str(item.created)
            if cluster.txn([there], [deleting(item.key)]).get("succeeded"):
                return item.value
        for event in cluster.watch(QUEUE, revision + 1):
            if event.value is not None:
                break


def main(endpoints: str) -> None:
    """One taker sees the order; three takers get every item once."""
    cluster = Cluster(endpoints)
    for i in range(5):
        enqueue(cluster, f"item-{i}")
    print("in order:", *[dequeue(cluster) for _ in range(5)])

    taken: list[str] = []

    def taker() -> None:
        taken.extend(dequeue(cluster) for _ in range(4))

    threads = [threading.Thread(target=taker) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(12):
        enqueue(cluster, f"{i:02}")
    for thread in threads:
        thread.join()
    print("each once:", *sorted(taken))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
