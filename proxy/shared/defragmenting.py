"""Whether this host defragments, for health checks where the feature gate StopGRPCServiceOnDefrag is open: as
far as this front was asked for it, at once; else as the nodes say, a little later. Another front may have
been asked, or a client may not wait for its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Defragmenting:
    """Of one front. ``counts``: whether the gate is open; if not, this is never true."""

    def __init__(self, counts: bool) -> None:
        self._counts = counts
        self._mine: frozenset[Any] = frozenset()  # calls
        self._nodes = False
        self.changed: list[Callable[[], None]] = []  # called when this becomes true or false

    def __bool__(self) -> bool:
        return self._counts and (bool(self._mine) or self._nodes)

    def begins(self, call: Any) -> None:
        """A client has asked for it here."""
        if self._counts:
            self._now(self._mine | {call}, self._nodes)

    def ends(self, call: Any) -> None:
        """That one is over."""
        self._now(self._mine - {call}, self._nodes)

    def told(self, nodes: bool) -> None:
        """What this host's nodes say. Who has gone meanwhile does not count any more."""
        self._now(frozenset(call for call in self._mine if not call.closed), nodes)

    def _now(self, mine: frozenset[Any], nodes: bool) -> None:
        before = bool(self)
        self._mine, self._nodes = mine, nodes
        if bool(self) != before:
            for then in self.changed:
                then()
