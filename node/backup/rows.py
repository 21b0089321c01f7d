"""The rows of a checkpoint as etcd keeps them: what was there at one revision, with the history before it.

A checkpoint may be further on than the revision, and its shard may not have removed yet what a compaction
made superfluous; neither shows in what comes out. A version of a key that has moved comes out of one shard,
as in hashes (``node.storage.state.slices.hashing``). Cost: 1.7 us a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from cluster.bolt.etcd import REVISION, REVISION_BYTES, Auth, Row, revision_key, tombstone_value
from cluster.features.rows import RowsOf
from cluster.placement import Owned
from node.backup.users import auth_in
from node.storage.keys import KEYS_END, MAX32, MAX64, STAGING_ROW, SUFFIX_SIZE, feature_row, unescape
from node.storage.state.moving.staged import Staged
from node.storage.state.rows import StateRows, open_to_read

_AT_ONCE, _AT_ONCE_BYTES = 512, 1 << 20
_CACHE_BYTES = 4 << 20


def placed(rows: Iterable[Row]) -> Iterator[Row]:
    """What :meth:`Checkpoint.keys` shows, sorted, as etcd has it: each at a place of its own. All tombstones
    of a delete of a span stand at one (D8): they count on from there, in the order of keys."""
    last = b""
    for key, value in rows:
        at, more = key[:REVISION_BYTES], key[REVISION_BYTES:]
        if at <= last:
            main, _, sub = REVISION.unpack(last)
            at = revision_key(main, sub + 1)
        last = at
        yield (at + b"t", tombstone_value(more[1:])) if more else (at, value)


class Checkpoint(StateRows):
    """A directory with a copy of one shard's state, opened to be read."""

    def __init__(self, path: Path, shard: int = 0) -> None:
        super().__init__(open_to_read(path, _CACHE_BYTES), str(path))
        staged = Staged.of(self.row(STAGING_ROW))
        self._owned = Owned.of(self.placement(), shard, None if staged is None else staged.span)

    def close(self) -> None:
        self.database.close()

    def keys(self, revision: int, compact_revision: int) -> Iterator[list[Row]]:
        """Rows of etcd's bucket ``key``, some at a time, in no order. A tombstone's has its key behind the
        ``t``, and no value (:func:`placed`)."""
        some: list[Row] = []
        size = 0
        before = b""  # what the row before begins with up to its revision: the same for versions of one key
        settled = False  # what the compaction has left of this key is found
        for row, value in self.rows(b"k", KEYS_END):
            at = len(row) - 13
            if row[:at] != before:
                before = row[:at]
                settled = False
            elif settled:
                continue
            main = MAX64 - int.from_bytes(row[at : at + 8], "big")
            if main > revision:
                continue
            if self._owned is not None and not self._owned.shows(
                    unescape(row[1:-SUFFIX_SIZE]), max(main, compact_revision)):
                continue  # G6: it comes out of another shard
            deleted = row[-1] != 0
            if main <= compact_revision:
                settled = True
                if deleted and main != compact_revision:
                    continue
            sub = MAX32 - int.from_bytes(row[at + 8 : at + 12], "big")
            at_revision = revision_key(main, sub, deleted)
            if deleted:
                at_revision, value = at_revision + unescape(row[1:-SUFFIX_SIZE]), b""
            some.append((at_revision, value))
            size += len(at_revision) + len(value)
            if len(some) == _AT_ONCE or size >= _AT_ONCE_BYTES:
                yield some
                some, size = [], 0
        yield some

    def auth(self) -> Auth:
        return auth_in(self.feature_rows(RowsOf.AUTH))

    def v2(self) -> Iterator[Row]:
        """The v2 tree, read as it is taken."""
        return self.under(feature_row(RowsOf.V2, b""))
