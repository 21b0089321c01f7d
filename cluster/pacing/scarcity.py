"""Whether CPUs are scarce: only then does a wait that saves work pay.

Leaders that wait for their clients (``returning``) bring all clients of a cluster into step: each process
rests while another one works. On two CPUs that saves entries. With a CPU for each process four shards wrote
78,000 keys a second so, and 135,000 without the wait (docs/figures/waits-16-cpus.tsv).

CPUs are scarce for a loop that waits for one, ready to run, for more than a quarter of the time that it runs.
On two busy CPUs loops wait one to four times as long as they run, with a CPU for each a tenth at most.
"""

from __future__ import annotations

LOOK_MS = 250.0
MUCH = 0.25  # waited, of what it ran
_FEWEST_S = 0.01  # that it ran: less tells nothing


class Scarcity:
    """Of one loop, by what its thread has run and waited since its start, in seconds. Scarce until known."""

    def __init__(self) -> None:
        self.scarce = True
        self._next_ms = 0.0
        self._ran_s = self._waited_s = 0.0

    def due(self, now_ms: float) -> bool:
        """Whether to :meth:`look`."""
        return now_ms >= self._next_ms

    def look(self, now_ms: float, ran_s: float, waited_s: float) -> None:
        self._next_ms = now_ms + LOOK_MS
        ran, waited = ran_s - self._ran_s, waited_s - self._waited_s
        if ran + waited >= _FEWEST_S:
            self.scarce = waited > MUCH * ran
            self._ran_s, self._waited_s = ran_s, waited_s
