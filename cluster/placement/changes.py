"""The items that change the table, and what each makes of it (growth.md's rules G1, G2, G11, G13, G14).

A change that breaks a rule is a contradiction in the order, which ends a process: the sequencer asks first
(the same functions, on a table of its log's tail). Bodies, little-endian::

    SHARD   id u16 | state u8 | slot u16 | voters: member u64 ...
    MOVE    id u64 | target u16 | sources u16 | start length u32 | sources: u16 ... | start | end
    MOVED   id u64 | switched (1) or cancelled (0) u8 | source's revision u64 | live keys u64

An item changes the table at the revision where it stands, and takes none: a span's former owners keep it up
to there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from cluster.effects.records import ITEM, Item, items
from cluster.placement.table import (
    BASE,
    MOST_SPANS,
    Move,
    Piece,
    Shard,
    State,
    Table,
    before,
    uncovered,
)

_SHARD = struct.Struct("<HBH")
_MEMBER = struct.Struct("<Q")
_MOVE = struct.Struct("<QHHI")
_ID = struct.Struct("<H")
_MOVED = struct.Struct("<QBQQ")
MOVED_BYTES = _MOVED.size  # of such a body
_STATES = frozenset(map(int, State))
KINDS = frozenset((Item.SHARD, Item.MOVE, Item.MOVED))


class Moved(NamedTuple):
    """How a move ended."""

    number: int
    switched: bool
    source_revision: int  # up to which the target has the sources' keys
    live: int  # keys that it has


def shard_item(shard: int, state: State, slot: int = 0, voters: Iterable[int] = ()) -> bytes:
    """A shard forms (with a slot, and voters), serves (behind it stands its first cut: G12), retires, or is
    dropped."""
    return _item(Item.SHARD, _SHARD.pack(shard, state, slot) + b"".join(map(_MEMBER.pack, voters)))


def move_item(move: Move) -> bytes:
    number, start, end, sources, target = move
    return _item(Item.MOVE, b"".join((
        _MOVE.pack(number, target, len(sources), len(start)), *map(_ID.pack, sources), start, end)))


def moved_item(moved: Moved) -> bytes:
    return _item(Item.MOVED, _MOVED.pack(*moved))


def _item(kind: Item, body: bytes) -> bytes:
    return ITEM.pack(kind, len(body)) + body


# -- whether a body can be applied


def sound_shard(data: bytes, pos: int, end: int) -> bool:
    size = end - pos - _SHARD.size
    return size >= 0 and size % _MEMBER.size == 0 and _SHARD.unpack_from(data, pos)[1] in _STATES


def sound_move(data: bytes, pos: int, end: int) -> bool:
    if end - pos < _MOVE.size:
        return False
    _, _, sources, start_len = _MOVE.unpack_from(data, pos)
    at = pos + _MOVE.size + _ID.size * sources
    stop = at + start_len
    return sources > 0 and start_len > 0 and stop < end and before(data[at:stop], data[stop:end])


def sound_moved(data: bytes, pos: int, end: int) -> bool:
    return end - pos == _MOVED.size and _MOVED.unpack_from(data, pos)[1] <= 1


def shard_state(data: bytes, pos: int) -> tuple[int, int]:
    """A shard and its state, of a SHARD item's body."""
    shard, state, _ = _SHARD.unpack_from(data, pos)
    return shard, state


def dropped_in(record: bytes) -> list[int]:
    """Shards that a record of the order drops."""
    found = [shard_state(record, at) for kind, at, _ in items(record) if kind == Item.SHARD]
    return [shard for shard, state in found if state == State.DROPPED]


def read_voters(data: bytes, pos: int, end: int) -> tuple[int, ...]:
    """The first voters of a shard that forms, of a SHARD item's body."""
    return tuple(voter for (voter,) in _MEMBER.iter_unpack(data[pos + _SHARD.size : end]))


def read_move(data: bytes, pos: int, end: int) -> Move:
    number, target, count, start_len = _MOVE.unpack_from(data, pos)
    pos += _MOVE.size
    sources = struct.unpack_from(f"<{count}H", data, pos)
    pos += _ID.size * count
    return Move(number, data[pos : pos + start_len], data[pos + start_len : end], sources, target)


def read_moved(data: bytes, pos: int) -> Moved:
    number, switched, source_revision, live = _MOVED.unpack_from(data, pos)
    return Moved(number, bool(switched), source_revision, live)


# -- the fold


