"""A range over several shards: merged by revision up to the lowest watermark, a revision whole (I16)."""

from __future__ import annotations

from random import Random
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.events import key_of
from cluster.messages import Method
from cluster.wire import key_value
from proxy.links import Link
from proxy.watch.encode import Batch, batch_of_record
from proxy.watch.parts import Part
from proxy.watch.subscription import Subscription
from tests.events import Event, record


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
            self.got += [(e[0], key_of(f)) for e, f in zip(fresh.entries(), fresh.fields(), strict=True)]


class Hub:
    """Needs nothing here: no gap, nobody lags, watermarks are told by the test."""

    def merging(self, subscription: Subscription) -> None:
        pass

    def fill(self, subscription: Subscription, part: Part) -> None:
        raise AssertionError("no gap was made")

    def catch_up(self, subscription: Subscription, cohort: object) -> None:
        raise AssertionError("nobody lags")


class Poster:
    def post(self, link: Link, rid: int, method: int, body: bytes) -> None:
        assert method in (Method.SUBSCRIBE, Method.UNSUBSCRIBE)


def event(revision: int, key: bytes, place: int = 0) -> Event:
    return revision, 0, key_value(key, revision, revision, 1, b"", 0), place


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
