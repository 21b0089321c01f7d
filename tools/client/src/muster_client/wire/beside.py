"""What blocks, in threads beside the engine's loop: names are looked up there, files are read and written.

Python's executors refuse work once the main thread has ended, while a program's other threads go on, and what
runs at its exit may need a connection. A process also waits for their threads: a name server that does not
answer would hold up its end.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TypeVar, TypeVarTuple

Args = TypeVarTuple("Args")
Result = TypeVar("Result")
_MOST_THREADS = 64  # look-ups that hang are given up after 5 s, and begun again


class Loop(asyncio.SelectorEventLoop):
    """Python's own, with threads that end with the process."""

    def __init__(self) -> None:
        super().__init__()
        self._jobs: deque[Callable[[], None]] = deque()
        self._came = threading.Condition()
        self._threads = self._idle = 0

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Args], Result], *args: *Args
    ) -> asyncio.Future[Result]:
        """For all that asyncio hands to its default executor."""
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        told = Future[Result]()

        def job() -> None:
            if told.set_running_or_notify_cancel():
                try:
                    told.set_result(func(*args))
                except BaseException as error:
                    told.set_exception(error)

        if not self._handed_over(job):
            job()
        return asyncio.wrap_future(told, loop=self)

    def _handed_over(self, job: Callable[[], None]) -> bool:
        """Whether a thread does it: Python 3.12 starts none at the process's exit."""
        with self._came:
            if self._idle <= len(self._jobs) and self._threads < _MOST_THREADS:
                try:
                    threading.Thread(target=self._work, name="muster-client-work", daemon=True).start()
                    self._threads += 1
                except RuntimeError:
                    if not self._threads:
                        return False
            self._jobs.append(job)
            self._came.notify()
        return True

    def _work(self) -> None:
        while True:
            with self._came:
                while not self._jobs:
                    self._idle += 1
                    self._came.wait()
                    self._idle -= 1
                job = self._jobs.popleft()
            job()
            del job  # and what it holds, while this thread waits
