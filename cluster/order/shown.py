"""Rows that a transaction over several shards shows, and which decide nothing of what it does.

A shard's leader pins many such rows under the lock. When the transaction is in order, the sequencer fetches
them, piece by piece. Pieces are numbered: the last one is kept until the next is asked for. Rows that nothing
asks for go after a while (I23).
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

from cluster.evaluate.overlay import LOOK, AppliedState, Pinned
from cluster.evaluate.steps import Effort, Steps
from cluster.grain import GRAIN
from cluster.order.log import Attempt
from cluster.order.prepare import Row, Touch

MOST = 256  # attempts whose rows a leader pins; others get their grants later
ENOUGH = 0xFFFFFFFF  # in the place of a piece's number: no more are wanted
_ASK = struct.Struct("<QQI")  # attempt, number of the piece
_PIECE = struct.Struct("<BI")  # whether there is one after it, the touch that its rows are of
_LENGTH = struct.Struct("<I")
_PIECE_BYTES = 256 << 10

Piece = tuple[bool, int, list[Row]]


def encode_ask(attempt: Attempt, number: int) -> bytes:
    return _ASK.pack(*attempt, number)


def decode_ask(body: bytes) -> tuple[Attempt, int]:
    """struct.error if it is malformed."""
    term, attempt, number = _ASK.unpack(body)
    return Attempt(term, attempt), number


def encode_piece(more: bool, place: int, rows: Sequence[Row]) -> bytes:
    parts = [_PIECE.pack(more, place)]
    pack = _LENGTH.pack
    for key, kv in rows:
        parts += (pack(len(key)), key, pack(len(kv)), kv)
    return b"".join(parts)


def decode_piece(data: bytes) -> Piece:
    """struct.error if it is cut short."""
    more, place = _PIECE.unpack_from(data)
    rows: list[Row] = []
    pos, end = _PIECE.size, len(data)
    unpack = _LENGTH.unpack_from
    while pos < end:
        at = pos + 4
        pos = at + unpack(data, pos)[0]
        key = data[at:pos]
        at = pos + 4
        pos = at + unpack(data, pos)[0]
        rows.append((key, data[at:pos]))
    return bool(more), place, rows


def few_rows(
    store: AppliedState, touch: Touch, most: int, most_bytes: int, effort: Effort
) -> Steps[list[Row] | None]:
    """The rows of a touch; None: more than ``most``, or of so many bytes, or they take a long look."""
    if most_bytes <= 0:
        return None
    rows: Iterable[Row]
    if touch.range_end or touch.revision:
        rows = store.scan(touch.key, touch.range_end, touch.revision, LOOK)
    else:
        rows = () if (kv := store.get(touch.key)) is None else ((touch.key, kv),)
    found: list[Row] = []
    for row in rows:
        size = len(row[1])
        most_bytes -= size
        for _ in effort.takes(1, size):
            yield
        if len(found) >= most or most_bytes < 0:
            return None
        if not row[0]:  # PAUSE
            yield
            return None
        found.append(row)
    return found


def _pieces(pinned: Pinned, touches: Sequence[tuple[int, Touch]]) -> Iterator[bytes]:
    for place, touch in touches:
        rows = pinned.scan(touch.key, touch.range_end, LOOK, touch.revision)
        some: list[Row] = []
        size = 0
        for row in rows:
            if row[0]:
                some.append(row)
                size += len(row[1])
                if len(some) < GRAIN.piece_rows and size < _PIECE_BYTES:
                    continue
            yield encode_piece(True, place, some)
            some, size = [], 0
        if some:
            yield encode_piece(True, place, some)
    yield encode_piece(False, 0, ())


@dataclass(slots=True)
class _Kept:
    pieces: Iterator[bytes]
    last: bytes = b""
    next: int = 0
    asked_at: float | None = None  # when that was last looked at after it was asked for


class ShownRows:
    """One node's pinned rows. They outlive the leader's term."""

    def __init__(self) -> None:
        self._kept: dict[Attempt, _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def full(self) -> bool:
        return len(self._kept) >= MOST

    def keep(
        self, attempt: Attempt, store: AppliedState, touches: Sequence[Touch], places: Sequence[int]
    ) -> None:
        assert not self.full, "I23: what is pinned is bounded"
        self._kept[attempt] = _Kept(_pieces(store.reader(), [(place, touches[place]) for place in places]))

    def piece(self, attempt: Attempt, number: int) -> bytes | None:
        """The next piece, or the last one again. None: there is no such piece, or it is not kept any more."""
        kept = self._kept.get(attempt)
        if kept is None:
            return None
        kept.asked_at = None
        if number == kept.next:
            piece = next(kept.pieces, None)
            if piece is None:
                return None
            kept.last = piece
            kept.next += 1
        return kept.last if number == kept.next - 1 else None

    def drop(self, attempt: Attempt) -> None:
        self._kept.pop(attempt, None)

    def sweep(self, now: float, limit_s: float, undecided: Container[Attempt]) -> bool:
        """Drop rows not asked for within the limit, but for undecided attempts; returns if there were any."""
        gone = []
        for attempt, kept in self._kept.items():
            if kept.asked_at is None or attempt in undecided:
                kept.asked_at = now
            elif now - kept.asked_at > limit_s:
                gone.append(attempt)
        for attempt in gone:
            del self._kept[attempt]
        return bool(gone)

    def clear(self) -> None:
        """The node stops: release the database."""
        self._kept.clear()
