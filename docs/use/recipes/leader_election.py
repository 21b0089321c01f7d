"""Candidates that are alive, and the leader among them.

Every host writes a key with its lease: the list of these keys is the list of live hosts. All of them
campaign; one leads, and when its lease ends the one that campaigned next does.
"""

from __future__ import annotations

import sys
import threading

import muster_client as m
from muster_client import sync

HOSTS = "/examples/hosts/"
ELECTION = "/examples/election"


class Host:
    """A host that reports that it lives, and wants to lead."""

    def __init__(self, endpoints: str, name: str, ttl_s: int) -> None:
        self.client = sync.Client(endpoints)
        self.leads = threading.Event()
        self.lease = self.client.lease(ttl_s)
        self.client.put(f"{HOSTS}{name}", "alive", lease=self.lease)
        self._leadership = self.client.election(ELECTION).campaign(name, lease=self.lease)
        threading.Thread(target=self._campaign, daemon=True).start()

    def _campaign(self) -> None:
        try:
            self._leadership.campaign()
        except m.MusterError:
            return  # it ended before it was elected
        self.leads.set()

    def die(self) -> None:
        """Renew nothing any more: the lease ends when its time is over."""
        self.client.close()


def leader(client: sync.Client) -> str:
    """The candidate that leads now."""
    found = client.election(ELECTION).leader()
    return "" if found is None else found.text


def alive(client: sync.Client) -> list[str]:
    """The live hosts."""
    return [kv.name.removeprefix(HOSTS) for kv in client.range(m.prefix(HOSTS))]


def main(endpoints: str) -> None:
    """Three hosts; the one that leads dies."""
    client = sync.Client(endpoints)
    hosts = {}
    for name, ttl_s in (("host-a", 8), ("host-b", 60), ("host-c", 60)):
        hosts[name] = Host(endpoints, name, ttl_s)
        if name == "host-a":
            assert hosts[name].leads.wait(60)
    print("alive:", *alive(client), "leader:", leader(client))
    with client.watch(m.prefix(HOSTS)) as watch:
        hosts.pop("host-a").die()
        gone = next(event for event in watch if isinstance(event, m.Delete))
    print("died:", gone.key.decode().removeprefix(HOSTS))
    while not any(host.leads.wait(0.1) for host in hosts.values()):
        pass
    print("alive:", *alive(client), "leader is one of them:", leader(client) in alive(client))
    for host in hosts.values():
        host.lease.revoke()
        host.client.close()
    client.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
