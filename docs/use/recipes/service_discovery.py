"""Services register themselves and are found; one that dies gets no more traffic.

An instance is found while its lease is renewed. A gateway follows the instances, and takes them in turn. Go's
gRPC resolver finds the same instances.
"""

from __future__ import annotations

import sys

from muster_client import sync

SERVICE = "/services/web"


def register(endpoints: str, address: str, ttl_s: int = 60) -> tuple[sync.Client, sync.Registration]:
    """A program with a service."""
    client = sync.Client(endpoints)
    return client, client.register(SERVICE, address, ttl=ttl_s).register()


def wait_for(gateway: sync.Discovery, count: int) -> list[str]:
    """Until there are so many instances; their addresses."""
    while len(found := gateway.instances()) != count:
        gateway.changed(timeout=60)
    return [one.address for one in found]


def main(endpoints: str) -> None:
    """Three services, a gateway, one service dies, another one comes."""
    programs = [register(endpoints, f"10.0.0.{i}:80", ttl_s) for i, ttl_s in ((1, 8), (2, 60))]
    with sync.Client(endpoints) as client, client.discover(SERVICE) as gateway:
        print("found:", *wait_for(gateway, 2))
        programs.append(register(endpoints, "10.0.0.3:80"))
        print("one more:", *wait_for(gateway, 3))
        print("six requests:", *sorted(gateway.pick().address for _ in range(6)))
        programs.pop(0)[0].close()  # without a word: its lease is renewed no more
        print("one died:", *wait_for(gateway, 2))
        for own, registration in programs:
            registration.unregister()
            own.close()
        print("all gone:", *wait_for(gateway, 0))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
