"""A client's share of what a node has few of, such as the snapshots that it makes at once. A connection has a
share. Clients have one, too, over all of their connections (decision 82): a client is a user, or else an
address; of IPv6, its network of 64 bits. Calls of the JSON gateway each stand alone, and have the latter
only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.auth.passwords import owner_of

_LOOK_S = 1.0


class Shares:
    """Calls of one kind, at most ``most`` of a connection."""

    def __init__(self, most: int) -> None:
        self._most = most

    def take(self, call: Any) -> bool:
        """Count a call until it is closed; False if its connection has its share."""
        connection = call.connection
        taken = [
            stream_id for stream_id in connection.shares.get(self, ()) if stream_id in connection.streams
        ]
        connection.shares[self] = taken
        if len(taken) >= self._most:
            return False
        taken.append(call.id)
        return True


class ClientShares:
    """Calls of one kind, at most ``most`` of a client. ``end_slow`` ends one of these calls whose client
    hardly reads, and returns it: it must not shut out others at its address."""

    def __init__(self, most: int, end_slow: Callable[[list[Any]], Any | None]) -> None:
        self._most = most
        self._end_slow = end_slow
        self._clients: dict[str, list[Any]] = {}
        self._looked_s = 0.0

    def take(self, call: Any) -> bool:
        """Count a call until it is closed; False if its client has its share, and none is slow."""
        client = client_of(call)
        calls = [one for one in self._clients.get(client, ()) if _open(one)]
        if len(calls) >= self._most:
            ended = self._end_slow(calls)
            if ended is None:
                return False
            calls.remove(ended)  # its end may wait for its client
        self._clients[client] = [*calls, call]
        return True

    def over(self, call: Any) -> None:
        client = client_of(call)
        self._clients[client] = [one for one in self._clients.get(client, ()) if one is not call]

    def tick(self, now: float) -> None:
        if self._clients and now - self._looked_s >= _LOOK_S:
            self._looked_s = now
            found = {client: list(filter(_open, calls)) for client, calls in self._clients.items()}
            self._clients = {client: calls for client, calls in found.items() if calls}


def _open(call: Any) -> bool:
    return not call.closed and call.id in call.connection.streams


def client_of(call: Any) -> str:
    """The user, or the owner of the address. All clients of Unix sockets without a user are one."""
    principal = call.principal
    user = principal.user() if principal is not None else ""
    return f"user {user}" if user else owner_of(call.peer)
