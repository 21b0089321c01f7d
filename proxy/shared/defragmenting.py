"""Whether this host defragments, for health checks with the feature gate StopGRPCServiceOnDefrag. Known at
once where this front was asked for it; else by the nodes' reports: another front may have been asked, or a
client may have left before the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Defragmenting:
    """``counts``: whether the gate is open; if not, this is always false."""

    def __init__(self, counts: bool) -> None:
        self._counts = counts
        self._mine: frozenset[Any] = frozenset()  # calls
        self._nodes = False
        self.changed: list[Callable[[], None]] = []  # called when this becomes true or false

    def __bool__(self) -> bool:
        return self._counts and (bool(self._mine) or self._nodes)

    def begins(self, call: Any) -> None:
        if self._counts:
            self._now(self._mine | {call}, self._nodes)

    def ends(self, call: Any) -> None:
        self._now(self._mine - {call}, self._nodes)

    def told(self, nodes: bool) -> None:
        """What this host's nodes report; clients that have left no longer count."""
        self._now(frozenset(call for call in self._mine if not call.closed), nodes)

    def _now(self, mine: frozenset[Any], nodes: bool) -> None:
        before = bool(self)
        self._mine, self._nodes = mine, nodes
        if bool(self) != before:
            for then in self.changed:
                then()
