"""What a forced start (``--force-new-cluster``) drops of a host's logs, kept in a file beside them.

The file has a line of JSON for each change of a key, with etcd's names and keys and values in base64:

    {"shard", "order" or "entry", "type", "key", "value", "lease", "version", "create_revision",
     "mod_revision", "range_end"}

``order``: the record of the order that held it; ``entry``: the entry of the shard's own log. ``type``: PUT,
DELETE, or DELETE_RANGE with its ``range_end``. What is zero, empty or unknown is left out. An entry that the
order did not name yet has no ``mod_revision``: it may or may not have been acknowledged. What changes no key
has its kind as ``type``, and its bytes as ``item``.

Each forced start writes a file of its own, before it changes anything; one that a crash ended may leave a
file that the next one's repeats.
"""

from __future__ import annotations

import json
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from cluster.effects import later_puts
from cluster.effects.records import (
    LEASE_ID,
    PUT_FIXED,
    Item,
    items,
    read_delete_range,
    read_puts,
)
from cluster.order.log import (
    ENTRY_ITEMS,
    Change,
    Control,
    Entries,
    Fold,
    entry_count,
    project,
    revisions_of,
)
from cluster.order.sound import Place, sound
from cluster.pb import kv_pb2
from cluster.raft.types import EntryKind
from node.durable import sync_directory
from node.storage import RaftLog
from node.storage.log.walk import walk

Line = dict[str, Any]
NAMED = 20  # keys that a message names
_NAME = re.compile(r"dropped-(\d+)\.jsonl")
_PUTS = (Item.PUT, Item.PUT_NEW, Item.PUT_REF)


class Unreadable(Exception):
    """A file is not what was written."""


@dataclass(slots=True)
class Dropped:
    """What one file holds."""

    path: Path
    changes: int = 0  # of keys
    keys: list[str] = field(default_factory=list)  # the first ones, each once
    more: bool = False  # and others

    def count(self, line: Line) -> None:
        if "key" in line:
            self.changes += 1
            name = b64decode(line["key"]).decode(errors="backslashreplace")
            if name not in self.keys:
                if len(self.keys) < NAMED:
                    self.keys.append(name)
                else:
                    self.more = True


# -- lines


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _of_put(kv: bytes, revision: int) -> Line:
    """``kv``: a KeyValue, perhaps without its revisions."""
    try:
        found = kv_pb2.KeyValue.FromString(kv)
    except DecodeError:  # a KeyValue is not judged (cluster.order.sound)
        return _at({"type": "PUT", "item": _text(kv)}, revision)
    line: Line = {"type": "PUT", "key": _text(found.key), "value": _text(found.value)}
    numbers = {"lease": found.lease, "version": found.version, "create_revision": found.create_revision,
               "mod_revision": revision or found.mod_revision}
    return line | {name: number for name, number in numbers.items() if number}


def _lines(
    data: bytes, pos: int, before: int, end: int | None = None, *, one: bool = False
) -> Iterator[Line]:
    """Of a run of effects; ``before``: the revision before them, 0: unknown; ``one``: all are of the next
    one."""
    revision = before and before + 1
    for kind, at, to in items(data, pos, end):
        if kind in _PUTS:
            yield _of_put(data[at + PUT_FIXED : to], revision)
        elif kind in (Item.PUTS, Item.PUTS_LATER):
            for number, kv in enumerate(_kvs(data, kind, at, to)):
                yield _of_put(kv, revision and revision + number)
        elif kind == Item.DELETE:
            yield _at({"type": "DELETE", "key": _text(data[at:to])}, revision)
        elif kind == Item.DELETE_RANGE:
            key, range_end, _ = read_delete_range(data, at, to)
            yield _at({"type": "DELETE_RANGE", "key": _text(key), "range_end": _text(range_end)}, revision)
        elif kind in (Item.TXN, Item.TXN_LONG):
            yield from _lines(data, at, revision and revision - 1, to, one=True)
        elif kind == Item.LEASE_REVOKE:
            yield {"type": "LEASE_REVOKE", "item": _text(data[at : at + LEASE_ID.size])}
            yield from _lines(data, at + LEASE_ID.size, revision and revision - 1, to, one=True)
        elif kind != Item.SKIP:
            yield {"type": Item(kind).name, "item": _text(data[at:to])}
        if revision and not one:
            revision += revisions_of(data, kind, at, to)


