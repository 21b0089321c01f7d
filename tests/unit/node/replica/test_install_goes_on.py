"""What is committed behind an installed state is applied, whatever was being applied when it came; the state
of before goes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from cluster.effects import records
from cluster.grain import GRAIN
from cluster.raft import Entry, EntryKind, Kind, Message
from node.storage import StateStore
from node.storage.snapshot import SnapshotSink
from node.storage.state import store as state
from node.upkeep.log import flushes
from node.upkeep.log.snapshots import Receiving
from tests.unit.node.replica.test_compaction_resumes import node_of, settings
from tests.unit.storage.state.stores import received

KEYS = 100
LOG = [
    records.bootstrap(1, 1, 2),
    b"".join(records.put(b"k%d" % n, 0, 1, b"", 0) for n in range(KEYS)),
    records.delete_range(b"k", b"l", KEYS),  # long work
    records.put(b"z", 0, 1, b"", 0),
]


def state_at(index: int, path: Path) -> SnapshotSink:
    """A snapshot of what the log makes up to there, received and not switched in."""
    donor = StateStore.open(path / "donor")
    donor.apply([(at, 1, data) for at, data in enumerate(LOG[:index], 1)])
    donor.flush()
    sink = received(donor, path / "outgoing", path / "node" / "state")
    donor.close()
    return sink


def test_an_install_during_a_long_apply(tmp_path: Path) -> None:
    """Nobody writes any more, and linearizable reads wait for the last entry."""

    async def scenario() -> None:
        node = node_of(settings(tmp_path / "node", 2))
        node.start()
        sink = state_at(3, tmp_path)
        position = sink.finish()
        entries = [Entry(index, 1, EntryKind.RECORD, data) for index, data in enumerate(LOG, 1)]
        node.raft.step(Message(Kind.APPEND, 2, 1, 1, commit=len(LOG), entries=entries), node.now_ms())
        node.wake()
        async with asyncio.timeout(20):
            while not node.applies.busy:
                await asyncio.sleep(0)
            node.snapshots._install(Receiving(2, 1, sink, node.raft.configuration, 0.0), position)
            assert node.applied_index == 3
            while node.applied_index < len(LOG):
                await asyncio.sleep(0.01)
        await node.stop()

    (tmp_path / "node").mkdir()
    with GRAIN.finer(delete_slice_rows=4, apply_slice_s=0.0):
        asyncio.run(scenario())


def test_the_state_of_before_an_install_goes_though_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be large, and counts against the room that a host needs. It goes behind its last reader."""
    monkeypatch.setattr(state, "RETIRE_S", 0.0)
    monkeypatch.setattr(flushes, "RETIRE_S", 0.1)

    async def scenario() -> None:
        node = node_of(settings(tmp_path / "node", 2))
        node.start()
        sink = state_at(3, tmp_path)
        reader = node.store.reader()
        node.snapshots._install(Receiving(2, 1, sink, node.raft.configuration, 0.0), sink.finish())
        await asyncio.sleep(0.5)  # flushes begin meanwhile
        assert sorted(os.listdir(node.store.root)) == ["current", "db-1", "db-2"]
        del reader
        async with asyncio.timeout(20):
            while os.path.exists(node.store.root / "db-1"):
                node.upkeep.flushes.replaced()  # again and again: that delays none
                await asyncio.sleep(0.01)
        await node.stop()

    (tmp_path / "node").mkdir()
    asyncio.run(scenario())
