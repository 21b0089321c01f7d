"""Polls of clients at a front: how their waits begin, and how they end (proxy.v2.waiting.waits)."""

from __future__ import annotations

import orjson

from cluster.features.v2.events import encode_news, index_of
from cluster.features.v2.requests import Answer, Scan, split_read
from cluster.features.v2.text import LONG_BYTES
from cluster.wire.messages import HEAD, READ, Method
from proxy.http.requests import HttpRequest
from proxy.v2.waiting.feed import Feed
from proxy.v2.waiting.waits import Waits
from tests.garbage import no_garbage
from tests.unit.proxy.fakes import Net
from tests.unit.v2.requests.waiting.feeding import Router, events_of, news


class Poll(HttpRequest):
    """A long poll, whose answer nobody reads."""

    def __init__(self) -> None:
        super().__init__("GET", "/v2/keys/k", "wait=true", {}, b"", "peer")
        self.index: int | None = None  # of its answer's head
        self.told = b""

    def begin(self, answer: Answer | None) -> bool:
        self.index = answer.index if answer is not None else None
        return True

    def write(self, chunk: bytes) -> None:
        self.told += chunk

    def pending_bytes(self) -> int:
        return 0

    def end(self) -> None:
        self.closed = True


def test_nothing_of_waits_that_have_ended_is_left_to_the_garbage_collector() -> None:
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    waits = Waits(feed, 10, 1 << 20)
    link, row = router.routes[0].replica, events_of([b"1"])[0]
    with no_garbage("proxy", "tests"):
        for poll in (Poll(), Poll()):
            waits.add(poll, b"/1/k", False, False, 0, poll.begin, None, False)
        assert poll.on_close is not None
        poll.closed = True
        poll.on_close(poll)  # the client goes away
        for _, waiting in router.sent:
            waiting.then(waiting, 0, bytes(HEAD.size) + Answer(0, b"").encode())
        router.v2_news(link, encode_news(4, False, [(row, ())]))
        router.sent.clear()
        del poll, waiting
        assert not len(waits)


def test_a_poll_that_waits_anew_is_still_ended_by_its_client() -> None:
    """As one that has to prove who it is."""
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    waits, poll = Waits(feed, 10, 1 << 20), Poll()

    def anew(answer: Answer | None) -> bool:
        waits.add(poll, b"/1/k", False, False, 0, poll.begin, None, False)
        return False

    waits.add(poll, b"/1/k", False, False, 0, anew, None, False)
    ((_, waiting),) = router.sent
    assert waiting.then is not None
    waiting.then(waiting, 0, bytes(HEAD.size) + Answer(0, b"").encode())
    assert len(waits) == 1
    assert poll.on_close is not None
    poll.closed = True
    poll.on_close(poll)
    assert not len(waits)


def test_a_wait_that_ends_before_it_began_has_no_index() -> None:
    """Its client would be told of what was before it."""
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    feed.shown(4)
    waits, begun, late = Waits(feed, 10, 1 << 20), Poll(), Poll()
    for poll in (begun, late):
        waits.add(poll, b"/1/k", False, False, 0, poll.begin, None, False)
    _, waiting = router.sent[0]
    assert waiting.then is not None
    waiting.then(waiting, 0, bytes(HEAD.size) + Answer(9, b"").encode())
    waits.end()
    assert (begun.index, late.index) == (9, 0)
    router.routes[0].replica.closed = True
    for half_closed in (late := Poll(), begun := Poll()):
        half_closed.half_closed = half_closed is late
        waits.add(half_closed, b"/1/k", False, False, 0, half_closed.begin, None, False)
    assert len(waits) == 1
    assert late.index == 0


def test_a_wait_for_the_next_event_begins_behind_what_its_host_has_shown() -> None:
    """A host that lagged by more than a node's patience told a client of its own set, as news."""
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    waits, next_one, third = Waits(feed, 10, 1 << 20), Poll(), Poll()
    rows = events_of([b"%d" % number for number in range(6)])
    feed.shown(index_of(rows[4]))
    waits.add(next_one, b"/1/k", False, False, 0, next_one.begin, None, False)
    waits.add(third, b"/1/k", False, False, index_of(rows[2]), third.begin, None, False)
    for _, waiting in router.sent:
        assert waiting.then is not None
        waiting.then(waiting, 0, bytes(HEAD.size) + Answer(index_of(rows[1]), b"").encode())
    assert (next_one.index, third.index) == (index_of(rows[4]), index_of(rows[1]))
    router.v2_news(router.routes[0].replica, news(rows[2:]))
    while router.soon:
        router.turn()
    assert [orjson.loads(poll.told)["node"]["value"] for poll in (next_one, third)] == ["5", "2"]


def test_a_wait_for_the_next_event_is_begun_once_the_replica_has_what_was_in_order() -> None:
    """A host that had just started told of what was before its start, as its log was read."""
    net = Net().started(leader=2)
    net.router.recent.knows = False
    feed, node = Feed(net.router), net.nodes[1]
    waits, (now, gone, third, ended) = Waits(feed, 10, 1 << 20), [Poll() for _ in range(4)]
    for poll, since in ((now, 0), (gone, 0), (third, 7)):
        waits.add(poll, b"/1/k", False, False, since, poll.begin, None, False)
    ended.half_closed = True
    waits.add(ended, b"/1/k", False, False, 0, ended.begin, None, False)
    assert (ended.index, ended.closed) == (0, True), "nothing is waited for"
    gone.closed = True
    assert gone.on_close is not None
    gone.on_close(gone)
    feed.tick(1)  # all look back once a node is followed
    net.run()
    (asked,) = node.take(Method.V2_READ)
    assert Scan.decode(split_read(asked.body[READ.size :])[2]).since == 7
    (question,) = net.nodes[2].take(Method.READ_INDEX)
    net.nodes[2].index(question, 5000)
    net.run()
    assert node.take(Method.V2_READ) == []
    node.applied = 5000
    node.say_state()
    net.run()
    (asked,) = node.take(Method.V2_READ)
    node.ok(asked, tail=Answer(9, b"").encode())
    net.run()
    assert now.index == 9


def test_an_event_that_was_found_is_not_told_once_guests_may_see_nothing() -> None:
    """The waits end as the first user is enabled. Those that begin once users are disabled go on."""
    router = Router()
    waits, found, later = Waits(Feed(router), 10, 1 << 20), Poll(), Poll()  # type: ignore[arg-type]
    for poll, value in ((found, b"x" * 2 * LONG_BYTES), (later, b"short")):
        waits.add(poll, b"/1/k", False, poll is later, 1, poll.begin, None, False)
        _, waiting = router.sent.pop()
        assert waiting.then is not None
        waiting.then(waiting, 0, bytes(HEAD.size) + Answer(9, events_of([value])[0]).encode())
        if poll is found:
            waits.end()
        while router.soon:
            router.turn()
    assert (found.index, found.closed, found.told) == (9, True, b"")
    assert (b"short" in later.told, later.closed) == (True, False)