def _kvs(data: bytes, kind: int, at: int, to: int) -> list[bytes]:
    if kind == Item.PUTS:
        return read_puts(data, at, to).kvs
    later = later_puts.read(data, at, to)
    return [head + tail for head, tail in zip(later.heads, later.tails, strict=True)]


def _at(line: Line, revision: int) -> Line:
    return line | {"mod_revision": revision} if revision else line


# -- what is dropped


def lines(
    logs: Mapping[int, RaftLog], fold: Fold, folded: int, order_index: int, last: Mapping[int, int],
) -> Iterator[Line]:
    """All that is behind record ``order_index`` of the order, and behind entry ``last`` of each other shard's
    log. ``fold``: of the order up to record ``folded``. Raises NewerRecord, StorageError."""
    folds = {shard: fold.copy() for shard in logs}
    placed: dict[int, list[tuple[int, int, int, int]]] = {shard: [] for shard in logs}
    for index, kind, data in _entries(logs[0], folded + 1):
        record = sound(data, Place.ORDER) if kind == EntryKind.RECORD else b""
        for shard, its in folds.items():
            before = its.cut(shard)
            for step in its.take(project(record, shard) if shard else record, shard):
                if index <= order_index:
                    continue
                if isinstance(step, Entries):
                    if logs[shard].term_at(step.cut.index) == step.cut.term:
                        placed[shard].append((before.index, step.cut.index, step.revision, before.count))
                elif isinstance(step, Change):
                    for line in _lines(step.items, 0, step.revision, one=step.attempt is not None):
                        yield {"shard": shard, "order": index} | line
                elif shard == 0:
                    assert isinstance(step, Control)
                    for line in _lines(step.item, 0, step.revision):
                        yield {"shard": shard, "order": index} | line
    for shard, log in logs.items():
        if shard:
            yield from _of_entries(shard, log, last[shard], placed[shard])


def _of_entries(
    shard: int, log: RaftLog, last: int, placed: Iterable[tuple[int, int, int, int]]
) -> Iterator[Line]:
    """Entries behind ``last``, with revisions where a cut names them."""
    cuts = iter(placed)
    cut = next(cuts, None)
    revision = count = 0
    for index, kind, data in _entries(log, last + 1):
        while cut is not None and cut[1] < index:
            cut = next(cuts, None)
        if cut is not None and index == cut[0] + 1:
            revision, count = cut[2:]
        known = cut is not None and index > cut[0] and revision
        if kind == EntryKind.RECORD and len(data) >= ENTRY_ITEMS:
            found = sound(data, Place.ENTRY, ENTRY_ITEMS)
            for line in _lines(found, ENTRY_ITEMS, revision if known else 0):
                yield {"shard": shard, "entry": index} | line
            revision, count = revision + entry_count(data) - count if known else 0, entry_count(data)


def _entries(log: RaftLog, first: int) -> Iterator[tuple[int, int, bytes]]:
    for entry in walk(log, max(first, log.first_index())):
        yield entry.index, entry.kind, entry.data


# -- files


def write(folder: Path, found: Iterable[Line]) -> Dropped | None:
    """Write a new durable file; None, and no file, if there is nothing. Raises OSError."""
    number = max((number for number, _ in _files(folder)), default=0) + 1
    path = folder / f"dropped-{number}.jsonl"
    aside = path.with_name(path.name + ".tmp")
    dropped = Dropped(path)
    size = 0
    try:
        with open(aside, "w", encoding="ascii",
                  opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            for line in found:
                size += file.write(json.dumps(line, separators=(",", ":")) + "\n")
                dropped.count(line)
            file.flush()
            os.fsync(file.fileno())
        if size:
            os.replace(aside, path)
            sync_directory(folder)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()
    return dropped if size else None


def read(path: Path) -> Iterator[Line]:
    """The lines of a file. Raises Unreadable, OSError."""
    with path.open(encoding="ascii") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError:
                raise Unreadable(f"{path}: line {number} is no JSON") from None


def found_in(folder: Path) -> list[Dropped]:
    """What the files of a host hold, the oldest first. Raises Unreadable, OSError."""
    found = []
    for _, path in _files(folder):
        found.append(Dropped(path))
        for line in read(path):
            found[-1].count(line)
    return found


def _files(folder: Path) -> list[tuple[int, Path]]:
    """With their numbers, the oldest first. An operator may have removed some."""
    return sorted((int(name[1]), path) for path in folder.iterdir() if (name := _NAME.fullmatch(path.name)))
