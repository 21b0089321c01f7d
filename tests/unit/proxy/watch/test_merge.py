"""A range over several shards: merged by revision up to the lowest watermark, a revision whole (I16)."""

from __future__ import annotations

from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.wire.events import key_of
from cluster.wire.messages import Method
from cluster.wire.protobuf import key_value
from proxy.routing.links import Link
from proxy.watch.encode import BATCH_BYTES, Batch, batch_of_record
from proxy.watch.lagging.ring import Rings
from proxy.watch.parts import Part
from proxy.watch.subscription import Room, Subscription
from tests.events import Event, record
from tests.unit.kept import kept_by


class Recorder:
    """A cohort that writes down what it gets."""

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.shape = (self, 0)
        self.asking = False
        self.blocked = False
        self.got: list[tuple[int, bytes]] = []

    def deliver(self, batch: Batch) -> None:
        fresh = batch.between(self.cursor, batch.last)
        if fresh is not None:
            self.cursor = fresh.last
            keys = [key_of(bytes(view)) for view in fresh.views()]
            self.got += [(e[0], key) for e, key in zip(fresh.entries(), keys, strict=True)]


class Hub:
    """Needs nothing here: no gap, nobody lags, watermarks are told by the test."""

    def __init__(self) -> None:
        self.room = Room(1 << 20)
        self.rings = Rings(1 << 20)

    def merging(self, subscription: Subscription) -> None:
        pass

    def fill(self, subscription: Subscription, part: Part) -> None:
        raise AssertionError("no gap was made")

    def catch_up(self, subscription: Subscription, cohort: object) -> None:
        raise AssertionError("nobody lags")


class Poster:
    def post(self, link: Link, rid: int, method: int, body: bytes) -> None:
        assert method in (Method.SUBSCRIBE, Method.UNSUBSCRIBE)


def event(revision: int, key: bytes) -> Event:
    return revision, 0, key_value(key, revision, revision, 1, b"", 0), 0


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 4))
def test_i16_shards_are_merged_in_revision_order_and_a_revision_is_sent_whole(seed: int, shards: int) -> None:
    random = Random(seed)
    with patch("proxy.watch.subscription._RESPONSE_BYTES", random.choice((1, 50, 12_288))):
        merge(random, shards)


def merge(random: Random, shards: int) -> None:
    subscription = Subscription(Hub(), b"\0", b"\0", False, tuple(range(shards)), 1)
    links = [Link(None, s, 1, s, b"") for s in range(shards)]  # type: ignore[arg-type]
    for part, link in zip(subscription.parts, links, strict=True):
        part.join(link, Poster())
        part.subscribed((2).to_bytes(8, "little") + bytes(8))
    watch = Recorder(1)
    subscription.add(watch)
    # the history: each revision touches some shards, with some keys each
    top = 30
    written: dict[int, dict[int, list[bytes]]] = {
        r: {s: [b"%d-%d-%d" % (r, s, n) for n in range(random.choice((1, 2)))]
            for s in random.sample(range(shards), random.choice((0, 1, 1, shards)))}
        for r in range(2, top + 1)
    }
    at = [1] * shards
    while any(a < top for a in at):
        shard = random.choice([s for s in range(shards) if at[s] < top])
        to = random.randint(at[shard] + 1, top)
        came: list[Event] = []
        for revision in range(at[shard] + 1, to + 1):
            came += [event(revision, k) for k in written[revision].get(shard, ())]
            if came and (revision == to or random.random() < 0.5):  # a record may have several revisions
                subscription.parts[shard].events(batch_of_record(record(came)))
                subscription.advance()
                came = []
        at[shard] = to
        links[shard].watermark = to
        subscription.advance()
        low = min(at)
        whole = [(r, k) for r in range(2, low + 1) for s in sorted(written[r]) for k in written[r][s]]
        # never beyond what every shard has brought, and everything below the lowest watermark
        assert watch.got[: len(whole)] == whole
        assert all(r <= max(at) for r, _ in watch.got)
        for revision in {r for r, _ in watch.got}:
            assert [k for r, k in watch.got if r == revision] == [
                k for s in sorted(written[revision]) for k in written[revision][s]]
    assert watch.got == [(r, k) for r in sorted(written) for s in sorted(written[r]) for k in written[r][s]]
    assert subscription.through() == top


