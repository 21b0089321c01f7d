"""The table of placement against the most naive model: an owner for each key and revision (G1, G2)."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.effects.records import ITEM
from cluster.errors import EtcdError
from cluster.features.moves import Wish, check_move
from cluster.growth.cutting import had
from cluster.placement import Placement, Table, changes
from cluster.placement.base import Base
from cluster.placement.changes import Moved
from cluster.placement.table import END, MOST_SPANS, Move, Piece, Shard, State

KEYS = [bytes((letter, digit)) for letter in b"abcdef" for digit in b"/1"] + [b"a/x", b"c/\0", b"f\xff"]
KEYS.sort()
BOUNDS = [b"\0", *KEYS, b"b", b"c0"]
SHARDS = 4  # of the base 1 or 2


class Model:
    """Owners by key and revision, each in a cell of its own."""

    def __init__(self, base: Base, seed: int) -> None:
        self.random = Random(seed)
        self.table = Table.initial(base)
        self.cells = {(key, 1): base.shard_of(key) for key in KEYS}
        self.revision = 1
        self.moves = self.switched = 0
        for shard in range(base.shards, SHARDS):
            self.take(changes.shard_item(shard, State.FORMING, shard, (1, 2)))
            self.take(changes.shard_item(shard, State.SERVING))

    def take(self, item: bytes) -> None:
        kind, length = ITEM.unpack_from(item)
        before = self.table
        sound = {31: changes.sound_shard, 32: changes.sound_move, 33: changes.sound_moved}[kind]
        assert sound(item, ITEM.size, len(item))
        self.table = changes.take(before, item, kind, ITEM.size, ITEM.size + length, self.revision)
        assert self.table.generation == before.generation + 1
        assert Table.decode(self.table.encode()) == self.table

    def write(self) -> None:
        """A revision goes by: nobody's owner changes."""
        self.revision += 1
        for key in KEYS:
            self.cells[key, self.revision] = self.cells[key, self.revision - 1]

    def move(self) -> None:
        start, end = self.random.choice(BOUNDS), self.random.choice([*BOUNDS, END])
        if end != END and end <= start:
            return
        single = end == start + b"\0"
        owners = self.table.owners(start, b"" if single else end)
        target = self.random.randrange(SHARDS)
        self.moves += 1
        item = changes.move_item(Move(self.moves, start, end, owners, target))
        try:
            self.take(item)
        except AssertionError as error:
            assert "G11" in str(error), "nothing else forbids it"  # noqa: PT017
            return
        assert target not in owners
        switched = self.random.random() < 0.8
        for _ in range(self.random.randrange(3)):
            self.write()
        self.take(changes.moved_item(Moved(self.moves, switched, self.revision, 0)))
        if switched:
            self.switched += 1
            # it takes no revision: what is written next is the target's
            moved = [key for key in KEYS if start <= key and (end == END or key < end)]
            self.write()
            self.cells.update({(key, self.revision): target for key in moved})

    def compact(self) -> None:
        self.table = changes.take_compact(self.table, self.random.randint(1, self.revision))

    def check(self) -> None:
        table = self.table
        for span, after in pairwise(table.spans):
            assert span.end <= after.start, "disjoint, in order"
        for key in KEYS:
            assert table.owner(key) == self.cells[key, self.revision]
            assert table.owners(key, b"") == (table.owner(key),)
            for revision in range(1, self.revision + 1):
                if revision < table.pruned:
                    with pytest.raises(EtcdError, match="compacted"):
                        table.owners_at(key, b"", revision)
                    continue
                assert table.owners_at(key, b"", revision) == (self.cells[key, revision],)
                since = {self.cells[key, r] for r in range(revision, self.revision + 1)}
                assert set(table.owners_since(key, b"", revision)) == since
        for shard in range(SHARDS):
            if any(self.cells[key, self.revision] == shard for key in KEYS):
                assert table.owns_anything(shard)
        start, end = sorted(self.random.sample(KEYS, 2))
        inside = {self.cells[key, self.revision] for key in KEYS if start <= key < end}
        assert inside <= set(table.owners(start, end))
        then = max(table.pruned, self.random.randint(1, self.revision))
        for key, end_before in ((end, start), (start, start)):  # no key is in it, and somebody answers for it
            assert table.owners(key, end_before) == (table.owner(key),)
            assert table.owners_at(key, end_before, then) == (self.cells[key, then],)
            assert table.owners_since(key, end_before, then) == table.owners_since(key, b"", then)
            assert table.agrees(Table.initial(table.base), key, end_before) == table.agrees(
                Table.initial(table.base), key, b"")
        assert {self.cells[key, then] for key in KEYS if start <= key < end} <= set(
            table.owners_at(start, end, then))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from((1, 2)))
