"""A defragmentation that its disk has no room for is refused, and the next one is done."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from cluster.errors import EtcdError
from cluster.wire.messages import Status
from node.storage import NoRoom
from node.upkeep.space.defragments import Defragments
from tests.unit.machines import machine_on


def test_who_asks_for_what_has_no_room_is_told_how_much_that_is_and_the_node_goes_on() -> None:
    failures = [NoRoom("may need 2 bytes of the disk, and 1 are free")]
    answers: list[tuple[int, int, bytes]] = []

    def defragment() -> None:
        if failures:
            raise failures.pop()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        node: Any = SimpleNamespace(
            machine=machine_on(loop), loop=loop, settings=SimpleNamespace(shard=0),
            raft=SimpleNamespace(term=1), stopping=False,
            store=SimpleNamespace(defragment=defragment, size_bytes=lambda: 2, revision=1),
            upkeep=SimpleNamespace(quota=SimpleNamespace(in_use=lambda: None)), mark_dirty=lambda link: None)
        link: Any = SimpleNamespace(alive=True, answer=lambda *answer: answers.append(answer))
        defragments = Defragments(node)
        defragments.ask(link, 1)
        defragments.ask(link, 2)  # shares the next one
        while len(answers) < 2:
            await asyncio.sleep(0.001)
        defragments.close()

    asyncio.run(asyncio.wait_for(run(), 10))
    assert [(rid, status) for rid, status, _ in answers] == [(1, Status.ERROR), (2, Status.OK)]
    assert EtcdError.decode(answers[0][2]).text == "may need 2 bytes of the disk, and 1 are free"
