"""What a shard that is born begins with: all that each shard knows besides keys, at one place of the order.

A host's node 0 writes it into a file, whole and synced, while nothing of the new shard is in order yet (G12).
So it is the exact state of that shard there, for ever. The shard's node takes it once, before it says
anything. The file::

    magic(8) | position (as the row) | rows: key length u32, value length u32, key, value | BLAKE2b-256
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

from rocksdict import RdictIter, WriteBatch

from cluster.features.rows import OF_SHARD_0
from node.durable import sync_directory
from node.storage import keys
from node.storage.errors import StorageCorruption
from node.storage.keys import Position
from node.storage.options import bounded
from node.storage.state.store import StateStore

_MAGIC = b"mstrgen1"
_ROW = struct.Struct("<II")
_DIGEST_BYTES = 32
_SPACES = ((b"L", b"M"), (b"m", b"n"))  # leases, and what is known besides keys
# what shard 0 alone has, or each replica for itself
_NOT_TAKEN = (
    keys.POSITION_ROW, keys.LOCAL_PREFIX, keys.MEMBER_PREFIX, keys.DOWNGRADE_ROW,
    *(keys.feature_row(feature, b"") for feature in OF_SHARD_0))


class Source:
    """The rows of a node 0's state, as they are when this is made; read in a thread."""

    def __init__(self, store: StateStore) -> None:
        self._bounds = [bounded(upper) for _, upper in _SPACES]  # held: see there
        self._spaces: list[RdictIter] = []
        for (lower, _), options in zip(_SPACES, self._bounds, strict=True):
            rows = store.database.iter(options)
            rows.seek(lower)
            self._spaces.append(rows)

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        for rows in self._spaces:
            while rows.valid():
                if not (row := rows.key()).startswith(_NOT_TAKEN):
                    yield row, rows.value()
                rows.next()
            rows.status()


def write(path: Path, position: Position, rows: Iterable[tuple[bytes, bytes]]) -> None:
    """A crash leaves the whole file or none. OSError."""
    aside = path.with_name(path.name + ".tmp")
    digest = blake2b(digest_size=_DIGEST_BYTES)
    with open(aside, "wb", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, 0o600)) as file:
        for piece in _pieces(position, rows):
            digest.update(piece)
            file.write(piece)
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_directory(path.parent)


def _pieces(position: Position, rows: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    yield _MAGIC + keys.POSITION.pack(*position)
    for row, value in rows:
        yield _ROW.pack(len(row), len(value)) + row + value


def read(path: Path) -> tuple[Position, list[tuple[bytes, bytes]]]:
    """StorageCorruption: it is not what :func:`write` made."""
    data = path.read_bytes()
    body = data[:-_DIGEST_BYTES]
    if not body.startswith(_MAGIC) or blake2b(body, digest_size=_DIGEST_BYTES).digest() != data[len(body) :]:
        raise StorageCorruption(f"{path} is damaged: remove it, and start this host again")
    position = Position(*keys.POSITION.unpack_from(body, len(_MAGIC)))
    at, rows = len(_MAGIC) + keys.POSITION.size, []
    while at < len(body):
        key_len, value_len = _ROW.unpack_from(body, at)
        at += _ROW.size
        rows.append((body[at : at + key_len], body[at + key_len : at + key_len + value_len]))
        at += key_len + value_len
    return position, rows


def begin(state: Path, path: Path) -> None:
    """Begin a state that has applied nothing with a genesis, if there is one. Durable when it returns, and
    the file is gone: nothing takes it again."""
    if not path.exists():
        return
    store = StateStore.open(state, block_cache_bytes=1 << 20, range_cache_bytes=0)
    try:
        if not store.position.order_index:
            position, rows = read(path)
            batch = WriteBatch(raw_mode=True)  # one: a crash leaves nothing or all
            for row, value in rows:
                batch.put(row, value)
            batch.put(keys.POSITION_ROW, keys.POSITION.pack(*position))
            store.write(batch)
            store.flush()
    finally:
        store.close()
    path.unlink(missing_ok=True)
