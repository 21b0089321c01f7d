"""Who is alive, and who leads, by leases and the Election service.

Every host writes a key with its lease: the list of these keys is the list of live hosts. All of them
campaign; one leads, and when its lease ends the one that campaigned next does.
"""

from __future__ import annotations

import sys
import threading

from gateway import Cluster, b64, text

HOSTS = "/examples/hosts/"
ELECTION = "/examples/election"


class Host:
    """A host that reports that it lives, and wants to lead."""

    def __init__(self, cluster: Cluster, name: str, ttl_s: int) -> None:
        self.name = name
        self.leads = threading.Event()
        self._cluster = cluster
        self.lease = cluster.lease(ttl_s)
        cluster.put(f"{HOSTS}{name}", "alive", self.lease.id)
        threading.Thread(target=self._campaign, daemon=True).start()

    def _campaign(self) -> None:
        request = {"name": b64(ELECTION), "lease": self.lease.id, "value": b64(self.name)}
        try:
            self._cluster.call("election/campaign", request)
        except RuntimeError:
            return  # the lease ended before it was elected
        self.leads.set()


def leader(cluster: Cluster) -> str:
    """Who leads now."""
    return text(cluster.call("election/leader", {"name": b64(ELECTION)})["kv"]["value"])


def alive(cluster: Cluster) -> list[str]:
    """The live hosts."""
    return sorted(one.key.removeprefix(HOSTS) for one in cluster.all(HOSTS)[0])


def main(endpoints: str) -> None:
    """Three hosts; the one that leads dies."""
    cluster = Cluster(endpoints)
    hosts = {}
    for name, ttl_s in (("host-a", 8), ("host-b", 60), ("host-c", 60)):
        hosts[name] = Host(cluster, name, ttl_s)
        if name == "host-a":
            assert hosts[name].leads.wait(60)
    print("alive:", *alive(cluster), "leader:", leader(cluster))
    revision = cluster.all(HOSTS)[1]
    hosts["host-a"].lease.fail()
    gone = next(event for event in cluster.watch(HOSTS, revision + 1) if event.value is None)
    print("died:", gone.key.removeprefix(HOSTS))
    others = [hosts["host-b"], hosts["host-c"]]
    while not any(host.leads.wait(0.1) for host in others):
        pass
    print("alive:", *alive(cluster), "leader is one of them:", leader(cluster) in alive(cluster))
    for host in others:
        host.lease.end()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
