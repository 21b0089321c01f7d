"""The copy of what moves, against a source that writes, compacts, crashes and goes back."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from cluster.order.moving.copier import Answer, Ask, Batch, Copier, Row, read_staging
from cluster.placement.table import Move

MOVE = Move(7, b"a", b"h", (1,), 2)
KEYS = [bytes((letter,)) for letter in b"abcdefgh"]


class Source:
    """All that was ever written, and how far one replica has applied it."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.events: list[tuple[int, bytes, bytes | None]] = []
        self.at = self.flushed = self.compacted = 1

    def write(self) -> None:
        revision = len(self.events) + 2
        kv = None if self.random.random() < 0.3 else b"%d" % revision
        self.events.append((revision, self.random.choice(KEYS), kv))

    def rows(self, revision: int) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for at, key, kv in self.events:
            if at <= revision and b"a" <= key < b"h":
                found.pop(key, None)
                if kv is not None:
                    found[key] = kv
        return found

    def pieces(self, ask: Ask) -> Answer:
        """Some of the events above a place, each a revision of its own or many in one."""
        found: list[Row] = []
        place = ask.revision, ask.within
        for at, key, kv in self.events:
            if at > self.at or at <= ask.revision:
                continue
            for sub, change in enumerate(((b"a", b"?"), (key, b"??"), (key, kv), (b"a", self.first(at)))):
                if (at - 1, sub) < place:
                    continue
                if self.random.random() < 0.2:
                    return Answer(at - 1, found, within=sub)
                if b"a" <= change[0] < b"h":
                    found.append(change)
        return Answer(self.at, found, level=True)

    def first(self, at: int) -> bytes | None:
        return self.rows(at).get(b"a")

    def happens(self) -> None:
        """A replica applies, flushes, compacts, or dies and comes back."""
        chance = self.random.random()
        if chance < 0.3:
            self.at = self.random.randint(self.at, len(self.events) + 1)
        elif chance < 0.4:
            self.flushed = self.random.randint(self.flushed, self.at)
        elif chance < 0.5:
            self.at = self.flushed
        elif chance < 0.55:
            self.flushed = self.compacted = self.at


class Target:
    """What is on a target's disk."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.rows: dict[bytes, bytes] = {}
        self.staging: bytes | None = None
        self.copier = self.fresh()

    def fresh(self) -> Copier:
        self.copier = Copier(MOVE)
        self.store(self.copier.begin(self.staging))
        return self.copier

    def store(self, batch: Batch | None) -> None:
        if batch is None:
            return
        if batch.anew:
            self.rows.clear()
        for key, kv in batch.rows:
            self.rows.pop(key, None)
            if kv is not None:
                self.rows[key] = kv
        self.staging = batch.staging

    def step(self) -> None:
        copier, source = self.copier, self.source
        for ask in copier.asks():
            if source.random.random() < 0.1:
                copier.lost(ask.source)
            elif ask.page:
                left = sorted((key, kv) for key, kv in source.rows(source.at).items() if key >= ask.start)
                more = left[2][0] if len(left) > 2 else None
                self.store(copier.page(1, ask.start, source.at, left[:2], more))
            elif not ask.revision:
                self.store(copier.stands(1, source.at))
            elif ask.revision < source.at and source.compacted > ask.revision + 1:
                self.store(copier.compacted(1))
            else:
                self.store(copier.take(ask, source.pieces(ask)))


def copies(seed: int) -> bool:
    """Whether a copy is right in the end."""
    random = Random(seed)
    source = Source(random)
    target = Target(source)
    for _ in range(random.choice((5, 40, 80))):
        if random.random() < 0.5:
            source.write()
        source.happens()
        if random.random() < 0.05:
            target.fresh()
        else:
            target.step()
    end = len(source.events) + 1  # nothing is written any more: R_b
    for _ in range(1000):
        if target.copier.through >= end:
            return target.rows == source.rows(end)
        source.at = random.randint(source.at, end)
        target.step()
    raise AssertionError("the copy never came to its end")


def test_g5_a_copy_is_the_sources_live_rows() -> None:
    assert all(map(copies, range(400)))


def pages_alone(patch: pytest.MonkeyPatch) -> None:
    events = Copier.events
    patch.setattr(Copier, "events", lambda self, source, after, upto, found: events(
        self, source, after, upto, ()))


def old_pages(patch: pytest.MonkeyPatch) -> None:
    page = Copier.page
    patch.setattr(Copier, "page", lambda self, source, start, revision, rows, more: page(
        self, source, start, 1 << 60, rows, more))


def compacted_copies_go_on(patch: pytest.MonkeyPatch) -> None:
    def passes(self: Any, source: int) -> Batch:
        self._asked.discard(source)
        self._sources[source].through += 1
        return Batch((), self._row())

    patch.setattr(Copier, "compacted", passes)


@pytest.mark.parametrize("rule", [pages_alone, old_pages, compacted_copies_go_on])
def test_without_a_rule_a_copy_is_wrong(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rule(monkeypatch)
    assert not all(map(copies, range(400)))


def test_g5_the_copy_of_another_move_is_not_gone_on_with() -> None:
    before = Copier(MOVE)
    before.begin(None)
    row = before.stands(1, 5).staging
    assert Copier(MOVE).begin(row) is None
    batch = Copier(MOVE._replace(number=8)).begin(row)
    assert batch is not None
    assert batch.anew
    assert read_staging(batch.staging)[0] == 8


def test_few_questions_are_for_events_while_these_are_few() -> None:
    copier = Copier(MOVE)
    copier.begin(None)
    copier.stands(1, 5)

    def pages(*, level: bool) -> int:
        found = 0
        for _ in range(12):
            (ask,) = copier.asks()
            found += ask.page
            rows = [] if ask.page else [(b"a", None)]
            copier.take(ask, Answer(ask.revision + 1, rows, b"a", level=level) if not ask.page
                        else Answer(1 << 20, rows, ask.start))
        return found

    assert pages(level=False) == 6
    assert pages(level=True) == 10, "once the first of them has said so"
    assert not copier.level, "a page is missing"


def test_a_copy_of_two_sources_is_as_far_as_the_slower_one() -> None:
    copier = Copier(MOVE._replace(sources=(1, 3)))
    copier.begin(None)
    for shard in (1, 3):
        copier.stands(shard, 5)
        copier.page(shard, b"a", 6, [], None)
    copier.events(1, (5, 0), (9, 0), [])
    assert copier.through == 5
    copier.events(3, (5, 0), (7, 0), [])
    assert copier.through == 7


def test_events_of_a_span_from_the_first_key_on_wait_for_its_first_page_too() -> None:
    """As an end that key would be the end of all keys."""
    copier = Copier(MOVE._replace(start=b"\0"))
    copier.begin(None)
    copier.stands(1, 5)
    batch = copier.events(1, (5, 0), (6, 0), [(b"c", b"v")])
    assert batch is not None
    assert batch.rows == []
    copier.page(1, b"\0", 6, [(b"c", b"v")], b"d")
    batch = copier.events(1, (6, 0), (7, 0), [(b"c", None), (b"d", b"v")])
    assert batch is not None
    assert batch.rows == [(b"c", None)]
