"""What a node sends of what it applies, and to whom."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.effects import records
from cluster.wire import frames, messages
from cluster.wire.events import EVENTS_HEAD, MORE_EVENTS
from cluster.wire.messages import SUBSCRIBE_HEAD, SUBSCRIBED_BODY, Status
from cluster.wire.protobuf import key_value, tombstone
from node.links.fronts import FrontLink, Fronts
from node.serving.watch import watches
from node.serving.watch.watches import WatchSource
from node.storage import StateStore
from tests.events import read
from tests.tries import best_of_three
from tests.unit.turns import short_turns


class Store:
    revision = 5
    compact_revision = 2

    def previous(self, key: bytes, revision: int, kept: bool) -> bytes | None:
        return key_value(key, 2, 2, 1, b"before", 0)


class Source:
    """A watch source with two fronts."""

    def __init__(self, store: Any = None) -> None:
        self.frames: list[bytes] = []
        self.links = [FrontLink(b"%d" % i, self._send, b"", i) for i in range(2)]
        self.work: deque[Iterator[None]] = deque()
        self.caught_up = 0
        self.source = WatchSource(store or Store(), lambda link: None, self.work.append, self._catch_up)

    def _catch_up(self) -> None:
        self.caught_up += 1

    def step(self) -> bool:
        """One slice of what runs beside the loop; whether there was any."""
        for work in list(self.work):
            if next(work, self) is self:
                self.work.remove(work)
            return True
        return False

    def _send(self, parts: list[bytes]) -> bool:
        self.frames.append(parts[-1])
        return True

    def subscribe(
        self, rid: int, key: bytes, end: bytes = b"", *, link: int = 0, start: int = 0, prev: bool = False
    ) -> None:
        body = SUBSCRIBE_HEAD.pack(start, 1 if prev else 0, len(key)) + key + end
        self.source.subscribe(self.links[link], rid, body)

    def write(self, *changes: tuple[int, bytes]) -> None:
        """Apply puts: ``(revision, key)``, each the second of its key."""
        self.source.emit([(r, 0, k, key_value(k, 2, r, 2, b"v", 0), i) for i, (r, k) in enumerate(changes)])

    def answers(self, link: int = 0) -> list[tuple[int, int, bytes]]:
        if self.links[link].pending:
            self.links[link].flush()
        frames, self.frames = self.frames, []
        return [record for frame in frames for record in messages.decode_answers(frame)[1]]

    def events(self, link: int = 0) -> list[tuple[int, list[tuple[int, bytes]]]]:
        """Per record the rid, and revisions and keys."""
        return [(rid, [(revision, event.kv.key) for revision, event in read(body)])
                for rid, status, body in self.answers(link) if status == Status.EVENTS]


def test_a_subscription_is_told_from_where_it_is_live_and_gets_nothing_older() -> None:
    source = Source()
    source.subscribe(1, b"k")
    source.subscribe(2, b"k", start=9)
    assert [(r, s, SUBSCRIBED_BODY.unpack(b)) for r, s, b in source.answers()] == [
        (1, Status.SUBSCRIBED, (6, 2)), (2, Status.SUBSCRIBED, (9, 2))]
    source.write((8, b"k"), (9, b"k"))
    assert source.events() == [(1, [(8, b"k"), (9, b"k")]), (2, [(9, b"k")])]


def test_each_subscription_gets_the_events_of_its_range_in_one_record() -> None:
    source = Source()
    wishes = {1: (b"b", b""), 2: (b"a", b"c"), 3: (b"b", b"\0"), 4: (b"c", b"b"), 5: (b"\0", b"\0")}
    for rid, (key, end) in wishes.items():
        source.subscribe(rid, key, end)
    source.write((6, b"a"), (6, b"b"), (7, b"c"))
    assert sorted(source.events()) == [
        (1, [(6, b"b")]), (2, [(6, b"a"), (6, b"b")]), (3, [(6, b"b"), (7, b"c")]),
        (5, [(6, b"a"), (6, b"b"), (7, b"c")]),
    ]


def test_i16_a_record_is_bounded_and_no_revision_is_split() -> None:
    source = Source()
    source.subscribe(1, b"k")
    source.subscribe(2, b"j", b"l")
    source.answers()
    large = key_value(b"k", 2, 6, 2, bytes(10_000), 0)
    source.source.emit([(revision, 0, b"k", large, place) for revision in range(6, 16) for place in range(2)])
    records = source.events()
    for rid in (1, 2):
        mine = [[revision for revision, _ in events] for found, events in records if found == rid]
        assert mine == [[revision] * 2 for revision in range(6, 16)]
    source.source.emit(
        [
            (revision, 0, b"k", key_value(b"k", 2, revision, 2, bytes(100), 0), 0)
            for revision in range(16, 1016)
        ]
    )
    sizes = [len(events) for rid, events in source.events() if rid == 1]
    assert sum(sizes) == 1000
    assert all(50 < size < 150 for size in sizes[:-1])


def test_only_those_that_want_it_get_the_previous_value() -> None:
    source = Source()
    source.subscribe(1, b"k", prev=True)
    source.subscribe(2, b"k")
    source.answers()
    source.write((6, b"k"))
    (_, _, with_prev), (_, _, plain) = source.answers()
    assert read(with_prev)[0][1].prev_kv.value == b"before"
    assert not read(plain)[0][1].HasField("prev_kv")


def test_a_compaction_takes_nothing_from_the_events_of_its_own_run(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path)
    source = Source(store)
    source.subscribe(1, b"k", prev=True)
    source.answers()
    run = [records.put(b"k", 0, 1, b"1", 0), records.put(b"k", 2, 2, b"2", 0), records.compact(3)]
    applied = store.apply([(at, 1, item) for at, item in enumerate(run, 1)], want_events=True)
    source.source.emit(applied.events)
    ((_, _, body),) = source.answers()
    assert [event.prev_kv.value for _, event in read(body)] == [b"", b"1"]
    store.close()


def test_who_has_ended_or_gone_gets_nothing() -> None:
    source = Source()
    for link in (0, 1):
        for rid, end in ((1, b""), (2, b"l"), (3, b"\0")):
            source.subscribe(rid, b"k", end, link=link)
        source.answers(link)
    source.source.unsubscribe(source.links[0], 2)
    source.source.gone(source.links[1])
    source.write((6, b"k"))
    assert [rid for rid, _ in source.events()] == [1, 3]
    assert source.events(1) == []
    for rid in (1, 3):
        source.source.unsubscribe(source.links[0], rid)
    assert not source.source.active


def test_h8_after_a_snapshot_every_subscription_is_lost() -> None:
    source = Source()
    for rid, end in ((1, b""), (2, b"l"), (3, b"\0")):
        source.subscribe(rid, b"k", end)
    source.answers()
    source.source.lost()
    assert not source.source.active
    while source.step():
        pass
    assert sorted((rid, status) for rid, status, _ in source.answers()) == [
        (r, Status.LOST) for r in (1, 2, 3)
    ]


def large(revision: int, size: int = 10_000) -> list[tuple[int, int, bytes, bytes, int]]:
    return [(revision, 0, b"k", key_value(b"k", 2, revision, 2, bytes(size), 0), 0)]


def test_what_a_front_gets_of_an_event_in_very_many_ranges_is_bounded_and_it_re_joins_the_others(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 ranges that held one key of 1 MB were 2 GB at once."""
    monkeypatch.setattr(watches, "_EMIT_BYTES", 100_000)
    source = Source()
    for rid in range(1, 201):
        source.subscribe(rid, b"j", b"l%03d" % rid, prev=rid == 7)
    source.subscribe(1, b"k", link=1)
    source.answers(0)
    source.answers(1)
    source.source.emit(large(6))
    found = source.answers()
    got = {rid for rid, status, _ in found if status == Status.EVENTS}
    assert 100_000 <= sum(len(body) for _, _, body in found) < 125_000
    assert source.events(link=1) == [(1, [(6, b"k")])], "another front has room of its own"
    assert len(source.links[0].subscriptions) == len(got)
    lost = {*range(1, 201)} - got
    source.source.unsubscribe(source.links[0], lost.pop())
    source.source.emit(large(7, 10))  # before they have heard
    assert {rid for rid, _ in source.events()} == got
    while source.step():
        pass
    told = [(rid, status) for rid, status, _ in source.answers()]
    assert sorted(told) == [(rid, Status.LOST) for rid in sorted(lost)]
    assert source.caught_up == 1
    assert (len(source.source._ranges), len(source.source._keys)) == (len(got), 1)
    for rid in lost:
        source.subscribe(1000 + rid, b"j", b"l%03d" % rid)
    assert {SUBSCRIBED_BODY.unpack(body)[0] for _, _, body in source.answers()} == {6}
    source.source.emit(large(8, 10))
    assert len(source.events()) == 199
    for rid in [*got, *[1000 + rid for rid in lost]]:
        source.source.unsubscribe(source.links[0], rid)
    source.source.unsubscribe(source.links[1], 1)
    assert not source.source.active


