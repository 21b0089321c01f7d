"""Progress of watches, asked for and periodic, through the real hub, router and frames."""

from __future__ import annotations

import pytest

from proxy.routing.reads.shared import Shared
from proxy.watch.cohort import Cohort
from proxy.watch.progress import ProgressRequests
from proxy.watch.stream import WatchStream
from tests.unit.proxy.watch.watching import Client, World

PUT = 0


def test_progress_asked_for_promises_what_was_delivered_and_is_not_given_while_anybody_lags() -> None:
    world = World()
    client = Client(world)
    client.ask_progress()
    world.net.run()
    assert client.responses() == []  # no watcher, no answer
    client.create(b"k")
    world.settle()
    for _ in range(3):
        world.write((PUT, b"other"))
    client.fresh()
    client.ask_progress()
    world.net.run()
    (progress,) = client.fresh()
    assert progress.watch_id == -1
    assert progress.header.revision == 4
    assert not progress.events
    client.create(b"other", start=2)
    client.fresh()
    client.ask_progress()  # the second watch reads history still
    world.net.run()
    assert client.fresh() == []
    world.settle()
    world.net.pass_time(0.1)
    assert [r.watch_id for r in client.fresh()] == [1, -1]
    client.create(b"k", start=1000)
    client.fresh()
    client.ask_progress()  # a watch from the future: not reached yet
    world.net.pass_time(0.1)
    assert client.fresh() == []


@pytest.mark.parametrize("shards", [1, 3])
def test_progress_is_not_older_than_what_this_front_told_anyone_before(shards: int) -> None:
    world = World(shards=shards)
    client = Client(world)
    client.create(b"/", b"0")
    client.create(b"/", b"0", prev_kv=True)
    world.settle()
    revision = world.store.write((PUT, b"/x"))
    world.net.router.header(revision, 1)  # the put was answered; its events have not arrived here
    client.fresh()
    client.ask_progress()
    world.net.pass_time(0.3)
    assert client.fresh() == [], "events up to the promised revision are not sent yet"
    world.settle()
    *events, progress = client.fresh()
    assert sorted((r.watch_id, r.header.revision) for r in events) == [(0, revision), (1, revision)]
    assert (progress.watch_id, progress.header.revision) == (-1, revision)


def test_progress_is_not_older_than_what_another_front_of_the_host_told_anyone_before() -> None:
    page, world = bytearray(48), World()
    world.net.router.shared, other = Shared(page, 0, 2), Shared(page, 1, 2)
    client = Client(world)
    client.create(b"k")
    world.settle()
    revision = world.store.write((PUT, b"k"))
    other.show(revision)
    client.fresh()
    client.ask_progress()
    world.net.run()
    assert client.fresh() == []
    world.settle()
    event, progress = client.fresh()
    assert (event.watch_id, progress.watch_id) == (0, -1)
    assert event.header.revision == progress.header.revision == revision


@pytest.mark.parametrize("asked", [2, 10, 200, 10_000])
def test_each_progress_request_of_a_stream_has_an_answer_up_to_a_limit(asked: int) -> None:
    """A client that sends two and waits for two hung."""
    world = World()
    client = Client(world)
    client.create(b"k")
    world.settle()
    world.write((PUT, b"other"))
    client.fresh()
    for _ in range(asked):
        client.ask_progress()
    world.net.run()
    assert [(r.watch_id, r.header.revision) for r in client.fresh()] == [(-1, 2)] * min(asked, 200)
    client.ask_progress()
    world.net.run()
    assert [r.watch_id for r in client.fresh()] == [-1]


