"""Long work of a move, a step at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from node.replica.moving.steps import Steps
from tests.unit.proxy.fakes import ManualLoop


def failing(steps: int) -> Iterator[None]:
    for _ in range(steps):
        yield
    raise OSError("a disk")


@pytest.mark.parametrize("at", [0, 1, 3])
def test_work_that_raises_makes_room_for_other_work(at: int) -> None:
    """It was kept, as if it went on: no keys moved to or from this shard any more."""
    loop: Any = ManualLoop()
    loop.call_later = lambda delay_s, callback: loop.call_soon(callback)
    steps = Steps(loop, lambda: 0.0)
    done: list[str] = []

    def go() -> None:
        steps.run(failing(at), lambda: done.append("failed"))
        loop.run()

    with pytest.raises(OSError, match="a disk"):
        go()
    assert not steps.busy
    steps.run(iter([None]), lambda: done.append("whole"))
    loop.run()
    assert done == ["whole"]
    assert not steps.busy