def test_every_key_has_one_owner_at_every_revision(seed: int, base: int) -> None:
    model = Model(Base(base, 1), seed)
    for _ in range(12):
        model.random.choice((model.move, model.move, model.move, model.write, model.compact))()
        model.check()


def test_the_model_moves_something() -> None:
    model = Model(Base(1), 7)
    for _ in range(80):
        model.move()
        model.write()
        if model.random.random() < 0.3:
            model.compact()
    assert model.switched > 10


AT = 5


def grown() -> Table:
    """Shards 0, 1, which serve, and 2, which forms."""
    table = Table.initial(Base(1))
    for shard in (1, 2):
        table = changes.take_shard(table, shard, State.FORMING, shard, (1,))
    return changes.take_shard(table, 1, State.SERVING, 0, ())


def switched(table: Table, move: Move, at: int = AT) -> Table:
    moving = changes.take_move(table, move, at)
    return changes.take_moved(moving, Moved(move.number, True, at, 0), at)


def test_a_switch_gives_the_next_revision_to_the_target() -> None:
    table = switched(grown(), Move(1, b"k", b"l", (0,), 1))
    assert table.owners_at(b"k", b"", 5) == (0,)
    assert table.owners_at(b"k", b"", 6) == (1,)
    assert table.owner(b"kk") == 1
    assert table.owner(b"l") == 0
    assert table.owners(b"a", b"z") == (0, 1)
    assert table.owners_at(b"a", b"z", 5) == (0,)
    assert table.owners_since(b"k", b"", 5) == (0, 1)
    assert table.owners_since(b"k", b"", 6) == (1,)


def test_a_compaction_above_its_end_takes_a_past_out() -> None:
    table = switched(grown(), Move(1, b"k", b"l", (0,), 1))
    assert changes.take_compact(table, 5) is table, "G10: revision 5 is still to be read"
    pruned = changes.take_compact(table, 6)
    assert not pruned.past
    assert pruned.owners_at(b"k", b"", 6) == (1,)
    with pytest.raises(EtcdError, match="compacted"):
        pruned.owners_at(b"k", b"", 5)
    back = switched(pruned, Move(2, b"k", b"l", (1,), 0), 8)
    assert back.owner(b"k") == 0


