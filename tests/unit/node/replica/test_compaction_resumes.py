"""A compaction that a restart interrupted, or that came half done with a snapshot, goes on by itself."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from cluster.effects import records
from cluster.raft import Configuration, Entry, EntryKind
from cluster.raft.types import HardState
from cluster.settings import Common, NodeSettings, Peer
from node.replica.roles.made import make_node
from node.replica.server import Node
from node.storage import RaftLog, StateStore
from tests.short_dirs import short_dir
from tests.unit.storage.state.stores import received
from tools.muster.machine.disk.disks import NodesMachine

VERSIONS = 20_000


def overwritten(first: int) -> list[tuple[int, int, bytes]]:
    """Records from an index on: a key with many versions, and a compaction of all but the last."""
    items = [records.put(b"k", 2 if n else 0, n + 1, b"", 0) for n in range(VERSIONS)]
    return [(first, 1, b"".join(items)), (first + 1, 1, records.compact(VERSIONS + 1))]


def interrupted(path: Path, first: int) -> StateStore:
    """A store in which that compaction has only begun."""
    store = StateStore.open(path)
    store.apply([(n, 1, b"") for n in range(1, first)] + overwritten(first))
    store.compaction_step(0)
    store.flush()
    assert store.compacting
    return store


def settings(data: Path, members: int = 1) -> NodeSettings:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = int(s.getsockname()[1])
    common = Common(
        cluster_id=7,
        member_id=1,
        name="h",
        shard_count=1,
        placement_depth=2,
        log_format="console",
        peers=tuple(
            Peer(i, f"h{i}", "127.0.0.1", port, (f"http://127.0.0.1:{port}",)) for i in range(1, members + 1)
        ),
        run_dir=short_dir(),
    )
    return NodeSettings(
        common=common, shard=0, data_dir=str(data), listen_host="127.0.0.1", listen_port=port, incarnation=1
    )


def node_of(given: NodeSettings) -> Node:
    return make_node(given, NodesMachine(asyncio.get_running_loop(), given.common))


async def until_compacted(node: Node) -> None:
    async with asyncio.timeout(30):
        while node.store.compacting or not node.standing.ready:
            await asyncio.sleep(0.01)
    assert len(list(node.store.rows(b"k", b"l"))) == 1


def test_after_a_restart(tmp_path: Path) -> None:
    group = Configuration(frozenset({1}))
    log = RaftLog.open(tmp_path / "log", initial=group)
    log.append(
        [Entry(index, term, EntryKind.RECORD, data) for index, term, data in overwritten(1)],
        HardState(1, 1, 2),
    )
    log.close()
    interrupted(tmp_path / "state", 1).close()

    async def scenario() -> None:
        node = node_of(settings(tmp_path))
        node.start()
        await until_compacted(node)
        await node.stop()

    asyncio.run(scenario())


def test_after_an_install(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = node_of(settings(tmp_path / "node", 2))
        node.standing.ready = True  # a follower that serves; its peer is not there
        donor = interrupted(tmp_path / "donor", 1000)
        sink = received(donor, tmp_path / "outgoing", tmp_path / "node" / "state")
        sink.finish()
        donor.close()
        node.store.install(sink)
        assert node.store.compacting
        node.state_replaced()
        await until_compacted(node)
        node.store.close()  # its log knows nothing of all this
        node.log.close()

    (tmp_path / "node").mkdir()
    asyncio.run(scenario())
