"""Long work leaves the CPU to others while there are any, and only then."""

from __future__ import annotations

from typing import Any

import pytest

from node.slicing import slicer
from node.slicing.slicer import Slicer, Slices
from node.slicing.yielding import Others
from tests.unit.proxy.fakes import ManualLoop


class Node:
    """A slicer whose every slice is one step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(slicer, "SLICE_S", 0.0)
        monkeypatch.setattr(slicer, "BESIDE_SLICE_S", 0.0)
        self.loop = ManualLoop()
        self.written = 0
        loop: Any = self.loop
        self.slicer = Slicer(loop, lambda: self.written)
        self.steps: list[str] = []
        self.pauses = 0

    def work(self, name: str, steps: int) -> Slices:
        for _ in range(steps):
            self.steps.append(name)
            yield

    def begin(self, name: str, steps: int) -> None:
        self.slicer.start(self.work(name, steps))
        self.loop.run()

    def pass_pause(self) -> None:
        later, self.loop.later = self.loop.later, []
        self.pauses += len(later)
        for callback in later:
            callback()
        self.loop.run()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr("node.slicing.yielding._HOLD_S", 3600.0)
    return Node(monkeypatch)


def test_without_writes_long_work_never_pauses(node: Node) -> None:
    node.slicer = Slicer(node.slicer._loop)
    node.begin("range", 100)
    assert len(node.steps) == 100
    assert node.loop.later == []


def test_beside_writes_long_work_pauses_after_every_second_slice_once_it_is_long(node: Node) -> None:
    node.written = 1
    node.begin("range", 100)
    begun = len(node.steps)
    assert 1 < begun < 10
    for pause in range(1, 11):
        assert len(node.loop.later) == 1
        node.pass_pause()
        assert len(node.steps) == begun + slicer._BURST * pause
    assert node.slicer.pending == 1


def test_between_two_slices_of_long_work_the_loop_is_served(node: Node) -> None:
    node.written = 1
    node.begin("long", 100)
    node.steps.clear()
    later, node.loop.later = node.loop.later, []
    for callback in later:
        callback()
    assert node.steps == ["long"], "the next slice is another turn's"
    node.loop.run()
    assert node.steps == ["long"] * 2


def test_parts_of_something_long_pause_together_as_one_whole_would(node: Node) -> None:
    node.written = 1
    for _ in range(20):
        node.slicer.start(node.work("part", 1), part=True)
        node.loop.run()
        while node.slicer.pending:
            node.pass_pause()
    # a part is two slices, the second of which finds its end
    assert (len(node.steps), node.slicer.slices) == (20, 40)
    assert node.pauses == 40 // slicer._BURST


def test_beside_writes_slices_are_shorter_and_begin_no_step_that_would_end_far_behind(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    node.slicer = Slicer(node.slicer._loop, lambda: node.written, lambda: now)
    monkeypatch.setattr(slicer, "BESIDE_SLICE_S", 0.2)
    monkeypatch.setattr(slicer, "SLICE_S", 0.4)

    def work(step_s: float) -> Slices:
        nonlocal now
        while True:
            node.steps.append("step")
            now += step_s
            yield

    def steps_of_a_slice(step_s: float) -> int:
        node.steps.clear()
        assert node.slicer._goes_on(work(step_s), node.slicer._slice_s())
        return len(node.steps)

    node.written = 1
    assert [steps_of_a_slice(s) for s in (0.01, 0.09, 0.15, 0.5)] == [20, 2, 1, 1]
    node.slicer = Slicer(node.slicer._loop, perf_counter=lambda: now)
    assert [steps_of_a_slice(s) for s in (0.01, 0.09, 0.15, 0.5)] == [40, 4, 3, 1]


def test_short_work_does_not_wait_for_the_pause_of_long_work(node: Node) -> None:
    node.written = 1
    node.begin("long", 100)
    node.steps.clear()
    node.begin("short", 2)
    assert node.steps == ["short", "short"]
    node.begin("another long", 100)
    node.steps.clear()
    for _ in range(10):
        assert len(node.loop.later) == 1, "one pause for all of them"
        node.pass_pause()
    assert sorted(node.steps) == ["another long"] * 5 * slicer._BURST + ["long"] * 5 * slicer._BURST


def test_work_that_ends_in_a_pause_leaves_nothing_behind(node: Node) -> None:
    node.written = 1
    node.begin("long", 12)
    while node.loop.later:
        node.pass_pause()
    assert (len(node.steps), node.slicer.pending) == (12, 0)
    node.begin("long", 12)
    while node.loop.later:
        node.pass_pause()
    assert len(node.steps) == 24


def test_others_are_about_for_a_while_after_each_request() -> None:
    now, done = 0.0, 0
    others = Others(lambda: now, lambda: done)
    assert others.about()  # something was done since the question before it, of which there is none
    now = 0.1
    assert not others.about()
    done = 1
    now = 0.2
    assert others.about()
    now = 0.21
    assert others.about()
    now = 0.23
    assert not others.about()
