"""Hellos of members that a node has not heard of: they were added while it was down.

If such a member leads, no other one sends this node the log that names it. So the hello waits while its
sender is asked for the members of the cluster. It is refused unless the sender proves to be a member.
"""

from __future__ import annotations

from collections.abc import Container

PATIENCE_S = 3.0  # a hello waits for so long; its sender is asked at once, and each second
MOST_HELD = 64  # hellos


class Unheard:
    def __init__(self) -> None:
        # by identity: when it came, the member that it names, the frame, and the parts before it
        self._held: dict[bytes, tuple[float, int, bytes, list[bytes]]] = {}

    def hold(self, identity: bytes, member_id: int, frame: bytes, parts: list[bytes], now: float) -> bool:
        """Keep a hello; False if there are too many, or this identity has named another member before."""
        if identity in self._held:
            return self._held[identity][1] == member_id
        if len(self._held) >= MOST_HELD:
            return False
        self._held[identity] = now, member_id, frame, parts
        return True

    def member(self, identity: bytes) -> int | None:
        """The member that the identity's hello names; None: none is kept."""
        held = self._held.get(identity)
        return held[1] if held is not None else None

    def waiting(self) -> list[bytes]:
        return list(self._held)

    def heard(self, known: Container[int]) -> list[tuple[bytes, bytes, list[bytes]]]:
        """Take out the identities and hellos of members that are known by now."""
        found = [(identity, frame, parts) for identity, (_, member_id, frame, parts) in self._held.items()
                 if member_id in known]
        for identity, _, _ in found:
            del self._held[identity]
        return found

    def overdue(self, now: float) -> list[tuple[bytes, int]]:
        """Take out the identities and members that have waited too long."""
        found = [(identity, member_id) for identity, (since, member_id, _, _) in self._held.items()
                 if now >= since + PATIENCE_S]
        for identity, _ in found:
            del self._held[identity]
        return found

    def forget(self, identity: bytes) -> None:
        self._held.pop(identity, None)
