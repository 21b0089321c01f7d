"""The CPU of a process's event loop: its own, unless other programs want it.

A pinned loop has its caches to itself, and never meets its process's threads that sync, flush and compact.
But it cannot leave: on a full machine it waits for its CPU while another one idles. So a loop that ``auto``
pinned looks each second how long it waited. It unpins itself when that is much, and pins itself again after a
minute with little waiting, doubled each time.

A CPU that an operator names (``--cpus 0-3``) is kept.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

from node.backup.giving_way import times_of
from node.control_groups import cpu_times, quota

LOOK_S = 1.0
_ASIDE_EVERY = 5  # looks
MUCH, LITTLE = 0.02, 0.005  # of the time spent waiting for a CPU
_FIRST_REST_S, _LONGEST_REST_S = 60.0, 3600.0


class Contention:
    """Decides whether a loop holds its CPU, by the time and the loop's total wait for a CPU."""

    def __init__(self, now: float, waited_s: float) -> None:
        self.held = True
        self._looked = now
        self.waited_s = waited_s
        self._rest_s = _FIRST_REST_S
        self._calm_since = now

    def look(self, now: float, waited_s: float) -> bool:
        """Whether it holds its CPU from now on."""
        passed, waited = now - self._looked, waited_s - self.waited_s
        self._looked, self.waited_s = now, waited_s
        if self.held:
            if waited > MUCH * passed:
                self.held = False
                self._calm_since = now
        elif waited > LITTLE * passed:
            self._calm_since = now
        elif now - self._calm_since >= self._rest_s:
            self.held = True
            self._rest_s = min(2 * self._rest_s, _LONGEST_REST_S)
        return self.held


class Place:
    """The CPUs of the calling thread, which runs the loop, and of its process's other threads.

    ``cpu``: the loop's, -1 for none; ``lets_go``: see the module.
    """

    def __init__(self, cpu: int, *, lets_go: bool, waited_s: Callable[[], float] | None = None) -> None:
        self._all = os.sched_getaffinity(0)
        self._cpu = cpu if cpu in self._all else -1
        self._lets_go = lets_go
        self._waited_s = waited_s or waited_for_cpu_s
        self._contention: Contention | None = None
        self.looks = 0
        self._hold(True)

    @property
    def pinned(self) -> bool:
        """Whether the loop runs on its CPU only."""
        return self._cpu >= 0 and (self._contention is None or self._contention.held)

    def keep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look from time to time, from now on.

        Threads that sync, flush and compact start on the CPU of their creator, the loop's, and some start
        late: they are moved away.
        """
        if self._cpu < 0:
            return
        if self._lets_go:
            self._contention = Contention(loop.time(), self._waited_s())
        self._look(loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        held = before = True
        if self._contention is not None:
            before = self._contention.held
            held = self._contention.look(loop.time(), self._waited_s())
            if held is not before:
                self._hold(held)
        if held is not before or self.looks % _ASIDE_EVERY == 0:
            put_aside(self._all - {self._cpu} if held else self._all)
        self.looks += 1
        loop.call_later(LOOK_S, self._look, loop)

    def _hold(self, held: bool) -> None:
        if self._cpu >= 0:
            with suppress(OSError):
                os.sched_setaffinity(0, {self._cpu} if held else self._all)


def put_aside(cpus: set[int]) -> None:
    """Move every thread of this process but the main one to these CPUs; with none, leave them."""
    if not cpus:
        return
    with suppress(OSError):
        for name in os.listdir("/proc/self/task"):
            thread = int(name)
            with suppress(OSError):  # it has ended
                if thread != os.getpid() and os.sched_getaffinity(thread) != cpus:
                    os.sched_setaffinity(thread, cpus)


def waited_for_cpu_s() -> float:
    """How long this process's main thread was ready and did not run; 0 where the kernel does not tell."""
    found = cpu_wait()
    return 0.0 if found is None else found[1]


def cpu_wait() -> tuple[float, float] | None:
    """How long the loop's thread, which is the main one, has run, and has waited for a CPU; None: the kernel
    does not tell, or says that nothing ever ran."""
    found = times_of(os.getpid())
    return (found.ran / 1e9, found.waited / 1e9) if found and found.ran else None


def cpus_idle() -> tuple[float, float] | None:
    """How long all CPUs together were idle, and their time; None: the kernel does not tell, or a quota allows
    this process less than they have."""
    return cpu_times() if quota() is None else None
