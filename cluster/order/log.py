"""The order log: how the one order of the whole store is written down, and what follows from it.

Shard 0's Raft log is the order log. Each of its records is a list of items in the order in which the
sequencer evaluated them: shard 0's own effects, *cuts*, transactions over several shards (*multis*), control
items. The revision is a pure fold over it (I5):

* an own effect that changes something adds 1;
* a cut adds, in ascending shard order, what each shard's cumulative count has grown by; the entries of that
  growth get these revisions, in log order;
* a multi adds 1 for each of its groups (one group is one atomic change; a transaction has one, a batch of
  expired leases one per lease that has keys).

Every field is absolute, never a difference, so a record means the same in every fold (H15). A cut names for
each shard ``(index, term of the entry there, cumulative count up to it)``: a node applies it only when its
own entry at that index has that term, which by log matching proves the whole prefix (H3, C6).

A node of another shard is fed a *projection* of each record, in which shard 0's effects have become their
number (D9). Projections need no state, so any host's node 0 can serve any record.

Items, little-endian (``cluster.effects.records`` has the frame ``kind u8 | length u32 | body``)::

    CUT     (shard u16 | index u64 | term u64 | count u64) ...           shards ascending
    MULTI   attempt term u64 | attempt number u64 | groups u16 | participants u16
            (shard u16 | term u64) ...  participants, ascending
            (group u16 | shard u16 | sub u32 | length u32 | items) ...   in the order of the changes
    SKIP    n u64       never logged: n revisions of shard 0's own effects (in projections), or of an item
                        that cannot be applied (``cluster.order.sound``)
    PASSED  first u64 | revision u64 | (as of CUT) ...      never logged: the records from ``first`` on, up to
                        this one, did nothing in a shard, and left the fold so (``cluster.order.passing``)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cluster.effects.newer import NewerRecord
from cluster.effects.records import ITEM, LEASE_ID, PUTS_HEAD, Item, items
from cluster.features.rows import OF_SHARD_0
from cluster.placement.changes import shard_state
from cluster.placement.table import State, Table

_CUT = struct.Struct("<HQQQ")
MULTI_HEAD = struct.Struct("<QQHH")
PARTICIPANT = struct.Struct("<HQ")
PART_HEAD = struct.Struct("<HHII")
_SKIP = struct.Struct("<Q")
PASSED_HEAD = struct.Struct("<QQ")
CUT_SIZE = _CUT.size
_COUNT = struct.Struct("<Q")
_CONTROL = frozenset((
    Item.LEASE_GRANT, Item.LEASE_REVOKE, Item.LEASE_CHECKPOINT, Item.COMPACT, Item.BOOTSTRAP,
    Item.INCARNATION, Item.ALARM, Item.ROWS, Item.HOST, Item.GROWTH, Item.SHARD, Item.MOVE, Item.MOVED))
_OF_SHARD_0 = frozenset(bytes((feature,)) for feature in OF_SHARD_0)
# what is no effect of shard 0's own
_ORDERING = _CONTROL | {Item.CUT, Item.MULTI, Item.SKIP, Item.PASSED, Item.PUBLISH, Item.DOWNGRADE}
_KNOWN = frozenset(map(int, Item))
_EFFECTS = _KNOWN - _ORDERING


class Attempt(NamedTuple):
    """One try of a transaction over several shards; never reused (H5). Ordered by age."""

    term: int  # of the sequencer
    number: int


@dataclass(slots=True, frozen=True)
class Cut:
    """How far a shard is in order: ``C_s``."""

    index: int = 0
    term: int = 0
    count: int = 0  # revisions that its entries up to ``index`` take


class Part(NamedTuple):
    group: int
    shard: int
    sub: int  # place of its first change among the changes of the revision
    items: bytes  # PUT, PUT_NEW, DELETE items


class Multi(NamedTuple):
    attempt: Attempt
    groups: int  # revisions that it takes
    participants: dict[int, int]  # shard -> term of the leader on whose answer it relies (I10)
    parts: list[Part]


def _pack_cut(shard: int, cut: Cut) -> bytes:
    return _CUT.pack(shard, cut.index, cut.term, cut.count)


def encode_cut(cuts: Mapping[int, Cut]) -> bytes:
    body = b"".join([_pack_cut(s, cuts[s]) for s in sorted(cuts)])
    return ITEM.pack(Item.CUT, len(body)) + body


def encode_multi(multi: Multi) -> bytes:
    (term, number), groups, participants, parts = multi
    pieces = [MULTI_HEAD.pack(term, number, groups, len(participants))]
    for shard in sorted(participants):
        pieces.append(PARTICIPANT.pack(shard, participants[shard]))
    for group, shard, sub, items_of in parts:
        pieces += (PART_HEAD.pack(group, shard, sub, len(items_of)), items_of)
    body = b"".join(pieces)
    return ITEM.pack(Item.MULTI, len(body)) + body


def decode_cut(data: bytes, pos: int, end: int) -> Iterator[tuple[int, Cut]]:
    """``(shard, cut)`` of a cut item's body. ValueError if it is cut short."""
    if (end - pos) % _CUT.size:
        raise ValueError("truncated cut")
    for at in range(pos, end, _CUT.size):
        shard, index, term, count = _CUT.unpack_from(data, at)
        yield shard, Cut(index, term, count)


