"""How many leases end in one attempt over all shards: so many that one turn of a loop stays short.

Every shard's leader reads, locks and names the keys of these leases in one turn, and the sequencer evaluates
and logs them in one. The sequencer cannot know beforehand how many keys the other shards hold, so it learns
from what came of the last attempts. A lease of very many keys is an attempt of its own: its keys go in one
revision, as etcd's do.
"""

from __future__ import annotations

from typing import Protocol

KEYS = 500  # of one attempt, about: 5 ms for a shard's leader that holds them all
_MOST = 500  # leases
_FIRST = 32


class Ending(Protocol):
    """A transaction over several shards, as far as it is looked at here. ``token`` None: an expiry."""

    @property
    def token(self) -> object: ...
    @property
    def leases(self) -> list[int]: ...


class Expiries:
    """The expiries that are under way, and how large the next one may be."""

    __slots__ = ("_at_once", "_running")

    def __init__(self) -> None:
        self._at_once = _FIRST
        self._running = 0  # leases

    def cut(self, wide: Ending) -> list[int]:
        """The leases of a larger expiry that must wait for the next one; none of what a client asks for. They
        are cut off by the caller: ``wide.leases`` keeps the others."""
        if wide.token is not None or len(wide.leases) <= self._at_once:
            return []
        rest = wide.leases[self._at_once :]
        del wide.leases[self._at_once :]
        return rest

    def full(self, wide: Ending) -> bool:
        """Whether an expiry waits because others are under way."""
        return (wide.token is None and bool(self._running) and bool(wide.leases)
                and self._running + len(wide.leases) > self._at_once)

    def begun(self, wide: Ending) -> None:
        """An attempt has begun."""
        if wide.token is None:
            self._running += len(wide.leases)

    def ended(self, wide: Ending, keys: int | None = None) -> None:
        """An attempt has ended; ``keys``: so many went with its leases, None: it was given up."""
        if wide.token is not None:
            return
        self._running -= len(wide.leases)
        if keys is None:
            return
        if keys > KEYS:
            self._at_once = max(min(self._at_once, len(wide.leases)) * KEYS // keys, 1)
        elif keys <= KEYS // 2 and len(wide.leases) >= self._at_once:
            self._at_once = min(2 * self._at_once, _MOST)
