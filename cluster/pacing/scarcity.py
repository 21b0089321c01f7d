"""Whether CPUs are scarce: only then does a wait that saves work pay.

Leaders that wait for their clients (``returning``), a sequencer that waits for reports (``pace.Company``) and
fronts that wait for answers (``proxy.routing.rounds``) bring all clients of a cluster into step: each process
rests while another one works. On two CPUs that saves entries, records and writes to sockets. With a CPU for
each process it costs throughput (docs/figures/waits-16-cpus.tsv).

CPUs are scarce for a loop that waits for one, ready to run, for more than a quarter of the time that it runs.
On two busy CPUs loops wait one to four times as long as they run, with a CPU for each a tenth at most. Some
kernels do not tell that, gVisor's for one. There CPUs are scarce while less than an eighth of them is idle.
Under a quota, or where the kernel does not tell that either, they always count as scarce there.
"""

from __future__ import annotations

from collections.abc import Callable

LOOK_MS = 250.0
MUCH = 0.25  # waited, of what it ran
LITTLE = 0.125  # idle, of the time of all CPUs
_FEWEST_S = 0.01  # that it ran: less tells nothing

Pair = tuple[float, float]


class Scarcity:
    """Of one loop. Scarce until known. Times are seconds, and rise."""

    def __init__(self) -> None:
        self.scarce = True
        self._next_ms = 0.0
        self._thread: Pair = 0.0, 0.0
        self._cpus: Pair | None = None

    def due(self, now_ms: float) -> bool:
        """Whether to :meth:`look`."""
        return now_ms >= self._next_ms

    def again(self, now_ms: float) -> None:
        """Have the next look later. Each look does."""
        self._next_ms = now_ms + LOOK_MS

    def look(self, now_ms: float, ran_s: float, waited_s: float) -> None:
        """By what the loop's thread has run and waited since its start."""
        self.again(now_ms)
        ran, waited = ran_s - self._thread[0], waited_s - self._thread[1]
        if ran + waited >= _FEWEST_S:
            self.scarce = waited > MUCH * ran
            self._thread = ran_s, waited_s

    def look_at_all(self, now_ms: float, idle_s: float, all_s: float) -> None:
        """By what all CPUs together were idle, of their time."""
        self.again(now_ms)
        before, self._cpus = self._cpus, (idle_s, all_s)
        if before is not None and all_s > before[1]:
            self.scarce = idle_s - before[0] < LITTLE * (all_s - before[1])


class Cpus:
    """A loop's view of its CPUs. The calls return None where the kernel does not tell."""

    def __init__(
        self, now: Callable[[], float], thread: Callable[[], Pair | None], cpus: Callable[[], Pair | None],
    ) -> None:
        """``now``: seconds of a clock that rises; ``thread``: what the loop's thread has run, and has waited
        for a CPU; ``cpus``: what all CPUs together were idle, and their time."""
        self._now = now
        self._thread = thread
        self._cpus = cpus
        self._scarcity = Scarcity()

    def scarce(self) -> bool:
        scarcity, now_ms = self._scarcity, self._now() * 1000
        if scarcity.due(now_ms):
            if (told := self._thread()) is not None:
                scarcity.look(now_ms, *told)
            elif (told := self._cpus()) is not None:
                scarcity.look_at_all(now_ms, *told)
            else:
                scarcity.again(now_ms)
        return scarcity.scarce