def test_pieces_for_very_many_ranges_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "_EMIT_BYTES", 30_000)
    source = Source()
    for rid in range(1, 21):
        source.subscribe(rid, b"j", b"l%03d" % rid)
    source.answers()
    deletes = [(6, 1, b"k%03d" % i, tombstone(b"k%03d" % i, 6), i) for i in range(600)]
    source.source.gather(deletes[:300])
    got = {rid for rid, status, _ in source.answers() if status == Status.EVENTS}
    assert 2 <= len(got) < 10
    source.source.gather(deletes[300:])
    source.source.emit([])
    ended = [rid for rid, _, body in source.answers() if not EVENTS_HEAD.unpack_from(body)[2] & MORE_EVENTS]
    assert sorted(ended) == sorted(got)
    while source.step():
        pass
    assert {(rid, status) for rid, status, _ in source.answers()} == {
        (rid, Status.LOST) for rid in range(1, 21) if rid not in got}


def test_h8_an_install_meanwhile_tells_each_subscription_once_that_it_is_lost(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "_EMIT_BYTES", 100_000)
    source = Source()
    for rid in range(1, 201):
        source.subscribe(rid, b"j", b"l%03d" % rid)
    source.answers()
    source.source.emit(large(6))
    source.step()
    source.source.lost()
    while source.step():
        pass
    told = [rid for rid, status, _ in source.answers() if status == Status.LOST]
    assert sorted(told) == list(range(1, 201))
    assert not source.source.active


