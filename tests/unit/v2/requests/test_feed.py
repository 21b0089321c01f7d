"""Those who wait at a front, when the node that told them of changes is gone (proxy.v2.waiting.feed)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from cluster.faults import faults
from cluster.features.v2.changes import evaluate
from cluster.features.v2.events import encode_news, index_of
from cluster.features.v2.refusals import Code, V2Error
from cluster.features.v2.requests import Answer, Op, Scan, Who, Write, split_read
from cluster.features.v2.text import LONG_BYTES
from cluster.features.v2.tree import KEYS, Tree
from cluster.features.v2.user_changes import UserChange, UserOp, UserWish, changed
from cluster.wire.messages import HEAD, READ, Method
from proxy.http.requests import HttpRequest
from proxy.routing.router import Waiting
from proxy.v2.waiting.feed import Feed, Fired, Waiter
from proxy.v2.waiting.waits import Waits
from tests.garbage import no_garbage
from tests.unit.proxy.fakes import Net


class Router:
    """What a feed asks of its router. Sends nothing, and keeps what is sent."""

    limit_s = 7.0
    quiet = None
    v2_news: Any = None

    def __init__(self) -> None:
        self.routes = [SimpleNamespace(replica=self.link())]
        self.recent = SimpleNamespace(stands=lambda link: True)
        self.later: list[Callable[[], object]] = []
        self.soon: list[Callable[[], object]] = []
        self.loop = SimpleNamespace(
            time=lambda: 0.0, call_later=lambda _, then: self.later.append(then), call_soon=self.soon.append)
        self.sent: list[tuple[Any, Waiting]] = []
        self.posted: list[tuple[Any, int, bytes]] = []

    @staticmethod
    def link() -> Any:
        return SimpleNamespace(closed=False)

    def turn(self) -> None:
        """A turn of the loop."""
        soon = self.soon[:]
        del self.soon[:]
        for callback in soon:
            callback()

    def send(self, link: Any, waiting: Waiting) -> None:
        self.sent.append((link, waiting))

    def answer(self, waiter: Waiter, answer: Answer) -> None:
        """To the last look back of this one."""
        waiting = [waiting for _, waiting in self.sent if waiting.context[0] is waiter][-1]
        assert waiting.then is not None
        waiting.then(waiting, 0, bytes(HEAD.size) + answer.encode())

    def post(self, link: Any, rid: int, method: int, body: bytes) -> None:
        self.posted.append((link, method, body))


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


def events_of(values: list[bytes]) -> list[bytes]:
    """The rows of the events of these sets of one key."""
    tree, found = Tree(), []
    for value in values:
        rows = evaluate(tree, Write(Op.SET, KEYS + b"/k", value)).rows
        tree.take(rows)
        found += [row for name, row in rows if name[:1] == b"h" and row is not None]
    return found


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


def news(rows: list[bytes]) -> bytes:
    """A frame of these events."""
    return encode_news(index_of(rows[-1]), False, [(row, ()) for row in rows])


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


def looked(router: Router, waiter: Waiter | None = None) -> int:
    """From where the last look back was."""
    found = [waiting for _, waiting in router.sent if waiter in (None, waiting.context[0])]
    return Scan.decode(split_read(found[-1].body)[2]).since


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
