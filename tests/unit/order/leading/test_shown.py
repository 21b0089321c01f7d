"""Rows that a transaction over several shards only shows: pinned where they lie, fetched once it is done."""

from __future__ import annotations

import pytest

from cluster.grain import GRAIN
from cluster.order import shown
from cluster.order.leading.shard_leader import ShardLeader, Start
from cluster.order.log import Attempt
from cluster.order.prepare import Grant, Prepare, Row, Touch
from cluster.order.sequencing import fetching
from cluster.order.sequencing.fetching import AT_ONCE, Ask, Fetched, Fetching
from cluster.order.shown import ENOUGH, ShownRows, decode_piece, encode_piece
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method, Status
from tests.unit.order.leading.several import Part

ATTEMPT = Attempt(5, 1)
ROWS: list[Row] = [(b"a", b"1"), (b"b", b"")]


def part_of(keys: int) -> Part:
    part = Part()
    for at in range(keys):
        part.execute(Method.PUT, pb.PutRequest(key=b"k%03d" % at, value=b"v").SerializeToString())
    return part


def leader_of(part: Part) -> ShardLeader[str]:
    leader: ShardLeader[str] = ShardLeader(
        part, 1, 3, Start(5, 0), max_txn_ops=128)  # type: ignore[arg-type]
    leader.applied_records([(1, 5, [])])
    leader.serve()
    return leader


def granted(leader: ShardLeader[str]) -> list[Grant]:
    found = []
    for _, status, body in leader.take_answers():
        assert status == Status.OK
        assert isinstance(body, bytes)
        found.append(Grant.decode(body))
    return found


def test_a_piece_is_what_it_was() -> None:
    assert decode_piece(encode_piece(True, 3, ROWS)) == (True, 3, ROWS)
    assert decode_piece(encode_piece(False, 0, ())) == (False, 0, [])


def test_a_prepare_says_what_is_only_shown() -> None:
    touches = [
        Touch(b"a", b"b", shown=True), Touch(b"a", b"b", write=True, shown=True),
        Touch(b"a", b"b", True, 0, True)]
    prepare = Prepare(ATTEMPT, 0, 1, touches)
    assert Prepare.decode(prepare.encode()) == prepare


def test_many_rows_are_granted_by_their_number_and_kept_as_they_were_under_the_lock() -> None:
    part = part_of(30)
    leader = leader_of(part)
    with GRAIN.finer(late_rows=10, many_keys=10, piece_rows=4):
        touches = [Touch(b"k", b"k005", shown=True), Touch(b"k", b"l", shown=True)]
        leader.prepare("sequencer", Prepare(ATTEMPT, 0, 1, touches))
        (grant,) = granted(leader)
        assert [len(rows) for rows in grant.rows] == [5, 0]
        assert set(grant.counts) == {1}
        part.execute(Method.DELETE_RANGE, pb.DeleteRangeRequest(key=b"k", range_end=b"l").SerializeToString())
        leader.release(ATTEMPT)  # as by its multi
        rows: list[Row] = []
        number, more = 0, True
        while more:
            piece = leader.shown.piece(ATTEMPT, number)
            assert piece is not None
            assert leader.shown.piece(ATTEMPT, number) == piece, "it may be asked for again"
            more, place, some = decode_piece(piece)
            assert len(some) <= 4
            assert not some or place == 1
            rows += some
            number += 1
    assert [key for key, _ in rows] == [b"k%03d" % at for at in range(30)]
    assert leader.shown.piece(ATTEMPT, number) is None
    assert leader.shown.piece(ATTEMPT, number + 1) is None


def test_i23_what_nobody_asks_for_goes_once_its_attempt_is_decided() -> None:
    kept = ShownRows()
    kept.keep(ATTEMPT, part_of(3), [Touch(b"k", b"l", shown=True)], [0])  # type: ignore[arg-type]
    for now in (0.0, 10.0, 20.0):
        assert not kept.sweep(now, 7.0, [ATTEMPT])
    assert not kept.sweep(26.0, 7.0, [])
    assert kept.piece(ATTEMPT, 0) is not None
    assert not kept.sweep(28.0, 7.0, [])  # it was asked for
    assert not kept.sweep(35.0, 7.0, [])
    assert kept.sweep(35.5, 7.0, [])
    assert not len(kept)