def test_i16_a_revision_that_comes_in_pieces_is_delivered_whole_and_after_those_before_it() -> None:
    subscription = Subscription(Hub(), b"\0", b"\0", False, (0,), 1)
    part, watch = subscription.parts[0], Recorder(1)
    part.join(Link(None, 0, 1, 1, b""), Poster())  # type: ignore[arg-type]
    part.subscribed((2).to_bytes(8, "little") + bytes(8))
    subscription.add(watch)

    def batch(revision: int, *keys: bytes, more: bool = False) -> Batch:
        return batch_of_record(record([event(revision, k) for k in keys], more, revision))

    part.piece(batch(3, b"a", b"b", more=True))
    part.piece(batch(3, b"c", more=True))
    assert watch.got == []
    part.events(batch(2, b"x"))
    assert watch.got == [(2, b"x")]
    part.events(batch(3))
    part.events(batch(4, b"y"))
    assert watch.got == [(2, b"x"), (3, b"a"), (3, b"b"), (3, b"c"), (4, b"y")]
    part.piece(batch(5, b"lost", more=True))
    part.leave(None)  # the node died in the midst of it: another one tells the whole
    part.join(Link(None, 0, 1, 2, b""), Poster())  # type: ignore[arg-type]
    part.subscribed((5).to_bytes(8, "little") + bytes(8))
    part.events(batch(5, b"whole"))
    assert watch.got[5:] == [(5, b"whole")]


class Filling(Hub):
    """Remembers who wants history."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self.room.limit_bytes = limit_bytes
        self.asked: list[tuple[int, int]] = []  # shard, from revision

    def fill(self, subscription: Subscription, part: Part) -> None:
        self.asked.append((part.shard, part.position + 1))


class Paired:
    """A watch over two shards; shard 1's replica stands still at revision 1 until the test moves it."""

    def __init__(self, limit_bytes: int) -> None:
        self.hub = Filling(limit_bytes)
        self.subscription = Subscription(self.hub, b"\0", b"\0", False, (0, 1), 1)
        self.ahead, self.behind = self.subscription.parts
        self.links = [Link(None, shard, 1, shard, b"") for shard in (0, 1)]  # type: ignore[arg-type]
        for part, link in zip(self.subscription.parts, self.links, strict=True):
            part.join(link, Poster())
            part.subscribed((2).to_bytes(8, "little") + bytes(8))
        self.watch = Recorder(1)
        self.subscription.add(self.watch)  # type: ignore[arg-type]

    def comes(self, part: Part, revision: int, *keys: bytes, more: bool = False) -> None:
        """EVENTS of one revision: with more to come of it, or whole, or its rest."""
        batch = batch_of_record(record([event(revision, k) for k in keys], more, revision))
        if more:
            part.piece(batch)
            return
        part.events(batch)
        self.subscription.advance()

    def moves(self, shard: int, revision: int) -> None:
        """A watermark."""
        self.links[shard].watermark = revision
        self.subscription.advance()

    def history(self, upto: int, *events: tuple[int, bytes]) -> None:
        """The answer to what the part that is ahead has asked."""
        batch = batch_of_record(record([event(r, k) for r, k in events])) if events else None
        assert self.ahead.filled(batch, upto + 1)


def test_a_shard_that_is_ahead_waits_within_bounds_and_goes_on_from_history() -> None:
    pair = Paired(8000)
    for revision in range(2, 200):
        pair.comes(pair.ahead, revision, b"key-%03d" % revision)
        pair.moves(0, revision)
    assert 8000 < pair.hub.room.held_bytes < 8000 + BATCH_BYTES + 100
    assert (pair.ahead.paused, pair.hub.room.pauses, pair.hub.asked) == (True, 1, [])
    kept = pair.ahead.position
    pair.moves(1, 3)
    assert [r for r, _ in pair.watch.got] == [2, 3]
    pair.moves(1, kept - 5)  # there is room again
    assert not pair.ahead.paused
    assert pair.hub.asked == [(0, kept + 1)]
    assert pair.subscription.through() == kept - 5
    pair.comes(pair.ahead, 200, b"live")  # what comes while history is read is held back, as after any gap
    pair.history(kept + 10, *[(r, b"key-%03d" % r) for r in range(kept + 1, kept + 11)])
    pair.history(199, *[(r, b"key-%03d" % r) for r in range(kept + 11, 200)])
    assert pair.ahead.paused, "what history brought is too much again"
    pair.moves(0, 200)
    pair.moves(1, 200)
    assert pair.hub.asked[-1] == (0, 200)  # and so what was held back meanwhile was not kept
    pair.history(200, (200, b"live"))
    assert pair.watch.got == [(r, b"key-%03d" % r) for r in range(2, 200)] + [(200, b"live")]
    assert (pair.hub.room.held_bytes, pair.subscription.through()) == (0, 200)
    assert pair.ahead.live


