"""HashKV, of whichever replica and whenever: equal where the history that it covers is equal and stands with
the same shards, and never where the history differs (I19). A version stands with the shard that owned its key
at its revision, or at the compaction if that is later (G6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.world.order_world import Violation

if TYPE_CHECKING:
    from tests.sim.checks.order_owners import Owners
    from tests.sim.checks.order_replay import Replay
    from tests.sim.clients.order_clients import Operation

Versions = frozenset[tuple[int, bytes]]  # however far a compaction has come
Owned = frozenset[tuple[int, bytes, int]]  # of those whose keys have ever moved, with the shard


class Hashes:
    """All answers of a run."""

    def __init__(self, replay: Replay, owners: Owners) -> None:
        self._replay, self._owners = replay, owners
        self._hash_of: dict[tuple[Versions, Owned], tuple[int, Operation]] = {}
        self._covered: dict[int, tuple[Versions, Operation]] = {}

    def answered(self, o: Operation) -> None:
        """One answer. Raises Violation."""
        response, replay = o.response, self._replay
        revision, compacted = response.hash_revision, response.compact_revision
        if revision != (o.request.revision or response.header.revision) or revision > replay.revision or not (
                compacted == -1 or any(r == compacted for _, r in replay.compactions)):
            raise Violation("I19 a hash names what it covers", f"{o}")
        covered = self._versions(revision, compacted)
        stands = covered, self._owned(covered, compacted)
        value, other = self._hash_of.setdefault(stands, (response.hash, o))
        if value != response.hash:
            raise Violation("I19 the same history has the same hash", f"{o}; {other}")
        versions, other = self._covered.setdefault(response.hash, (covered, o))
        if versions != covered:
            raise Violation("I19 another history has another hash", f"{o}; {other}")

    def _owned(self, versions: Versions, compacted: int) -> Owned:
        owners = self._owners
        return frozenset(
            (r, key, owners.of(key, max(r, compacted)))
            for r, key in versions if any(switch.has(key) for switch in owners.switched))

    def _versions(self, revision: int, compacted: int) -> Versions:
        """Every version up to a revision, of those up to the compaction what it keeps: the last of each key
        that is there."""
        kept: dict[bytes, int] = {}
        for r in range(2, min(revision, compacted) + 1):
            for change in self._replay.changes[r]:
                if change.kv is None:
                    kept.pop(change.key, None)
                else:
                    kept[change.key] = r
        later = [
            (r, change.key)
            for r in range(max(compacted, 1) + 1, revision + 1)
            for change in self._replay.changes[r]
        ]
        return frozenset((*((r, key) for key, r in kept.items()), *later))
