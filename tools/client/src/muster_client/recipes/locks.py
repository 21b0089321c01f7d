"""Locks that several may hold: readers beside each other, or so many at a time."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from muster_client import ranges
from muster_client.lease import Lease
from muster_client.queueing import TTL_S, Lock
from muster_client.ranges import Text

if TYPE_CHECKING:
    from muster_client.client import Client


class _Shared(Lock):
    """Its key has a name of its own: two under one lease are two."""

    def __init__(self, client: Client, name: Text, lease: Lease | None, ttl_s: int) -> None:
        super().__init__(client, name, lease, ttl_s)
        self._nonce = secrets.token_hex(4)

    def _suffix(self, lease: Lease) -> bytes:
        return f"{lease.id:x}-{self._nonce}".encode()


class _Reader(_Shared):
    def __init__(self, client: Client, name: Text, lease: Lease | None, ttl_s: int) -> None:
        super().__init__(client, name, lease, ttl_s)
        self._writers = ranges.prefix(self.prefix + b"write")
        self.prefix += b"read/"

    def _in_the_way(self) -> ranges.KeyRange:
        return self._writers


class _Writer(_Shared):
    def __init__(self, client: Client, name: Text, lease: Lease | None, ttl_s: int) -> None:
        super().__init__(client, name, lease, ttl_s)
        self._all = ranges.prefix(self.prefix)
        self.prefix += b"write/"

    def _in_the_way(self) -> ranges.KeyRange:
        return self._all


class RWLock:
    """Many readers or one writer, in the order of arrival; the keys are those of Go's ``RWMutex``.

    ::

        async with client.rwlock("/data").read():
            ...
    """

    def __init__(self, client: Client, name: Text) -> None:
        self._client, self._name = client, name

    def read(self, *, lease: Lease | None = None, ttl: int = TTL_S) -> Lock:
        """A reader's lock: beside other readers."""
        return _Reader(self._client, self._name, lease, ttl)

    def write(self, *, lease: Lease | None = None, ttl: int = TTL_S) -> Lock:
        """A writer's lock: alone. Its token is greater than that of each holder before it."""
        return _Writer(self._client, self._name, lease, ttl)


class Semaphore(_Shared):
    """At most ``limit`` holders at a time, in the order of arrival. All must name the same limit. Its token
    tells holders apart, and is greater for one that came later."""

    def __init__(self, client: Client, name: Text, limit: int, lease: Lease | None, ttl_s: int) -> None:
        if limit < 1:
            raise ValueError("a semaphore has one holder at least")
        super().__init__(client, name, lease, ttl_s)
        self._slots = limit
