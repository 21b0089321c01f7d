"""What a store does for moves, for the parts of this room. The simulator has its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from cluster.order.moving.copier import Answer, Ask, Batch
from cluster.placement import Table
from cluster.placement.table import Move, Piece
from node.storage import NoRoom, StateStore, SyncFailed
from node.storage.errors import is_disk_full
from node.storage.state.moving import staging


class Copy(NamedTuple):
    """How far a copy on the disk is."""

    move: int
    live: int  # keys
    progress: bytes


class Gone(Protocol):
    """A move away from here, whose rows are still on the disk."""

    @property
    def move(self) -> Move: ...
    @property
    def target(self) -> int: ...
    @property
    def order_index(self) -> int: ...
    def parts(self, shard: int) -> Sequence[Piece]: ...
    def unseen(self, shard: int) -> Sequence[Piece]: ...


class MovedKeys:
    """Of one replica. Long work comes in steps, each of half a millisecond."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    @property
    def shard(self) -> int:
        return self._store.shard

    @property
    def table(self) -> Table | None:
        return self._store.placement()

    # -- a source

    def answer(self, move: Move, ask: Ask) -> Answer | None:
        """None: this replica has not come to the move, or has dropped its rows."""
        try:
            return staging.answer(self._store, move, ask)
        except staging.Unknown:
            return None

    @property
    def left(self) -> Mapping[int, Gone]:
        return self._store.left

    def has_old_rows(self, start: bytes, end: bytes) -> bool:
        """Whether rows of a span that has moved away are still here (G11)."""
        return any(part.meets(start, end) for left in self.left.values() for part in left.parts(self.shard))

    def may_drop(self, number: int) -> bool:
        """Whether no read can ask for it any more (G10)."""
        left, shard = self._store.left[number], self._store.shard
        return self._store.compact_revision > left.revision or left.unseen(shard) == left.parts(shard)

    def drop(self, number: int) -> Iterator[None]:
        return staging.drop_left(self._store, self._store.left[number])

    def may_bare(self, number: int) -> bool:
        """Whether no read ever could ask for a part of it."""
        return bool(self.left[number].unseen(self.shard))

    def bare(self, number: int) -> Iterator[None]:
        """Remove such parts alone."""
        return staging.bare_left(self._store, self._store.left[number])

    # -- a target: its writes raise NoRoom where the disk is full, and have then done nothing

    @property
    def copy(self) -> Copy | None:
        staged = self._store.staged
        return None if staged is None else Copy(staged.move, staged.live, staged.progress)

    def drop_copy(self) -> Iterator[None]:
        """Remove a copy that does not count."""
        staged = self._store.staged
        return iter(()) if staged is None else _steps(staging.drop_span(self._store, *staged.span))

    def begin(self, move: Move, batch: Batch) -> Iterator[None]:
        """A copy begins, or starts again."""
        return _steps(staging.begin(self._store, move, batch))

    def stage(self, batch: Batch) -> None:
        with _no_room():
            staging.stage(self._store, batch)


@contextmanager
def _no_room() -> Iterator[None]:
    """A full disk raises NoRoom. RocksDB refuses such a write as a whole, and each further one until a flush
    finds room, those of applies too: a copy stops before (``node.upkeep.space.copies``)."""
    try:
        yield
    except SyncFailed as error:
        if is_disk_full(error):
            raise NoRoom(str(error)) from error
        raise


def _steps(work: Iterator[None]) -> Iterator[None]:
    with _no_room():
        yield from work
