"""Passwords, hashed and compared in threads: bcrypt takes 50 ms by design.

Clients take turns, so that none keeps others from logging in. Who logs in has no name yet: a client is an
address, of IPv6 a network of 64 bits, since one host may have all of its addresses. All connections by Unix
sockets are one client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, Protocol, TypeVar

import bcrypt

from cluster import errors
from cluster.errors import EtcdError
from cluster.faults import faults
from proxy.threads import in_thread

MOST_BYTES = 72  # of a password that count for bcrypt
_MOST_WAITING = 1_000  # beyond it TooManyRequests for clients that have their part
_HOST_BITS = 64  # of an IPv6 address, the same in all networks
_THREADS = 2
T = TypeVar("T")


class Asks(Protocol):
    """A call, or a request of version 2."""

    @property
    def closed(self) -> bool: ...
    @property
    def peer(self) -> str: ...


@dataclass(slots=True)
class _Job:
    asks: Asks
    work: Callable[[], Any]
    then: Callable[[Any], None]
    failed: Any


def check_length(password: str | bytes) -> bytes:
    """A password as bcrypt takes it. EtcdError: it is too long for a new one."""
    data = password if isinstance(password, bytes) else password.encode()
    if len(data) > MOST_BYTES:
        raise EtcdError(errors.BCRYPT_LENGTH)
    return data


class Passwords:
    """``cost``: of new hashes. Nothing is done for who is gone once its turn comes: it has failed."""

    def __init__(self, loop: Any, cost: int) -> None:
        self._loop: asyncio.AbstractEventLoop = loop
        self._cost = cost
        self._threads: ThreadPoolExecutor | None = None
        self._waiting: dict[str, deque[_Job]] = {}  # by client, in the order of their turns
        self._jobs = 0  # that wait, of all clients
        self._under_way = 0

    def hash(self, asks: Asks, password: str | bytes, then: Callable[[bytes], None]) -> None:
        """``then`` gets the hash, or nothing if hashing failed. EtcdError: too long, or too many wait."""
        data = check_length(password)
        self._run(asks, lambda: bcrypt.hashpw(data, bcrypt.gensalt(self._cost)), then, b"")

    def check(self, asks: Asks, password: str | bytes, known: bytes, then: Callable[[bool], None]) -> None:
        """Whether it is the password of a hash. EtcdError: too many wait."""
        data = (password if isinstance(password, bytes) else password.encode())[:MOST_BYTES]

        def compare() -> bool:
            try:
                return bcrypt.checkpw(data, known)
            except ValueError:  # no hash
                return False

        self._run(asks, compare, then, False)

    def _run(self, asks: Asks, work: Callable[[], T], then: Callable[[T], None], failed: T) -> None:
        client = owner_of(asks.peer)
        jobs = self._waiting.get(client, deque())
        clients = len(self._waiting) + (not jobs)
        if self._jobs >= _MOST_WAITING and len(jobs) >= max(_MOST_WAITING // clients, 1):
            raise EtcdError(errors.TOO_MANY_REQUESTS)
        jobs.append(_Job(asks, work, then, failed))
        self._jobs += 1
        self._waiting[client] = jobs
        self._begin()

    def _begin(self) -> None:
        while self._waiting and self._under_way < _THREADS:
            client, jobs = next(iter(self._waiting.items()))
            del self._waiting[client]
            job = jobs.popleft()
            self._jobs -= 1
            if jobs:
                self._waiting[client] = jobs  # behind the others
            if job.asks.closed:
                job.then(job.failed)
            else:
                self._work(job)

    def _work(self, job: _Job) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "bcrypt")
        self._under_way += 1

        def done(found: asyncio.Future[Any]) -> None:
            self._under_way -= 1
            self._begin()
            error = None if found.cancelled() else found.exception()
            if error is not None:
                faults.met("hashing a password", error)
            job.then(job.failed if found.cancelled() or error is not None else found.result())

        in_thread(self._loop, self._threads, job.work).add_done_callback(done)

    def close(self) -> None:
        self._waiting.clear()
        self._jobs = 0
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def owner_of(peer: str) -> str:
    """``peer``: an address and a port, or ``@`` and a number by a Unix socket."""
    address = peer.rpartition(":")[0]
    if ":" not in address:
        return address
    try:
        number = IPv6Address(address)
    except ValueError:
        return address
    return str(number.ipv4_mapped or int(number) >> _HOST_BITS)
