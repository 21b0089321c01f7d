"""A node that has closed: the loop goes on for some turns, and nothing in it touches the log or the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.effects import records
from node.replica.server import Node
from node.slicing.slicer import Slices
from tests.unit.node.replica.test_compaction_resumes import node_of, settings

_TURNS = 5


def tick(node: Node) -> None:
    """What the end of a shard left behind: an entry to log and apply, and a tick to do it in."""
    node.raft.propose(records.put(b"k", 0, 1, b"v", 0))
    node.wake()


def come(node: Node) -> None:
    """Something comes after the end: a sync's thread is done, a timer goes off."""
    node.loop.call_soon(tick, node)


def reads(node: Node) -> Slices:
    while True:
        list(node.store.rows(b"k", b"l"))
        yield


def piece(node: Node) -> None:
    node.slicer.start(reads(node))


def long_piece(node: Node) -> None:
    node.slicer.start(reads(node), part=True)


def lease_turn(node: Node) -> None:
    node.loop.call_soon(node.expiry.as_read, [1, 2], lambda leases: None)


def applying(node: Node) -> None:
    def work() -> Iterator[list[Any]]:
        yield from ([] for _ in reads(node))

    node.applies.run(work(), lambda applied: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("begin", [tick, come, piece, long_piece, lease_turn, applying])
def test_what_is_left_in_the_loop_does_nothing(tmp_path: Path, begin: Callable[[Node], None]) -> None:
    faults: list[Any] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        node = node_of(settings(tmp_path))
        node.start()
        async with asyncio.timeout(30):
            while not node.standing.ready:
                await asyncio.sleep(0.01)
        close = node.role.close

        def closes() -> None:
            close()
            begin(node)

        node.role.close = closes  # type: ignore[method-assign]
        await node.stop()
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    asyncio.run(scenario())
    assert not faults
