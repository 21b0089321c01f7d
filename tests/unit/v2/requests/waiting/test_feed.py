"""How events reach those who wait at a front, in turns, and when they look back (proxy.v2.waiting.feed)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from cluster.faults import faults
from cluster.features.v2.changes import evaluate
from cluster.features.v2.events import encode_news, index_of
from cluster.features.v2.refusals import Code, V2Error
from cluster.features.v2.requests import Answer, Op, Scan, Who, Write, split_read
from cluster.features.v2.tree import KEYS, Tree
from cluster.features.v2.user_changes import UserChange, UserOp, UserWish, changed
from cluster.wire.messages import HEAD, Method
from proxy.v2.waiting.feed import Feed, Fired, Waiter
from tests.unit.v2.requests.waiting.feeding import Router, events_of, looked, news


def test_those_who_wait_look_back_in_turns_when_their_link_is_lost() -> None:
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    waiters = [feed.wait(b"/1/k", False, 5, False, lambda _: None, lambda _: None) for _ in range(5000)]
    router.sent.clear()
    router.routes[0].replica.closed = True
    feed.tick(0)
    assert not router.sent  # there is nobody to ask
    router.routes[0].replica = other = router.link()
    rounds = []
    feed.tick(1)
    while True:
        rounds.append(len(router.sent))
        feed.tick(2)  # in between changes nothing
        assert len(router.sent) == rounds[-1] or not router.later
        if not router.later:
            break
        router.later.pop()()
    assert rounds == [2000, 4000, 5000, 5000]
    assert all(link is other for link, _ in router.sent)
    assert len({waiting.context[0] for _, waiting in router.sent}) == 5000
    assert router.posted[-1] == (other, Method.V2_FOLLOW, b"\1")
    for waiter in waiters:
        feed.cancel(waiter)
    assert router.posted[-1] == (other, Method.V2_FOLLOW, b"\0")


def test_all_are_judged_anew_when_users_change() -> None:
    """They look back from behind what they have seen; what follows the change comes by that look."""
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    woken: list[Any] = []
    waiters = [
        feed.wait(b"/1/k", False, 0, True, lambda _: None, woken.append, Who(b"a", 7)) for _ in range(3)
    ]
    link = router.routes[0].replica
    for _, waiting in router.sent[:2]:  # the third one has no answer yet
        waiting.then(waiting, 0, bytes(HEAD.size) + Answer(5, b"").encode())
    router.sent.clear()
    tree = Tree()
    tree.index = 5
    rows = [evaluate(tree, Write(Op.SET, KEYS + b"/k", b"1")).rows]
    tree.take(rows[0])
    rows.append(changed(tree, UserChange(UserOp.PUT_USER, b"a", UserWish("h").encode()).encode())[0])
    tree.take(rows[1])
    rows.append(evaluate(tree, Write(Op.SET, KEYS + b"/k", b"2")).rows)
    events = [
        (value, ()) for taken in rows for name, value in taken if name[:1] == b"h" and value is not None
    ]
    router.v2_news(link, encode_news(tree.index + 1, False, events))
    assert [fired.event.node.value for fired in woken] == [b"1", b"1"]
    router.turn()
    scans = [Scan.decode(split_read(waiting.body)[2]) for _, waiting in router.sent]
    assert [(scan.who, scan.since) for scan in scans] == [(Who(b"a", 7), 7)] * 2 + [(Who(b"a", 7), 0)]
    denied = V2Error(Code.UNAUTHORIZED, b"Insufficient credentials")
    _, waiting = router.sent[0]
    waiting.then(waiting, 0, bytes(HEAD.size) + Answer(0, denied.json(), denied.code).encode())
    assert woken[2:] == [None]  # that wait ends
    assert [waiter.alive for waiter in waiters] == [False, True, True]


@pytest.mark.parametrize(("waits", "looks"), [(5000, 2000), (1000, 1000)])
def test_changes_of_users_one_after_the_other_have_few_waits_look_back_in_between(
    waits: int, looks: int
) -> None:
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    for _ in range(waits):
        feed.wait(b"/1/k", False, 5, False, lambda _: None, lambda _: None)
    router.sent.clear()
    tree, rounds = Tree(), []
    for number in range(100):
        rows = changed(tree, UserChange(UserOp.PUT_USER, b"%d" % number, UserWish("h").encode()).encode())[0]
        tree.take(rows)
        events = [row for name, row in rows if name[:1] == b"h" and row is not None]
        router.v2_news(router.routes[0].replica, news(events))
        router.turn()
        feed.tick(number)
        if number % 20 == 0:
            rounds.append(len(router.sent))
            (pause,) = router.later
            router.later.clear()
            pause()
    assert rounds == [looks * pauses for pauses in (1, 2, 3, 4, 5)]


WAITING = 250  # more than are woken in one turn


def crowd(feed: Feed, router: Router, stream: bool) -> tuple[list[Waiter], list[list[bytes | None]]]:
    """So many who wait, and what each of them is told."""
    told: list[list[bytes | None]] = [[] for _ in range(WAITING)]

    def teller(number: int) -> Callable[[Any], None]:
        return lambda fired: told[number].append(None if fired is None else fired.event.node.value)

    waiters = [feed.wait(b"/1/k", False, 1, stream, lambda _: None, teller(n)) for n in range(WAITING)]
    for waiter in waiters:
        router.answer(waiter, Answer(0, b""))
    router.sent.clear()
    return waiters, told


@pytest.mark.parametrize("stream", [True, False])
def test_a_look_back_does_not_overtake_an_event_that_waits_for_its_turn(stream: bool) -> None:
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    waiters, told = crowd(feed, router, stream)
    first, second = events_of([b"1", b"2"])
    link = router.routes[0].replica
    router.v2_news(link, encode_news(1, False, [(first, ())]))
    assert told[-1] == [], "its turn is to come"
    router.v2_news(link, encode_news(2, True, []))  # the node had no room for the second event
    router.soon.pop()()  # all look back
    router.answer(waiters[-1], Answer(2, second))
    while router.soon:
        router.turn()
    assert told[-1] == ([b"1", b"2"] if stream else [b"1"])
    assert told[0] == [b"1"]


def test_a_wait_that_is_ended_has_its_events_first() -> None:
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    waiters, told = crowd(feed, router, True)
    link = router.routes[0].replica
    router.v2_news(link, encode_news(1, False, [(events_of([b"1"])[0], ())]))
    router.v2_news(link, encode_news(2, True, []))
    router.soon.pop()()  # all look back
    denied = V2Error(Code.UNAUTHORIZED, b"Insufficient credentials")
    for waiter in (waiters[-1], waiters[0]):
        router.answer(waiter, Answer(0, denied.json(), denied.code))
    while router.soon:
        router.turn()
    assert told[-1] == told[0] == [b"1", None]
    assert not waiters[-1].alive
    assert not waiters[0].alive


def test_events_that_come_while_some_wait_for_their_turn_wake_no_more_in_a_turn() -> None:
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    _, told = crowd(feed, router, True)
    link = router.routes[0].replica
    for number, row in enumerate(events_of([b"%d" % number for number in range(10)])):
        router.v2_news(link, encode_news(number + 1, False, [(row, ())]))
    turns = [sum(map(len, told))]
    while router.soon:
        router.turn()
        turns.append(sum(map(len, told)))
    assert all(after - before <= 200 for before, after in pairwise(turns))
    assert all(heard == [b"%d" % number for number in range(10)] for heard in told)


@pytest.mark.parametrize("first", [b"0", b"x" * 200_000])
@pytest.mark.parametrize(("streams", "others"), [(1, 0), (1, 1000), (WAITING, 0)])
def test_streams_do_not_end_by_a_burst(streams: int, others: int, first: bytes) -> None:
    """As one frame of many events, behind lines of others, or a frame for each event."""
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    waiters, told = crowd(feed, router, True)
    for waiter in waiters[streams:]:
        feed.cancel(waiter)
    for _ in range(others):
        router.answer(feed.wait(b"/1", True, 1, False, lambda _: None, lambda _: None), Answer(0, b""))
        router.sent.clear()
    values = [first, *(b"%d" % number for number in range(1, 600))]
    rows, link = events_of(values), router.routes[0].replica
    router.v2_news(link, news(rows[:300]))
    for row in rows[300:]:
        router.v2_news(link, news([row]))
    most = 0
    while router.soon:
        router.turn()
        most = max(most, len(feed._firing))
    assert all(heard == values for heard in told[:streams])
    assert most <= 1000 + WAITING, "the others wait unsorted"


@pytest.mark.parametrize("at_once", [1, 10], ids=["", "ten in a frame"])
@pytest.mark.parametrize("streams", [20, WAITING])
def test_streams_of_more_events_than_a_front_can_send_end_as_in_etcd(streams: int, at_once: int) -> None:
    """Their events queued without end. One that ends may ask again."""
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    waiters, told = crowd(feed, router, True)
    numbers = [b"%d" % number for number in range(1200)]
    rows, link, behind, queued = events_of(numbers), router.routes[0].replica, 0, 0
    for come in range(0, len(rows), at_once):
        router.v2_news(link, news(rows[come : come + at_once]))
        if not come:
            for waiter in waiters[streams:]:
                feed.cancel(waiter)
        if come % 30 >= 30 - at_once:
            router.turn()
            frames = feed._frames
            behind = max(behind, frames[-1][0] - frames[0][0] if frames else 0)
            queued = max(queued, len(feed._firing))
    while router.soon:
        router.turn()
    assert not feed._all
    assert behind <= 600
    assert queued <= 101 * WAITING
    for heard in told[:streams]:
        assert heard.pop() is None
        assert heard == numbers[: len(heard)]
        assert len(heard) >= 100


def test_a_stream_that_catches_up_has_one_line_in_the_queue() -> None:
    """It looked back again though its last line was not sent: the queue grew by a line for each answer."""
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    crowd(feed, router, False)
    rows = events_of([b"%d" % number for number in range(50)])
    router.v2_news(router.routes[0].replica, news(rows))
    told: list[Any] = []
    stream = feed.wait(b"/1/k", False, index_of(rows[0]), True, lambda _: None, told.append)
    due = asked = 0
    while router.soon or router.sent:
        if router.sent:
            since = looked(router, stream)
            router.answer(stream, Answer(index_of(rows[-1]), b"".join(rows[since - index_of(rows[0]) :][:1])))
            del router.sent[0]
            asked += 1
        due = max(due, stream.due)
        if asked % 4 == 0 or not router.sent:  # answers come faster than turns
            router.turn()
    assert [fired.event.node.value for fired in told] == [b"%d" % number for number in range(50)]
    assert due == 1
    assert asked == 51


def test_a_turn_sorts_few_events_of_a_frame() -> None:
    """With thousands of streams, one of a hundred events held the loop for a second."""
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    _, told = crowd(feed, router, True)
    rows = events_of([b"1", b"2", b"3", b"4"])
    router.v2_news(router.routes[0].replica, encode_news(4, False, [(row, ()) for row in rows]))
    queued = [len(feed._firing) + sum(map(len, told))]
    while router.soon:
        router.turn()
        queued.append(len(feed._firing) + sum(map(len, told)))
    assert max(after - before for before, after in pairwise([0, *queued])) <= WAITING * 2
    assert all(heard == [b"1", b"2", b"3", b"4"] for heard in told)


def test_a_frame_that_is_put_off_is_not_told_once_its_link_is_lost() -> None:
    """All look back from behind what was told."""
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    _, told = crowd(feed, router, True)
    rows = events_of([b"%d" % number for number in range(9)])
    news = encode_news(index_of(rows[-1]), False, [(row, ()) for row in rows])
    router.v2_news(router.routes[0].replica, news)
    router.routes[0].replica.closed = True
    router.routes[0].replica = router.link()
    feed.tick(1)
    while router.soon:
        router.turn()
    behind = looked(router) - index_of(rows[0])
    assert 0 < behind < 9
    assert all(heard == [b"%d" % number for number in range(behind)] for heard in told)


def test_a_turn_wakes_few_waits_for_a_long_value() -> None:
    """200 waits for a value of megabytes held the loop for seconds."""
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    _, told = crowd(feed, router, False)
    (row,) = events_of([b"v" * 200_000])
    router.v2_news(router.routes[0].replica, encode_news(1, False, [(row, ())]))
    turns = [sum(map(len, told))]
    while router.soon:
        router.turn()
        turns.append(sum(map(len, told)))
    assert turns[-1] == WAITING
    assert max(after - before for before, after in pairwise(turns)) <= 3


def test_waits_for_an_event_that_cannot_be_shown_end(monkeypatch: pytest.MonkeyPatch) -> None:
    router, told = Router(), list[Any]()
    feed = Feed(router)  # type: ignore[arg-type]
    waiter = feed.wait(b"/1/k", False, 1, True, lambda _: None, told.append)
    router.answer(waiter, Answer(0, b""))

    def fails(fired: Fired) -> bool:
        raise ValueError

    monkeypatch.setattr(Fired, "made", fails)
    router.v2_news(router.routes[0].replica, encode_news(1, False, [(row, ()) for row in events_of([b"1"])]))
    router.turn()
    assert [type(error) for _, error in faults.take()] == [ValueError]
    assert told == [None]
    assert not waiter.alive


def test_a_wait_that_was_told_of_all_events_does_not_end_with_its_link() -> None:
    """The node forgets events before the last 1,000: a wait that looked back from its begin ended."""
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    started: list[Any] = []
    waiter = feed.wait(KEYS + b"/quiet", False, 3, False, started.append, lambda fired: None)
    router.answer(waiter, Answer(5, b""))
    link = router.routes[0].replica
    tree = Tree()
    tree.index = 5
    for _ in range(3):
        taken = tree.take(evaluate(tree, Write(Op.SET, KEYS + b"/busy", b"1")).rows)
        router.v2_news(link, encode_news(tree.index, False, taken))
    router.v2_news(link, encode_news(12, True, []))  # the node had no room for some
    router.turn()
    assert looked(router) == 9

    router.answer(waiter, Answer(12, b""))
    link.closed = True
    router.routes[0].replica = link = router.link()
    router.later.pop()()  # the pause is over
    assert looked(router) == 13
    router.answer(waiter, Answer(7, b""))  # this node is behind the other
    late = feed.wait(KEYS + b"/quiet", False, 0, False, started.append, lambda fired: None)
    router.answer(late, Answer(7, b""))
    router.v2_news(link, encode_news(9, True, []))
    router.later.pop()()
    assert [looked(router, of) for of in (waiter, late)] == [13, 13], "what this host has shown is past"


def test_streams_that_catch_up_hold_no_news_back() -> None:
    """Their lines kept the queue long, so no event was sorted until all of them had caught up."""
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    crowd(feed, router, False)  # 250 lines begin the queue
    live: list[Any] = []
    router.answer(feed.wait(b"/1/live", False, 1, False, lambda _: None, live.append), Answer(0, b""))
    rows = events_of([b"%d" % number for number in range(100)])
    first = index_of(rows[0])
    streams = [feed.wait(b"/1/k", False, first, True, lambda _: None, lambda _: None) for _ in range(500)]
    link = router.routes[0].replica
    router.v2_news(link, news(rows))

    def answer() -> None:
        sent = [waiting for _, waiting in router.sent if waiting.context[0] in streams]
        router.sent.clear()
        for waiting in sent:
            found = rows[waiting.context[0].since - first :][:1]
            waiting.then(waiting, 0, bytes(HEAD.size) + Answer(index_of(rows[-1]), b"".join(found)).encode())

    answer()
    tree = Tree()
    tree.index = index_of(rows[-1])
    made = evaluate(tree, Write(Op.SET, KEYS + b"/live", b"1"))
    (row,) = [row for name, row in made.rows if name[:1] == b"h"]
    router.v2_news(link, encode_news(index_of(row), False, [(row, ())]))
    turns = 0
    while not live:
        router.turn()
        answer()
        turns += 1
    assert turns < 10