@best_of_three
def test_no_turn_is_long_when_50_000_subscriptions_are_lost() -> None:
    source = Source()
    for rid in range(1, 50_001):
        source.subscribe(rid, b"/%d/" % rid, b"/%d0" % rid if rid % 2 else b"")
    source.answers()
    with short_turns() as turns:
        with turns.turn():
            source.source.lost()
        told: list[int] = []
        source.source.unsubscribe(source.links[0], 50_000)
        while True:
            with turns.turn():
                more = source.step()
            told += [rid for rid, status, _ in source.answers() if status == Status.LOST]
            if not more:
                break
    assert sorted(told) == list(range(1, 50_000)), "but for the one that has ended"
    assert source.caught_up == 1


def test_i16_a_front_gets_no_watermark_until_it_knows_what_is_lost() -> None:
    sent: list[bytes] = []
    took: list[FrontLink] = []
    fronts = Fronts(7, lambda link, records: None, took.append, lambda link: None, (1, 1))
    hello = messages.HELLO_BODY.pack(frames.LOWEST, 7, 1, 1, 0, 0)
    fronts.frame(b"f", messages.SEQUENCE.pack(1) + messages.request(0, messages.Method.HELLO, 0, hello),
                 lambda parts: sent.append(parts[-1]) is None, b"")
    (link,) = took

    def answers() -> list[tuple[int, int]]:
        fronts.flush()
        found = [(rid, status) for frame in sent for rid, status, _ in messages.decode_answers(frame)[1]]
        sent.clear()
        return found

    work: list[Iterator[None]] = []
    source = WatchSource(Store(), fronts.dirty.add, work.append, lambda: fronts.watermark_again(0.0))
    for rid in range(1, 101):
        source.subscribe(link, rid, SUBSCRIBE_HEAD.pack(0, 0, 1) + b"k")
    answers()
    source.lost()
    fronts.watermark(9, 0.0)
    fronts.hurry(link, 9, 1.0)
    assert answers() == []
    next(work[0])
    assert {status for _, status in answers()} == {Status.LOST}
    for _ in work[0]:
        pass
    rest = answers()
    assert [status for _, status in rest[:-1]] == [Status.LOST] * (len(rest) - 1)
    assert rest[-1] == (0, Status.WATERMARK)


