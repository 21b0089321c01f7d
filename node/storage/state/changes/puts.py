"""Many plain puts at once: a PUTS item of a record, or what its leader evaluated.

A leader makes the rows from its evaluation (``cluster.evaluate.replica.Batch.puts``) while the entry is on
its way; followers read the item. Both write the same (``tests/unit/storage/state/leaders/test_puts.py``).

Hot path, in us a put (256 B, 250 puts a record, without RocksDB's own work): a follower's apply 0.6, reading
included, where single PUT items take 1.2; a leader 0.4 before its entry is committed and 0.3 after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, repeat
from typing import TYPE_CHECKING

from rocksdict import WriteBatch

from cluster.effects.records import Puts
from cluster.evaluate.replica import Written
from cluster.evaluate.view import Current
from cluster.grain import GRAIN
from node.storage import keys
from node.storage.keys import ENTRY, MAX32, MAX64, RUN, SUFFIX
from node.storage.state.reads import LARGE_ROW

if TYPE_CHECKING:
    from cluster.effects.later_puts import LaterPuts
    from node.storage.state.changes.run import Event, Run
    from node.storage.state.version_cache import VersionCache

_current: Callable[[tuple[int, int, int, int]], Current] = partial(tuple.__new__, Current)


def puts_of(written: Sequence[Written]) -> Puts:
    return Puts(written[0][1].mod, [key for key, _ in written], [version.kv for _, version in written],
                [key for key, version in written if version.create == version.mod])


def write_rows(batch: WriteBatch, puts: Puts) -> None:
    put, pack_suffix, newest = batch.put, SUFFIX.pack, MAX64 - puts.revision
    names = puts.keys
    if b"\0" in b"".join(names):
        names = [key.replace(b"\0", b"\0\xff") for key in names]
    for revision, name, kv in zip(range(newest, newest - len(names), -1), names, puts.kvs, strict=True):
        put(b"k" + name + pack_suffix(0, revision, MAX32, 0), kv)
    # the ``r`` rows: keys this short fill one by their number, never by their bytes
    for start in range(0, len(names), GRAIN.run_entries):
        some = puts.keys[start : start + GRAIN.run_entries]
        heads = map(ENTRY.pack, range(len(some)), repeat(0), repeat(keys.PUT), map(len, some))
        put(
            RUN.pack(b"r", puts.revision + start, 0),
            b"".join([head + key for head, key in zip(heads, some, strict=True)]))


class PreparedPuts:
    """The rows of a leader's own record of nothing but plain puts."""

    __slots__ = ("batch", "puts")

    def __init__(self, written: Sequence[Written]) -> None:
        self.puts = puts_of(written)
        self.batch = WriteBatch(raw_mode=True)
        write_rows(self.batch, self.puts)


def apply_prepared(run: Run, prepared: PreparedPuts) -> None:
    """The run's next record is a prepared one: its rows become the batch."""
    if run.pending:  # a leader applies entry by entry, as a rule
        run.write_slice()
    run.batch = prepared.batch
    _took(run, prepared.puts)


def apply_puts(run: Run, puts: Puts) -> None:
    run.end_run()
    write_rows(run.batch, puts)
    _took(run, puts)


def apply_later(run: Run, later: LaterPuts) -> None:
    """A shard's entry of such puts, whose revisions are known now."""
    before = run.revision
    apply_puts(run, later.at(before))
    if run.created is not None:
        run.created.update(
            {
                key: revision
                for revision, (key, new) in enumerate(zip(later.keys, later.new, strict=True), before + 1)
                if new
            }
        )


def _took(run: Run, puts: Puts) -> None:
    """All but the rows."""
    # C4: the leader of shard 0 knew the revisions when it evaluated
    assert puts.revision == run.revision + 1, (
        f"C4: revision {puts.revision} evaluated where {run.revision + 1} is due"
    )
    run.revision += len(puts.keys)
    run.born += puts.new
    run.large += large_of(puts)
    remember(run.store.cache, puts)
    if run.events is not None:
        run.events += events_of(puts)


def large_of(puts: Puts) -> list[tuple[bytes, int]]:
    """The keys of large values, with their bytes."""
    if max(map(len, puts.kvs), default=0) < LARGE_ROW:
        return []
    return [(key, len(kv)) for key, kv in zip(puts.keys, puts.kvs, strict=True) if len(kv) >= LARGE_ROW]


def remember(cache: VersionCache, puts: Puts) -> None:
    """As ``VersionCache.put`` for each."""
    hot, cold, values = cache.hot, cache.cold, cache.values
    for key in puts.new:
        assert (hot.get(key) or cold.get(key)) is None, "I22: put of a new key that exists"
    if hot or cold:
        new = frozenset(puts.new)
        for revision, key in enumerate(puts.keys, puts.revision):
            if key in hot:
                known = hot
            elif key in cold:
                known = cold
            else:
                continue
            old = known[key]
            if old is None:
                assert key in new, "I22: put of an existing key that is not there"
                known[key] = _current((revision, revision, 1, 0))
            else:
                known[key] = _current((old[0], revision, old[2] + 1, 0))
    if values:
        for key, kv in zip(puts.keys, puts.kvs, strict=True):
            if key in values:
                cache.renew(key, kv)


def events_of(puts: Puts) -> list[Event]:
    return [
        (revision, keys.PUT, key, kv, 0)
        for revision, key, kv in zip(count(puts.revision), puts.keys, puts.kvs, strict=False)
    ]


assert GRAIN.run_entries * 127 < keys.RUN_BYTES
