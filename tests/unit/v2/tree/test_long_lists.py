"""A long list of version 2 is read in slices from its beginning, and its front hears that it goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cluster.features.v2.changes import evaluate
from cluster.features.v2.requests import Answer, Get, Kind, Op, Write, read_body
from cluster.features.v2.shown import Listing, get_json
from cluster.features.v2.tree import KEYS, Tree
from cluster.wire.messages import Status
from node.serving import v2
from node.serving.v2 import V2Tree
from tests.unit.v2.tree.random_writes import NOW_NS


class Node:
    """A replica whose long reads a test runs."""

    def __init__(self) -> None:
        self.works: list[Any] = []
        self.said: list[tuple[int, bytes]] = []
        guard = SimpleNamespace(state=SimpleNamespace(enabled=False))
        node: Any = SimpleNamespace(
            store=SimpleNamespace(feature_rows=lambda _: [], revision=5), raft=SimpleNamespace(term=1),
            applied_index=7, guard=guard, mark_dirty=lambda link: None,
            reads=SimpleNamespace(start=lambda link, rid, work: self.works.append(work)))
        self.v2 = V2Tree(node)
        self._writer = Tree(keep_events=False)
        self._link: Any = SimpleNamespace(
            member_id=1, ok=lambda rid, revision, term, body: self.said.append((Status.OK, body)),
            answer=lambda rid, status, body: self.said.append((status, body)))

    def put(self, path: bytes, value: bytes = b"v") -> None:
        rows = evaluate(self._writer, Write(Op.SET, KEYS + path, value, now_ns=NOW_NS)).rows
        self._writer.take(rows)
        self.v2.tree.take(rows)

    def ask(self, path: bytes, *, recursive: bool) -> None:
        get = Get(KEYS + path, recursive, True, NOW_NS, None, False)
        self.v2.read(self._link, 1, read_body(Kind.GET, 0, get.encode()))

    def shows(self, path: bytes, *, recursive: bool) -> bytes:
        return get_json(self.v2.tree.find(KEYS + path), KEYS, recursive, True, NOW_NS)


def test_nothing_is_looked_at_before_its_turn_and_signs_are_given(monkeypatch: Any) -> None:
    """Each look at 100,000 directories took 0.1 s of the turn in which its request came; lists that went on
    at the same time all ended after 7 s, with nothing said until then."""
    node = Node()
    for number in range(3000):
        node.put(b"/%d/a" % number)
    made: list[Listing] = []

    class Counted(Listing):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(v2, "Listing", Counted)
    monkeypatch.setattr(v2, "_SLICE", 20)
    for _ in range(2):
        node.ask(b"", recursive=True)
    assert not made
    expected, index = node.shows(b"", recursive=True), node.v2.tree.index
    for work in node.works:
        next(work)
    assert len(made) == 2
    node.put(b"/late")  # it shows one moment
    for work in node.works:
        for _ in work:
            pass
    *signs, (status, body) = node.said
    assert [status for status, _ in signs].count(Status.PARTIAL) >= 4
    assert {body for status, body in signs if status == Status.PARTIAL} == {b""}
    assert status == Status.OK
    answer = Answer.decode(body)
    assert (answer.index, answer.body) == (index, expected)


def test_a_short_list_is_answered_at_once() -> None:
    node = Node()
    node.put(b"/dir/a")
    node.ask(b"/dir", recursive=False)
    assert not node.works
    ((status, body),) = node.said
    assert status == Status.OK
    assert Answer.decode(body).body == node.shows(b"/dir", recursive=False)


def test_few_nodes_of_long_values_are_a_long_list() -> None:
    node = Node()
    for number in range(8):
        node.put(b"/dir/%d" % number, b"v" * 1_000_000)
    node.ask(b"/dir", recursive=False)
    (work,) = node.works
    for _ in work:
        pass
    status, body = node.said[-1]
    assert status == Status.OK
    assert Answer.decode(body).body == node.shows(b"/dir", recursive=False)


def test_what_is_gone_when_its_turn_comes_is_not_found() -> None:
    node = Node()
    node.put(b"/dir/a")
    node.ask(b"/dir", recursive=True)
    rows = evaluate(node._writer, Write(Op.DELETE, KEYS + b"/dir", recursive=True, now_ns=NOW_NS)).rows
    node.v2.tree.take(rows)
    for _ in node.works[0]:
        pass
    ((status, body),) = node.said
    assert status == Status.OK
    assert Answer.decode(body).code == 100
