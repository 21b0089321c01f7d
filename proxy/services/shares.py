"""What one client's connection may have under way of things of which a node has few.

The rest is others': four snapshots that nobody reads would take all that a node makes at once.
"""

from __future__ import annotations

from typing import Any

_LOOKED_THROUGH = 256  # connections that are remembered, before those without calls are looked for


class Shares:
    """Calls of one kind, by connection. ``most``: of a connection."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls: dict[Any, list[Any]] = {}

    def take(self, call: Any) -> bool:
        """Count a call until it is closed; False if its connection has as many as may be."""
        if len(self._calls) > _LOOKED_THROUGH:
            self._calls = {c: calls for c, calls in self._calls.items() if not all(one.closed for one in calls)}
        calls = [one for one in self._calls.get(call.connection, ()) if not one.closed]
        self._calls[call.connection] = calls
        if len(calls) >= self._most:
            return False
        calls.append(call)
        return True

    def __len__(self) -> int:
        return len(self._calls)
