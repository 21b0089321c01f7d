"""Which configuration is in effect (thesis chapter 4).

- A replica uses the latest configuration in its log, committed or not (section 4.1). A truncation brings back
  the one before.
- At most one change is uncommitted, and a leader appends one only after it has committed an entry of its own
  term (the erratum: https://groups.google.com/g/raft-dev/c/t4xj6dJTP6E).
- A voter that is removed or demoted receives no entry until that change is committed, only heartbeats. With
  the entry it would neither campaign nor vote for a shorter log: if the leader then died, no one could win.
- A leader is not removed or demoted: leadership is moved first (H12), so a leader counts itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.raft.types import Configuration, Entry, EntryKind


class Membership:
    """The configurations of one replica's log, latest last; the first is that of the snapshot position."""

    def __init__(self, index: int, configuration: Configuration) -> None:
        self._history: list[tuple[int, Configuration]] = [(index, configuration)]
        self._look()

    def _look(self) -> None:
        # in effect, and where it was logged; read by each Ready
        self.latest_index, self.current = self._history[-1]

    def before(self) -> Configuration | None:
        return self._history[-2][1] if len(self._history) > 1 else None

    def appended(self, entries: Iterable[Entry]) -> None:
        """Entries joined the log."""
        for entry in entries:
            if entry.kind == EntryKind.CONFIG:
                self._history.append((entry.index, Configuration.decode(entry.data)))
                self._look()

    def truncated(self, first: int) -> None:
        """Entries from ``first`` on left the log."""
        while len(self._history) > 1 and self._history[-1][0] >= first:
            self._history.pop()
        self._look()

    def at(self, index: int) -> tuple[int, Configuration]:
        for logged, configuration in reversed(self._history):
            if logged <= index:
                return logged, configuration
        return self._history[0]

    def compacted(self, index: int, configuration: Configuration) -> None:
        """The log now begins after ``index``, where ``configuration`` was in effect."""
        logged, known = self.at(index)
        if logged > index or known != configuration:  # a snapshot brought it
            logged = index
        self._history = [(logged, configuration), *(h for h in self._history if h[0] > index)]
        self._look()
