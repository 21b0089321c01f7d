"""CPUs are scarce for a loop that waits for one for much of the time that it wants to run."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import pytest

from cluster.pacing.scarcity import LOOK_MS, MUCH, Scarcity
from cluster.settings import Common
from tools.muster.machine.real import RealMachine


@pytest.mark.parametrize(("ran_s", "waited_s", "scarce"), [
    (0.1, 0.0, False), (0.1, 0.1 * MUCH, False), (0.1, 0.03, True), (0.02, 0.2, True)])
def test_the_share_of_waiting_decides(ran_s: float, waited_s: float, scarce: bool) -> None:
    scarcity = Scarcity()
    scarcity.look(1000.0, ran_s, waited_s)
    assert scarcity.scarce is scarce


def test_they_are_scarce_until_much_has_run() -> None:
    scarcity = Scarcity()
    assert scarcity.scarce
    scarcity.look(0.0, 0.002, 0.0)
    assert scarcity.scarce
    scarcity.look(LOOK_MS, 0.05, 0.0)
    assert not scarcity.scarce


def test_what_was_before_the_last_look_does_not_count() -> None:
    scarcity = Scarcity()
    scarcity.look(0.0, 100.0, 0.0)
    scarcity.look(LOOK_MS, 100.1, 0.1)
    assert scarcity.scarce
    scarcity.look(2 * LOOK_MS, 100.101, 0.1)  # it hardly ran
    assert scarcity.scarce


def test_looks_are_rare() -> None:
    scarcity = Scarcity()
    assert scarcity.due(5.0)
    scarcity.look(5.0, 1.0, 0.0)
    assert not scarcity.due(4.0 + LOOK_MS)
    assert scarcity.due(5.0 + LOOK_MS)


def test_the_kernel_tells_what_the_loops_thread_ran() -> None:
    machine = RealMachine(
        cast(asyncio.AbstractEventLoop, object()), Common(1, 1, "h", 1, 2, (), "/nowhere"))
    before = machine.cpu_wait()
    until = time.thread_time() + 0.02
    while time.thread_time() < until:
        pass
    after = machine.cpu_wait()
    if before is None or after is None:
        pytest.skip("this kernel has no schedstat")
    assert after[0] - before[0] > 0.015
    assert after[1] >= before[1]