def test_i23_grants_wait_while_too_much_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "MOST", 1)
    leader = leader_of(part_of(30))
    touches = [Touch(b"k", b"l", shown=True)]
    with GRAIN.finer(late_rows=10):
        for number in (1, 2):
            leader.prepare("sequencer", Prepare(Attempt(5, number), 0, 1, touches))
        assert len(granted(leader)) == 1
        # a get of few bytes has nothing to pin
        leader.prepare("sequencer", Prepare(Attempt(5, 3), 0, 1, [Touch(b"k001", b"", shown=True)]))
        assert len(granted(leader)) == 1
        leader.shown.drop(Attempt(5, 1))
        leader.let_go()
        assert len(granted(leader)) == 1


class Asking:
    """Fetches whose answers a test gives."""

    def __init__(self) -> None:
        self.fetching = Fetching(100, 1000)
        self.there: list[bool] = []
        self.rows: Fetched = {}
        self.wanted = True
        self.away: set[int] = set()  # members

    def start(self, number: int = 1, shards: tuple[int, ...] = (1, 2)) -> list[Ask]:
        members = {shard: 100 + shard for shard in shards}
        self.fetching.start(
            Attempt(5, number), members, self.rows, lambda: self.wanted, self.there.append, 0)
        return self.fetching.take_messages()

    def again(self, now_ms: int) -> list[Ask]:
        self.fetching.again(now_ms, lambda member_id, shard: member_id not in self.away)
        return self.fetching.take_messages()


def test_every_shard_is_asked_piece_by_piece_and_told_when_it_is_enough() -> None:
    asking = Asking()
    first, second = asking.start()
    assert (first.member_id, first.shard, first.number) == (101, 1, 0)
    asking.fetching.came(second, encode_piece(False, 0, ()), 0)
    asking.fetching.came(first, encode_piece(True, 4, ROWS), 0)
    asking.fetching.came(first, encode_piece(True, 4, ROWS), 0)  # it was asked for twice
    (next_,) = asking.fetching.take_messages()
    assert (next_.shard, next_.number) == (1, 1)
    assert not asking.there
    asking.fetching.came(next_, encode_piece(False, 0, ()), 0)
    assert asking.there == [True]
    assert asking.rows == {(1, 4): ROWS}
    assert [(ask.shard, ask.number) for ask in asking.fetching.take_messages()] == [(1, ENOUGH), (2, ENOUGH)]


def test_a_piece_that_does_not_come_is_asked_for_again() -> None:
    asking = Asking()
    (ask,) = asking.start(shards=(1,))
    assert not asking.again(499)
    assert asking.again(500) == [ask]


@pytest.mark.parametrize("lost", [True, False])
def test_i23_a_fetch_ends_when_the_rows_are_gone_or_nobody_waits(lost: bool) -> None:
    asking = Asking()
    (ask,) = asking.start(shards=(1,))
    if lost:
        asking.fetching.came(ask, None, 0)
    else:
        asking.wanted = False
        asking.again(0)
    assert asking.there == [False]
    assert not len(asking.fetching)


def test_i23_a_fetch_from_a_host_that_stays_out_of_reach_ends_and_gives_others_its_place() -> None:
    asking = Asking()
    for number in range(AT_ONCE + 1):  # the last one waits
        asking.start(number, (1,))
    asking.start(AT_ONCE + 1, (2,))
    asking.away = {101}
    asking.again(100)
    asking.again(1099)
    asking.away = set()
    asking.again(1100)  # it is back in time
    asking.away = {101}
    asking.again(1200)
    asking.again(2199)
    assert not asking.there
    asks = asking.again(2200)
    assert asking.there == [False] * (AT_ONCE + 1)
    assert [(ask.shard, ask.number) for ask in asks if ask.answered] == [(2, 0)]
    assert len(asking.fetching) == 1


def test_i23_rows_that_are_held_have_a_bound_over_all_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    piece = encode_piece(True, 0, ROWS)
    monkeypatch.setattr(fetching, "MOST_GRANTED_BYTES", 2 * len(piece))
    asking = Asking()
    asks = [ask for number in (1, 2) for ask in asking.start(number, (1,))]
    for ask in asks:
        asking.fetching.came(ask, piece, 0)
    first, second = asking.fetching.take_messages()
    assert not asking.there
    asking.fetching.came(second, piece, 0)  # one too many
    assert asking.there == [False]
    asking.fetching.came(first, piece, 0)  # there is room again
    assert asking.there == [False]
    assert len(asking.fetching) == 1


def test_i23_a_few_are_fetched_at_once() -> None:
    asking = Asking()
    asks = [ask for number in range(AT_ONCE + 1) for ask in asking.start(number, (1,))]
    assert len(asks) == AT_ONCE
    asking.fetching.came(asks[0], encode_piece(False, 0, ()), 0)
    assert [ask.number for ask in asking.fetching.take_messages()] == [ENOUGH, 0]
