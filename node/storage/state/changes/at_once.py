"""Changes at one revision: what a transaction does.

Hot path: 3 us of CPU a put with its event, where ``Run.change`` takes 6. A transaction may hold 18,432.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.effects.records import ITEM, PUT_HEAD, Item, key_offset
from cluster.grain import GRAIN
from cluster.wire.protobuf import varint
from node.storage import keys
from node.storage.keys import ENTRY, MAX32, MAX64, SUFFIX
from node.storage.state.reads import LARGE_ROW

if TYPE_CHECKING:
    from node.storage.state.changes.run import Run

Most = tuple[int, int]  # changes, their bytes
ALL = MAX32, MAX64
_LEAST = ITEM.size, PUT_HEAD.size  # of an item that is no put, of a put


def some_changes(run: Run, data: bytes, pos: int, end: int, sub: int, most: Most) -> tuple[int, int]:
    """Apply ``most`` changes, or those before a span's delete. Returns where it stopped, and its place."""
    revision, events, cache = run.revision, run.events, run.store.cache
    created, born = run.created, run.born.append
    hot, cold, forget = cache.hot, cache.cold, cache.values.pop
    unpack_put, pack_suffix, pack_entry = PUT_HEAD.unpack_from, SUFFIX.pack, ENTRY.pack
    head_size, slice_bytes, run_entries = PUT_HEAD.size, GRAIN.apply_slice_bytes, GRAIN.run_entries
    mod, age = varint(revision), MAX64 - revision
    mods = b"", b"\x18" + mod, b"\x10" + mod + b"\x18" + mod  # by the kind of put
    put, entries, last, enough = run.batch.put, run.run, sub + most[0], min(end, pos + most[1])
    while pos < enough and sub < last:
        kind = data[pos]
        if kind == Item.DELETE_RANGE:
            break
        is_put = 0 < kind < 3
        if end - pos < _LEAST[is_put]:
            raise ValueError("truncated record")
        if not is_put:
            length = ITEM.unpack_from(data, pos)[1]
            pos += ITEM.size + length
            if pos > end:
                raise ValueError("truncated record")
            run.change(data, kind, pos - length, pos, sub, mod)
            entries = run.run
        else:  # a put: ``run.change`` in line
            _, length, key_len, head_len, lease = unpack_put(data, pos)
            begin = pos + head_size
            pos += ITEM.size + length
            if pos > end:
                raise ValueError("truncated record")
            key_at = begin + (2 if key_len < 0x80 else key_offset(key_len))
            key = data[key_at : key_at + key_len]
            kv = b"".join((data[begin : begin + head_len], mods[kind], data[begin + head_len : pos]))
            if kind == 2:
                born(key)
                if created is not None:
                    created[key] = revision
            run.large += ((key, length),) * (length >= LARGE_ROW)
            forget(key, None)
            if key in hot or key in cold:
                cache.put(key, kind == 2, revision, lease)
            escaped = key.replace(b"\0", b"\0\xff") if b"\0" in key else key
            put(b"k" + escaped + pack_suffix(0, age, MAX32 - sub, 0), kv)
            if not entries:
                run.first = (revision, sub)
            entries.append(pack_entry(revision - run.first[0], sub, 0, key_len) + key)
            run.run_bytes += key_len
            run.pending += len(kv) + 2 * key_len
            if lease:
                run.attach(lease, key)
            if events is not None:
                events.append((revision, 0, key, kv, sub))
            if len(entries) >= run_entries or run.run_bytes >= keys.RUN_BYTES:
                run.end_run()
                entries = run.run
        if run.pending > slice_bytes:
            run.write_slice()
            put = run.batch.put
        sub += 1
    return pos, sub
