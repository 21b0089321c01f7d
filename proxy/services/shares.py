"""What one client's connection may have under way of things of which a node has few.

The rest is others': four snapshots that nobody reads would take all that a node makes at once.
"""

from __future__ import annotations

from typing import Any


class Shares:
    """Calls of one kind, by connection. ``most``: of a connection."""

    def __init__(self, most: int) -> None:
        self._most = most

    def take(self, call: Any) -> bool:
        """Count a call until it is closed; False if its connection has as many as may be."""
        connection = call.connection
        taken = [
            stream_id for stream_id in connection.shares.get(self, ()) if stream_id in connection.streams
        ]
        connection.shares[self] = taken
        if len(taken) >= self._most:
            return False
        taken.append(call.id)
        return True
