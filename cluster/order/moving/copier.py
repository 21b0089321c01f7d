"""The target's copy of what moves: a list and a watch of the sources, which are siblings on its host.

1. The copier asks each source where it stands: events from there on are its *watch*.
2. It asks for the span page by page, in the order of keys, and for events now and then. A page is as of the
   source's newest state. One from a state older than the events that were taken is asked again: the source
   has crashed and gone back, or is another host's.
3. Events change rows whose page is here. Of others a later page tells. An answer may end within a revision:
   a process that dies asks for all of that again.
4. A source that has compacted what comes next is copied again.

Rows are *masked*: the table says that they are another's until the switch. Each batch of rows carries the row
``mlocal/staging``, which says how far the copy is, so a process that dies goes on from there. It names the
move: rows of a move that is over are never taken for the next one's (G5).

Pure: :meth:`Copier.asks` says what to ask; answers give a :class:`Batch` to be stored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.placement.table import Move

STAGING = "local/staging"  # the row's name
_EVENTS_BEHIND, _EVENTS_LEVEL = 2, 16  # of so many questions one is for events
TRIES = 3  # copies of one move that may have another number of keys than their sources
_HEAD = struct.Struct("<QH")
_ASK = struct.Struct("<QHBQQI")  # move, source, whether a page, revision, within, length of the key
_ANSWER = struct.Struct("<BQQ")  # flags, revision, place within the next one
_LENGTH = struct.Struct("<I")
_SOURCE = struct.Struct("<HQBI")  # shard, events taken up to, whether all pages are here, length of the key

Row = tuple[bytes, bytes | None]  # key, what the store has of it; None: gone


class Ask(NamedTuple):
    """To a source. ``page``: of keys from ``start`` on; else events above ``revision``."""

    source: int
    page: bool
    start: bytes = b""
    revision: int = 0  # of events: 0 asks where the source stands
    within: int = 0  # and behind this place in the next revision, as the source has said it

    def encode(self, move: int) -> bytes:
        return _ASK.pack(
            move, self.source, self.page, self.revision, self.within, len(self.start)) + self.start

    @classmethod
    def decode(cls, data: bytes) -> tuple[int, Ask]:
        """The move, and what is asked. ValueError: it is none."""
        if len(data) < _ASK.size:
            raise ValueError("a question about a move is cut short")
        move, source, page, revision, within, length = _ASK.unpack_from(data)
        start = data[_ASK.size :]
        if len(start) != length:
            raise ValueError("a question about a move is cut short")
        return move, cls(source, bool(page), start, revision, within)


class Answer(NamedTuple):
    """Of a source. A page is as of ``revision``; of events all are told up to there, and those of the next
    revision up to a place ``within`` it, which every replica of the source understands."""

    revision: int
    rows: Sequence[Row] = ()
    more: bytes | None = None  # of a page: the next one's first key
    within: int = 0
    compacted: bool = False  # the next events are not there any more
    level: bool = False  # of events: the source itself has no more of them

    def encode(self) -> bytes:
        flags = self.compacted | self.level << 1 | (self.more is not None) << 2
        parts = [_ANSWER.pack(flags, self.revision, self.within)]
        if self.more is not None:
            parts += (_LENGTH.pack(len(self.more)), self.more)
        for key, value in self.rows:
            parts += (_LENGTH.pack(len(key)), key, _LENGTH.pack(0 if value is None else len(value) + 1),
                      value or b"")
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Answer:
        """struct.error: it is cut short."""
        flags, revision, within = _ANSWER.unpack_from(data)
        pos, end, unpack = _ANSWER.size, len(data), _LENGTH.unpack_from
        more = None
        if flags & 4:
            (length,) = unpack(data, pos)
            pos += 4 + length
            more = data[pos - length : pos]
        rows: list[Row] = []
        while pos < end:
            (length,) = unpack(data, pos)
            pos += 4 + length
            key = data[pos - length : pos]
            (length,) = unpack(data, pos)
            pos += 4
            if length:
                pos += length - 1
                rows.append((key, data[pos - length + 1 : pos]))
            else:
                rows.append((key, None))
        return cls(revision, rows, more, within, bool(flags & 1), bool(flags & 2))


@dataclass(slots=True, frozen=True)
class Batch:
    """To be stored at once. ``anew``: after all rows of the span are removed."""

    rows: Sequence[Row]
    staging: bytes
    anew: bool = False
    fresh: bool = False  # the target has no rows of these keys
    whole: bool = False  # from here on every page is there


@dataclass(slots=True)
class _Source:
    through: int = 0  # events are taken up to this revision; 0: it has not said where it stands
    within: int = 0  # and up to this place in the next one
    next: bytes | None = b""  # the first key whose page is not here; None: all are
    level: bool = False  # the last events were all that it had
    questions: int = 0


@dataclass(slots=True)
class Copier:
    """Of one move on one host."""

    move: Move
    _sources: dict[int, _Source] = field(default_factory=dict)
    _asked: set[int] = field(default_factory=set)

    def begin(self, staging: bytes | None) -> Batch | None:
        """Continue from the row on disk, or start again: then a batch removes the rest of the span."""
        known = read_staging(staging) if staging else None
        if known is not None and known[0] == self.move.number:
            self._sources = known[1]
            return None
        return self._anew()

    def _anew(self) -> Batch:
        self._sources = {shard: _Source(next=self.move.start) for shard in self.move.sources}
        self._asked.clear()
        return Batch((), self._row(), anew=True)

    def _row(self) -> bytes:
        parts = [_HEAD.pack(self.move.number, len(self._sources))]
        for shard, source in sorted(self._sources.items()):
            key = source.next or b""
            parts += (_SOURCE.pack(shard, source.through, source.next is None, len(key)), key)
        return b"".join(parts)

    # -- questions

    def asks(self) -> list[Ask]:
        """One question to each source that has none: pages and events in turn, fewer events while they are
        few."""
        found = []
        for shard, source in self._sources.items():
            if shard in self._asked:
                continue
            self._asked.add(shard)
            source.questions += 1
            events = source.questions % (_EVENTS_LEVEL if source.level else _EVENTS_BEHIND) == 0
            if not source.through or source.next is None or events:
                found.append(Ask(shard, False, revision=source.through, within=source.within))
            else:
                found.append(Ask(shard, True, source.next))
        return found

    def lost(self, source: int) -> None:
        """A question is not answered any more."""
        self._asked.discard(source)

    # -- answers

    def stands(self, source: int, revision: int) -> Batch:
        """A source's revision, to begin with: every page is of this state or a later one."""
        self._asked.discard(source)
        of = self._sources[source]
        if not of.through:
            of.through = revision
        return Batch((), self._row(), whole=self.whole)

    def page(
        self, source: int, start: bytes, revision: int, rows: Sequence[Row], more: bytes | None
    ) -> Batch | None:
        """Rows of a source from ``start`` on as of a revision; ``more``: the next page's first key."""
        self._asked.discard(source)
        of = self._sources[source]
        if not of.through or start != of.next or revision < of.through + (of.within > 0):
            return None
        of.next = more
        return Batch(rows, self._row(), fresh=True, whole=self.whole)

    def events(
        self, source: int, after: tuple[int, int], upto: tuple[int, int],
        events: Iterable[tuple[bytes, bytes | None]],
    ) -> Batch | None:
        """All changes of the span above one place up to another, in order: a revision, and a place within the
        next one."""
        self._asked.discard(source)
        of = self._sources[source]
        if after != (of.through, of.within) or upto <= after:
            return None
        of.through, of.within = upto
        rows = [(key, kv) for key, kv in events if self._paged(of, key)]
        return Batch(rows, self._row(), whole=self.whole)

    @staticmethod
    def _paged(of: _Source, key: bytes) -> bool:
        return of.next is None or key < of.next

    def compacted(self, source: int) -> Batch:
        """A source does not have the next events any more, or the copy is wrong."""
        return self._anew()

    def take(self, ask: Ask, answer: Answer) -> Batch | None:
        """A source's answer to a question of :meth:`asks`; None: there is nothing to store."""
        if ask.page:
            return self.page(ask.source, ask.start, answer.revision, answer.rows, answer.more)
        if not ask.revision:
            return self.stands(ask.source, answer.revision)
        if answer.compacted:
            return self.compacted(ask.source)
        place = answer.revision, answer.within
        self._sources[ask.source].level = answer.level
        return self.events(ask.source, (ask.revision, ask.within), place, answer.rows)

    # -- how far it is

    @property
    def whole(self) -> bool:
        return bool(self._sources) and all(of.next is None for of in self._sources.values())

    @property
    def level(self) -> bool:
        """Whether nothing more is to be copied, as far as is known."""
        return self.whole and all(of.level for of in self._sources.values())

    @property
    def through(self) -> int:
        """The revision up to which it has all of the span; 0: none."""
        return min(of.through for of in self._sources.values()) if self.whole else 0


def read_staging(data: bytes) -> tuple[int, dict[int, _Source]]:
    """The move, and how far its copy is."""
    number, count = _HEAD.unpack_from(data)
    pos = _HEAD.size
    sources: dict[int, _Source] = {}
    for _ in range(count):
        shard, through, whole, length = _SOURCE.unpack_from(data, pos)
        pos += _SOURCE.size + length
        sources[shard] = _Source(through, next=None if whole else data[pos - length : pos])
    return number, sources
