"""One file out of the checkpoints of all shards: the work of ``node.backup.process``.

It gives the disk a quarter of a megabyte at a time, and ends with the process that wants the file.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cluster.bolt import Writer
from cluster.bolt.etcd import Around, Lease, Row, write
from cluster.pb import rpc_pb2
from cluster.placement import Placement
from node.backup.rows import Checkpoint
from node.backup.sorting import RUNS, PacedFile, Sorter
from node.storage import StorageError

_LOOK_EVERY = 64  # lots of rows between two looks whether the node is still there


class Unfit(Exception):
    """These checkpoints do not make one backup: others have to be taken."""


@dataclass(slots=True, frozen=True)
class Job:
    """What is to be built."""

    checkpoints: list[str]  # by shard; the revision is that of shard 0
    output: str  # the file; what is sorted lies beside it meanwhile
    members: list[str]  # etcdserverpb.Member, in hexadecimal
    budget_bytes: int  # of rows in memory
    removed: list[int] = field(default_factory=list)  # IDs of former members
    shards: list[int] = field(default_factory=list)  # of the checkpoints; empty: 0, 1, ...

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def build(job: Job, alive: Iterator[None]) -> dict[str, int]:
    """Build the file; its size and revision. Raises StorageError, OSError, Unfit."""
    output = Path(job.output)
    with ExitStack() as stack:
        shards = []
        ids = job.shards or range(len(job.checkpoints))
        for shard, path in zip(ids, job.checkpoints, strict=True):
            shards.append(Checkpoint(Path(path), shard))
            stack.callback(shards[-1].close)
        position = shards[0].position
        compacted = max(shard.position.compact_revision for shard in shards)
        behind = any(shard.position.order_index < position.order_index for shard in shards)
        if compacted > position.revision or behind:
            raise Unfit("a shard was compacted beyond the revision of the backup, or is behind it")
        if (table := shards[0].placement()) is not None:
            placement = Placement(1)
            placement.replace(table)
            if not set(placement.kept) <= set(ids):
                raise Unfit("keys have moved to another shard")
        around = Around(
            consistent_index=position.order_index, term=position.term, compact_revision=compacted,
            finished_compact_revision=compacted, alarms=shards[0].alarms(),
            leases=[Lease(*lease) for lease in shards[0].leases()], auth=shards[0].auth(), v2=shards[0].v2(),
            members=[rpc_pb2.Member.FromString(bytes.fromhex(member)) for member in job.members],
            removed=job.removed)
        rows, size = assemble(
            [(shard, position.revision) for shard in shards], around, output, job.budget_bytes, alive)
    return {"size_bytes": size, "revision": position.revision, "rows": rows}


def assemble(
    shards: Iterable[tuple[Checkpoint, int]], around: Around, output: Path, budget_bytes: int,
    alive: Iterator[None],
) -> tuple[int, int]:
    """Write the file of what each shard shows at the revision beside it; its rows and bytes."""
    sorter = Sorter(output.parent, budget_bytes)
    for shard, revision in shards:
        for some in shard.keys(revision, around.compact_revision):
            next(alive)
            sorter.add(some)
    file = PacedFile(output)
    counted = _Counted(sorter.rows(), alive)
    head = write(Writer(file.write), counted, around)
    size = file.size_bytes
    file.close(head)
    return counted.rows, size


class _Counted:
    def __init__(self, rows: Iterator[Row], alive: Iterator[None]) -> None:
        self._rows, self._alive = rows, alive
        self.rows = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.rows += 1
            if not self.rows & 1023:
                next(self._alive)
            yield row


def _with_parent(parent: int) -> Iterator[None]:
    turn = 0
    while True:
        turn += 1
        if turn % _LOOK_EVERY == 0 and os.getppid() != parent:
            os._exit(1)
        yield


def result(told: str, parent: int) -> bytes:
    """The result of an encoded job, in JSON: figures, ``unfit`` or ``error``. Ends with ``parent``."""
    began = time.perf_counter()
    job = Job(**json.loads(told))
    _remove_left(Path(job.output))
    try:
        result: dict[str, object] = {**build(job, _with_parent(parent))}
    except Unfit as e:
        result = {"unfit": str(e)}
    except (StorageError, OSError) as e:
        result = {"error": str(e)}
    result["seconds"] = round(time.perf_counter() - began, 3)
    return json.dumps(result).encode()


def _remove_left(output: Path) -> None:
    for path in (output, *output.parent.glob(RUNS)):
        path.unlink(missing_ok=True)