def test_a_revision_of_very_many_events_leaves_in_pieces_while_it_is_applied() -> None:
    source = Source()
    source.subscribe(1, b"k", b"l")
    source.subscribe(2, b"k007")
    source.answers()

    def deletes(revision: int, first: int, last: int) -> list[tuple[int, int, bytes, bytes, int]]:
        return [(revision, 1, b"k%03d" % i, tombstone(b"k%03d" % i, revision), 0) for i in range(first, last)]

    source.source.gather([*deletes(6, 0, 2), *deletes(7, 0, 300)])
    source.subscribe(3, b"k", b"l")  # its answer waits: what it would be told has begun already
    source.source.gather(deletes(7, 300, 700))
    pieces = [(rid, *EVENTS_HEAD.unpack_from(body)) for rid, _, body in source.answers()]
    assert pieces == [(1, 7, 7, 300 | MORE_EVENTS), (1, 7, 7, 400 | MORE_EVENTS)]
    source.source.emit([*deletes(7, 700, 701), *deletes(8, 0, 1)])
    found = [(rid, status, body) for rid, status, body in source.answers()]
    assert [
        (rid, *EVENTS_HEAD.unpack_from(body)) for rid, status, body in found if status == Status.EVENTS
    ] == [(1, 6, 6, 2), (1, 7, 7, 1), (1, 8, 8, 1), (2, 7, 7, 1)]
    assert [rid for rid, status, _ in found if status == Status.SUBSCRIBED] == [3]


def test_a_revision_whose_last_piece_was_its_end_is_ended_all_the_same() -> None:
    source = Source()
    source.subscribe(1, b"k", b"l")
    source.answers()
    source.source.gather([(6, 1, b"k%03d" % i, tombstone(b"k%03d" % i, 6), 0) for i in range(300)])
    source.source.emit([])
    assert [EVENTS_HEAD.unpack_from(body) for _, _, body in source.answers()] == [
        (6, 6, 300 | MORE_EVENTS), (6, 6, 0)]


