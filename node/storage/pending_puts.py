"""An entry of nothing but plain puts, at the leader of a shard other than 0 that made it, when a cut puts it in order.

All but their revisions was known when they were evaluated (``cluster.shard_batch``), so nothing is read back from the entry. What
is written is the same, row by row, as ``apply.Run.effects`` makes of it, which is how everybody else applies it
(``tests/unit/storage/test_pending_puts.py``).

Hot path: 0.95 us a put where the entry costs 1.6 (256 B, 200 puts an entry, without RocksDB's own work; decision 32).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING

from cluster.shard_batch import PendingPut
from cluster.view import Current
from cluster.wire import MORE, varint
from node.storage import keys
from node.storage.keys import ENTRY, MAX32, MAX64, RUN, SUFFIX

if TYPE_CHECKING:
    from node.storage.apply import Run

_current: Callable[[tuple[int, int, int, int]], Current] = partial(tuple.__new__, Current)


def apply_pending(run: Run, puts: Sequence[PendingPut]) -> None:
    """Such an entry is next in the run. No put is of a key whose creation was pending when it was logged (PUT_REF), none
    has a lease, no key is above 127 bytes."""
    assert not run.run, "an r row holds the changes of one record"
    cache = run.store.cache
    hot, cold, values, created = cache.hot, cache.cold, cache.values, run.created
    put, pack_suffix, join = run.batch.put, SUFFIX.pack, b"".join
    events, born = run.events, run.born.append
    before = run.revision
    high = varint(before >> 7)
    for revision, (_, key, version, (_, head, creation, number, value)) in enumerate(puts, before + 1):
        low = revision & 0x7F
        if not low:
            high = varint(revision >> 7)
        mod = MORE[low] + high if revision > 0x7F else varint(revision)
        if creation:
            create = version[0]
            kv = join((head, creation, b"\x18", mod, number, value))
        else:
            create = revision
            kv = join((head, b"\x10", mod, b"\x18", mod, number, value))
            born(key)
            if created is not None:
                created[key] = revision
        escaped = key.replace(b"\0", b"\0\xff") if b"\0" in key else key
        put(b"k%b%b" % (escaped, pack_suffix(0, MAX64 - revision, MAX32, 0)), kv)
        if key in hot:
            hot[key] = _current((create, revision, version[2], 0))
        elif key in cold:
            cold[key] = _current((create, revision, version[2], 0))
        if values:
            values.pop(key, None)
        if events is not None:
            events.append((revision, keys.PUT, key, kv, 0))
    # the ``r`` rows: keys this short fill one by their number, never by their bytes
    for start in range(0, len(puts), keys.RUN_ENTRIES):
        some = [key for _, key, _, _ in puts[start : start + keys.RUN_ENTRIES]]
        heads = map(ENTRY.pack, range(len(some)), repeat(0), repeat(keys.PUT), map(len, some))
        put(RUN.pack(b"r", before + 1 + start, 0), b"".join([head + key for head, key in zip(heads, some, strict=True)]))
    run.revision = before + len(puts)


assert keys.RUN_ENTRIES * 127 < keys.RUN_BYTES