def test_a_shard_that_has_brought_nothing_meanwhile_goes_on_live() -> None:
    pair = Paired(0)
    pair.comes(pair.ahead, 2, b"a")
    assert pair.ahead.paused
    pair.moves(0, 5)  # no events
    pair.moves(1, 5)
    assert not pair.ahead.paused
    assert (pair.ahead.live, pair.hub.asked, pair.subscription.through()) == (True, [], 5)
    assert pair.watch.got == [(2, b"a")]


def test_the_slowest_shard_is_never_the_one_that_waits() -> None:
    pair = Paired(0)
    pair.comes(pair.ahead, 9, b"z")
    for revision in range(2, 9):
        pair.comes(pair.behind, revision, b"a")
        assert not pair.behind.paused
        assert [r for r, _ in pair.watch.got] == list(range(2, revision + 1))
    pair.moves(1, 9)
    assert pair.watch.got[-1] == (9, b"z")


def test_i16_a_revision_in_pieces_is_whole_whenever_its_shard_is_paused_and_goes_on() -> None:
    for pieces_before in (0, 1, 2):  # of two, before the pause
        for resumed in (False, True):  # before the rest comes
            pair = Paired(1 << 20)
            pair.comes(pair.ahead, 2, b"a")
            for n in range(pieces_before):
                pair.comes(pair.ahead, 3, b"p%d" % n, more=True)
            pair.hub.room.limit_bytes = 0
            pair.subscription.advance()
            assert pair.ahead.paused
            for n in range(pieces_before, 2):
                pair.comes(pair.ahead, 3, b"p%d" % n, more=True)
            if resumed:
                pair.moves(1, 2)
                assert pair.hub.asked == [(0, 3)]
            pair.comes(pair.ahead, 3, b"rest")
            pair.moves(0, 3)
            pair.moves(1, 3)
            assert pair.hub.asked == [(0, 3)]
            pair.history(3, (3, b"p0"), (3, b"p1"), (3, b"rest"))
            pair.moves(1, 4)
            assert pair.watch.got == [(2, b"a"), (3, b"p0"), (3, b"p1"), (3, b"rest")]


def test_i16_a_revision_in_pieces_is_whole_when_what_came_before_it_is_too_much_to_hold_back() -> None:
    pair = Paired(1 << 20)
    part = pair.ahead
    part.join(pair.links[0], Poster())
    part.subscribed((9).to_bytes(8, "little") + bytes(8))  # a gap: 2 to 8
    pair.comes(part, 11, b"p", more=True)
    with patch("proxy.watch.parts._HELD_BYTES", 10):
        pair.comes(part, 10, b"x")
    pair.comes(part, 11, b"rest")
    pair.history(10, (10, b"x"))
    pair.moves(0, 11)
    pair.moves(1, 11)
    assert pair.watch.got == [(10, b"x"), (11, b"p"), (11, b"rest")]


@pytest.mark.parametrize("events", [1, 40])
def test_what_waits_is_no_more_memory_than_is_counted(events: int) -> None:
    """Of batches of one small event, four times as much was kept."""
    pair = Paired(400_000)
    with kept_by("*/proxy/watch/*") as kept:
        for revision in range(1001, 3001):
            pair.comes(pair.ahead, revision, *(b"key-%03d" % n for n in range(events)))
    assert pair.ahead.paused
    counted = pair.hub.room.held_bytes
    assert 0.8 * counted < kept.size_bytes < 1.1 * counted
    pair.moves(0, 3000)
    pair.moves(1, 3000)
    assert pair.hub.room.held_bytes == 0


def test_what_is_kept_is_given_back_when_the_watch_ends() -> None:
    pair = Paired(1 << 20)
    pair.comes(pair.ahead, 2, b"a")
    assert pair.hub.room.held_bytes > 0
    pair.subscription.close()
    assert pair.hub.room.held_bytes == 0


def test_what_is_kept_for_who_lags_is_no_more_than_what_is_counted() -> None:
    pair = Paired(1 << 20)
    slow = Recorder(1)
    slow.blocked = True
    pair.subscription.add(slow)  # type: ignore[arg-type]
    pair.subscription.lag(slow)  # type: ignore[arg-type]
    pair.comes(pair.ahead, 2, b"a", b"b")
    pair.moves(1, 2)
    assert len(pair.watch.got) == 2  # it has read every event of the batch, of which the ring keeps the bytes
    assert pair.subscription._ring is not None
    (kept,) = pair.subscription._ring._batches
    assert (kept._entries, kept._encoded) == (None, None)
