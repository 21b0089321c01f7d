"""Who waits for an answer, and what a mistake in taking it ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cluster.errors import INTERNAL_FAULT
from cluster.faults import faults
from cluster.wire.messages import READ_INDEX_ANSWER, Method, Status
from proxy.routing.waiting import READ_ANY, MethodStats, PartWaiting, Waiting
from tests.unit.proxy.fakes import Net


def test_a_mistake_in_taking_an_answer_ends_that_call_alone() -> None:
    def mistaken(*args: Any) -> None:
        raise KeyError("a mistake")

    finished: list[tuple[int, str]] = []
    call = SimpleNamespace(closed=False, finish=lambda code, text: finished.append((code, text)))
    stats = MethodStats()
    for client in (call, None):
        waiting = Waiting(client, Method.HASH_KV, b"", 0, READ_ANY, 0.0, 1.0, stats)
        waiting.calls(mistaken).tell(Status.OK, b"")
    assert finished == [(INTERNAL_FAULT.code, INTERNAL_FAULT.text)]
    assert stats.codes == {INTERNAL_FAULT.code: 1}
    assert [where for where, _ in faults.take()] == ["answering HASH_KV"]


def test_a_mistake_in_taking_a_part_ends_the_call_that_it_is_a_part_of() -> None:
    def mistaken(*args: Any) -> None:
        raise KeyError("a mistake")

    finished: list[int] = []
    call = SimpleNamespace(closed=False, finish=lambda code, text: finished.append(code))
    part = PartWaiting(call, Method.RANGE, b"", 0, READ_ANY, 0.0, 1.0, MethodStats())
    part.calls(mistaken).tell(Status.OK, b"")
    assert finished == [INTERNAL_FAULT.code]
    assert [where for where, _ in faults.take()] == ["answering RANGE"]


def test_a_mistake_with_a_read_index_leaves_the_round_to_the_other_reads() -> None:
    def mistaken(*args: Any) -> None:
        raise KeyError("a mistake")

    net, told = Net().started(), list[int]()
    net.router.index(mistaken)
    net.router.index(lambda waiting, status, body: told.append(status))
    net.run()
    (question,) = net.nodes[1].take(Method.READ_INDEX)
    net.nodes[1].answer(question.rid, Status.OK, READ_INDEX_ANSWER.pack(5, 7, 1))
    net.run()
    assert told == [Status.OK]
    assert [where for where, _ in faults.take()] == ["answering READ_INDEX"]