def test_progress_requests_that_wait_share_a_look_and_later_ones_do_not_put_it_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    client = Client(world)
    client.create(b"k")
    world.settle()
    looks = []
    tell = WatchStream.tell_progress
    monkeypatch.setattr(
        WatchStream, "tell_progress", lambda stream, owed: looks.append(owed) or tell(stream, owed)
    )
    for _ in range(3):
        world.net.router.header(world.store.write((PUT, b"k")), 1)
        for _ in range(10_000):
            client.ask_progress()
    client.fresh()
    world.net.run()
    assert looks == [2]
    world.sources[1].serve()
    world.sources[1].apply(2)
    world.net.run()
    # the event; the first requests' answers, each its own
    assert [r.header.revision for r in client.fresh()] == [2] + [2] * 199
    world.settle()
    assert [(r.watch_id, r.header.revision) for r in client.fresh() if not r.events] == [(-1, 4)]
    assert len(looks) < 10


def test_requests_that_come_faster_than_a_watermark_follows_have_an_answer_each() -> None:
    """All but one waited for the newest request's revision: at last there were more than are kept."""
    world = World()
    client = Client(world)
    client.create(b"k")
    world.settle()
    client.fresh()
    answered = 0
    for asked in range(1, 601):
        revision = world.store.write((PUT, b"other"))
        world.net.router.header(revision, 1)
        client.ask_progress()
        world.sources[1].serve()
        world.sources[1].apply(max(revision - 5, 1))
        world.net.run()
        answered += len(client.fresh())
        assert asked - answered <= 5
    world.settle()
    assert answered + len(client.fresh()) == 600


def test_a_request_that_a_later_watch_leaves_unanswered_takes_none_behind_it_along() -> None:
    """etcd is silent for a request alone that comes below the revision where a watch begins."""
    world = World()
    client = Client(world)
    client.create(b"k", start=3)
    world.settle()
    for _ in range(2):
        world.net.router.header(world.store.write((PUT, b"other")), 1)
        client.ask_progress()
    client.fresh()
    world.net.run()
    assert client.fresh() == []
    world.sources[1].apply(2)
    world.net.run()
    assert client.fresh() == [], "the watch begins later"
    world.settle()
    assert [(r.watch_id, r.header.revision) for r in client.fresh()] == [(-1, 3)]
    assert not world.net.context.hub._progress._due


