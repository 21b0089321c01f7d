"""A backup's rows on the disk, from which its file is written, as often as it is wanted, byte for byte the
same.

A file of etcd's begins with what is known only at its end. So it is laid out by the rows' lengths first, then
written from front to back: to a pipe, too, and the disk holds the rows once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from cluster.bolt import Layout, Measured, NotAsLaidOut, Writer
from cluster.bolt.etcd import KEY, Around, Row, buckets
from node.backup.rows import Checkpoint, placed
from node.backup.sorting import Sorter, lengths, merged, write_run
from node.backup.writing import Alive, Write

_PLAN = "plan"  # a file: the spool is whole
_BETWEEN = 1023  # rows, and one more, between two looks whether the backup is still wanted


@dataclass(slots=True, frozen=True)
class _Bucket:
    name: str
    runs: list[str]
    rows: int


@dataclass(slots=True, frozen=True)
class Plan:
    """What a spool holds, and the layout of its file."""

    buckets: list[_Bucket]  # as they stand in the file
    root: int
    end: int
    revision: int

    @property
    def layout(self) -> Layout:
        return Layout(self.root, self.end)

    @property
    def rows(self) -> int:
        """Of keys: their versions."""
        return self.buckets[0].rows

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, told: bytes) -> Plan:
        fields = json.loads(told)
        return cls(**{**fields, "buckets": [_Bucket(**bucket) for bucket in fields["buckets"]]})


def kept(folder: Path) -> Plan | None:
    """Of a spool that is there and whole. What is there of another one is removed."""
    try:
        return Plan.decode((folder / _PLAN).read_bytes())
    except FileNotFoundError:
        for path in folder.iterdir():
            path.unlink()
        return None


def spool(
    shards: Iterable[tuple[Checkpoint, int]], around: Around, revision: int, folder: Path, budget_bytes: int,
    alive: Alive, spare_bytes: int = 0,
) -> Plan:
    """Spool what each shard shows at the revision beside it. StorageError; OSError, also where the disk would
    have less than ``spare_bytes`` free."""
    sorter, rows = Sorter(folder, budget_bytes, spare_bytes), 0
    for shard, shown in shards:
        for some in shard.keys(shown, around.compact_revision):
            next(alive)
            sorter.add(some)
            rows += len(some)
    found = [_Bucket(KEY.decode(), [run.name for run in sorter.runs()], rows)]
    for name, of_it in buckets(around):
        path = folder / name.decode()
        count = write_run(path, _looking(of_it, alive), spare_bytes)
        found.append(_Bucket(name.decode(), [path.name], count))
    measured = Measured()
    for bucket in found:
        measured.bucket(bucket.name.encode(), _looking(lengths(_rows(folder, bucket)), alive))
    plan = Plan(found, *measured.finish(), revision)
    new = folder / "plan.new"
    new.write_bytes(plan.encode())
    os.replace(new, folder / _PLAN)
    return plan


def write(plan: Plan, folder: Path, take: Write, alive: Alive) -> None:
    """Write the file of a spool. Raises NotAsLaidOut, before its last page, if rows are missing; OSError."""
    writer = Writer(take, plan.layout)
    for bucket in plan.buckets:
        rows = _Counted(_rows(folder, bucket), alive)
        writer.bucket(bucket.name.encode(), rows)
        if rows.count != bucket.rows:
            raise NotAsLaidOut(f"{rows.count} rows in {bucket.name}, not {bucket.rows}")
    writer.finish()


def _rows(folder: Path, bucket: _Bucket) -> Iterator[Row]:
    rows = merged([folder / run for run in bucket.runs])
    return placed(rows) if bucket.name == KEY.decode() else rows


Of = TypeVar("Of")


def _looking(rows: Iterable[Of], alive: Alive) -> Iterator[Of]:
    for count, row in enumerate(rows):
        if not count & _BETWEEN:
            next(alive)
        yield row


class _Counted:
    def __init__(self, rows: Iterator[Row], alive: Alive) -> None:
        self._rows, self._alive = rows, alive
        self.count = 0

    def __iter__(self) -> Iterator[Row]:
        for row in _looking(self._rows, self._alive):
            self.count += 1
            yield row
