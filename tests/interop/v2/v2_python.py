"""python-etcd (PyPI), the client that programs of etcd 2's time use: what its users do, at any host."""

from __future__ import annotations

import threading
from typing import Any

import etcd
import pytest


def client(address: str, **more: Any) -> Any:
    """A client of one host."""
    host, port = address.split(":")
    return etcd.Client(host=host, port=int(port), read_timeout=60, allow_reconnect=False, **more)


def keys(some: Any, other: Any) -> None:
    """Writes at one host, reads at another."""
    some.write("/py/a", "1")
    assert other.read("/py/a", quorum=True).value == "1"  # without quorum, a host may be a moment behind
    assert some.set("/py/a", "2").createdIndex > 0
    assert other.read("/py/a", quorum=True).value == "2"
    found = some.test_and_set("/py/a", "3", "2")
    assert (found.action, found._prev_node.value) == ("compareAndSwap", "2")
    with pytest.raises(etcd.EtcdCompareFailed, match=r"\[2 != 3\]"):
        some.test_and_set("/py/a", "4", "2")
    with pytest.raises(etcd.EtcdAlreadyExist):
        some.write("/py/a", "x", prevExist=False)
    with pytest.raises(etcd.EtcdKeyNotFound):
        some.read("/py/none")
    some.write("/py/d/x", "1")
    some.write("/py/d/y", "2", ttl=100)
    assert sorted((leaf.key, leaf.value) for leaf in some.read("/py/d", recursive=True).leaves) == [
        ("/py/d/x", "1"), ("/py/d/y", "2")]  # fmt: skip
    assert 0 < some.read("/py/d/y").ttl <= 100
    some.refresh("/py/d/y", ttl=200)
    assert some.read("/py/d/y").ttl > 100
    first, second = (some.write("/py/q", value, append=True).key for value in ("a", "b"))
    assert [leaf.key for leaf in some.read("/py/q", sorted=True).leaves] == [first, second]
    with pytest.raises(etcd.EtcdNotFile):
        some.delete("/py/d")
    some.delete("/py", recursive=True, dir=True)
    assert "/py" not in some


def waits(some: Any, other: Any) -> None:
    """A change at one host wakes who waits at another."""
    index = some.write("/py/w", "0").modifiedIndex
    seen: list[str] = []

    def watch() -> None:
        for event in other.eternal_watch("/py/w", index=index + 1):
            seen.append(event.value)
            if len(seen) == 3:
                return

    thread = threading.Thread(target=watch)
    thread.start()
    for value in "123":
        some.write("/py/w", value)
    thread.join(60)
    assert seen == ["1", "2", "3"]


def lock(some: Any) -> None:
    """Its lock: children in order with a TTL. Both ask one host: it reads without quorum."""
    first, second = etcd.Lock(some, "job"), etcd.Lock(some, "job")
    assert first.acquire(blocking=True, lock_ttl=60)
    assert not second.acquire(blocking=False, lock_ttl=60)
    first.release()
    assert second.acquire(blocking=True, lock_ttl=60)
    second.release()


def cluster(some: Any) -> None:
    """What it asks of the cluster."""
    assert len(some.machines) == 3
    members = some.members
    assert len(members) == 3
    assert some.leader["id"] in members
    assert {"setsSuccess", "watchers"} <= set(some.store_stats)
    assert some.stats["id"] in members
    assert some.version