def test_a_revision_of_very_many_bytes_is_sent_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link takes no message of 1 GiB: one that was sent whole ended it, with all that was under way."""
    monkeypatch.setattr(watches, "_PIECE_BYTES", 64 << 10)

    def put(revision: int, at: int, size: int) -> tuple[int, int, bytes, bytes, int]:
        return revision, 0, b"k%03d" % at, key_value(b"k%03d" % at, revision, revision, 1, bytes(size), 0), at

    source = Source()
    source.subscribe(1, b"k", b"l")
    source.answers()
    source.source.emit([put(6, 0, 10), *[put(7, i, 10_000) for i in range(20)], put(8, 0, 10)])
    found = [body for _, _, body in source.answers()]
    assert [EVENTS_HEAD.unpack_from(body) for body in found] == [
        (6, 6, 1), (7, 7, 7 | MORE_EVENTS), (7, 7, 7 | MORE_EVENTS), (7, 7, 6), (8, 8, 1)]
    told = [event.kv.key for body in found[1:4] for _, event in read(body)]
    assert told == [b"k%03d" % i for i in range(20)]


def test_pieces_of_a_revision_are_told_apart_from_those_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """A front keeps one revision's pieces: others' in between took their place, and 256 events were lost."""
    monkeypatch.setattr(watches, "_PIECE_BYTES", 64 << 10)
    large = [(6, 0, b"k", key_value(b"k", 6, 6, 1, bytes(10_000), 0), i) for i in range(20)]
    deletes = [(7, 1, b"k%03d" % i, tombstone(b"k%03d" % i, 7), i) for i in range(600)]
    source = Source()
    source.subscribe(1, b"k", b"l")
    source.answers()
    source.source.gather([*large, *deletes[:300]])
    source.source.gather(deletes[300:])
    source.source.emit([])
    heads = [EVENTS_HEAD.unpack_from(body) for _, _, body in source.answers()]
    assert [revision for revision, _, _ in heads] == sorted(revision for revision, _, _ in heads)
    ends = [not count & MORE_EVENTS for _, _, count in heads]
    assert [end for end, (revision, _, _) in zip(ends, heads, strict=True) if revision == 6] == [
        False, False, True]
    assert ends[-1]
    assert sum(count & ~MORE_EVENTS for _, _, count in heads) == 620


def test_a_delete_in_slices_of_very_many_bytes_is_sent_in_pieces_of_bytes_too(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "_PIECE_BYTES", 4 << 10)
    deletes = [(6, 1, b"k%0100d" % i, tombstone(b"k%0100d" % i, 6), i) for i in range(500)]
    source = Source()
    source.subscribe(1, b"k", b"l")
    source.answers()
    source.source.gather(deletes[:300])
    source.source.emit(deletes[300:])
    bodies = [body for _, _, body in source.answers()]
    assert max(map(len, bodies)) < 8 << 10
    assert [bool(EVENTS_HEAD.unpack_from(body)[2] & MORE_EVENTS) for body in bodies] == (
        [True] * (len(bodies) - 1) + [False])
    assert sum(EVENTS_HEAD.unpack_from(body)[2] & ~MORE_EVENTS for body in bodies) == 500


class Kept(list[tuple[int, bytes, bytes]]):
    """Events that nobody counts."""

    def __len__(self) -> int:
        raise AssertionError("it got nothing in this step")


def test_a_step_of_an_apply_looks_at_those_alone_that_it_tells_something() -> None:
    """A delete of 60,000 keys, each watched by itself, looked at all that were told before, step by step."""
    source = Source()
    for rid in range(1, 5):
        source.subscribe(rid, b"k%d" % rid)
    source.answers()
    deletes = [(6, 1, b"k%d" % rid, tombstone(b"k%d" % rid, 6), rid) for rid in range(1, 5)]
    source.source.gather(deletes[:2])
    collected = source.source._collected
    told = dict(collected)
    collected.update({sub: Kept(matched) for sub, matched in told.items()})
    source.source.gather(deletes[2:])
    collected.update(told)
    source.source.emit([])
    assert source.events() == [(rid, [(6, b"k%d" % rid)]) for rid in range(1, 5)]


@best_of_three
def test_no_turn_is_long_when_a_front_with_50_000_subscriptions_comes_and_goes() -> None:
    source = Source()
    with short_turns() as turns:
        for rid in range(1, 50_001):
            with turns.turn():
                source.subscribe(rid, b"/%d/" % rid, b"/%d0" % rid if rid % 2 else b"")
        source.subscribe(1, b"/1/", b"/10", link=1)
        source.answers()
        with turns.turn():
            source.source.gone(source.links[0])
        assert source.source._count == 1
        for revision in range(6, 2000):  # and nobody writes for long
            if revision % 100 == 0:
                with turns.turn():
                    source.write((revision, b"/1/x"), (revision, b"/7/x"))
                assert source.answers() == []
                assert source.events(link=1) == [(1, [(revision, b"/1/x")])]
            with turns.turn():
                source.step()
    assert len(source.source._ranges) == 1
    assert not source.source._keys
    with short_turns() as turns, turns.turn():
        source.source.gone(source.links[1])
    assert not source.source.active
