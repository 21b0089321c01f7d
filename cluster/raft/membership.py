"""Which configuration is in effect (thesis chapter 4).

Rules:

- A replica uses the latest configuration in its log, committed or not (section 4.1). A truncation brings
  back the one before.
- At most one change is uncommitted, and a leader appends one only after it has committed an entry of its own
  term (the erratum to single-server changes: https://groups.google.com/g/raft-dev/c/t4xj6dJTP6E).
- A voter that is removed or demoted receives no entry until that change is committed, only heartbeats. With
  the entry it would not campaign, and its log would be too long for it to vote for those without: if the
  leader then died, nobody could follow it.
- A leader is not removed or demoted: leadership is moved first (H12), so no leader counts without itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.raft.types import Configuration, Entry, EntryKind


class Membership:
    """The configurations of one replica's log, latest last, beginning with that of the snapshot position."""

    __slots__ = ("_history", "current")

    def __init__(self, index: int, configuration: Configuration) -> None:
        self._history: list[tuple[int, Configuration]] = [(index, configuration)]
        self.current = configuration

    @property
    def latest_index(self) -> int:
        """Where the configuration in effect was logged."""
        return self._history[-1][0]

    def before(self) -> Configuration | None:
        """The configuration before the one in effect, if the log still tells."""
        return self._history[-2][1] if len(self._history) > 1 else None

    def appended(self, entries: Iterable[Entry]) -> bool:
        """Entries joined the log; whether that changed the configuration."""
        changed = False
        for entry in entries:
            if entry.kind == EntryKind.CONFIG:
                self.current = Configuration.decode(entry.data)
                self._history.append((entry.index, self.current))
                changed = True
        return changed

    def truncated(self, first: int) -> bool:
        """Entries from ``first`` on left the log; whether that changed the configuration."""
        changed = False
        while len(self._history) > 1 and self._history[-1][0] >= first:
            self._history.pop()
            changed = True
        self.current = self._history[-1][1]
        return changed

    def at(self, index: int) -> tuple[int, Configuration]:
        """The configuration as of ``index``, and where it was logged."""
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
        self.current = self._history[-1][1]