def cut_of(record: bytes, shard: int) -> Cut | None:
    """What a record, or its projection, puts in order of a shard; None: nothing."""
    found = None
    for kind, pos, end in items(record):
        if kind == Item.CUT:
            for of, cut in decode_cut(record, pos, end):
                if of == shard:
                    found = cut
    return found


def decode_multi(data: bytes, pos: int, end: int) -> Multi:
    """A multi item's body. ValueError if it is cut short."""
    try:
        term, number, groups, count = MULTI_HEAD.unpack_from(data, pos)
        pos += MULTI_HEAD.size
        participants = {}
        for _ in range(count):
            shard, leader_term = PARTICIPANT.unpack_from(data, pos)
            participants[shard] = leader_term
            pos += PARTICIPANT.size
        parts = []
        while pos < end:
            group, shard, sub, length = PART_HEAD.unpack_from(data, pos)
            pos += PART_HEAD.size
            if pos + length > end:
                raise ValueError("truncated multi")
            parts.append(Part(group, shard, sub, data[pos : pos + length]))
            pos += length
    except struct.error as e:
        raise ValueError("truncated multi") from e
    return Multi(Attempt(term, number), groups, participants, parts)


def entry(count: int, record: bytes) -> bytes:
    """The data of a log entry of a shard other than 0: the cumulative count up to it, and its effects."""
    return _COUNT.pack(count) + record


def entry_count(data: bytes) -> int:
    return int(_COUNT.unpack_from(data)[0])


ENTRY_ITEMS = _COUNT.size  # where the items of such an entry begin


def skip(revisions: int) -> bytes:
    return ITEM.pack(Item.SKIP, _SKIP.size) + _SKIP.pack(revisions)


def encode_passed(first: int, revision: int, cuts: Mapping[int, Cut]) -> bytes:
    """An item that says where the fold stands after records that did nothing in a shard."""
    body = PASSED_HEAD.pack(first, revision) + b"".join([_pack_cut(s, cuts[s]) for s in sorted(cuts)])
    return ITEM.pack(Item.PASSED, len(body)) + body


def passed_from(record: bytes) -> int | None:
    """The first of the earlier records that a projection stands for, too; None: there are none."""
    if len(record) < ITEM.size + PASSED_HEAD.size or record[0] != Item.PASSED:
        return None
    return int(PASSED_HEAD.unpack_from(record, ITEM.size)[0])


def revisions_of(data: bytes, kind: int, pos: int, end: int) -> int:
    if kind <= Item.DELETE or kind in (Item.PUT_REF, Item.DELETE_RANGE, Item.TXN_LONG):
        return 1
    if kind in (Item.PUTS, Item.PUTS_LATER):
        return int(PUTS_HEAD.unpack_from(data, pos)[0])
    if kind == Item.TXN:
        return 1 if end > pos else 0
    if kind == Item.LEASE_REVOKE:
        return 1 if end > pos + LEASE_ID.size else 0
    if kind == Item.SKIP:
        return int(_SKIP.unpack_from(data, pos)[0])
    return 0


