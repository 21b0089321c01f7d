"""What the machine's resolver knows, asked in threads that no end waits for.

A name server that does not answer holds a thread for ten seconds and more. Python's own executors, and uvloop
for its look-ups, would have the end of a loop or of the process wait that long.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")


class Unawaited(ThreadPoolExecutor):
    """Daemon threads, each of which ends once nothing is left to do. asyncio takes as a loop's own executor
    only one of this base."""

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most)  # which starts none
        self._most, self._name = most, name
        self._lock = threading.Lock()
        self._jobs: deque[Callable[[], None]] = deque()
        self._working = 0

    def submit(self, fn: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs) -> Future[Result]:
        told: Future[Result] = Future()

        def job() -> None:
            if told.set_running_or_notify_cancel():
                try:
                    told.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    told.set_exception(error)

        with self._lock:
            self._jobs.append(job)
            if self._working < self._most:
                try:
                    threading.Thread(target=self._work, name=self._name, daemon=True).start()
                except RuntimeError:  # this process may have no more threads
                    if not self._working:  # else one of them comes to it
                        self._jobs.pop()
                        raise
                else:
                    self._working += 1
        return told

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._working -= 1
                    return
                job = self._jobs.popleft()
            job()


class Names:
    """Of ``proxy.tls.addresses``. Their threads are their own: the loop's are for /metrics and backups. Names
    that hang let no address wait, and the other way round."""

    def __init__(self) -> None:
        self._reverse, self._forward = Unawaited(4, "names of clients"), Unawaited(4, "addresses of names")

    def of(self, address: str) -> Awaitable[list[str]]:
        return asyncio.get_running_loop().run_in_executor(self._reverse, _names_of, address)

    def addresses(self, name: str) -> Awaitable[list[str]]:
        return asyncio.get_running_loop().run_in_executor(self._forward, _addresses, name)


NAMES = Names()  # of this process


def _names_of(address: str) -> list[str]:
    """As Go's ``LookupAddr`` gives them."""
    name, others, _ = socket.gethostbyaddr(address)
    return [name, *others]


def _addresses(name: str) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
