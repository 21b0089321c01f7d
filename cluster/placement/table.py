"""The owner of each key: now, and at each revision back to the pruning. Immutable: each change is a new
table.

*Spans* lie over the base: where none is, the base names a key's owner. A *past* says that a span had another
owner for some revisions. A key's pasts and its present have each revision once (G1). A latest read goes by
the present; at the last revision of a past both are right.

Bounds of keys: ``start`` is the first key, ``end`` the first one behind; b"\\0" is the end of the key space.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

from cluster import errors
from cluster.errors import EtcdError
from cluster.placement.base import Base

MOST_SPANS = 1024
BASE = 0xFFFF  # an owner: whatever the base says
END = b"\0"  # of the key space
FORM = 1  # of an encoded table: its first byte
_HEAD = struct.Struct("<BQQQII")  # form, generation, pruned, last move, shards, depth
_COUNT = struct.Struct("<I")
_SHARD = struct.Struct("<HBHH")  # id, state, slot, voters
_MEMBER = struct.Struct("<Q")
_SPAN = struct.Struct("<HQQII")  # owner, first and last revision, lengths of start and end
_MOVE = struct.Struct("<QHHII")  # id, target, sources, lengths of start and end
_ID = struct.Struct("<H")


class State(IntEnum):
    """Of a shard."""

    FORMING = 1  # no cut yet
    SERVING = 2
    RETIRING = 3  # no target any more
    DROPPED = 4  # its id is never used again (G13)


class Shard(NamedTuple):
    state: State
    slot: int
    voters: tuple[int, ...]  # at its birth; none: of the base


class Piece(NamedTuple):
    """Keys from ``start`` to before ``end`` and their owner: since ``first``, up to ``last``."""

    start: bytes
    end: bytes
    owner: int
    first: int
    last: int = 0  # of the present: 0

    def meets(self, start: bytes, end: bytes) -> bool:
        return before(self.start, end) and before(start, self.end)


class Move(NamedTuple):
    number: int  # never reused
    start: bytes
    end: bytes
    sources: tuple[int, ...]
    target: int


def before(key: bytes, end: bytes) -> bool:
    return end == END or key < end


def lower(a: bytes, b: bytes) -> bytes:
    """The lower one of two ends."""
    return b if a == END else a if b == END else min(a, b)


def span_of(key: bytes, range_end: bytes) -> tuple[bytes, bytes]:
    """Start and end of a span as etcd's API spells it: with an empty end it is the one key."""
    return key, range_end or key + b"\0"


def asked(key: bytes, range_end: bytes) -> tuple[bytes, bytes, bool]:
    """Bounds of a requested span, and whether it is one key. A span that ends before it begins has no key:
    the owner of its start answers."""
    if range_end and not before(key, range_end):
        range_end = b""
    return (*span_of(key, range_end), not range_end)


