"""One rule of the policy at a time: what it waits for, what it compares, what nodes tell it."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from cluster.gotext import prefix_end
from cluster.growth import cutting
from cluster.growth.bounds import Bounds
from cluster.growth.cutting import cut, size_bytes
from cluster.growth.facts import Facts, Host, Shard
from cluster.growth.foreseen import Came, Foreseen
from cluster.growth.limits import Debt, Past
from cluster.growth.policy import Policy
from cluster.growth.sample import MOST_KEY_BYTES, Sample, Weighed
from cluster.growth.wishes import Kind, Wish, wish
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_compact, take_move, take_moved, take_shard
from cluster.placement.table import END, Move, State, Table

LIMITS = Bounds()
MEMBERS = {1: "a", 2: "b", 3: "c"}
HOSTS = {member: Host(4.0, 2.0, 0.9) for member in MEMBERS}


def sample(names: list[bytes]) -> tuple[Weighed, ...]:
    return tuple(Weighed(name, 1.0, float(number % 60)) for number, name in enumerate(names * 3))


NAMES = [b"/%c/%03d" % (letter, number) for letter in b"abcd" for number in range(25)]
HOT = Shard(1, 1, 0.9, 9000.0, 0, 10_000_000, 100, sample(NAMES))
COOL = Shard(2, 1, 0.05, 100.0, 0, 1000, 1)


def two(base: int = 1) -> Table:
    """Shard 0 with all keys, and a born one."""
    table = Table.initial(Base(base, 2))
    return take_shard(
        take_shard(table, base, State.FORMING, base, (1, 2, 3)), base, State.SERVING, 0, ())


def facts(now_s: float = 0.0, **changes: Any) -> Facts:
    known = {"table": two(), "hosts": HOSTS, "members": MEMBERS, "shards": {0: HOT, 1: COOL}, **changes}
    return Facts(int(now_s * 1000), **known)


def ready(table: Table | None = None) -> Policy:
    """Whose first looks were long ago."""
    policy = Policy(LIMITS, Past(table or two(), -10**8), -10**8)
    for second in range(-70, 0, 5):
        policy.look(facts(second))
    return policy


def test_a_hot_leader_gives_a_directory_to_one_with_room() -> None:
    advice = ready().look(facts())
    wished = advice.due
    assert wished is not None
    assert (wished.kind, wished.shard, wished.target) == (Kind.MOVE, 0, 1)
    assert (wished.start, wished.end) in ((END, b"/c/"), (b"/c/", END))
    assert wished.share == pytest.approx(0.5)
    assert "90% of a CPU" in wished.text


@pytest.mark.parametrize(("changes", "words"), [
    ({"hosts": {1: HOSTS[1], 2: HOSTS[2]}}, "hosts are down, or do not tell: c"),
    ({"hosts": {**HOSTS, 3: Host(4.0, 2.0, 0.29)}}, "less than 30% of the disk is free at c"),
    ({"shards": {0: replace(HOT, behind=10_001), 1: COOL}}, "a replica of shard 0 is behind"),
    ({"shards": {0: HOT, 1: replace(COOL, behind=-1)}}, "a replica of shard 1 is behind, or not heard"),
    ({"settled": False}, "members change"),
    ({"alarms": True}, "an alarm is raised"),
    ({"room": 1}, "and what the quota and the disk leave it is 1"),
    ({"older": ("b",)}, "older version: b"),
    ({"moves": False}, "keys cannot move yet"),
    ({"shards": {0: replace(HOT, term=2), 1: COOL}}, "a leader was elected"),
    ({"table": take_shard(two(), 2, State.FORMING, 2, (1,))}, "shard 2 is forming"),
    ({"table": take_move(two(), Move(1, b"x", b"y", (0,), 1), 5)}, "move 1 goes on"),
])
def test_it_waits_while_the_cluster_is_not_well(changes: dict[str, Any], words: str) -> None:
    advice = ready().look(facts(**changes))
    assert advice.given
    assert advice.due is None
    assert words in "; ".join(advice.holds)


def test_two_minutes_after_an_election_it_goes_on() -> None:
    policy = ready()
    elected = {0: replace(HOT, term=2), 1: COOL}
    for second in range(0, 120, 5):
        assert policy.look(facts(second, shards=elected)).due is None
    assert policy.look(facts(120, shards=elected)).due is not None


def test_it_asks_for_a_whole_minute() -> None:
    policy = Policy(LIMITS, Past(two(), -10**8), -10**8)
    calm = {0: replace(HOT, cpu=0.69), 1: COOL}
    for second in range(0, 300, 5):
        shards = calm if second % 60 == 55 else {0: HOT, 1: COOL}
        assert policy.look(facts(second, shards=shards)).due is None


def test_six_moves_an_hour_and_each_span_rests() -> None:
    table = two()
    past = Past(table, -10**8)
    for number in range(1, 7):
        name = b"/z/%d" % number
        table = take_move(table, Move(number, name, name + b"\0", (0,), 1), number)
        past.took(table, -3000_000 + number)
        table = take_moved(table, Moved(number, True, number, 0), number)
        past.took(table, -3000_000 + number)
    policy = Policy(LIMITS, past, -10**8)
    for second in range(-70, 0, 5):
        policy.look(facts(second, table=table))
    assert "6 moves began within an hour, as far as is known" in policy.look(facts(table=table)).holds
    assert policy.look(facts(601, table=table)).due is not None, "the first is an hour old"


def test_a_span_that_just_moved_stays() -> None:
    policy, table = ready(), take_move(two(), Move(1, b"/a/", b"/e/", (0,), 1), 1)
    policy._past.took(table, 0)
    cancelled = take_moved(table, Moved(1, False, 1, 0), 1)
    assert "keys of this span moved less than 600 s ago" in policy.look(facts(5, table=cancelled)).holds
    assert policy.look(facts(601, table=cancelled)).due is not None


def test_what_a_younger_process_did_not_see_counts_as_if_it_were_now() -> None:
    table = take_moved(take_move(two(), Move(9, b"/z", b"/zz", (0,), 1), 1), Moved(9, True, 1, 0), 1)
    policy = Policy(LIMITS, Past(table, 0), -10**8)
    for second in range(0, 100, 5):
        policy.look(facts(second, table=table))
    assert policy.look(facts(3599, table=table)).due is None
    policy.look(facts(3601, table=table))
    assert policy.look(facts(3606, table=table)).due is not None


def test_bytes_are_paid_back_at_a_tenth_an_hour() -> None:
    debt = Debt()
    debt.add(40.0, 0, 10.0)
    assert debt.now(3600_000, 10.0) == 30.0
    assert debt.now(4 * 3600_000, 10.0) == 0.0
    policy = ready()
    large = {0: replace(HOT, live_bytes=10**12), 1: COOL}
    first = policy.look(facts(shards=large)).due
    assert first is not None
    policy.began(first, facts(shards=large))
    policy._foreseen = None
    assert "10% of all an hour" in "; ".join(policy.look(facts(5, shards=large)).holds)


def test_what_former_owners_keep_is_a_quarter_at_most() -> None:
    table = take_moved(take_move(two(), Move(1, b"/z", b"/zz", (0,), 1), 1), Moved(1, True, 1, 0), 1)
    large = {0: replace(HOT, live_bytes=10**12), 1: COOL}
    policy = Policy(LIMITS, Past(two(), -10**8), -10**8)
    for second in range(-70, 0, 5):
        policy.look(facts(second, table=table, shards=large))
    assert "former owners keep" in "; ".join(policy.look(facts(table=table, shards=large)).holds)
    compacted = take_compact(table, 5)
    assert policy.look(facts(5, table=compacted, shards=large)).due is not None


def test_what_a_long_move_will_leave_behind_counts_from_its_beginning() -> None:
    debt, moving = Debt(), take_move(two(), Move(1, b"/z", b"/zz", (0,), 1), 1)
    debt.look(facts(0))
    debt.add(40.0, 0, 10.0, two().last_move)
    for second, table in ((1, two()), (5, moving), (60, moving)):  # logged, then copied
        debt.look(facts(second, table=table))
        assert debt.kept == 40.0
    moved = take_moved(moving, Moved(1, True, 1, 0), 1)
    debt.look(facts(65, table=moved))
    assert debt.kept == 40.0
    debt.look(facts(70, table=take_compact(moved, 5)))
    assert debt.kept == 0.0


def test_a_move_that_never_began_is_forgotten_after_an_hour() -> None:
    debt = Debt()
    debt.add(40.0, 0, 10.0, two().last_move)
    debt.look(facts(3599))
    assert debt.kept == 40.0
    debt.look(facts(3601))
    assert debt.kept == 0.0


def test_a_load_that_walks_leaves_spans_to_operators() -> None:
    table = two()
    for number in range(1, 4):
        key = b"/w/%d" % number
        move = take_move(table, Move(number, key, key + b"\0", (0,), 1), 1)
        table = take_moved(move, Moved(number, True, number, 0), number)
    assert len(table.spans) == 3
    table = take_compact(table, 5)
    policy = Policy(replace(LIMITS, spans=3), Past(table, -10**8), -10**8)
    for second in range(-70, 0, 5):
        policy.look(facts(second, table=table))
    assert policy.look(facts(table=table)).holds == (
        "the table has 3 spans: compact, or move neighbours together",)
    assert policy.look(facts(5, table=two())).due is not None
    both_cool = {0: COOL, 1: replace(COOL, cpu=0.1)}
    for second in range(10, 7200, 60):
        policy.look(facts(second, table=table, shards=both_cool))
    advice = policy.look(facts(7200, table=table, shards=both_cool))
    assert advice.wished is not None
    assert advice.wished.kind == Kind.RETIRE
    assert not [hold for hold in advice.holds if "spans" in hold], "what retires makes spans fewer"


def test_an_action_that_brings_less_than_half_is_wrong_and_the_second_is_the_last() -> None:
    policy = ready()
    now = 0
    for number in range(1, 3):
        wished = policy.look(facts(now)).due
        assert wished is not None
        policy.began(wished, facts(now))
        table = take_move(two(), Move(number, wished.start, wished.end, (0,), 1), 1)
        table = take_moved(table, Moved(number, True, 1, 0), 1)
        policy.look(facts(now + 30, table=table))
        policy.look(facts(now + 200, table=table))  # as hot as before
        assert policy.told.came[Came.WRONG] == number
        now += 205
        if number == 1:
            assert not policy.told.stopped
            for second in range(now, now + 70, 5):
                policy.look(facts(second))
            now += 70
    assert "2 actions within a day" in policy.told.stopped
    advice = policy.look(facts(now + 100))
    assert advice.given, "it goes on to advise"
    assert advice.due is None


def test_what_cannot_be_compared_is_neither_right_nor_wrong() -> None:
    wished = Wish(Kind.MOVE, "", 0, b"a", b"b", 1, 0.5, 1, 0.45, 0.5)
    moved = take_moved(take_move(two(), Move(1, b"a", b"b", (0,), 1), 1), Moved(1, True, 1, 0), 1)
    begun = Foreseen.begin(wished, facts())
    done, came, _ = begun.look(facts(10, table=moved), LIMITS)
    assert came == Came.WAITING
    idle = {0: replace(HOT, cpu=0.0), 1: replace(COOL, cpu=0.0)}
    assert done.look(facts(300, table=moved, shards=idle), LIMITS)[1] == Came.UNKNOWN
    assert done.look(facts(300, table=moved, shards={0: HOT}), LIMITS)[1] == Came.UNKNOWN
    assert begun.look(facts(10), LIMITS)[1] == Came.WAITING, "not applied yet"
    assert begun.look(facts(3601), LIMITS)[1] == Came.UNKNOWN
    cancelled = take_moved(take_move(two(), Move(1, b"a", b"b", (0,), 1), 1), Moved(1, False, 0, 0), 1)
    assert begun.look(facts(10, table=cancelled), LIMITS)[1] == Came.UNKNOWN
    better = {0: replace(HOT, cpu=0.5), 1: replace(COOL, cpu=0.45)}
    assert done.look(facts(300, table=moved, shards=better), LIMITS)[1] == Came.RIGHT


def looks(born: int, cpus: tuple[float, ...], noise: float, seconds: int) -> Wish | None:
    """What becomes due where no figure of a look is quite what it was: leaders of ``cpus``, some of shards
    that were born."""
    random, table = Random(7), two()
    for shard in range(2, born + 1):
        forming = take_shard(table, shard, State.FORMING, shard, (1, 2, 3))
        table = take_shard(forming, shard, State.SERVING, 0, ())
    policy = Policy(LIMITS, Past(table, -10**8), -10**8)
    for second in range(0, seconds, 5):
        told = {shard: replace(HOT, leader=shard + 1, cpu=cpu + random.uniform(-noise, noise))
                for shard, cpu in enumerate(cpus)}
        advice = policy.look(facts(second, table=table, shards=told, compact_revision=second))
        if advice.due is not None:
            return advice.due
    return None


def test_two_leaders_that_are_alike_are_too_hot_together() -> None:
    """The noise of figures made another one the hottest at most looks, and the time began anew."""
    due = looks(1, (0.85, 0.85), 0.03, 600)
    assert due is not None
    assert due.kind == Kind.ADD


def test_a_shard_that_nothing_helps_keeps_no_hotter_one_waiting() -> None:
    lone = replace(HOT, cpu=0.9, leader=2, sample=sample([b"/one"]))
    policy = Policy(LIMITS, Past(two(), -10**8), -10**8)
    for second in range(0, 600, 5):
        assert policy.look(facts(second, shards={0: replace(COOL, leader=1), 1: lone})).due is None
    for second in range(600, 700, 5):
        advice = policy.look(facts(second, shards={0: replace(HOT, cpu=0.95), 1: lone}))
    assert advice.due is not None
    assert (advice.due.kind, advice.due.shard) == (Kind.ADD, 0)


def test_one_of_two_idle_shards_that_are_alike_retires() -> None:
    due = looks(2, (0.02, 0.003, 0.003), 0.001, 3 * 3600)
    assert due is not None
    assert due.kind == Kind.RETIRE


def test_no_load_divides_nothing() -> None:
    idle = Shard(1, 1)
    assert wish(facts(shards={0: idle, 1: idle}), LIMITS) is not None  # the born one can retire
    assert wish(facts(table=Table.initial(Base(1, 2)), shards={0: idle}), LIMITS) is None
    assert wish(facts(shards={}), LIMITS) is None
    hot = replace(idle, cpu=1.0)
    found = wish(facts(shards={0: hot, 1: idle}), LIMITS)
    assert found is not None
    assert found.kind == Kind.SAY, "a leader without a sample has no span to give"
    weightless = replace(hot, sample=(Weighed(b"/a", 0.0, 1.0),))
    assert cut(two(), 0, weightless, 0.4, LIMITS) is None
    assert size_bytes(idle, b"a", b"b") == 0


def test_transactions_are_not_spread_over_shards() -> None:
    pairs = [(b"/a/%03d" % n, b"/d/%03d" % n) for n in range(25)]
    joined = tuple(Weighed(a, 1.0, 1.0 + n, ((a, b""), (b, b""))) for n, (a, b) in enumerate(pairs))
    told = replace(HOT, sample=(*HOT.sample, *joined))
    found = cut(two(), 0, told, 0.4, LIMITS)
    assert found is None or found.crossing < LIMITS.crossing
    ranges = tuple(Weighed(b"/", 1.0, 1.0 + n, ((b"/", b"0"),)) for n in range(20))
    assert cut(two(), 0, replace(HOT, sample=(*HOT.sample, *ranges)), 0.4, LIMITS) is None


def test_a_hash_that_spreads_directories_leaves_whole_ones() -> None:
    table = two(2)
    own = [name for name in NAMES if table.owner(name) == 0]
    heavy = [b"/heavy%d/x%02d" % (number, n) for number in range(40) for n in range(10)]
    mine = [name for name in heavy if table.owner(name) == 0]
    first = mine[0].split(b"/")[1]
    names = own + [name for name in mine if name.split(b"/")[1] == first] * 6
    found = cut(table, 0, replace(HOT, sample=sample(names)), 0.4, LIMITS)
    if found is not None:
        assert table.owners_of(found.start, found.end) == (0,)


def test_the_order_itself_can_be_what_is_hot() -> None:
    others = {1: Shard(2, 1, 0.3, 6000.0), 2: Shard(3, 1, 0.3, 6000.0)}
    table = take_shard(take_shard(two(), 2, State.FORMING, 2, (1,)), 2, State.SERVING, 0, ())
    found = wish(facts(table=table, shards={0: replace(HOT, rate=2000.0), **others}), LIMITS)
    assert found is not None
    assert found.kind == Kind.SAY
    assert "for the order of the other shards" in found.text


def test_what_nodes_tell_survives_the_way() -> None:
    told = replace(HOT, sample=(Weighed(b"\xff\0", 2.5, 3.0, ((b"a", b""), (b"b", b"\0"))),), marks=(b"m",))
    assert Shard.decode(told.encode()) == told
    assert Host.decode(HOSTS[1].encode()) == HOSTS[1]


@pytest.mark.parametrize("data", [
    b"", b"[]", b"{}", b"null", b'{"cpus": "4", "free_cpus": 1, "free_disk": 1}', b"\xff",
    b'{"leader":1,"term":1,"cpu":NaN,"rate":1,"behind":0,"live_bytes":1,"keys":1,"sample":[],"marks":[]}',
    b'{"leader":1,"term":1,"cpu":1,"rate":1,"behind":0,"live_bytes":1,"keys":1,"sample":[[1]],"marks":[]}',
    b'{"leader":1,"term":1,"cpu":1,"rate":1,"behind":0,"live_bytes":1,"keys":1,"sample":3,"marks":[]}',
    b'{"leader":1,"term":1,"cpu":1,"rate":1,"behind":0,"live_bytes":1,"keys":1,'
    b'"sample":[["61",Infinity,1,[]]],"marks":[]}',
])
def test_what_makes_no_sense_is_refused(data: bytes) -> None:
    for kind in (Shard, Host):
        with pytest.raises(ValueError):
            kind.decode(data)


def test_bounds_are_changed_by_name() -> None:
    assert Bounds.parse("") == LIMITS
    assert Bounds.parse("hot=0.2, for_s=5") == replace(LIMITS, hot=0.2, for_s=5)
    for wrong in ("hott=1", "hot", "hot=", "hot=x", "hot=-1", "hot=nan", "hot=inf"):
        with pytest.raises(ValueError):
            Bounds.parse(wrong)


@pytest.mark.parametrize("data", [
    b'{"cpus":1' + b"0" * 400 + b"}", b"[" * 100_000,
    HOT.encode().replace(b'"leader": ', b'"leader": 1e300, "_": '),
    HOT.encode().replace(b'"live_bytes": ', b'"live_bytes": -1, "_": '),
    HOT.encode().replace(b'"sample": [[', b'"sample": [["00", 1' + b"0" * 400 + b', 1.0, []], ['),
])
def test_what_no_number_or_stack_can_hold_is_refused(data: bytes) -> None:
    for kind in (Host, Shard):
        with pytest.raises(ValueError):
            kind.decode(data)


def sampled(loads: dict[bytes, float]) -> Shard:
    """A hot shard, as a node samples these keys."""
    seen = Sample()
    for turn in range(10):
        for key, weight in loads.items():
            seen.take(1000 + turn * 5500, key, weight)
    return replace(HOT, sample=tuple(seen.weighed(60_000)))


@pytest.mark.parametrize("last", [b"m", b"\xff"])
def test_of_a_key_too_long_for_the_sample_all_that_begin_like_it_move(last: bytes) -> None:
    long = b"m" * (MOST_KEY_BYTES - 3) + last * 40
    told = sampled({b"a": 27.0, long: 46.0, b"z": 27.0})
    found = cut(two(), 0, told, 0.45, LIMITS)
    assert found is not None
    assert found.share == pytest.approx(0.46)
    assert found.start <= long < found.end
    assert not found.start <= b"z" < found.end
    exact = b"m" * (MOST_KEY_BYTES - 1)
    found = cut(two(), 0, sampled({b"a": 27.0, exact: 46.0, b"z": 27.0}), 0.45, LIMITS)
    assert found is not None
    assert (found.start, found.end) == (exact, exact + b"\0")


def test_behind_a_prefix_is_the_next_one_or_the_end() -> None:
    assert [prefix_end(prefix) for prefix in (b"/a/", b"a\xff\xff", b"\xff")] == [b"/a0", b"b", END]


def test_hot_keys_too_long_to_tell_apart_are_not_called_one() -> None:
    names = [b"/tenants/" + b"t" * 300 + b"/%03d" % number for number in range(40)]
    wished = wish(facts(shards={0: sampled(dict.fromkeys(names, 1.0)), 1: COOL}), LIMITS)
    assert wished is not None
    assert wished.kind == Kind.SAY
    assert f"100% of that for keys that begin with '/tenants/{'t' * 247}'" in wished.text
    assert "one key" not in wished.text


def test_a_sample_that_cannot_be_cut_is_little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    work = {"crossing": 0, "above": 0}
    crossing, above = cutting._crossing, cutting._above

    def counted_crossing(*args: Any) -> float:
        work["crossing"] += 1
        return crossing(*args)

    def counted_above(*args: Any) -> Any:
        for name in above(*args):
            work["above"] += 1
            yield name

    monkeypatch.setattr(cutting, "_crossing", counted_crossing)
    monkeypatch.setattr(cutting, "_above", counted_above)
    wide = ((b"/", b"0"),)
    deep = tuple(Weighed(b"/%03d" % n + b"/x" * 126, 1.0, float(n % 7), wide) for n in range(1000))
    assert cut(two(), 0, replace(HOT, sample=deep), 0.4, LIMITS) is None
    assert 0 < work["crossing"] <= 12
    assert work["above"] <= 9 * 1000


def test_a_span_whose_load_is_new_stays_uncut() -> None:
    walks = tuple(Weighed(b"/%03d" % n, 1.0, float(n)) for n in range(100))
    assert cut(two(), 0, replace(HOT, sample=walks), 0.4, LIMITS) is None


@pytest.mark.parametrize(("key_bytes", "spans", "least"), [(60, 0, 1000), (60, 8, 100), (255, 8, 100)])
def test_of_a_sample_too_large_to_tell_some_of_each_age_are_told(
    key_bytes: int, spans: int, least: int
) -> None:
    """It took 18 ms to read 4 MB. The newest alone would not show that a load walks. Of 30 requests none
    may be one of the 5% that are transactions."""
    large = tuple(
        Weighed(b"/%0*d" % (key_bytes - 1, n), 1.0, float(999 - n),
                ((b"k" * key_bytes, b"l" * key_bytes),) * spans)
        for n in range(1000))
    data = replace(HOT, sample=large, marks=(b"m" * 10**6,) * 64).encode()
    assert len(data) < 1_000_000
    told = Shard.decode(data).sample
    assert len(told) >= least
    assert set(told) <= set(large)
    assert told[-1] == large[-1]
    assert sum(one.age_s > 500 for one in told) >= len(told) // 2 - 1


def test_a_report_is_made_in_small_steps() -> None:
    """It took 25 ms at once, of a leader that had too much to do."""
    spans = ((b"k" * 256, b"l" * 256),) * 8
    told = replace(HOT, sample=tuple(Weighed(b"/%0255d" % n, 1.0, 1.0, spans) for n in range(1000)))
    pieces = list(told.pieces())
    assert b"".join(pieces) == told.encode()
    assert len(pieces) >= 20
    assert max(map(len, pieces)) <= 50_000


def test_a_move_that_does_not_end_is_given_up_and_the_second_is_the_last() -> None:
    """A host without room, or a down one where shard 0 is the target, is waited for without an end."""
    policy, now, table = ready(), 0, two()
    for number in range(1, 3):
        wished = policy.look(facts(now, table=table)).due
        assert wished is not None
        policy.began(wished, facts(now, table=table))
        moving = take_move(table, Move(number, wished.start, wished.end, (0,), 1), 1)
        assert policy.look(facts(now + 3599, table=moving)).cancels == 0
        for second in (3600, 3605):
            assert policy.look(facts(now + second, table=moving)).cancels == number, "until that is logged"
        assert policy.told.came[Came.WRONG] == number
        assert policy.told.last == "move: wrong: it was not done within 60 minutes"
        table = take_moved(moving, Moved(number, False, 0, 0), 1)
        assert bool(policy.told.stopped) == (number == 2)
        now += 3610
        assert policy.look(facts(now, table=table)).cancels == 0
    other = take_move(table, Move(3, b"a", b"b", (0,), 1), 1)
    assert policy.look(facts(now + 4000, table=other)).cancels == 0, "it is an operator's"


def test_a_move_of_many_bytes_has_longer() -> None:
    table = take_move(two(), Move(1, b"a", b"b", (0,), 1), 1)
    large = Foreseen.begin(Wish(Kind.MOVE, "", 0, b"a", b"b", 1, 0.5, 7200 << 20), facts())
    assert large.look(facts(7199, table=table), LIMITS)[1] == Came.WAITING
    assert large.look(facts(7200, table=table), LIMITS)[1] == Came.WRONG