def _project_multi(data: bytes, pos: int, end: int, shard: int) -> bytes:
    at = pos + MULTI_HEAD.size + PARTICIPANT.size * int(MULTI_HEAD.unpack_from(data, pos)[3])
    pieces = [data[pos:at]]
    while at < end:
        _, of, _, length = PART_HEAD.unpack_from(data, at)
        after = at + PART_HEAD.size + length
        if of == shard:
            pieces.append(data[at:after])
        at = after
    if at != end:
        raise ValueError("truncated multi")
    body = b"".join(pieces)
    return ITEM.pack(Item.MULTI, len(body)) + body


def _is_of_shard_0(data: bytes, kind: int, pos: int) -> bool:
    return kind == Item.ROWS and data[pos : pos + 1] in _OF_SHARD_0


def project(data: bytes, shard: int) -> bytes:
    """What a node of another shard needs of an order record: order, cuts, its own parts, control items."""
    out: list[bytes] = []
    skipped = 0
    for kind, pos, end in items(data):
        if kind == Item.MULTI:
            piece = _project_multi(data, pos, end, shard)
        elif kind == Item.CUT:
            piece = data[pos - ITEM.size : end]
        elif kind in _CONTROL and not _is_of_shard_0(data, kind, pos):
            if kind == Item.LEASE_REVOKE:  # its keys, if any, are shard 0's own
                skipped += revisions_of(data, kind, pos, end)
                end = pos + LEASE_ID.size
                piece = ITEM.pack(kind, LEASE_ID.size) + data[pos:end]
            else:
                piece = data[pos - ITEM.size : end]
        else:
            if kind not in _KNOWN:
                raise NewerRecord.kind(kind)
            skipped += revisions_of(data, kind, pos, end)
            continue
        if skipped:
            out.append(skip(skipped))
            skipped = 0
        out.append(piece)
    if skipped:
        out.append(skip(skipped))
    return b"".join(out)


class Entries(NamedTuple):
    """Step: the node's own entries above the last cut up to this one are in order."""

    cut: Cut
    revision: int  # of the fold before them: the first change among them gets the next one


class Change(NamedTuple):
    """Step: effects at known revisions: shard 0's own, or a part of a multi."""

    items: bytes
    revision: int  # of the fold before them
    attempt: Attempt | None  # of the multi
    sub: int = 0  # place of the first change at its revision


class Control(NamedTuple):
    item: bytes
    revision: int


Step = Entries | Change | Control


