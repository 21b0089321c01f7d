"""A change of users and roles puts watches in doubt: they get nothing until a node has judged them anew, and
then all that they have missed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.wire.messages import Method, Status
from tests.unit.proxy.watch.watching import Client, World

PUT = 0
DENIED = Status.ERROR, EtcdError(errors.PERMISSION_DENIED).encode()


def revisions(client: Client, watch_id: int = 0) -> list[int]:
    return [event[0] for event in client.events(watch_id)]


class Users(World):
    """Its clients are users; questions about them are answered when a test says so."""

    def __init__(self, shards: int = 1) -> None:
        super().__init__(shards=shards)
        self.asked: list[Any] = []
        self.order = 10  # of the last change

    def client(self, user: str = "alice") -> Client:
        client = Client(self)
        client.call.principal = SimpleNamespace(user=lambda: user, said=lambda: b"")
        return client

    def change(self) -> None:
        """A node tells of a change."""
        self.order += 1
        self.net.router.principals.order_index = self.order
        self.net.context.hub.permissions.changed()

    def unjudged(self) -> None:
        """Everybody sees everything, and no leader says how far the order is."""
        leader = self.net.nodes[2]
        for _ in range(5):
            self.net.run()
            self.asked += leader.take(Method.READ_INDEX)
            for source in self.every.values():
                source.serve()
                source.send_late()
                source.apply(self.store.revision)
            self.net.run()

    def judge(self) -> None:
        asked, self.asked = self.asked, []
        for question in asked:
            self.net.nodes[2].index(question, self.order, 1)
        self.settle()

    def deny(self) -> None:
        for source in self.every.values():
            source.verdict = DENIED


@pytest.mark.parametrize("shards", [1, 3])
def test_a_watch_gets_nothing_of_what_comes_after_a_change_until_it_is_judged(shards: int) -> None:
    world = Users(shards)
    client = world.client()
    client.create(b"a", b"z")
    world.settle()
    world.write((PUT, b"b"))
    world.change()
    for key in (b"b", b"c", b"d"):
        world.store.write((PUT, key))
        world.unjudged()
    assert revisions(client) == [2]
    world.judge()
    assert revisions(client) == [2, 3, 4, 5]
    world.write((PUT, b"b"))
    assert revisions(client) == [2, 3, 4, 5, 6]


def test_a_watch_whose_user_lost_the_permission_ends_without_what_came_after() -> None:
    world = Users()
    client, other = world.client(), world.client()
    for one in (client, other):
        one.create(b"a", b"z")
        one.create(b"a", b"z", start=5)  # ahead
    world.settle()
    world.write((PUT, b"b"))
    world.change()
    world.deny()
    for _ in range(4):
        world.store.write((PUT, b"b"))
        world.unjudged()
    world.judge()
    for one in (client, other):
        assert revisions(one) == [2]
        assert revisions(one, 1) == []
        assert [r.watch_id for r in one.responses() if r.canceled] == [0, 1]
    assert not world.net.context.hub.subscriptions
    assert world.net.context.hub.rings.held_bytes == 0


def test_history_that_was_asked_for_before_a_change_is_not_delivered_after_it() -> None:
    world = Users()
    for _ in range(4):
        world.write((PUT, b"b"))
    client = world.client()
    client.create(b"b", start=2)
    for _ in range(3):
        world.net.run()
        for source in world.every.values():
            source.serve()
    assert any(source.late for source in world.every.values())
    world.change()
    world.unjudged()
    assert revisions(client) == []
    world.judge()
    assert revisions(client) == [2, 3, 4, 5]


def test_one_watch_is_released_while_others_are_still_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Very many watches, and changes one after the other, keep none from its events."""
    monkeypatch.setattr("proxy.watch.permissions._PORTION", 1)
    world = Users()
    client = world.client()
    for key in (b"a", b"b"):
        client.create(key)
    world.settle()
    world.change()
    world.store.write((PUT, b"a"), (PUT, b"b"))
    world.unjudged()
    (question,) = world.asked
    world.asked.clear()
    world.net.nodes[2].index(question, 1, 1)
    world.unjudged()
    assert (revisions(client, 0), revisions(client, 1)) == ([2], [])
    world.change()  # the second one is asked for first
    world.store.write((PUT, b"a"), (PUT, b"b"))
    world.judge()
    assert (revisions(client, 0), revisions(client, 1)) == ([2, 3], [2, 3])


