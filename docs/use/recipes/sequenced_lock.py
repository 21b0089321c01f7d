"""A lock that is given in the order in which it was asked for, out of keys and watches alone.

Each client writes a key; the revision at which it came to be is its place in the row. The first one owns the
lock. Each other client watches only the one before it, so a release wakes one waiter and not all of them.
"""

from __future__ import annotations

import sys
import threading
import time

from gateway import Cluster, Lease

ROW = "/examples/row/"


class Place:
    """A place in the row."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.name = name
        self._cluster = cluster
        self._lease: Lease = cluster.lease(60)
        self._key = f"{ROW}{self._lease.id:x}"
        cluster.put(self._key, name, self._lease.id)

    def wait(self) -> None:
        """Until it is the first one."""
        while True:
            row, revision = self._cluster.all(ROW)
            at = [one.key for one in row].index(self._key)
            if at == 0:
                return
            before = row[at - 1].key
            for event in self._cluster.watch(before, revision + 1):
                if event.value is None:
                    break

    def leave(self) -> None:
        """Let the next one in."""
        self._lease.end()


def main(endpoints: str) -> None:
    """Five ask one after the other, then all wait at once."""
    cluster = Cluster(endpoints)
    served: list[str] = []
    places = [Place(cluster, f"client-{i}") for i in range(5)]

    def use(place: Place) -> None:
        place.wait()
        served.append(place.name)
        time.sleep(0.05)  # what the lock is for
        place.leave()

    threads = [threading.Thread(target=use, args=(place,)) for place in reversed(places)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("served:", *served)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