def uncovered(pieces: Iterable[Piece], start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What of a span none of the pieces covers, which are in order and disjoint."""
    at = start
    for piece in pieces:
        if not piece.meets(at, end):
            continue
        if at < piece.start:
            yield at, piece.start
        if piece.end == END:
            return
        at = max(at, piece.end)
    if before(at, end):
        yield at, end


@dataclass(frozen=True)
class Table:
    """See the module."""

    base: Base
    shards: Mapping[int, Shard]
    spans: tuple[Piece, ...] = ()  # of the present, in order
    past: tuple[Piece, ...] = ()  # in order of start, then of owner
    move: Move | None = None
    generation: int = 0  # of changes until now
    pruned: int = 0  # nothing is known below this revision
    last_move: int = 0  # the highest id of a move

    @classmethod
    def initial(cls, base: Base) -> Table:
        """As the cluster begins."""
        return cls(base, {shard: Shard(State.SERVING, shard, ()) for shard in range(base.shards)})

    @cached_property
    def forming(self) -> int:
        """The shard that forms: one at a time, as :mod:`cluster.features.births` asks. 0: none does."""
        return next((shard for shard, known in self.shards.items() if known.state == State.FORMING), 0)

    @cached_property
    def has_born(self) -> bool:
        """Whether any shard was ever born."""
        return len(self.shards) > self.base.shards

    @cached_property
    def emptied(self) -> bool:
        """Whether a shard is about to be dropped whose keys have moved away."""
        return self.last_move > 0 and any(
            known.state == State.RETIRING and not self.may_be_asked_of(shard)
            for shard, known in self.shards.items())

    @cached_property
    def _dropped(self) -> set[int]:
        return {shard for shard, known in self.shards.items() if known.state == State.DROPPED}

    @cached_property
    def _starts(self) -> list[bytes]:
        return [span.start for span in self.spans]

    @cached_property
    def moved(self) -> int:
        """The generation; 0 while no key has moved."""
        return self.generation if self.spans or self.past else 0

    @property
    def settled(self) -> bool:
        """Whether no key has moved and none is about to. Otherwise a front may know a later table: what it
        sends a leader may not be that one's by the leader's own."""
        return not self.moved and self.move is None

    def agrees(self, other: Table, key: bytes, range_end: bytes) -> bool:
        """Whether both have the same owners of a span, now and at every revision that both cover."""
        start, end, _ = asked(key, range_end)
        pruned = max(self.pruned, other.pruned)
        pasts = [
            [_cut(p, start, end) for p in table.past if p.last >= pruned and p.meets(start, end)]
            for table in (self, other)]
        return pasts[0] == pasts[1] and self._outline(start, end) == other._outline(start, end)

    def _outline(self, start: bytes, end: bytes) -> list[tuple[bytes, int]]:
        """Where the owner of a span's keys is another one than before."""
        found: list[tuple[bytes, int]] = []
        for piece in self.present(start, end):
            if not found or found[-1][1] != piece.owner:
                found.append((piece.start, piece.owner))
        return found

    # -- owners

    def owner(self, key: bytes) -> int:
        """Of a key, now. 0.3 us with a thousand spans, besides the base."""
        at = bisect_right(self._starts, key) - 1
        if at >= 0 and before(key, self.spans[at].end):
            return self.spans[at].owner
        return self.base.shard_of(key)

    def owners(self, key: bytes, range_end: bytes) -> tuple[int, ...]:
        """Of a span, now, ascending."""
        start, end, single = asked(key, range_end)
        return self._shards(self._present(start, end), single)

    def owners_of(self, start: bytes, end: bytes) -> tuple[int, ...]:
        """As :meth:`owners`, of a span by its bounds: a single key has one."""
        return self._shards(self._present(start, end), span_of(start, b"") == (start, end))

    def owners_at(self, key: bytes, range_end: bytes, revision: int) -> tuple[int, ...]:
        """Of a span at a revision. EtcdError: it is below the pruning."""
        self._check(revision)
        start, end, single = asked(key, range_end)
        then = [p for p in self.past if p.first <= revision <= p.last and p.meets(start, end)]
        pieces = [_cut(piece, start, end) for piece in then]
        for low, high in uncovered(then, start, end):
            pieces += self._present(low, high)
        return self._shards(pieces, single)

    def owners_since(self, key: bytes, range_end: bytes, revision: int) -> tuple[int, ...]:
        """All that have owned a part of a span at a revision from this one on. EtcdError: see above."""
        return tuple(sorted(self.times_since(key, range_end, revision)))

    def times_since(self, key: bytes, range_end: bytes, revision: int) -> dict[int, tuple[int, int]]:
        """Of each of :meth:`owners_since`: since when, and up to which revision (0: it does now)."""
        self._check(revision)
        start, end, single = asked(key, range_end)
        pieces = [_cut(p, start, end) for p in self.past if p.last >= revision and p.meets(start, end)]
        found: dict[int, tuple[int, int]] = {}
        for piece in (*pieces, *self._present(start, end)):
            for shard in self._shards((piece,), single):
                first, last = found.get(shard, (piece.first, piece.last))
                found[shard] = min(first, piece.first), max(last, piece.last) if last and piece.last else 0
        return found

    def pieces_of(self, shard: int, start: bytes, end: bytes) -> list[Piece]:
        """What a shard owns of a span now, in order. The base may place others' keys there, too."""
        return [
            piece for piece in self.present(start, end) if piece.owner == shard or (
                piece.owner == BASE and shard in self.base_shards(piece.start, piece.end))]

    def owns_anything(self, shard: int) -> bool:
        """Now. The base's own shards do while it places any of what spans leave uncovered there."""
        return any(span.owner == shard for span in self.spans) or (
            shard < self.base.shards
            and any(shard in self.base_shards(*gap) for gap in uncovered(self.spans, END, END)))

    def may_be_asked_of(self, shard: int) -> bool:
        """Whether it owns keys now, or had a span at a revision that is not pruned (G10)."""
        return self.owns_anything(shard) or self.past_of(shard, END, END) > 0

    def past_of(self, shard: int, start: bytes, end: bytes) -> int:
        """The last revision at which a shard was a former owner of a part of a span; 0: it was none (G11)."""
        return max([
            past.last for past in self.past if past.meets(start, end) and (
                past.owner == shard
                or (past.owner == BASE and shard in self.base_shards(past.start, past.end)))], default=0)

    def base_shards(self, start: bytes, end: bytes) -> tuple[int, ...]:
        """Where the base places keys of a span, by its bounds: a single key has one shard."""
        return self.base.shards_of(start, b"" if span_of(start, b"") == (start, end) else end)

    def _check(self, revision: int) -> None:
        if revision < self.pruned:  # G2: another table of the same past may be pruned less
            raise EtcdError(errors.COMPACTED)

    def _present(self, start: bytes, end: bytes) -> list[Piece]:
        at = max(bisect_right(self._starts, start) - 1, 0)
        met: list[Piece] = []
        for span in self.spans[at:]:
            if not before(span.start, end):
                break
            if span.meets(start, end):
                met.append(span)
        pieces = [_cut(span, start, end) for span in met]
        return pieces + [Piece(low, high, BASE, 0) for low, high in uncovered(met, start, end)]

    def present(self, start: bytes, end: bytes) -> list[Piece]:
        """The present of a span, piece by piece in order; owner BASE where no span lies."""
        return sorted(self._present(start, end))

    def _shards(self, pieces: Iterable[Piece], single: bool) -> tuple[int, ...]:
        found: set[int] = set()
        for piece in pieces:
            if piece.owner == BASE:
                found.update(self.base.shards_of(piece.start, b"" if single else piece.end))
            else:
                found.add(piece.owner)
        # the base may place one key, as a span, in all its shards; those that were dropped own none
        return tuple(sorted(found - self._dropped if self._dropped else found))

    # -- as a row

    def encode(self) -> bytes:
        """The row ``mplacement``."""
        base = self.base
        head = _HEAD.pack(FORM, self.generation, self.pruned, self.last_move, base.shards, base.depth)
        out = [head, _COUNT.pack(len(self.shards))]
        for shard, (state, slot, voters) in sorted(self.shards.items()):
            out += [_SHARD.pack(shard, state, slot, len(voters)), *(_MEMBER.pack(voter) for voter in voters)]
        for pieces in (self.spans, self.past):
            out.append(_COUNT.pack(len(pieces)))
            for start, end, owner, first, last in pieces:
                out += [_SPAN.pack(owner, first, last, len(start), len(end)), start, end]
        if self.move is not None:
            number, start, end, sources, target = self.move
            out += [_MOVE.pack(number, target, len(sources), len(start), len(end)),
                    *(_ID.pack(source) for source in sources), start, end]
        return b"".join(out)

    @classmethod
    def decode(cls, data: bytes) -> Table:
        """What :meth:`encode` made. ValueError otherwise."""
        try:
            return _decoded(data)
        except (struct.error, IndexError) as e:
            raise ValueError("a table of placement is cut short") from e


def _cut(piece: Piece, start: bytes, end: bytes) -> Piece:
    return piece._replace(start=max(piece.start, start), end=lower(piece.end, end))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        found = form.unpack_from(self._data, self._at)
        self._at += form.size
        return found

    def bytes(self, length: int) -> bytes:
        found = self._data[self._at : self._at + length]
        if len(found) != length:
            raise IndexError
        self._at += length
        return found

    @property
    def over(self) -> bool:
        return self._at == len(self._data)


def _decoded(data: bytes) -> Table:
    reader = _Reader(data)
    form, generation, pruned, last_move, base_shards, depth = reader.unpack(_HEAD)
    if form != FORM:
        raise ValueError(f"a table of placement in form {form}")
    shards: dict[int, Shard] = {}
    for _ in range(*reader.unpack(_COUNT)):
        shard, state, slot, voters = reader.unpack(_SHARD)
        shards[shard] = Shard(State(state), slot, tuple(reader.unpack(_MEMBER)[0] for _ in range(voters)))
    pieces: list[tuple[Piece, ...]] = []
    for _ in range(2):
        found: list[Piece] = []
        for _ in range(*reader.unpack(_COUNT)):
            owner, first, last, start_len, end_len = reader.unpack(_SPAN)
            found.append(Piece(reader.bytes(start_len), reader.bytes(end_len), owner, first, last))
        pieces.append(tuple(found))
    move = None
    if not reader.over:
        number, target, count, start_len, end_len = reader.unpack(_MOVE)
        sources = tuple(reader.unpack(_ID)[0] for _ in range(count))
        move = Move(number, reader.bytes(start_len), reader.bytes(end_len), sources, target)
    if not reader.over:
        raise ValueError("a table of placement with something behind it")
    spans, past = pieces
    return Table(Base(base_shards, depth), shards, spans, past, move, generation, pruned, last_move)
