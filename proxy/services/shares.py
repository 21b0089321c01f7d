"""What one client may have under way of things of which a node has few.

The rest is others': four snapshots that nobody reads would take all that a node makes at once. A connection
has a share, and so has a client, however many connections it makes (decision 56): by the user that it shows
itself to be, else by its address. Calls of the JSON gateway, of which each stands alone, have the latter
only.
"""

from __future__ import annotations

from typing import Any

_LOOK_S = 1.0
_FEW = 16


class Shares:
    """Calls of one kind that are under way. ``most``: of a connection; ``most_of_client``: of a client."""

    def __init__(self, most: int, most_of_client: int) -> None:
        self._most = most
        self._most_of_client = most_of_client
        self._clients: dict[str, list[Any]] = {}
        self._count = 0  # of calls in it
        self._look_at = _FEW  # so many make it worth a look which of them are over
        self._looked_s = 0.0

    def take(self, call: Any) -> bool:
        """Count a call until it is closed; False if its connection or its client has as many as may be."""
        connection = call.connection
        taken = [
            stream_id for stream_id in connection.shares.get(self, ()) if stream_id in connection.streams
        ]
        connection.shares[self] = taken
        if len(taken) >= self._most:
            return False
        client = client_of(call)
        calls = self._clients.get(client)
        if calls is not None and len(calls) >= self._most_of_client:
            self._forget()
            calls = self._clients.get(client)
            if calls is not None and len(calls) >= self._most_of_client:
                return False
        if calls is None:
            calls = self._clients[client] = []
        calls.append(call)
        taken.append(call.id)
        self._count += 1
        if self._count >= self._look_at:
            self._forget()
        return True

    def tick(self, now: float) -> None:
        """Every sweep: forget those that are over, now and then."""
        if self._clients and now - self._looked_s >= _LOOK_S:
            self._looked_s = now
            self._forget()

    def _forget(self) -> None:
        """Those that are over: a reference would keep their connections."""
        found = {client: [call for call in calls if _open(call)] for client, calls in self._clients.items()}
        self._clients = {client: calls for client, calls in found.items() if calls}
        self._count = sum(map(len, self._clients.values()))
        self._look_at = 2 * self._count + _FEW


def _open(call: Any) -> bool:
    return not call.closed and call.id in call.connection.streams


def client_of(call: Any) -> str:
    """Whose call it is: a user's, or whoever's at an address. All clients of Unix sockets are one."""
    principal = call.principal
    user = principal.user() if principal is not None else ""
    return f"user {user}" if user else call.peer.rpartition(":")[0]
