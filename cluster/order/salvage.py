"""What one host can keep of a store whose other hosts are lost (H18): the longest beginning of the order that
it has whole.

Its copy of the order log may name entries of a shard that its replica of that shard has not, or has otherwise
(a log's tail need not be committed): a node would wait for them for ever. So the order is kept up to the last
record before the first cut that the host's own logs do not match in index and in term. A match proves the
prefix (log matching). What stands behind it is dropped, and said to be; shards' entries behind their last
kept cut have no place in the order and go with it.

A state never goes back. Where a node of this host has applied more of the order than that, the order is kept
up to there. Entries that are nowhere on this host are then *made up*: they take the revisions that their cut
says, and change nothing. Every node can then apply what is left.

A backup of the host's data directory changes nothing there, so it may end earlier: at the furthest place that
every node has reached, or can be carried to by the logs (:func:`common`).

Pure. ``--force-new-cluster`` carries it out (``tools.muster.host.identity.forcing``), and the backup
``node.backup.salvage``; the simulator applies both to what crashes leave on one host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.effects.records import Item, items
from cluster.order.log import Cut, decode_cut, decode_multi, entry
from cluster.raft.types import Entry, EntryKind

Records = Iterable[tuple[int, bytes]]
_ANY = 1 << 64  # above every index


class Kept(NamedTuple):
    """How far the order goes that a host has whole, and what is missing behind it."""

    order_index: int
    shard: int = 0  # whose log does not match; 0: nothing is missing
    cut: Cut = Cut()


def kept(
    records: Records, applied: Mapping[int, int], term_at: Callable[[int, int], int | None],
) -> Kept:
    """``records``: the host's order records, ascending, each with its index, those that its least node has
    applied among them; ``applied``: the log index that each shard's state covers; ``term_at(shard, index)``:
    of the entry in the host's log of the shard, None if there is none."""
    last = 0
    for index, data in records:
        for kind, pos, end in items(data):
            if kind == Item.CUT:
                for shard, cut in decode_cut(data, pos, end):
                    # what is applied was matched when it was
                    if cut.index > applied[shard] and term_at(shard, cut.index) != cut.term:
                        return Kept(last, shard, cut)
        last = index
    return Kept(last)


def common(
    records: Callable[[int], Records], begins: int, applied: Mapping[int, int], ordered: Mapping[int, int],
    term_at: Callable[[int, int], int | None],
) -> Kept:
    """The furthest place of the order that the shards named in ``ordered`` have all reached, or can be
    carried to by the host's own logs: no gap is before it.

    ``records(index)``: the order records from there on; ``begins``: the last one that is no longer kept;
    ``ordered``: how much of the order each node has applied; the rest as of :func:`kept`."""
    least = min(ordered.values())
    if least < begins:
        return Kept(least)  # what carries that node further is not kept any more
    # cuts of other shards are no matter of these
    beyond = {shard: index if shard in ordered else _ANY for shard, index in applied.items()}
    found = kept(records(least + 1), beyond, term_at)
    return found._replace(order_index=max(least, found.order_index))


class CannotBeKept(Exception):
    """The order as this host has it says of a shard what nobody here can apply."""


@dataclass(slots=True)
class Plan:
    """What becomes of the logs of one host."""

    order_index: int  # the last record that is kept
    last: dict[int, int]  # shard -> its last entry in order: what is behind it goes
    # shard -> entries that take the place of what it has
    made_up: dict[int, list[Entry]] = field(default_factory=dict)
    # shard -> the highest term that the order names
    terms: dict[int, int] = field(default_factory=dict)


def planned(
    records: Callable[[], Records], applied: Mapping[int, int], ordered: Iterable[int],
    term_at: Callable[[int, int], int | None],
) -> Plan:
    """``records()``, ``applied``, ``term_at``: as of :func:`kept`; ``ordered``: how much of the order each
    node has applied. Raises CannotBeKept."""
    found = Plan(max(kept(records(), applied, term_at).order_index, *ordered), dict(applied))
    for index, data in records():
        for kind, pos, end in items(data):
            if kind == Item.CUT:
                for shard, cut in decode_cut(data, pos, end):
                    found.terms[shard] = max(found.terms.get(shard, 0), cut.term)
                    if index <= found.order_index and cut.index > applied[shard]:
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


def _made_up(cut: Cut, last: int) -> list[Entry]:
    """Entries behind ``last`` that match a cut and change nothing."""
    made = [Entry(index, cut.term, EntryKind.NOOP, b"") for index in range(last + 1, cut.index)]
    return [*made, Entry(cut.index, cut.term, EntryKind.RECORD, entry(cut.count, b""))]