@pytest.mark.parametrize(("move", "rule"), [
    (Move(1, b"k", b"l", (0,), 2), "G11: the target of .* does not serve"),
    (Move(1, b"k", b"l", (0,), 7), "G11: the target of .* does not serve"),
    (Move(1, b"k", b"l", (0,), 0), "G11: the target of .* has a part"),
    (Move(1, b"k", b"l", (1,), 0), "G11: the sources"),
    (Move(0, b"k", b"l", (0,), 1), "G14: move 0 after 0"),
])
def test_a_move_that_breaks_a_rule_is_a_contradiction(move: Move, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        changes.take_move(grown(), move, AT)


def test_one_move_at_a_time_and_no_way_back_before_the_compaction() -> None:
    moving = changes.take_move(grown(), Move(1, b"k", b"l", (0,), 1), AT)
    with pytest.raises(AssertionError, match="G14: move 2 begins"):
        changes.take_move(moving, Move(2, b"x", b"y", (0,), 1), AT)
    with pytest.raises(AssertionError, match="G14: shard 1 is in a move"):
        changes.take_shard(moving, 1, State.RETIRING, 0, ())
    with pytest.raises(AssertionError, match=r"G1: .* ends"):
        changes.take_moved(moving, Moved(2, True, 5, 0), AT)
    with pytest.raises(AssertionError, match="G4"):
        changes.take_moved(moving, Moved(1, True, 6, 0), AT)
    cancelled = changes.take_moved(moving, Moved(1, False, 0, 0), AT)
    assert cancelled.spans == ()
    with pytest.raises(AssertionError, match="G14: move 1 after 1"):
        changes.take_move(cancelled, Move(1, b"k", b"l", (0,), 1), AT)
    done = switched(cancelled, Move(2, b"k", b"l", (0,), 1))
    with pytest.raises(AssertionError, match=r"G11: the target of .* has a past"):
        changes.take_move(done, Move(3, b"kk", b"kl", (1,), 0), AT)


def test_ids_are_used_once_and_a_shard_ends_without_keys() -> None:
    table = grown()
    with pytest.raises(AssertionError, match="G13: id 1"):
        changes.take_shard(table, 1, State.FORMING, 9, (1,))
    with pytest.raises(AssertionError, match="G13: slot 1"):
        changes.take_shard(table, 3, State.FORMING, 1, (1,))
    with pytest.raises(AssertionError, match="G13: shard 3 was never there"):
        changes.take_shard(table, 3, State.SERVING, 0, ())
    with pytest.raises(AssertionError, match="G13: shard 2 is FORMING, not yet RETIRING"):
        changes.take_shard(table, 2, State.RETIRING, 0, ())
    table = switched(table, Move(1, b"k", END, (0,), 1))
    table = changes.take_shard(table, 1, State.RETIRING, 0, ())
    with pytest.raises(AssertionError, match="G10: shard 1"):
        changes.take_shard(table, 1, State.DROPPED, 0, ())
    table = changes.take_shard(table, 2, State.SERVING, 0, ())
    table = switched(table, Move(2, b"k", END, (1,), 2), 7)
    with pytest.raises(AssertionError, match="G10: shard 1"):
        changes.take_shard(table, 1, State.DROPPED, 0, ())
    table = changes.take_compact(table, 8)
    table = changes.take_shard(table, 1, State.DROPPED, 0, ())
    with pytest.raises(AssertionError, match="G13: id 1"):
        changes.take_shard(table, 1, State.FORMING, 9, (1,))
    assert Placement(1).table.owner(b"k") == 0
    newest = Placement(1)
    newest.replace(table)
    assert newest.ids == (0, 2)
    assert newest.shard_of(b"k") == 2
    assert newest.shards_of(b"a", END) == (0, 2)


def test_the_base_of_many_shards_moves_as_a_whole() -> None:
    table = Table.initial(Base(3, 1))
    keys = [b"/x%d/k" % i for i in range(50)]
    sources = table.owners(b"/x", b"/y")
    assert sources == (0, 1, 2)
    table = changes.take_shard(table, 3, State.FORMING, 3, (1,))
    table = changes.take_shard(table, 3, State.SERVING, 0, ())
    table = switched(table, Move(1, b"/x", b"/y", sources, 3))
    assert {table.owner(key) for key in keys} == {3}
    assert all(table.owners_at(key, b"", 5) == (table.base.shard_of(key),) for key in keys)
    with pytest.raises(AssertionError, match="has a past"):
        changes.take_move(table, Move(2, b"/x1/", b"/x10", (3,), table.base.shard_of(b"/x1/k")), AT)


def test_a_key_that_moved_alone_has_a_past_of_its_one_owner() -> None:
    table = Table.initial(Base(3))
    table = changes.take_shard(table, 3, State.FORMING, 3, (1,))
    table = changes.take_shard(table, 3, State.SERVING, 0, ())
    owner = table.base.shard_of(b"/a/x")
    others = {0, 1, 2} - {owner}
    table = switched(table, Move(1, b"/a/x", b"/a/x\0", (owner,), 3))
    assert table.past_of(owner, END, END) == AT
    assert not any(table.past_of(shard, END, END) or had(table, shard, END, END) for shard in others)
    assert had(table, owner, b"/a/x", b"/a/x\0")
    for shard in others:
        changes.take_move(table, Move(2, b"/a/x", b"/a/x\0", (3,), shard), AT)


def test_a_key_that_alone_is_where_it_was_keeps_one_shard() -> None:
    shards = {shard: Shard(State.SERVING, shard, ()) for shard in range(4)}
    spans = (Piece(END, b"/a/x", 3, 1), Piece(b"/a/x\0", END, 3, 1))
    table = Table(Base(3), shards, spans)
    owner = table.base.shard_of(b"/a/x")
    for shard in range(3):
        owned = [(piece.start, piece.end) for piece in table.pieces_of(shard, END, END)]
        assert owned == ([(b"/a/x", b"/a/x\0")] if shard == owner else [])
        assert table.owns_anything(shard) == table.may_be_asked_of(shard) == (shard == owner)


def test_g13_a_range_over_a_key_that_is_where_it_was_asks_no_dropped_shard() -> None:
    """It never got an answer, and a move of the range no end: the shard has no leader."""
    shards = {shard: Shard(State.SERVING, shard, ()) for shard in range(5)}
    table = Table(Base(3), shards, (Piece(END, b"/a/x", 3, 1), Piece(b"/a/x\0", END, 3, 1)))
    owner = table.base.shard_of(b"/a/x")
    for shard in {1, 2} - {owner}:
        table = changes.take_shard(table, shard, State.RETIRING, 0, ())
        table = changes.take_shard(table, shard, State.DROPPED, 0, ())
    there = tuple(sorted({0, owner, 3}))
    assert table.owners(b"/a/", b"/b") == table.owners_of(b"/a/", b"/b") == there
    assert table.owners_at(b"/a/", b"/b", 5) == table.owners_since(b"/a/", b"/b", 5) == there
    changes.take_move(table, Move(1, b"/a/", b"/b", there, 4), AT)
    placement = Placement(3)
    placement.replace(table)
    assert placement.shards_of(END, END) == there


def test_there_are_at_most_so_many_spans() -> None:
    spans = tuple(Piece(b"%04d" % i, b"%04d" % (i + 1), 1 + i % 2, 1) for i in range(MOST_SPANS))
    full = Table(Base(1), {i: Shard(State.SERVING, i, ()) for i in range(3)}, spans)
    with pytest.raises(AssertionError, match="more than 1024 spans"):
        changes.take_move(full, Move(1, b"0003a", b"0003b", (2,), 0), AT)
    with pytest.raises(EtcdError) as refused:  # what is said: without keys, which may be long
        check_move(full, Wish(b"0003a", b"0003b", 0), AT)
    said, _, _ = refused.value.text.partition("\n")  # pytest may add what it knows of an assertion
    assert said == (
        "muster: the table of shards would have more than 1024 spans: compact, or move neighbours together")
    changes.take_move(full, Move(1, b"0003", b"0004", (2,), 0), AT)


@given(st.binary(max_size=80))
def test_what_is_no_table_is_refused(data: bytes) -> None:
    row = grown().encode()
    for broken in (data, row[:-1], row + b"x", row[: len(data) % len(row)]):
        with pytest.raises(ValueError, match=r"."):
            Table.decode(broken)


def test_long_keys_that_are_named_take_no_memory() -> None:
    """Any client may name others without end, by reads of keys that are not there."""
    base = Base(2)
    for key in (b"k" * 1_000_000, b"/a/" + b"k" * 1_000_000 + b"/x"):
        assert base.shard_of(key) == base.shard_of(bytes(bytearray(key)))
    assert not base.cache
    assert base.shard_of(b"/a/b/c") == base.cache[b"/a/b/"]