class Fold:
    """What the order log says up to a place: the revision, and ``C_s`` of every shard (I5, I19)."""

    def __init__(self, revision: int = 1, cuts: Mapping[int, Cut] | None = None) -> None:
        self.revision = revision
        self.cuts: dict[int, Cut] = dict(cuts or {})
        # since the owner looked: shards that were cut or took part in a multi; a control item is for all
        self.concerned: set[int] = set()
        self.concerns_all = False
        # of shards that were born: known since this fold was made, or told by its owner (G12, G13)
        self.states: dict[int, int] = {}

    def copy(self) -> Fold:
        copy = Fold(self.revision, self.cuts)
        copy.states = dict(self.states)
        return copy

    def know(self, table: Table) -> None:
        """The table of placement at this place."""
        self.states = {s: known.state for s, known in table.shards.items() if s >= table.base.shards}

    def cut(self, shard: int) -> Cut:
        """``C_s``."""
        return self.cuts.get(shard, _NO_CUT)

    def take(self, data: bytes, shard: int) -> list[Step]:
        """Fold one record (or its projection) as a whole. Returns what a node of ``shard`` has to do.
        NewerRecord: it holds what this program does not know, which is never taken for an effect."""
        steps: list[Step] = []
        # a run of shard 0's own effects is one step: each gets the next revision
        own, own_end, own_revision = -1, 0, 0
        for kind, pos, end in items(data):
            if kind in _EFFECTS:
                assert shard == 0, "shard 0's effects are not projected to others"
                if own < 0:
                    own, own_revision = pos - ITEM.size, self.revision
                own_end = end
                self.revision += revisions_of(data, kind, pos, end)
                continue
            if own >= 0:
                steps.append(Change(data[own:own_end], own_revision, None))
                own = -1
            if kind == Item.CUT:
                self._take_cut(data, pos, end, shard, steps)
            elif kind == Item.MULTI:
                self._take_multi(data, pos, end, shard, steps)
            elif kind == Item.SKIP:
                self.revision += revisions_of(data, kind, pos, end)
            elif kind == Item.PASSED:
                self._take_passed(data, pos, end, shard)
            elif kind not in _KNOWN:
                raise NewerRecord.kind(kind)
            else:
                steps.append(Control(data[pos - ITEM.size : end], self.revision))
                if kind == Item.SHARD:
                    shard_id, state = shard_state(data, pos)
                    self.states[shard_id] = state
                self.concerns_all = self.concerns_all or not _is_of_shard_0(data, kind, pos)
                self.revision += revisions_of(data, kind, pos, end)
        if own >= 0:
            steps.append(Change(data[own:own_end], own_revision, None))
        return steps

    def take_own(self, participants: Mapping[int, int], groups: int) -> None:
        """As :meth:`take`, of a multi that the owner has just made: it need not be read again."""
        for shard, term in participants.items():
            assert self.cut(shard).term == term, (
                f"I10: a multi rests on term {term} of shard {shard}")
            self.concerned.add(shard)
        self.revision += groups

    def _take_passed(self, data: bytes, pos: int, end: int, shard: int) -> None:
        # absolute: a replica that has applied some of these records goes on from there
        _, revision = PASSED_HEAD.unpack_from(data, pos)
        assert revision >= self.revision, f"I4: revision {revision} is passed on to after {self.revision}"
        self.revision = revision
        for s, new in decode_cut(data, pos + PASSED_HEAD.size, end):
            assert s != shard, "a cut of the shard itself is not passed over"
            if new.index > self.cut(s).index:
                self.cuts[s] = new

    def _take_cut(self, data: bytes, pos: int, end: int, shard: int, steps: list[Step]) -> None:
        for s, new in decode_cut(data, pos, end):
            old = self.cut(s)
            # I4: absolute and never backwards
            assert new.index > old.index, f"I4: shard {s} cut at {new.index} after {old.index}"
            assert new.term >= old.term, f"I4: shard {s} cut at term {new.term} after {old.term}"
            assert new.count >= old.count, f"I4: shard {s} cut at count {new.count} after {old.count}"
            if self.states:
                state = self.states.get(s, State.SERVING)
                assert state != State.FORMING, f"G12: a cut of shard {s} before it serves"
                assert state != State.DROPPED, f"G13: a cut of shard {s} after it was dropped"
            if s == shard:
                steps.append(Entries(new, self.revision))
            self.revision += new.count - old.count
            self.cuts[s] = new
            self.concerned.add(s)

    def _take_multi(self, data: bytes, pos: int, end: int, shard: int, steps: list[Step]) -> None:
        # read in place, not by decode_multi: every host's node 0 does so once a multi
        term, number, groups, count = MULTI_HEAD.unpack_from(data, pos)
        attempt = Attempt(term, number)
        pos += MULTI_HEAD.size
        takes_part = False
        for _ in range(count):
            s, leader_term = PARTICIPANT.unpack_from(data, pos)
            pos += PARTICIPANT.size
            assert self.cut(s).term == leader_term, (
                f"I10: multi {attempt} rests on term {leader_term} of shard {s}")
            takes_part = takes_part or s == shard
            self.concerned.add(s)
        while pos < end:
            group, s, sub, length = PART_HEAD.unpack_from(data, pos)
            pos += PART_HEAD.size
            if s == shard:
                steps.append(Change(data[pos : pos + length], self.revision + group, attempt, sub))
                takes_part = False
            pos += length
        if pos != end:
            raise ValueError("truncated multi")
        if takes_part:
            steps.append(Change(b"", self.revision, attempt))  # it only read here: unlock
        self.revision += groups

    def encode(self) -> bytes:
        return struct.pack("<Q", self.revision) + b"".join(
            [_pack_cut(s, self.cuts[s]) for s in sorted(self.cuts)])

    @classmethod
    def decode(cls, data: bytes) -> Fold:
        return cls(struct.unpack_from("<Q", data)[0], dict(decode_cut(data, 8, len(data))))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fold) and (self.revision, self.cuts) == (other.revision, other.cuts)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Fold({self.revision}, {self.cuts})"


_NO_CUT = Cut()
