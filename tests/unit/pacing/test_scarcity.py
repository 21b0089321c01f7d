"""CPUs are scarce for a loop that waits for one for much of the time that it wants to run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cluster.pacing.scarcity import LITTLE, LOOK_MS, MUCH, Cpus, Pair, Scarcity
from node.backup.giving_way import Times
from node.control_groups import Quota
from tools.muster.machine.process import place
from tools.muster.machine.process.place import cpu_wait, cpus_idle


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


def test_without_word_of_threads_idle_cpus_decide() -> None:
    scarcity = Scarcity()
    scarcity.look_at_all(0.0, 900.0, 1000.0)
    assert scarcity.scarce  # what was idle before tells nothing
    scarcity.look_at_all(LOOK_MS, 900.0 + 16 * LITTLE, 1016.0)
    assert not scarcity.scarce
    scarcity.look_at_all(2 * LOOK_MS, 900.0 + 16 * LITTLE, 1016.0)
    assert not scarcity.scarce  # no time has passed
    scarcity.look_at_all(3 * LOOK_MS, 903.0, 1032.0)
    assert scarcity.scarce


@pytest.mark.parametrize(("thread", "cpus", "scarce"), [
    ([(1.0, 0.0), (2.0, 0.0)], [], False), ([(1.0, 0.0), (2.0, 1.0)], [], True),
    ([None, None], [(5.0, 10.0), (6.0, 11.0)], False), ([None, None], [(5.0, 10.0), (5.0, 11.0)], True),
    ([None, None], [None, None], True)])
def test_a_loop_looks_at_what_its_kernel_tells(
    thread: list[Pair | None], cpus: list[Pair | None], scarce: bool,
) -> None:
    now, told, idle = [0.0], iter(thread), iter(cpus)
    loop = Cpus(lambda: now[0], lambda: next(told), lambda: next(idle))
    loop.scarce()
    now[0] = LOOK_MS / 1000
    assert loop.scarce() is scarce


def test_a_kernel_that_tells_nothing_is_asked_seldom() -> None:
    asked: list[str] = []
    loop = Cpus(lambda: 1.0, lambda: asked.append("thread"), lambda: asked.append("cpus"))
    assert [loop.scarce() for _ in range(3)] == [True] * 3
    assert asked == ["thread", "cpus"]


def test_the_kernel_tells_what_the_loops_thread_ran() -> None:
    before = cpu_wait()
    until = time.thread_time() + 0.02
    while time.thread_time() < until:
        pass
    after = cpu_wait()
    if before is None or after is None:
        pytest.skip("this kernel has no schedstat")
    assert after[0] - before[0] > 0.015


def test_a_kernel_that_says_that_nothing_ran_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "times_of", lambda pid: Times(0, 0))
    assert cpu_wait() is None


def test_the_kernel_tells_what_all_cpus_were_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "quota", lambda: None)
    told = cpus_idle()
    if told is None:
        pytest.skip("this kernel does not tell how long its CPUs were idle")
    idle_s, all_s = told
    assert 0.0 < idle_s < all_s


def test_idle_cpus_tell_nothing_where_a_quota_bounds_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "quota", lambda: Quota(2.0, Path("/")))
    assert cpus_idle() is None
