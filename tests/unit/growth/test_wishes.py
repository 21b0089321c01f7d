"""What the facts ask for: which span, to which shard, and in which words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.growth import cutting
from cluster.growth.bounds import Bounds
from cluster.growth.cutting import Cut, Cuts
from cluster.growth.facts import Facts, Host, Shard
from cluster.growth.sample import Weighed
from cluster.growth.wishes import Kind, wish
from cluster.placement.base import Base
from cluster.placement.changes import take_shard
from cluster.placement.table import END, Piece, State, Table

LIMITS = Bounds()
HOSTS = {1: Host(8.0, 4.0, 0.9)}
NAMES = [b"/m/%03d" % number for number in range(300)]


def sample(names: list[bytes]) -> tuple[Weighed, ...]:
    return tuple(Weighed(name, 1.0, float(at % 60)) for at, name in enumerate(names))


HOT = Shard(1, 1, 0.9, 9000.0, 0, 1000, 300, sample(NAMES))
COOL = Shard(1, 1, 0.05, 100.0)


def table(*spans: Piece, past: tuple[Piece, ...] = (), base: int = 1) -> Table:
    """Three shards more than those of the base, and where keys have moved."""
    found = Table.initial(Base(base, 2))
    for shard in range(base, base + 3):
        forming = take_shard(found, shard, State.FORMING, shard, (1,))
        found = take_shard(forming, shard, State.SERVING, 0, ())
    return replace(found, spans=spans, past=past, generation=found.generation + 1, last_move=1)


def facts(known: Table, shards: dict[int, Shard]) -> Facts:
    return Facts(0, known, HOSTS, {1: "a"}, shards)


@pytest.mark.parametrize(("spans", "shard", "base"), [
    ((Piece(b"/m/", b"/m0", 1, 5),), 1, 1),
    ((Piece(b"/m/", b"/m0", 1, 5),), 1, 2),
    ((Piece(END, b"/m/000", 2, 5), Piece(b"/m/300", END, 1, 5)), 0, 1),
    ((Piece(b"/m/", b"/m/1", 1, 5), Piece(b"/m/1", b"/m0", 1, 9)), 1, 1),
], ids=["one that moved there", "between what a hash spreads", "all but both ends", "neighbours"])
def test_a_shard_of_the_middle_of_the_keys_is_split_too(
    spans: tuple[Piece, ...], shard: int, base: int
) -> None:
    known = table(*spans, base=base)
    found = Cuts(known, shard, HOT, LIMITS).best(0.45, 3)
    assert found is not None
    assert found.share == pytest.approx(0.45, abs=0.01)
    assert known.owners_of(found.start, found.end) == (shard,)


def test_one_of_several_spans_of_a_shard_moves_whole() -> None:
    spans = Piece(b"/m/000", b"/m/120", 1, 5), Piece(b"/m/200", b"/m/3", 1, 5)
    told = replace(HOT, sample=sample([name for name in NAMES if not b"/m/120" <= name < b"/m/200"]))
    found = Cuts(table(*spans), 1, told, LIMITS).best(0.45, 3)
    assert found is not None
    assert (found.start, found.end) == (b"/m/200", b"/m/3")


@pytest.mark.parametrize(("first", "side"), [(150, "upper"), (50, "lower")])
def test_of_two_cuts_that_are_alike_the_one_of_fewer_bytes_moves(first: int, side: str) -> None:
    """What is idle went along, as it had when it was what was hot."""
    told = replace(HOT, sample=sample(NAMES[first : first + 100] * 3), marks=tuple(NAMES[::5]))
    found = Cuts(table(Piece(b"/m/", b"/m0", 1, 5)), 1, told, LIMITS).best(0.45, 3)
    assert found is not None
    assert ("lower" if found.start == b"/m/" else "upper") == side


def test_spans_that_may_not_move_use_up_no_looks() -> None:
    """The nearest ones were those that the target had, and the only ones looked at."""
    known = table(Piece(b"/m/", END, 1, 6), past=(Piece(b"/m/", b"/m0", 2, 0, 5),))
    names = NAMES[:67] + [b"/z"] * 33
    found = Cuts(known, 1, replace(HOT, sample=sample(names * 3)), LIMITS).best(0.45, 2)
    assert found is not None
    assert (found.share, found.start) == (pytest.approx(0.33), b"/z")


@pytest.mark.parametrize("share", [0.31, 0.35, 0.4, 0.49])
def test_a_directory_of_a_first_shard_is_found_among_what_a_hash_spreads(share: float) -> None:
    """Parts of what a hash spreads are never a shard's own. They used up the looks."""
    known = table(base=2)
    names = [b"/reg/%03d/" % number for number in range(200)]
    own = [name for name in names if known.owner(name + b"k") == 0]
    large, others = own[20], own[:20] + own[21:40]
    parts = int(960 * share)
    names = [large + b"%04d" % number for number in range(parts)]
    names += [others[number % 39] + b"%04d" % number for number in range(960 - parts)]
    turns = [names[at * 7 % 960] for at in range(960)]
    found = Cuts(known, 0, replace(HOT, sample=sample(turns)), LIMITS).best(0.45, 2)
    assert found is not None
    assert (found.start, found.share) == (large, pytest.approx(share, abs=0.01))


