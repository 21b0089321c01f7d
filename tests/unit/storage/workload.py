"""A seeded stream of order records, the same in every process; and a victim that stores it until it is
killed.

``python -m tests.unit.storage.workload DIRECTORY SEED`` opens log and state in a directory as a node does,
goes on where they end, and prints the index of every entry once its sync has returned.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

from cluster.grain import GRAIN
from cluster.raft.types import Configuration, Entry, EntryKind, HardState, SnapshotPosition
from node.storage import RaftLog, StateStore
from tests.unit.storage.model import Model

CONFIGURATION = Configuration(frozenset({1, 2, 3}))


def stream(seed: int) -> Iterator[tuple[int, int, bytes]]:
    """``(index, term, record)`` from index 1 on, for ever."""
    rng = random.Random(seed)
    model = Model()
    index, term = 0, 1

    def operation() -> tuple[str, bytes, bytes, int]:
        key = b"/%d/%d" % (rng.randrange(3), rng.randrange(40))
        return rng.choice(["put", "put", "delete"]), key, rng.randbytes(rng.randrange(300)), rng.randrange(4)

    while True:
        index += 1
        term += rng.random() < 0.01
        items = []
        for _ in range(rng.choice([0, 1, 1, 2, 5, 40])):
            choice = rng.random()
            name, key, value, lease = operation()
            if choice < 0.7:
                items.append(model.put(key, value, lease) if name == "put" else model.delete(key))
            elif choice < 0.85:
                items.append(model.txn([operation() for _ in range(rng.choice([1, 3, 30]))]))
            elif choice < 0.9:
                items.append(model.grant(rng.randrange(1, 4), 60))
            elif choice < 0.93:
                items.append(model.checkpoint(rng.randrange(1, 4), rng.randrange(60)))
            elif choice < 0.96:
                items.append(model.revoke(rng.randrange(1, 4)))
            else:
                items.append(model.compact(model.revision - rng.randrange(50)))
        yield index, term, b"".join(items)


def open_both(root: Path) -> tuple[RaftLog, StateStore]:
    """Log and state as a node opens them."""
    state = StateStore.open(root / "state", block_cache_bytes=1 << 20, write_buffer_bytes=64 << 10)
    log = RaftLog.open(root / "log", initial=CONFIGURATION)
    log.verify(state.position.shard_index)
    return log, state


def replay(log: RaftLog, state: StateStore) -> None:
    """Apply what the log has and the state lacks."""
    at = state.position.shard_index
    while at < log.last_index():
        entries = log.entries(at + 1, log.last_index(), 100_000)
        state.apply([(e.index, e.term, e.data if e.kind == EntryKind.RECORD else b"") for e in entries])
        at = entries[-1].index


def small_slices() -> None:
    """Cut batches and runs often, so that a kill meets half-written ones."""
    GRAIN.apply_slice_bytes = 3000
    GRAIN.run_entries = 7


def main(root: Path, seed: int) -> None:
    small_slices()
    rng = random.Random()
    log, state = open_both(root)
    replay(log, state)
    pending = []
    for index, term, record in stream(seed):
        if index <= log.last_index():
            continue
        kind = EntryKind.RECORD if record else EntryKind.NOOP
        log.append([Entry(index, term, kind, record)], HardState(term, 1, index - 1))
        pending.append((index, term, record))
        if rng.random() < 0.3:
            log.sync()
            log.note_committed(index)
            print(index, flush=True)
        if rng.random() < 0.3:
            log.note_committed(index)  # as a node does before each apply (I25)
            state.apply(pending)
            pending = []
        if rng.random() < 0.05:
            state.compaction_step(200)
        if rng.random() < 0.03:
            covered = state.flush()
            if covered.shard_index > log.snapshot_position().index:
                log.truncate_prefix(SnapshotPosition(covered.shard_index, covered.term, CONFIGURATION))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
