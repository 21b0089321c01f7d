"""The newest table, as a front or a node asks it for each request."""

from __future__ import annotations

from cluster.placement.base import DEFAULT_DEPTH, Base
from cluster.placement.table import State, Table


class Placement:
    """The map from keys to shards. Hot path: until something has moved, it costs what the base does."""

    __slots__ = ("_base", "_known", "_moved", "alone", "forming", "ids", "kept", "one", "others", "prefix_of",
                 "running", "shards", "table", "unsettled")

    def __init__(self, shards: int, depth: int = DEFAULT_DEPTH) -> None:
        self.replace(Table.initial(Base(shards, depth)))

    def replace(self, table: Table) -> None:
        """A newer table, or the first one."""
        self.table = table
        self._base = table.base
        self._known = table.base.cache.get
        #: The part of a key that decides its shard where nothing has moved.
        self.prefix_of = table.base.prefix_of
        self._moved = bool(table.spans)
        #: Shards that are in the order, ascending: fronts ask each of them for its figures.
        self.running = tuple(sorted(
            shard for shard, (state, *_) in table.shards.items() if state in (State.SERVING, State.RETIRING)))
        #: The shard that forms, or 0; and whether births or retirements are under way.
        self.forming = table.forming
        self.unsettled = self.forming > 0 or any(
            known.state == State.RETIRING for known in table.shards.values())
        #: Those that own keys, and 0; ``others``: without 0; ``shards``: how many.
        self.ids = tuple(shard for shard in self.running if not shard or table.owns_anything(shard))
        self.others = tuple(shard for shard in self.ids if shard)
        self.shards = len(self.ids)
        #: With those that owned keys at a revision that may be asked for.
        self.kept = self.running if table.past else self.ids
        #: Whether shard 0 owns every key.
        self.one = self.shards == 1
        #: Whether it always did: no key has ever moved.
        self.alone = self.one and not self._moved

    def shard_of(self, key: bytes) -> int:
        if self.one:
            return 0
        if self._moved:
            return self.table.owner(key)
        prefix = self.prefix_of(key)
        shard = self._known(prefix)
        return self._base.hashed(prefix) if shard is None else shard

    def shards_of(self, key: bytes, range_end: bytes) -> tuple[int, ...]:
        """The shards that the range ``[key, range_end)`` can touch, ascending.

        ``range_end`` as in etcd's API: empty = the one key, a zero byte = to the end of the key space.
        """
        if self.one:
            return (0,)
        if self._moved:
            return self.table.owners(key, range_end)
        return self._base.shards_of(key, range_end)

    def shards_at(self, key: bytes, range_end: bytes, revision: int) -> tuple[int, ...]:
        """The shards that have a range as it was at a revision, ascending; 0: as it is now."""
        if revision and self._moved:
            return self.table.owners_at(key, range_end, revision)
        return self.shards_of(key, range_end)

    def pinned(self) -> Placement:
        """The map as it is now, whatever is applied later."""
        copy = Placement.__new__(Placement)
        copy.replace(self.table)
        return copy

    def __repr__(self) -> str:
        return f"Placement({self.table})"