def test_for_all_targets_the_spans_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look took up to 100 ms of shard 0's leader where much had moved."""
    work = {"spans": 0, "meets": 0}
    spans, meets = cutting._spans, Piece.meets

    def counted_spans(*args: Any) -> Any:
        work["spans"] += 1
        return spans(*args)

    def counted_meets(*args: Any) -> bool:
        work["meets"] += 1
        return meets(*args)

    had = [(b"/m/", b"/m0"), *((b"/n/%03d" % number, b"/n/%03d0" % number) for number in range(100))]
    past = tuple(sorted(Piece(*one, shard, 0, 4) for one in had for shard in (1, 2, 3)))
    monkeypatch.setattr(cutting, "_spans", counted_spans)
    monkeypatch.setattr(Piece, "meets", counted_meets)
    found = wish(facts(table(past=past), {0: HOT, **dict.fromkeys((1, 2, 3), COOL)}), LIMITS)
    assert found is not None
    assert "old revisions of its keys: compact" in found.text
    assert work["spans"] == 1
    assert work["meets"] <= 10 * len(past)


BACK = table(Piece(b"/m/", END, 1, 6), past=(Piece(b"/m/", END, 0, 0, 5),))  # shard 0 had what shard 1 has


@pytest.mark.parametrize("cpus", [(0.05, 0.06), (0.06, 0.05)])
def test_what_one_shard_had_goes_to_the_next_cool_one(cpus: tuple[float, float]) -> None:
    """Which of two idle shards is cooler is noise: the wish changed with it, and its time began anew."""
    shards = {0: replace(COOL, cpu=cpus[0]), 1: HOT, 2: replace(COOL, cpu=cpus[1])}
    found = wish(facts(BACK, shards), LIMITS)
    assert found is not None
    assert (found.kind, found.target) == (Kind.MOVE, 2)


def test_keys_that_all_shards_with_room_had_wait_for_a_compaction() -> None:
    found = wish(facts(BACK, {0: COOL, 1: HOT}), LIMITS)
    assert found is not None
    assert found.kind == Kind.SAY
    assert found.text.endswith("and shards with room have old revisions of its keys: compact")


def test_few_targets_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, best = list[int | None](), Cuts.best

    def counted(cuts: Cuts, wanted: float, target: int | None = None, *more: Any) -> Cut | None:
        tried.append(target)
        return best(cuts, wanted, target, *more)

    monkeypatch.setattr(Cuts, "best", counted)
    wide = tuple(one._replace(spans=((b"/", b"0"),)) for one in HOT.sample)
    shards = {0: replace(HOT, sample=wide), **dict.fromkeys((1, 2, 3), COOL)}
    found = wish(facts(table(), shards), LIMITS)
    assert found is not None
    assert "no span of its keys has 30% to 50% of that" in found.text
    assert tried == [1], "none of them had a key: the others would take no other span"


def test_a_move_that_would_bring_too_little_is_called_that() -> None:
    """It said that hosts had no free CPU, which they had."""
    halves = replace(HOT, cpu=0.72, sample=sample([b"/a/1", b"/b/1"] * 50))
    found = wish(facts(table(), {0: halves, 1: replace(COOL, cpu=0.38), 2: replace(COOL, cpu=0.39)}), LIMITS)
    assert found is not None
    assert found.kind == Kind.SAY
    assert found.text.endswith("; no move to a shard with room would leave the hotter one 10% of a CPU less")


def test_a_cut_that_helps_goes_before_one_of_fewer_bytes() -> None:
    """The one of fewer bytes brought too little, so it said that no move would help."""
    names = [b"/a/%02d" % (2 * number) for number in range(30)] + [b"/b/1"] * 34 + [b"/c/1"] * 36
    marks = *(b"/a/%02d" % number for number in range(60)), b"/b/0", b"/b/2", b"/c/0", b"/c/2"
    turns = [names[at * 7 % 100] for at in range(100)]
    told = replace(HOT, cpu=0.72, sample=sample(turns), marks=marks)
    found = wish(facts(table(), {0: told, 1: replace(COOL, cpu=0.39)}), LIMITS)
    assert found is not None
    assert (found.kind, found.share) == (Kind.MOVE, pytest.approx(0.3))


def test_what_a_front_in_the_leaders_process_takes_does_not_move() -> None:
    """It foresaw 54% of a CPU there, and nothing of the front's part moved."""
    others = {1: Shard(2, 1, 0.01, 200.0), 2: Shard(3, 1, 0.01, 200.0)}  # 5% of a CPU for 1,000 puts
    hosts = dict.fromkeys((1, 2, 3), HOSTS[1])
    for front, words in ((0.0, ": move keys from"), (1.0, "and clients of its host: no shard or move")):
        told = replace(HOT, rate=2000.0, front=front)
        found = wish(replace(facts(table(), {0: told, **others}), hosts=hosts), LIMITS)
        assert found is not None
        assert words in found.text
    told = replace(HOT, rate=10_000.0, front=1.0)
    found = wish(replace(facts(table(), {0: told, **others}), hosts=hosts), LIMITS)
    assert found is not None
    assert found.kind == Kind.MOVE
    assert found.source_cpu == pytest.approx(0.4 + 0.5 * (1 - found.share))
    alone = wish(facts(Table.initial(Base(1, 2)), {0: replace(HOT, front=1.0)}), LIMITS)
    assert alone is not None
    assert alone.text.startswith("shard 0's leader, with the front of its host, takes 90% of a CPU")


@pytest.mark.parametrize("front", [0.0, 0.1])
def test_a_front_that_few_requests_come_by_does_not_explain_what_ranges_take(front: float) -> None:
    """Without any client, too, it was taken for all that puts do not explain: no move was advised."""
    told = replace(HOT, rate=2000.0, front=front)
    hosts = dict.fromkeys((1, 2, 3), HOSTS[1])
    known = facts(table(), {0: told, 1: Shard(2, 1, 0.01, 150.0)})
    found = wish(replace(known, hosts=hosts), LIMITS)
    assert found is not None
    assert found.kind == Kind.MOVE
