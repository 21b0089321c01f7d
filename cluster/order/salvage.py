"""What one host can keep of a store whose other hosts are lost (H18): the longest beginning of the order that
it has whole.

The order is kept up to the last record before the first cut that the host's own logs do not match in index
and term: a node would wait for those entries for ever. A match proves the prefix (log matching). Shards'
entries behind their last kept cut go, too.

A state never goes back: the order is kept as far as any node has applied it. Entries that this host lacks are
then *made up*: they take the revisions of their cut, and change nothing. Keys that moved away behind such
entries are not what the order says: that cannot be kept. A backup may end earlier, at the
furthest place that every node has reached, or can reach by the logs (:func:`common`) and by files of a shard
that had no majority (``cluster.order.passing``).

``--force-new-cluster`` carries it out (``tools.muster.host.identity.forcing``), and
``node.backup.stopped.salvage``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.effects.records import Item, items
from cluster.order.log import Cut, decode_cut, decode_multi, entry
from cluster.order.passing import Piece, behind, own_part
from cluster.placement.changes import Moved, read_move, read_moved
from cluster.placement.table import Move
from cluster.raft.types import Entry, EntryKind

Records = Iterable[tuple[int, bytes]]
_ANY = 1 << 64  # above every index


class Kept(NamedTuple):
    """How far the order goes that a host has whole, and what is missing behind it."""

    order_index: int
    shard: int = 0  # whose log does not match; 0: nothing is missing
    cut: Cut = Cut()


def kept(records: Records, applied: Mapping[int, int], term_at: Callable[[int, int], int | None]) -> Kept:
    """``records``: the host's order records, ascending, with their indexes, from what its least node has
    applied; ``applied``: the log index that the state of each shard with a node here covers;
    ``term_at(shard, index)``: of the entry in the host's log of the shard, None if there is none."""
    last = 0
    for index, data in records:
        for kind, pos, end in items(data):
            if kind == Item.CUT:
                for shard, cut in decode_cut(data, pos, end):
                    # what is applied was matched when it was; a shard without a node here owns no keys
                    if cut.index > applied.get(shard, _ANY) and term_at(shard, cut.index) != cut.term:
                        return Kept(last, shard, cut)
        last = index
    return Kept(last)


def common(
    records: Callable[[int], Records], begins: int, applied: Mapping[int, int], ordered: Mapping[int, int],
    term_at: Callable[[int, int], int | None],
) -> Kept:
    """The furthest place of the order that the shards named in ``ordered`` have all reached, or can reach by
    the host's own logs without a gap.

    ``records(index)``: the order records from there on; ``begins``: the last one that is no longer kept;
    ``ordered``: how much of the order each node has applied; the rest as of :func:`kept`.
    """
    least = min(ordered.values())
    if least < begins:
        return Kept(least)  # what carries that node further is not kept any more
    # cuts of other shards are no matter of these
    beyond = {shard: index if shard in ordered else _ANY for shard, index in applied.items()}
    found = kept(records(least + 1), beyond, term_at)
    return found._replace(order_index=max(least, found.order_index))


def common_with_files(
    records: Callable[[int], Records], begins: int, applied: Mapping[int, int], ordered: Mapping[int, int],
    term_at: Callable[[int, int], int | None], pieces: Callable[[int], Iterable[Piece]],
) -> Kept:
    """As :func:`common`, where files hold for a shard what the order log has dropped: ``pieces(shard)``.
    Before the log's beginning only the least place is common to all."""
    least = min(ordered.values())
    reached = dict(ordered)
    for shard, index in ordered.items():
        if index < begins:
            found = behind(pieces(shard), index, begins)
            if found is None:
                return Kept(least)
            gap = kept([(r.last, own_part(r, shard)) for r in found], applied, term_at)
            if gap.shard:
                return gap._replace(order_index=least)
            reached[shard] = found[-1].last
    place = common(records, begins, applied, reached, term_at)
    # what is passed over is passed as a whole
    whole = all(index >= begins or reached[shard] <= place.order_index for shard, index in ordered.items())
    return place if whole else place._replace(order_index=least)


class CannotBeKept(Exception):
    """The order as this host has it names changes of a shard that this host cannot apply."""


@dataclass(slots=True)
class Plan:
    order_index: int  # the last record that is kept
    last: dict[int, int]  # shard -> its last entry in order: what is behind it goes
    # shard -> entries that take the place of what it has
    made_up: dict[int, list[Entry]] = field(default_factory=dict)
    # shard -> the highest term that the order names
    terms: dict[int, int] = field(default_factory=dict)


def planned(
    records: Callable[[], Records], applied: Mapping[int, int], ordered: Iterable[int],
    term_at: Callable[[int, int], int | None], move: Move | None = None,
) -> Plan:
    """``records()``, ``applied``, ``term_at``: as of :func:`kept`; ``ordered``: how much of the order each
    node has applied; ``move``: that goes on where shard 0 is. Raises CannotBeKept."""
    found = Plan(max(kept(records(), applied, term_at).order_index, *ordered), dict(applied))
    for index, data in records():
        for kind, pos, end in items(data):
            if kind == Item.MOVE:
                move = read_move(data, pos, end)
            elif kind == Item.MOVED and index <= found.order_index and found.made_up:
                _check_switch(index, read_moved(data, pos), move, found)
            if kind == Item.CUT:
                for shard, cut in decode_cut(data, pos, end):
                    found.terms[shard] = max(found.terms.get(shard, 0), cut.term)
                    if index <= found.order_index and cut.index > applied.get(shard, _ANY):
                        if cut.index <= found.last[shard]:
                            raise CannotBeKept(
                                f"order record {index} names entry {cut.index} of shard {shard}, and records "
                                f"before it go up to entry {found.last[shard]}")
                        if term_at(shard, cut.index) != cut.term:  # nor will any later one be (log matching)
                            found.made_up.setdefault(shard, []).extend(_made_up(cut, found.last[shard]))
                        found.last[shard] = cut.index
            elif kind == Item.MULTI and index <= found.order_index and found.made_up:
                for part in decode_multi(data, pos, end).parts:
                    if part.shard in found.made_up:
                        raise CannotBeKept(
                            f"order record {index} changes shard {part.shard}, of which this host has not "
                            f"the entries that the order names before it (up to {found.last[part.shard]})")
    return found


def _check_switch(index: int, moved: Moved, move: Move | None, found: Plan) -> None:
    """G5: what moves is what its sources have. Of a move that began before the records nothing is known."""
    known = move if move is not None and move.number == moved.number else None
    lacking = sorted(s for s in found.made_up if known is None or s in known.sources)
    if moved.switched and lacking:
        raise CannotBeKept(
            f"with order record {index} keys move away from shard {lacking[0]}, of which this host has not "
            f"the entries that the order names before it (up to {found.last[lacking[0]]})")


def _made_up(cut: Cut, last: int) -> list[Entry]:
    made = [Entry(index, cut.term, EntryKind.NOOP, b"") for index in range(last + 1, cut.index)]
    return [*made, Entry(cut.index, cut.term, EntryKind.RECORD, entry(cut.count, b""))]
