"""A defragmentation that its disk has no room for is refused, and the next one is done; one waits for another
shard's."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.wire.messages import Status
from node.storage import NoRoom
from node.upkeep.space import defragments
from node.upkeep.space.rewriting import Busy
from tests.unit.machines import machine_on


def test_who_asks_for_what_has_no_room_is_told_how_much_that_is_and_the_node_goes_on() -> None:
    answers = answers_after([NoRoom("may need 2 bytes of the disk, and 1 are free")])
    assert [(rid, status) for rid, status, _ in answers] == [(1, Status.ERROR), (2, Status.OK)]
    assert EtcdError.decode(answers[0][2]).text == "may need 2 bytes of the disk, and 1 are free"


def test_who_asks_while_another_shard_is_rewritten_waits_as_for_etcd(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defragments, "AGAIN_S", 0.001)
    answers = answers_after([Busy(), Busy()])
    assert [(rid, status) for rid, status, _ in answers] == [(1, Status.OK), (2, Status.OK)]


@pytest.mark.parametrize("stopping", [False, True])
def test_who_waits_at_a_node_that_ends_is_told_so_once(stopping: bool) -> None:
    """A host that was removed is not stopping yet."""
    answers: list[tuple[int, int, bytes]] = []
    goes_on = threading.Event()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        node: Any = SimpleNamespace(
            machine=machine_on(loop), loop=loop, settings=SimpleNamespace(shard=0),
            raft=SimpleNamespace(term=1), stopping=False,
            store=SimpleNamespace(size_bytes=lambda: 2, revision=1), mark_dirty=lambda link: None,
            upkeep=SimpleNamespace(quota=SimpleNamespace(in_use=lambda: None),
                                   rewriting=SimpleNamespace(rewrite=lambda: goes_on.wait(10))))
        link: Any = SimpleNamespace(alive=True, answer=lambda *answer: answers.append(answer))
        asked = defragments.Defragments(node)
        asked.ask(link, 1)
        asked.ask(link, 2)
        node.stopping = stopping
        asked.leave()
        with pytest.raises(EtcdError) as refused:
            asked.ask(link, 3)
        assert refused.value.kind is errors.STOPPED
        goes_on.set()
        while asked.running:
            await asyncio.sleep(0.001)
        asked.close()

    asyncio.run(asyncio.wait_for(run(), 10))
    assert [(rid, status) for rid, status, _ in answers] == [(1, Status.ERROR), (2, Status.ERROR)]


def answers_after(failures: list[Exception]) -> list[tuple[int, int, bytes]]:
    """To two clients that ask at once."""
    answers: list[tuple[int, int, bytes]] = []

    def rewrite() -> None:
        if failures:
            raise failures.pop()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        node: Any = SimpleNamespace(
            machine=machine_on(loop), loop=loop, settings=SimpleNamespace(shard=0),
            raft=SimpleNamespace(term=1), stopping=False,
            store=SimpleNamespace(size_bytes=lambda: 2, revision=1), mark_dirty=lambda link: None,
            upkeep=SimpleNamespace(
                quota=SimpleNamespace(in_use=lambda: None), rewriting=SimpleNamespace(rewrite=rewrite)))
        link: Any = SimpleNamespace(alive=True, answer=lambda *answer: answers.append(answer))
        asked = defragments.Defragments(node)
        asked.ask(link, 1)
        asked.ask(link, 2)  # shares the next one
        while len(answers) < 2:
            assert asked.running
            await asyncio.sleep(0.001)
        asked.close()

    asyncio.run(asyncio.wait_for(run(), 10))
    return answers