def test_a_verdict_from_before_a_change_releases_nothing() -> None:
    world = Users()
    client = world.client()
    client.create(b"b")
    world.settle()
    world.change()
    world.unjudged()
    world.change()
    world.store.write((PUT, b"b"))
    (question,) = world.asked
    world.asked.clear()
    world.net.nodes[2].index(question, 1, 1)
    world.unjudged()
    assert revisions(client) == []
    world.deny()
    world.judge()
    assert revisions(client) == []
    assert client.responses()[-1].canceled


def test_progress_waits_for_what_a_watch_in_doubt_has_missed() -> None:
    world = Users()
    client = world.client()
    client.create(b"b")
    world.settle()
    world.change()
    world.store.write((PUT, b"b"))
    world.unjudged()
    world.net.router.header(2, 1)
    client.ask_progress()
    world.unjudged()
    assert [r.watch_id for r in client.responses()] == [0]
    world.judge()
    world.net.pass_time(0.3)
    assert [(r.watch_id, len(r.events)) for r in client.responses()] == [(0, 0), (0, 1), (-1, 0)]


def test_a_watch_that_joins_those_in_doubt_gets_its_events_at_once() -> None:
    """Its user has just been judged for the same range; others' watches wait."""
    world = Users()
    first, other = world.client(), world.client("bob")
    first.create(b"b")
    other.create(b"b")
    world.settle()
    world.change()
    first.create(b"b")
    world.unjudged()
    (question, *rest) = world.asked
    world.asked.clear()
    world.net.nodes[2].index(question, 1, 1)
    world.unjudged()
    world.store.write((PUT, b"b"))
    world.judge()
    assert revisions(first, 0) == revisions(first, 1) == revisions(other) == [2]
    assert not rest
    hub = world.net.context.hub
    assert not any(stream.wary for stream in hub.streams)


def test_a_client_that_does_not_read_meanwhile_gets_all_in_the_end() -> None:
    world = Users()
    client = world.client()
    client.create(b"b")
    world.settle()
    client.call.reads, client.call.unread = False, 2 << 20
    world.write((PUT, b"b"))
    world.write((PUT, b"b"))
    world.change()
    world.write((PUT, b"b"))
    client.call.read_all()
    world.settle()
    assert revisions(client) == [2, 3, 4]


def test_changes_that_come_quicker_than_verdicts_stop_no_watch() -> None:
    """A verdict covers all changes that its read waited for, also those since it was asked for."""
    world = Users()
    client = world.client()
    client.create(b"a", b"z")
    world.settle()
    world.change()
    world.unjudged()
    for _ in range(10):
        world.store.write((PUT, b"b"))
        asked, world.asked = world.asked, []
        world.change()
        for question in asked:
            world.net.nodes[2].index(question, world.order, 1)
        world.unjudged()
    assert revisions(client)[:9] == [*range(2, 11)]
    world.judge()
    assert revisions(client) == [*range(2, 12)]


@pytest.mark.parametrize("permitted", [True, False])
def test_a_verdict_of_many_watches_is_carried_out_in_turns(
    permitted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 streams that had missed 1,000 events each took 1.3 s of one turn."""
    monkeypatch.setattr("proxy.watch.permissions._RELEASES", 1)
    world = Users()
    clients = [world.client() for _ in range(4)]
    for client in clients:
        client.create(b"a", b"z")
    world.settle()
    world.change()
    if not permitted:
        world.deny()
    world.store.write((PUT, b"b"))
    world.unjudged()
    permissions, turns = world.net.context.hub.permissions, []
    carry_out = permissions._carry_out

    def carried_out(left: Any, *verdict: Any) -> None:
        turns.append(len(left))
        carry_out(left, *verdict)

    monkeypatch.setattr(permissions, "_carry_out", carried_out)
    world.judge()
    assert turns == [4, 3, 2, 1]
    assert [revisions(client) for client in clients] == [[2] if permitted else []] * 4
    assert [any(r.canceled for r in client.responses()) for client in clients] == [not permitted] * 4
