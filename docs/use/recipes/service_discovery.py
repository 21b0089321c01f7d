"""Services register themselves and are found; one that dies gets no more traffic.

A service writes its address with a lease and renews the lease. A gateway lists the addresses, follows every
change from the revision of that list on, and takes them in turn.
"""

from __future__ import annotations

import sys
import threading

from gateway import Cluster, Lease

SERVICES = "/services/web/"


def register(cluster: Cluster, name: str, address: str, ttl_s: int = 60) -> Lease:
    """Be found for as long as the lease is renewed."""
    lease = cluster.lease(ttl_s)
    cluster.put(f"{SERVICES}{name}", address, lease.id)
    return lease


class Gateway:
    """Knows the addresses of all live services, and hands them out in turn."""

    def __init__(self, cluster: Cluster) -> None:
        self._changed = threading.Condition()
        self._next = 0
        found, revision = cluster.all(SERVICES)
        self._addresses = {one.key: one.value for one in found}
        threading.Thread(target=self._follow, args=(cluster, revision + 1), daemon=True).start()

    def _follow(self, cluster: Cluster, start: int) -> None:
        for event in cluster.watch(SERVICES, start):
            with self._changed:
                if event.value is None:
                    self._addresses.pop(event.key, None)
                else:
                    self._addresses[event.key] = event.value
                self._changed.notify_all()

    def wait_for(self, count: int) -> list[str]:
        """Until there are so many services; their addresses."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._addresses) == count, timeout=60)
            return sorted(self._addresses.values())

    def pick(self) -> str:
        """The address for the next request."""
        with self._changed:
            addresses = sorted(self._addresses.values())
            self._next += 1
            return addresses[self._next % len(addresses)]


def main(endpoints: str) -> None:
    """Three services, a gateway, one service dies, another one comes."""
    cluster = Cluster(endpoints)
    leases = [register(cluster, f"web-{i}", f"10.0.0.{i}:80", ttl_s) for i, ttl_s in ((1, 8), (2, 60))]
    gateway = Gateway(cluster)
    print("found:", *gateway.wait_for(2))
    leases.append(register(cluster, "web-3", "10.0.0.3:80"))
    print("one more:", *gateway.wait_for(3))
    print("six requests:", *sorted(gateway.pick() for _ in range(6)))
    leases[0].fail()
    print("one died:", *gateway.wait_for(2))
    for lease in leases[1:]:
        lease.end()
    print("all gone:", *gateway.wait_for(0))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
