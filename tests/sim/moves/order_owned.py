"""Of the simulator's store: which of its keys are the shard's own, copies of what moves to it, and what has
moved away (growth.md, G5, G6, G10, G11)."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster.effects.records import Item
from cluster.evaluate.reading.ranges import Fields
from cluster.evaluate.spans import holds
from cluster.order.moving.copier import STAGING, Answer, Ask, Batch, read_staging
from cluster.placement import Table
from cluster.placement import changes as placement_changes
from cluster.placement.table import Move, Piece

if TYPE_CHECKING:
    from tests.sim.disks.order_content import Content

PAGE = 1  # rows
EVENTS = 2


@dataclass(slots=True, frozen=True)
class Left:
    """A move away from here, whose rows are still on this disk."""

    move: Move
    before: Table  # whose keys were whose
    revision: int  # of the switch
    order_index: int  # of the switch, or of a later record
    bared: bool = False  # what was owned at no revision is gone

    @property
    def target(self) -> int:
        return self.move.target

    def parts(self, shard: int) -> list[Piece]:
        own = self.before.pieces_of(shard, self.move.start, self.move.end)
        return [part for part in own if part.first <= self.revision] if self.bared else own

    def unseen(self, shard: int) -> list[Piece]:
        return [part for part in self.parts(shard) if part.first > self.revision]


def owns(content: Content, key: bytes, revision: int | None) -> bool:
    """Whether a shard shows a key: now, or at a revision (G6)."""
    table = content.table
    if table is None:
        return True
    if revision is None:
        return table.owner(key) == content.shard
    return table.owners_at(key, b"", max(revision, table.pruned)) == (content.shard,)


def counts(content: Content, key: bytes, mod: int) -> bool:
    """Whether a version counts in this shard's hash."""
    return owns(content, key, max(mod, content.position.compact_revision))


def moved_span(content: Content, move: Move) -> list[bytes]:
    return [key for key in content.keys if holds((move.start, move.end), key)]


def remove(content: Content, move: Move) -> None:
    """All rows of what moves, of whatever age."""
    for key in moved_span(content, move):
        del content.versions[key]
        content.keys.remove(key)


def stage(content: Content, number: int, batch: Batch) -> None:
    """A copier's batch: masked rows, and how far it is."""
    table = content.table
    assert table is not None, "G5: nothing moves"
    move = table.move
    assert move is not None, f"G5: rows of move {number}, which is over"
    assert move.number == number, f"G5: rows of move {number} during {move}"
    if batch.anew:
        remove(content, move)
    for key, kv in batch.rows:
        assert not owns(content, key, None), f"G6: {key!r} is copied, and is this shard's own"
        if kv is not None:
            if key not in content.versions:
                insort(content.keys, key)
            content.versions[key] = [(Fields(kv).mod, 0, kv)]
        elif content.versions.pop(key, None) is not None:
            content.keys.remove(key)
    content.metas[STAGING] = batch.staging


def take(
    content: Content, data: bytes, kind: int, at: int, to: int, revision: int, order_index: int
) -> Table:
    """The table behind an item that changes it, with what the item means here."""
    before = content.table or Table.initial(content.base)
    table = placement_changes.take(before, data, kind, at, to, revision)
    move = before.move
    if kind == Item.MOVED and move is not None:
        moved = placement_changes.read_moved(data, at)
        if moved.switched:
            _switched(content, before, move, moved.live, revision, order_index)
        elif move.target == content.shard and _staged(content) == move.number:
            remove(content, move)
            del content.metas[STAGING]
    content.table = table
    content.metas["placement"] = table.encode()
    return table


def _staged(content: Content) -> int:
    """The move whose copy is here; 0: none."""
    row = content.metas.get(STAGING)
    return read_staging(row)[0] if row is not None else 0


def _switched(
    content: Content, before: Table, move: Move, live: int, revision: int, order_index: int
) -> None:
    if content.shard in move.sources:
        content.left[move.number] = Left(move, before, revision, order_index)
    if content.shard != move.target:
        return
    row = content.metas.pop(STAGING, None)
    assert row is not None, f"G5: no base of {move}"
    assert read_staging(row)[0] == move.number, f"G5: the base of another move for {move}"
    rows = [(key, content.versions[key][-1]) for key in moved_span(content, move)]
    assert len(rows) == live, f"G5: {len(rows)} keys of {move}, {live} were counted"
    content.chain = hash((content.chain, move.number, tuple(rows)))
    content.bases.append((revision, move, {key: kv for key, (_, _, kv) in rows if kv is not None}))


# -- what a source answers


class Unknown(Exception):
    """The replica has not come to this move, or has dropped its rows."""


def answer(content: Content, move: Move, ask: Ask) -> Answer:
    """As far as this replica is."""
    left, table = content.left.get(move.number), content.table
    if left is None and (table is None or table.move is None or table.move.number != move.number):
        raise Unknown
    if left is not None and left.bared:
        raise Unknown
    before = left.before if left is not None else table
    assert before is not None
    upto = content.position.revision
    if left is not None:
        upto = min(upto, left.revision)
    mine = [key for key in moved_span(content, move) if before.owner(key) == content.shard]
    if ask.page:
        live = [(key, kv) for key in mine if key >= ask.start
                and (kv := content.versions[key][-1][2]) is not None]
        more = live[PAGE][0] if len(live) > PAGE else None
        return Answer(upto, live[:PAGE], more)
    if not ask.revision:
        return Answer(upto)
    if ask.revision < upto and content.position.compact_revision > ask.revision + 1:
        return Answer(upto, compacted=True)
    return _events(content, (move.start, move.end), ask, upto, before)


def _events(content: Content, span: tuple[bytes, bytes], ask: Ask, upto: int, before: Table) -> Answer:
    """A few of them: an answer may end within a revision."""
    found: list[tuple[bytes, bytes | None]] = []
    last = number = 0
    for revision, _, key, kv in content.changes:
        number = number + 1 if revision == last else 0
        last = revision
        if revision > upto or (revision - 1, number) < (ask.revision, ask.within):
            continue
        if len(found) >= EVENTS:
            return Answer(revision - 1, found, within=number)
        if holds(span, key) and before.owner(key) == content.shard:
            found.append((key, kv))
    return Answer(max(upto, ask.revision), found, level=True)


def drop(content: Content, number: int) -> None:
    """Rows that have moved away (G10), as far as nothing has come back."""
    left = content.left.pop(number)
    for part in left.parts(content.shard):
        for key in [key for key in content.keys if holds((part.start, part.end), key)]:
            if left.before.owner(key) == content.shard and not owns(content, key, None):
                del content.versions[key]
                content.keys.remove(key)


def bare(content: Content, number: int) -> None:
    """The same of what was owned at no revision alone."""
    left = content.left[number]
    for part in left.unseen(content.shard):
        for key in [key for key in content.keys if holds((part.start, part.end), key)]:
            del content.versions[key]
            content.keys.remove(key)
    content.left[number] = replace(left, bared=True)


def may_drop(content: Content, left: Left) -> bool:
    """Whether nothing below a compaction can ask for it any more, or nothing ever could."""
    ever = left.unseen(content.shard) != left.parts(content.shard)
    return content.position.compact_revision > left.revision or not ever