@pytest.mark.parametrize("leaves", [False, True])
def test_a_turn_answers_so_many_requests_of_all_streams_each_in_its_turn(
    leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60,000 answers of JSON streams took one turn of 0.6 s."""
    world = World()
    clients = [Client(world) for _ in range(8)]
    for client in clients:
        client.create(b"k")
    world.settle()
    revision = world.store.write((PUT, b"other"))
    world.net.router.header(revision, 1)
    for client in clients:
        client.fresh()
        for _ in range(200):
            client.ask_progress()
    world.net.run()
    assert not any(client.fresh() for client in clients)
    turns: list[int] = []
    answer, told = ProgressRequests._answer, lambda: sum(len(client.fresh()) for client in clients)

    def counted(progress: ProgressRequests) -> None:
        answer(progress)
        turns.append(told())
        if leaves and len(turns) == 1:
            clients[-1].leave()  # with its answers still due

    monkeypatch.setattr(ProgressRequests, "_answer", counted)
    world.sources[1].apply(revision)
    world.net.run()
    assert [n for n in turns if n] == ([500, 500, 400] if leaves else [500, 500, 500, 100])
    assert not world.net.context.hub._progress._due


def test_a_stream_that_ends_by_an_answer_is_forgotten_with_what_is_due_to_it() -> None:
    world = World()
    client = Client(world)
    client.create(b"k")
    world.settle()
    for _ in range(2):
        world.net.router.header(world.store.write((PUT, b"other")), 1)
        client.ask_progress()
    client.call.send = lambda *parts: client.leave()
    world.sources[1].apply(2)
    world.net.run()
    assert client.call.closed
    assert not world.net.context.hub._progress._due


def test_very_many_watches_of_one_range_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request each 0.2 s, for 60,000 watches, made turns of half a second."""
    world = World()
    client = Client(world)
    for _ in range(1_000):
        client.create(b"k")
    world.settle()
    client.fresh()
    looks = [0]
    synced = Cohort.synced.fget  # type: ignore[attr-defined]

    def counted(self: Cohort) -> bool:
        looks[0] += 1
        return bool(synced(self))

    monkeypatch.setattr(Cohort, "synced", property(counted))
    client.ask_progress()
    world.net.run()
    assert [r.watch_id for r in client.fresh()] == [-1]
    assert looks[0] < 10


@pytest.mark.parametrize("late", [0, 500, 999])
def test_progress_that_waits_for_one_of_very_many_watches_looks_at_that_one(
    late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 100,000 ranges each watermark took 8 ms of the front's time."""
    world = World()
    client = Client(world)
    for n in range(1_000):
        client.create(b"%d" % n, start=int(n == late))
    for _ in range(5):
        world.net.run()
        world.sources[1].serve()  # what the late one asks of history is not sent
    world.net.run()
    client.ask_progress()
    world.net.run()
    looks = [0]

    def counted(self: Cohort) -> int:
        looks[0] += 1
        return object.__hash__(self)

    monkeypatch.setattr(Cohort, "__hash__", counted)
    client.fresh()
    for _ in range(10):
        world.sources[1].apply(world.store.write((PUT, b"other")))
        world.net.run()
    assert not client.fresh()
    assert looks[0] < 100
    world.settle()
    assert [(r.watch_id, r.header.revision) for r in client.fresh()] == [(-1, 11)]


def test_a_stream_that_ends_asks_for_no_progress_any_more() -> None:
    world = World()
    client = Client(world)
    client.create(b"k")
    world.settle()
    world.net.router.header(world.store.write((PUT, b"k")), 1)
    client.ask_progress()
    world.net.run()
    client.leave()
    world.settle()
    assert not world.net.context.hub._progress._due


def test_periodic_progress_skips_a_watch_that_got_events() -> None:
    world = World(progress_ms=1000)
    client = Client(world)
    client.create(b"busy", progress_notify=True)
    client.create(b"quiet", progress_notify=True)
    client.create(b"mute")
    world.settle()
    world.net.pass_time(0.1)
    world.write((PUT, b"busy"))
    client.fresh()
    world.net.pass_time(1.2)
    first = client.fresh()
    assert [(r.watch_id, r.header.revision, len(r.events)) for r in first] == [(1, 2, 0)]
    world.net.pass_time(1.2)
    assert sorted(r.watch_id for r in client.fresh()) == [0, 1]


def test_very_many_watches_of_a_stream_are_told_periodic_progress_in_many_turns() -> None:
    world = World(progress_ms=1000)
    client, leaving = Client(world), Client(world)
    for _ in range(2_000):
        client.create(b"k", progress_notify=True)
        leaving.create(b"k", progress_notify=True)
    world.settle()
    loop, hub, most = world.net.loop, world.net.context.hub, 0
    client.fresh()
    before = len(leaving.call.replies)
    loop.now += 5
    hub.tick(loop.now)
    client.cancel(1_999)
    client.fresh()
    told = []
    while loop._soon:
        loop.turn()
        some = [response.watch_id for response in client.fresh()]
        most = max(most, len(some))
        told += some
        if len(told) == 1_000:
            leaving.leave()
    assert told == list(range(1_999))
    assert most <= 200
    assert len(leaving.call.replies) == before
    assert not hub._periodic._left


def test_progress_is_never_behind_events_that_a_watch_was_sent_from_the_past() -> None:
    """A replica that is ahead of what the front has emitted answers a question for history."""
    world = World(progress_ms=1000)
    client = Client(world)
    client.create(b"k")
    world.settle()
    for _ in range(4):
        world.store.write((PUT, b"k"))
    world.sources[1].node.revision = world.store.revision  # applied, and not told yet
    client.create(b"k", start=1, progress_notify=True)
    world.settle(apply=False)
    sent = max(event.kv.mod_revision for response in client.fresh() for event in response.events)
    assert sent > 2
    client.ask_progress()
    for _ in range(3):
        world.net.pass_time(1.2)
        assert [r.header.revision for r in client.fresh() if r.header.revision < sent] == []