def take(table: Table, data: bytes, kind: int, pos: int, end: int, at: int) -> Table:
    """The table behind a SHARD, MOVE or MOVED item that stands ``at`` a revision. AssertionError: it breaks a
    rule."""
    if kind == Item.SHARD:
        shard, state, slot = _SHARD.unpack_from(data, pos)
        return take_shard(table, shard, State(state), slot, read_voters(data, pos, end))
    if kind == Item.MOVE:
        return take_move(table, read_move(data, pos, end), at)
    return take_moved(table, read_moved(data, pos), at)


def take_shard(table: Table, shard: int, state: State, slot: int, voters: tuple[int, ...]) -> Table:
    known = table.shards.get(shard)
    if state == State.FORMING:
        assert known is None, f"G13: id {shard} was used before"
        assert 0 < shard < BASE, f"G13: {shard} is no shard's id"
        taken = {other.slot for other in table.shards.values() if other.state != State.DROPPED}
        assert slot not in taken, f"G13: slot {slot} is in use"
        assert voters, f"G12: shard {shard} has no voters"
        return _with_shard(table, shard, Shard(state, slot, voters))
    assert known is not None, f"G13: shard {shard} was never there"
    assert shard, "shard 0 has the order, and stays"
    move = table.move
    assert move is None or shard not in (move.target, *move.sources), f"G14: shard {shard} is in a move"
    if state != State.DROPPED:
        assert known.state == state - 1, f"G13: shard {shard} is {known.state.name}, not yet {state.name}"
    else:
        assert known.state in (State.FORMING, State.RETIRING), f"G13: shard {shard} is {known.state.name}"
        assert not table.may_be_asked_of(shard), f"G10: shard {shard} has keys that may be asked for"
    return _with_shard(table, shard, known._replace(state=state))


def take_move(table: Table, move: Move, at: int) -> Table:
    assert table.move is None, f"G14: move {move.number} begins during {table.move}"
    assert move.number > table.last_move, f"G14: move {move.number} after {table.last_move}"
    target = table.shards.get(move.target)
    serves = target is not None and target.state == State.SERVING
    assert serves, f"G11: the target of {move} does not serve"
    # every base shard that owns a part of the span is a source
    assert move.sources == table.owners_of(move.start, move.end), f"G11: the sources of {move} are others"
    assert move.target not in move.sources, f"G11: the target of {move} has a part of it"
    assert not table.past_of(move.target, move.start, move.end), f"G11: the target of {move} has a past of it"
    assert len(_spans(table, move, at)) <= MOST_SPANS, (  # what an operator is told: without keys
        f"the table of shards would have more than {MOST_SPANS} spans: compact, or move neighbours together")
    return _next(table, replace(table, move=move, last_move=move.number))


def take_moved(table: Table, moved: Moved, at: int) -> Table:
    move = table.move
    assert move is not None, f"G1: {moved} ends nothing"
    assert move.number == moved.number, f"G1: {moved} ends {move}"
    if not moved.switched:
        return _next(table, replace(table, move=None))
    assert moved.source_revision <= at, f"G4: {moved} at revision {at}"
    past = [
        Piece(piece.start, piece.end, piece.owner, piece.first, at)
        for piece in table.present(move.start, move.end) if piece.first <= at]
    # G1: it had each revision once until now; from the next one on it is the target's
    return _next(table, replace(
        table, move=None, spans=_spans(table, move, at), past=tuple(sorted((*table.past, *past)))))


def take_compact(table: Table, revision: int) -> Table:
    """Pasts that end below a compaction go, and what began below it has always been so."""
    kept = tuple(past for past in table.past if past.last >= revision)
    if len(kept) == len(table.past):
        return table
    spans: list[Piece] = []
    for span in table.spans:
        first = 0 if not any(past.meets(span.start, span.end) for past in kept) else span.first
        if spans and (spans[-1].end, spans[-1].owner, spans[-1].first) == (span.start, span.owner, first):
            spans[-1] = spans[-1]._replace(end=span.end)
        else:
            spans.append(span._replace(first=first))
    return _next(table, replace(table, spans=tuple(spans), past=kept, pruned=revision))


def _spans(table: Table, move: Move, revision: int) -> tuple[Piece, ...]:
    """The present once a move has switched."""
    whole = Piece(move.start, move.end, move.target, revision + 1)
    rest = [
        Piece(low, high, span.owner, span.first)
        for span in table.spans for low, high in uncovered((whole,), span.start, span.end)]
    return tuple(sorted([*rest, whole]))


def _with_shard(table: Table, shard: int, known: Shard) -> Table:
    return _next(table, replace(table, shards={**table.shards, shard: known}))


def _next(table: Table, changed: Table) -> Table:
    """G1: the next generation, with one change in it."""
    return replace(changed, generation=table.generation + 1)
