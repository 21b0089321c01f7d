"""What one shard needs of the order, in little room: for a shard without a majority, whose records are kept
long after the order log has dropped them (``node.upkeep.space.keeping``).

Most projections only move the fold on. A run of these is *passed over*: one absolute item says where the fold
stands behind it, also for a replica that has applied a part of the run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from cluster.effects.records import Item, items
from cluster.order.log import (
    PASSED_HEAD,
    Cut,
    Fold,
    decode_cut,
    decode_multi,
    encode_cut,
    encode_multi,
    encode_passed,
    passed_from,
    project,
)

RECORD_BYTES = 32  # what a kept record takes in a file besides its items
_MOST_IN_LOG = 1 << 30


class KeptRecord(NamedTuple):
    """A record of the order for one shard, and the records before it that are passed over."""

    first: int
    last: int
    term: int
    in_log: int  # bytes that all of them took of the order log
    items: bytes


@dataclass(slots=True, frozen=True)
class Piece:
    """Records ``first`` to ``last`` of the order, without a gap."""

    shard: int
    first: int
    last: int
    fold: bytes  # behind the last one; empty: not known
    records: tuple[KeptRecord, ...]


def concerns(projection: bytes, shard: int) -> bool:
    """Whether a projection does more in the shard than move the fold on."""
    for kind, pos, end in items(projection):
        if kind == Item.CUT:
            if any(of == shard for of, _ in decode_cut(projection, pos, end)):
                return True
        elif kind == Item.MULTI:
            multi = decode_multi(projection, pos, end)
            if multi.parts or shard in multi.participants:
                return True
        elif kind != Item.SKIP:
            return True
    return False


class Passing:
    """Makes kept records of the order's, one after the other, from ``first`` on."""

    def __init__(self, shard: int, first: int, fold: Fold | None) -> None:
        self.size = 0
        self.next = self._first = first
        self._shard = shard
        self._fold = fold
        self._records: list[KeptRecord] = []
        self._since = 0  # the first record of the run that is passed over; 0: none
        self._cuts: dict[int, Cut] = {}  # that the run makes
        self._in_log = 0
        self._term = 0

    def __len__(self) -> int:
        return len(self._records)

    def again(self, piece: Piece) -> None:
        assert piece.last + 1 == self.next == self._first, "a gap in what is kept"
        self._first = piece.first
        for record in piece.records:
            self._add(record)
        last = self._records[-1]
        since, kinds = passed_from(last.items), [kind for kind, _, _ in items(last.items)]
        if since is not None and kinds == [Item.PASSED]:  # the run goes on
            del self._records[-1]
            self.size -= RECORD_BYTES + len(last.items)
            (_, pos, end), = items(last.items)
            self._cuts = dict(decode_cut(last.items, pos + PASSED_HEAD.size, end))
            self._since, self._in_log, self._term = since, last.in_log, last.term

    def known(self, fold: Fold) -> None:
        if self._fold is None:
            self._fold = fold

    def take(self, index: int, term: int, size: int, data: bytes) -> None:
        """The next record, of ``size`` bytes in the log, as far as it is sound."""
        assert index == self.next, f"order record {index} where {self.next} was due"
        self.next += 1
        projection, fold, shard = project(data, self._shard), self._fold, self._shard
        if fold is None:
            self._add(KeptRecord(index, index, term, size, projection))
            return
        if concerns(projection, shard):
            since, head, in_log = self._ended()
            self._add(KeptRecord(since or index, index, term, min(in_log + size, _MOST_IN_LOG),
                                 head + projection))
        else:
            self._since = self._since or index
            self._in_log, self._term = min(self._in_log + size, _MOST_IN_LOG), term
            for kind, pos, end in items(projection):
                if kind == Item.CUT:
                    self._cuts.update(decode_cut(projection, pos, end))
        fold.take(data, 0)
        fold.concerned.clear()

    def _add(self, record: KeptRecord) -> None:
        self._records.append(record)
        self.size += RECORD_BYTES + len(record.items)

    def _ended(self) -> tuple[int, bytes, int]:
        since, in_log = self._since, self._in_log
        if not since:
            return 0, b"", 0
        assert self._fold is not None, "runs are of a known fold"
        head = encode_passed(since, self._fold.revision, self._cuts)
        self._since, self._in_log, self._cuts = 0, 0, {}
        return since, head, in_log

    def finished(self) -> Piece:
        since, head, in_log = self._ended()
        if since:
            self._add(KeptRecord(since, self.next - 1, self._term, in_log, head))
        fold = self._fold.encode() if self._fold is not None else b""
        return Piece(self._shard, self._first, self.next - 1, fold, tuple(self._records))


def own_part(record: KeptRecord, shard: int) -> bytes:
    """What a kept record names of its shard alone: its cuts, and its parts of transactions."""
    out: list[bytes] = []
    for kind, pos, end in items(record.items):
        if kind == Item.CUT:
            out.extend(encode_cut({of: cut}) for of, cut in decode_cut(record.items, pos, end) if of == shard)
        elif kind == Item.MULTI:
            multi = decode_multi(record.items, pos, end)
            if parts := [part for part in multi.parts if part.shard == shard]:
                out.append(encode_multi(multi._replace(parts=parts)))
    return b"".join(out)


def behind(pieces: Iterable[Piece], position: int, last: int) -> list[KeptRecord] | None:
    """The kept records, in order, that take a replica at ``position`` up to ``last`` or further; None: some
    are missing. Of a record that goes further, only what it passes over: the order log has the rest."""
    found: list[KeptRecord] = []
    at = position
    for piece in pieces:
        for record in piece.records:
            if at < last and record.first <= at + 1 <= record.last:
                found.append(_passed_part(record) if record.last > last else record)
                at = found[-1].last
    return found if at >= last else None


def _passed_part(record: KeptRecord) -> KeptRecord:
    kinds = list(items(record.items))
    if len(kinds) == 1 or kinds[0][0] != Item.PASSED:
        return record
    return record._replace(last=record.last - 1, items=record.items[: kinds[0][2]])
