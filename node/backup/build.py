"""A backup out of the checkpoints of all shards: the work of ``node.backup.process``.

It gives the disk a quarter of a megabyte at a time, and ends with the process that wants the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cluster.bolt.etcd import Around, Lease
from cluster.pb import rpc_pb2
from cluster.placement import Placement
from node.backup import spool
from node.backup.rows import Checkpoint
from node.backup.spool import Plan
from node.backup.writing import Alive, Gathered, Write
from node.storage import StorageError

_LOOK_EVERY = 64  # lots of rows between two looks whether the node is still there


class Unfit(Exception):
    """These checkpoints do not make one backup: others have to be taken."""


@dataclass(slots=True, frozen=True)
class Job:
    """What is to be built."""

    checkpoints: list[str]  # by shard; the revision is that of shard 0
    folder: str  # for its rows
    members: list[str]  # etcdserverpb.Member, in hexadecimal
    budget_bytes: int  # of rows in memory
    removed: list[int] = field(default_factory=list)  # IDs of former members
    shards: list[int] = field(default_factory=list)  # of the checkpoints; empty: 0, 1, ...
    spare_bytes: int = 0  # of the disk, which stay free

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def gather(job: Job, alive: Alive) -> Plan:
    """Spool the rows of the checkpoints. Raises StorageError, OSError, Unfit."""
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
        return spool.spool(
            [(shard, position.revision) for shard in shards], around, position.revision, Path(job.folder),
            job.budget_bytes, alive, job.spare_bytes)


def _with_parent(parent: int) -> Iterator[None]:
    turn = 0
    while True:
        turn += 1
        if turn % _LOOK_EVERY == 0 and os.getppid() != parent:
            os._exit(1)
        yield


def send(told: bytes, parent: int, write: Write) -> None:
    """Write the backup of an encoded job: a line of JSON (``size_bytes``, ``revision`` and ``rows``; or
    ``unfit`` or ``error``, and nothing more), then the file. The bytes are the same each time. A failure
    leaves it short. Ends with ``parent``."""
    job = Job(**json.loads(told))
    folder, alive = Path(job.folder), _with_parent(parent)
    try:
        plan = spool.kept(folder) or gather(job, alive)
    except Unfit as e:
        write(_line(unfit=str(e)))
        return
    except (StorageError, OSError) as e:
        write(_line(error=str(e)))
        return
    write(_line(size_bytes=plan.layout.size_bytes, revision=plan.revision, rows=plan.rows))
    gathered = Gathered(write)
    spool.write(plan, folder, gathered.write, alive)
    gathered.flush()


def _line(**figures: int | str) -> bytes:
    return json.dumps(figures).encode() + b"\n"
