"""Passwords, hashed and compared in threads: bcrypt takes 50 ms by design."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import bcrypt

from cluster import errors
from cluster.errors import EtcdError

MOST_BYTES = 72  # of a password that count for bcrypt
_MOST_WAITING = 1_000  # beyond it TooManyRequests
_THREADS = 2
T = TypeVar("T")


class Passwords:
    """``cost``: of new hashes."""

    def __init__(self, loop: Any, cost: int) -> None:
        self._loop: asyncio.AbstractEventLoop = loop
        self._cost = cost
        self._threads: ThreadPoolExecutor | None = None
        self._waiting = 0

    def hash(self, password: str | bytes, then: Callable[[bytes], None]) -> None:
        """``then`` gets the hash, or nothing if hashing failed. EtcdError: too long, or too many under
        way."""
        data = password if isinstance(password, bytes) else password.encode()
        if len(data) > MOST_BYTES:
            raise EtcdError(errors.BCRYPT_LENGTH)
        self._run(lambda: bcrypt.hashpw(data, bcrypt.gensalt(self._cost)), then, b"")

    def check(self, password: str | bytes, known: bytes, then: Callable[[bool], None]) -> None:
        """Whether it is the password of a hash. EtcdError: too many under way."""
        data = (password if isinstance(password, bytes) else password.encode())[:MOST_BYTES]

        def compare() -> bool:
            try:
                return bcrypt.checkpw(data, known)
            except ValueError:  # no hash
                return False

        self._run(compare, then, False)

    def _run(self, work: Callable[[], T], then: Callable[[T], None], failed: T) -> None:
        if self._waiting >= _MOST_WAITING:
            raise EtcdError(errors.TOO_MANY_REQUESTS)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "bcrypt")
        self._waiting += 1

        def done(found: asyncio.Future[T]) -> None:
            self._waiting -= 1
            then(failed if found.cancelled() or found.exception() is not None else found.result())

        self._loop.run_in_executor(self._threads, work).add_done_callback(done)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
