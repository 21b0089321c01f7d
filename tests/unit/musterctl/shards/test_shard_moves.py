"""Commands that move keys, against a cluster that is a table of placement: each look at a move is a step."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import pytest

from cluster.errors import EtcdError
from cluster.features import moves
from cluster.pb import shards_pb2
from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_compact, take_move, take_moved, take_shard
from cluster.placement.table import END, Move, State, span_of
from proxy.services.moves import Ended, part_from
from tools.musterctl import cli
from tools.musterctl.client import Client, RequestError, Session
from tools.musterctl.commands.hosts import shard as shard_commands
from tools.musterctl.commands.hosts import shard_changes, shard_moves, shard_tables

FIRST = END  # as a first key it is the lowest one


class Cluster:
    """Takes moves, and switches each at the second look at it."""

    def __init__(self, base: int = 1, born: int = 2) -> None:
        self.table = Table.initial(Base(base))
        for shard in range(base, base + born):
            self.change(take_shard, shard, State.FORMING, shard, (1,))
            self.change(take_shard, shard, State.SERVING, 0, ())
        self.ended = Ended()
        self.revision = 10
        self.looks = self.most_looks = 0
        self.most_looks = 2
        self.begun: list[Move] = []
        self.failing: list[RequestError] = []  # answers to what begins or cancels a move
        self.silent = 0  # looks without an answer
        self.remembers = True  # whether the host knows moves that ended
        self.lag_ms = 9  # of the second copy
        self.waits_for: list[int] = []

    def change(self, take: Callable[..., Table], *words: Any) -> None:
        older, self.table = self.table, take(self.table, *words)
        if hasattr(self, "ended"):
            self.ended.follow(older, self.table)

    def unary(self, client: Any, method: str, request: Any, response: Any, *rest: Any) -> Any:
        try:
            return getattr(self, method.rpartition("/")[2])(request)
        except EtcdError as error:
            raise RequestError(error.text, grpc.StatusCode.FAILED_PRECONDITION) from None

    def Move(self, request: Any) -> Any:
        return self._begin(*span_of(request.key, request.range_end), request.target)

    def Split(self, request: Any) -> Any:
        return self._begin(*part_from(self.table, request.key), request.target)

    def _begin(self, start: bytes, end: bytes, target: int) -> Any:
        if self.failing:
            raise self.failing.pop(0)
        move = moves.check_move(self.table, moves.Wish(start, end, target), self.revision)
        self.change(take_move, move, self.revision)
        self.begun.append(move)
        self.looks = 0
        return shards_pb2.MoveResponse(move=move.number)

    def CancelMove(self, request: Any) -> Any:
        if self.failing:
            raise self.failing.pop(0)
        moves.check_cancel(self.table, request.move)
        self.change(take_moved, Moved(request.move, False, 0, 0), self.revision)
        return shards_pb2.CancelMoveResponse(move=request.move)

    def Moves(self, request: Any) -> Any:
        if self.silent:
            self.silent -= 1
            raise RequestError("no answer", grpc.StatusCode.UNAVAILABLE)
        move = self.table.move
        if move is not None:
            self.looks += 1
            if self.looks > self.most_looks:
                self.revision += 1
                self.change(take_moved, Moved(move.number, True, self.revision, 0), self.revision)
        answer = shards_pb2.MovesResponse(last_move=self.table.last_move)
        for known, switched in self.ended.moves if self.remembers else ():
            answer.moves.add(move=known.number, key=known.start, range_end=known.end, sources=known.sources,
                             target=known.target, step=4 if switched else 5)
        if (move := self.table.move) is not None:
            going_on = answer.moves.add(
                move=move.number, key=move.start, range_end=move.end, sources=move.sources,
                target=move.target, step=1)
            going_on.copies.add(member=1, keys=7, bytes=1000, lag_ms=3)
            going_on.copies.add(member=2, keys=5, bytes=2000, lag_ms=self.lag_ms)
            going_on.waits_for.extend(self.waits_for)
        return answer

    def RetireShard(self, request: Any) -> Any:
        assert request.with_keys
        self.change(take_shard, request.shard, State.RETIRING, 0, ())
        if not (self.table.owns_anything(request.shard) or self.table.past_of(request.shard, END, END)):
            self.change(take_shard, request.shard, State.DROPPED, 0, ())
        return shards_pb2.RetireShardResponse()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return shown_as(monkeypatch, Cluster())


def shown_as(monkeypatch: pytest.MonkeyPatch, made: Cluster) -> Cluster:
    def agreed(*asked: object) -> dict[str, Any]:
        base = made.table.base
        return {"shards": base.shards, "depth": base.depth, "table": made.table.encode().hex()}

    monkeypatch.setattr(Client, "unary", lambda client, *words: made.unary(client, *words))
    monkeypatch.setattr(shard_commands, "ask_any", agreed)
    for module in (shard_moves, shard_changes, shard_tables):
        monkeypatch.setattr(module, "LOOK_S", 0.0)
    return made


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.run(["shard", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_move_is_printed_once_it_has_switched(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "move", "--prefix", "/a/", "--to", "1", "-w", "json")
    assert (code, err) == (0, "")
    assert json.loads(out) == [{
        "move": 1, "key": "/a/", "range_end": "/a0", "sources": [0], "target": 1, "step": "switched",
        "keys": 0, "bytes": 0, "hosts": 0, "lag_ms": -1, "failed_switches": 0, "waits_for": [],
        "without_room": []}]
    assert cluster.begun == [Move(1, b"/a/", b"/a0", (0,), 1)]


def test_without_waiting_the_slowest_copy_is_told(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "move", "k", "--to=2", "--no-wait", "-w", "simple")
    assert (code, out) == (0, "1, k, , 0, 2, copying, 5, 1.0 kB, 9 ms, 0\n")
    assert cluster.begun[0].end == b"k\0"
    code, out, _ = run(capsys, "moves", "-w", "fields")
    assert code == 0
    for line in ('"Move" : 1', '"Key" : "k"', '"Sources" : [0]', '"Step" : "copying"', '"LagMs" : 9'):
        assert line in out.splitlines()


def test_a_copy_that_waits_for_room_is_told(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.lag_ms = -2
    code, out, _ = run(capsys, "move", "k", "--to=2", "--no-wait", "-w", "simple")
    assert (code, out) == (0, "1, k, , 0, 2, copying, 5, 1.0 kB, no room on 2, 0\n")
    monkeypatch.setattr(shard_moves, "TELL_S", 0.0)
    run(capsys, "moves")
    run(capsys, "moves")
    _, _, err = run(capsys, "split", "m", "--to", "1")
    assert "1.0 kB on 2 hosts, and no room for more on 2: see the log there\n" in err


def test_all_keys_end_where_keys_end(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "move", "", "--from-key", "--to", "1")
    assert code == 0
    assert "| \\x00 |" in out
    assert "(end)" in out
    assert "switched" in out
    assert cluster.begun == [Move(1, FIRST, END, (0,), 1)]


def test_a_split_moves_the_rest_of_a_span(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "split", "m", "--to", "1")[0] == 0
    assert run(capsys, "split", "p", "--to", "2")[0] == 0
    assert [(move.start, move.end) for move in cluster.begun] == [(b"m", END), (b"p", END)]
    assert run(capsys, "split", "a", "--to", "2")[0] == 0
    assert cluster.begun[-1].end == b"m"


def test_where_directories_are_hashed_a_split_stays_in_its_own() -> None:
    table = Table.initial(Base(3))
    assert part_from(table, b"/a/b/k") == (b"/a/b/k", b"/a/b0")
    assert part_from(table, b"lone") == (b"lone", b"lone\0")
    for key in (b"/a/1", b"/a", b"a/", b"/"):
        with pytest.raises(EtcdError, match=r"would move keys of shards 0 and 1 and 2: .* use `shard move`"):
            part_from(table, key)
    table = take_shard(take_shard(table, 3, State.FORMING, 3, (1,)), 3, State.SERVING, 0, ())
    moved = take_moved(take_move(table, Move(1, b"/", b"0", (0, 1, 2), 3), 1), Moved(1, True, 1, 0), 1)
    assert part_from(moved, b"/a/1") == (b"/a/1", b"0"), "the span's owner has them all"


def test_refusals_are_passed_on_and_lost_answers_say_where_to_look(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "move", "k", "--to", "0")
    assert code == 1
    assert "shard 0 owns a part" in err
    assert "shard moves" not in err, "nothing has begun"
    cluster.failing = [RequestError("etcdserver: request timed out", grpc.StatusCode.UNAVAILABLE)]
    code, _, err = run(capsys, "move", "k", "--to", "1")
    assert code == 1
    assert "`shard moves` shows whether it happened" in err
    for words, text in (
        (("move", "k"), "needs --to"), (("move", "--to", "1"), "needs one argument as key"),
        (("split", "--to", "1"), "needs one argument as key"), (("moves", "x"), "accepts no arguments"),
        (("cancel", "x"), "needs one argument as move"), (("move", "k", "--to", "65535"), "no id of a shard"),
        (("retire", "1", "--to", "99999"), "no id of a shard"),
    ):
        code, _, err = run(capsys, *words)
        assert code == 128
        assert text in err


def test_a_change_that_is_not_in_force_yet_is_waited_for(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.failing = [RequestError("ask again", grpc.StatusCode.ABORTED)] * 3
    assert run(capsys, "move", "k", "--to", "1", "--no-wait")[0] == 0
    cluster.failing = [RequestError("ask again", grpc.StatusCode.ABORTED)] * 3
    assert run(capsys, "cancel", "1")[0] == 0


def test_hosts_that_do_not_answer_for_a_while_are_waited_for(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.silent = 3
    assert run(capsys, "move", "k", "--to", "1")[0] == 0


def test_a_move_that_is_cancelled_changes_nothing_and_says_so(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "move", "k", "--to", "1", "--no-wait")[0] == 0
    code, out, _ = run(capsys, "cancel", "1", "-w", "simple")
    assert (code, out) == (0, "1, k, , 0, 1, cancelled, , , , 0\n")
    code, _, err = run(capsys, "cancel", "1")
    assert code == 1
    assert "move 1" in err
    assert cluster.table.owner(b"k") == 0


@pytest.mark.parametrize("switches", [True, False])
def test_a_host_that_has_forgotten_a_move_tells_its_end_by_the_table(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], switches: bool
) -> None:
    cluster.remembers = False
    if not switches:
        cluster.most_looks = 1 << 30
        looks = cluster.Moves

        def cancelled(request: Any) -> Any:
            answer = looks(request)
            cluster.CancelMove(shards_pb2.CancelMoveRequest(move=1)) if cluster.table.move else None
            return answer

        cluster.Moves = cancelled  # type: ignore[method-assign]
    code, out, err = run(capsys, "move", "k", "--to", "1", "-w", "json")
    assert json.loads(out)[0]["step"] == ("switched" if switches else "cancelled")
    assert code == (0 if switches else 1)
    assert ("was cancelled" in err) is not switches


def test_progress_stands_on_lines_where_no_terminal_shows_it(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_moves, "TELL_S", 0.0)
    _, _, err = run(capsys, "move", "k", "--to", "1")
    assert "move 1 is copying for 0 s: 5 keys, 1.0 kB on 2 hosts, 9 ms behind\n" in err
    assert "\r" not in err


def test_progress_names_the_hosts_that_a_move_waits_for_after_a_while(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_moves, "TELL_S", 0.0)
    cluster.waits_for = [0xAF, 3]
    assert "waits for" not in run(capsys, "move", "k", "--to", "1")[2]
    monkeypatch.setattr(shard_moves, "_WAITS_S", 0.0)
    assert "9 ms behind; waits for the copies of af, 3\n" in run(capsys, "move", "l", "--to", "1")[2]
    assert run(capsys, "move", "m", "--to", "1", "--no-wait")[0] == 0
    code, out, _ = run(capsys, "moves", "-w", "json")
    assert code == 0
    assert [one["waits_for"] for one in json.loads(out)] == [[], [], ["af", "3"]]


def test_a_terminal_has_one_line_of_progress(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    _, _, err = run(capsys, "move", "k", "--to", "1")
    assert err.startswith("\r\x1b[Kmove 1 is copying for 0 s: ")
    assert err.count("\n") == 1
    assert err.endswith("\n"), "what follows has a line of its own"


def with_one_behind(
    monkeypatch: pytest.MonkeyPatch, cluster: Cluster, table: Table, answers: int = 1 << 30
) -> None:
    """The first endpoint's host stays at a table, for so many answers."""
    left = [answers]

    def of_endpoint(s: Session, endpoints: Sequence[str], path: str) -> dict[str, Any]:
        base = cluster.table.base
        left[0] -= (behind := endpoints[0] == "a:1" and left[0] > 0)
        shown = table if behind else cluster.table
        return {"shards": base.shards, "depth": base.depth, "table": shown.encode().hex()}

    monkeypatch.setattr(shard_commands, "ask_any", of_endpoint)


def test_a_host_that_is_behind_does_not_say_how_a_move_ended(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It knew of the move and not yet of its end: "was cancelled: its keys are where they were"."""
    cluster.remembers = False
    move = moves.check_move(cluster.table, moves.Wish(b"a", b"b", 1), cluster.revision)
    with_one_behind(monkeypatch, cluster, take_move(cluster.table, move, cluster.revision), answers=3)
    code, out, err = run(capsys, "move", "a", "b", "--to", "1", "-w", "simple", "--endpoints", "a:1")
    assert "cancelled" not in err
    assert code == 0
    assert "switched" in out


def test_a_host_that_stays_behind_is_not_waited_for_without_end(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster.remembers = False
    move = moves.check_move(cluster.table, moves.Wish(b"a", b"b", 1), cluster.revision)
    with_one_behind(monkeypatch, cluster, take_move(cluster.table, move, cluster.revision))
    monkeypatch.setattr(shard_tables, "SILENT_S", 0.05)
    code, _, err = run(capsys, "move", "a", "b", "--to", "1", "--endpoints", "a:1")
    assert code == 1
    assert "no host of these endpoints knows yet how move 1 ended" in err


# -- a shard with keys retires


def test_a_shards_spans_go_to_the_others_in_turn_and_it_ends(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in (b"a", b"c", b"e"):
        cluster.change(take_move, Move(cluster.table.last_move + 1, key, key + b"\xff", (0,), 1), 1)
        cluster.change(take_moved, Moved(cluster.table.last_move, True, 1, 0), 1)
    cluster.change(take_shard, 3, State.FORMING, 3, (1,))
    cluster.change(take_shard, 3, State.SERVING, 0, ())
    cluster.change(take_compact, 5)
    code, out, err = run(capsys, "retire", "1", "-w", "simple")
    assert (code, out) == (0, "1, retiring\n")
    assert [(move.start, move.target) for move in cluster.begun] == [(b"a", 0), (b"c", 2), (b"e", 3)]
    last = max(past.last for past in cluster.table.past)
    assert (f"shard 1 owns no keys; it ends once revision {last + 1} or a later one is compacted "
            "(if there is none yet, put a key first)") in err
    code, out, _ = run(capsys, "retire", "1", "-w", "simple")
    assert (code, out) == (0, "1, retiring\n"), "run again, it tells the same"
    cluster.change(take_compact, last + 1)
    cluster.change(take_shard, 1, State.DROPPED, 0, ())
    code, out, _ = run(capsys, "retire", "1", "-w", "simple")
    assert (code, out) == (0, "1, dropped\n")
    code, out, _ = run(capsys, "retire", "2", "--to", "0", "--no-wait", "-w", "simple")
    assert (code, out) == (0, "2, retiring\n")
    assert {move.target for move in cluster.begun[3:]} == {0}


def test_a_retirement_goes_on_where_an_earlier_one_was_killed(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in (b"a", b"c"):
        cluster.change(take_move, Move(cluster.table.last_move + 1, key, key + b"\xff", (0,), 1), 1)
        cluster.change(take_moved, Moved(cluster.table.last_move, True, 1, 0), 1)
    cluster.RetireShard(shards_pb2.RetireShardRequest(shard=1, with_keys=True))
    cluster.Move(shards_pb2.MoveRequest(key=b"a", range_end=b"a\xff", target=2))
    code, out, _ = run(capsys, "retire", "1", "--to", "2", "-w", "simple")
    assert (code, out) == (0, "1, retiring\n")
    assert [move.start for move in cluster.begun] == [b"a", b"c"], "a span that moves is waited for"


def test_a_shard_whose_keys_nobody_may_take_stays_as_it_is(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.change(take_move, Move(1, b"a", b"b", (0,), 1), 1)
    cluster.change(take_moved, Moved(1, True, 1, 0), 1)
    for to in ("0", "1", "9"):
        code, _, err = run(capsys, "retire", "1", "--to", to)
        assert code == 1
        assert "the keys from a to b cannot move: shard " in err
    cluster.change(take_shard, 2, State.RETIRING, 0, ())
    code, _, err = run(capsys, "retire", "1")
    assert ("shard 0 owned a part of them up to revision 1: compact a later one "
            "(if there is none yet, put a key first)") in err
    assert cluster.table.shards[1].state == State.SERVING


def test_what_a_base_of_several_shards_owns_goes_to_a_born_one_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = shown_as(monkeypatch, Cluster(base=2, born=1))
    assert run(capsys, "retire", "1", "--with-others")[0] == 0
    assert made.begun == [Move(1, FIRST, END, (0, 1), 2)]


@pytest.mark.parametrize("retires", [False, True])
def test_keys_that_a_hash_spreads_take_others_along_only_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], retires: bool
) -> None:
    made = shown_as(monkeypatch, Cluster(base=3, born=1))
    made.change(take_move, Move(1, b"m", b"n", (0, 1, 2), 3), 1)
    made.change(take_moved, Moved(1, True, 1, 0), 1)
    if retires:
        made.change(take_shard, 1, State.RETIRING, 0, ())
    code, _, err = run(capsys, "retire", "1", "--to", "3")
    assert code == 1
    assert "the keys of shard 1 lie among those of 0 and 2" in err
    assert "--with-others" in err
    assert made.table.shards[1].state == (State.RETIRING if retires else State.SERVING)
    assert not made.begun
    assert run(capsys, "retire", "1", "--to", "3", "--with-others", "--no-wait")[0] == 0
    assert [(move.start, move.end) for move in made.begun] == [(FIRST, b"m"), (b"n", END)]


def test_a_first_shard_needs_an_added_one_to_retire(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown_as(monkeypatch, Cluster(base=3, born=0))
    code, _, err = run(capsys, "retire", "1", "--with-others")
    assert (code, "cannot move: there is no other: add one first" in err) == (1, True)


@pytest.mark.parametrize(("to", "why"), [("2", "retires"), ("9", "does not serve")])
def test_a_wrong_target_retires_no_shard_that_is_empty(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], to: str, why: str
) -> None:
    """It ended the shard, whose id is never used again, without a word of the target."""
    code, _, err = run(capsys, "retire", "2", "--to", to)
    assert (code, err) == (1, f"Error: shard {to} cannot take keys: it {why}\n")
    assert cluster.table.shards[2].state == State.SERVING
    assert run(capsys, "retire", "2", "--to", "1")[0] == 0


def test_the_shard_that_stays_is_not_said_to_need_another_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown_as(monkeypatch, Cluster(born=0))
    code, _, err = run(capsys, "retire", "0")
    assert (code, err) == (1, "Error: muster: shard 0 has the order of all changes, and stays\n")


@pytest.mark.timeout(20)
def test_a_retirement_does_not_wait_for_a_host_that_is_behind(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its first endpoint knew of the move and not of its end, and then of no drop: it looked for ever."""
    cluster.Move(shards_pb2.MoveRequest(key=b"a", range_end=b"b", target=1))
    with_one_behind(monkeypatch, cluster, cluster.table)
    cluster.change(take_moved, Moved(1, True, cluster.revision, 0), cluster.revision)
    code, out, _ = run(capsys, "retire", "2", "-w", "simple", "--endpoints", "a:1,b:1")
    assert (code, out) == (0, "2, dropped\n")


@pytest.mark.timeout(20)
def test_a_birth_is_seen_at_any_endpoint(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_one_behind(monkeypatch, cluster, cluster.table)

    def add(request: Any) -> Any:
        cluster.change(take_shard, 3, State.FORMING, 3, (1,))
        cluster.change(take_shard, 3, State.DROPPED, 0, ())
        cluster.change(take_shard, 4, State.FORMING, 3, (1,))
        cluster.change(take_shard, 4, State.SERVING, 0, ())
        return shards_pb2.AddShardResponse(shard=3)

    cluster.AddShard = add  # type: ignore[attr-defined]
    code, out, err = run(capsys, "add", "-w", "simple", "--endpoints", "a:1,b:1")
    assert (code, out) == (0, "4, serving\n")
    assert "shard 3 was not born in time: trying shard 4" in err


@pytest.mark.timeout(20)
@pytest.mark.parametrize("endpoints", ["a:1,b:1", "a:1"])
@pytest.mark.parametrize("born", [True, False])
def test_a_host_that_is_behind_does_not_say_what_a_shard_owns(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, endpoints: str,
    born: bool,
) -> None:
    """By its table the shard had no keys, and the end of one that has some was waited for."""
    with_one_behind(monkeypatch, cluster, cluster.table if born else Table.initial(Base(1)))
    cluster.Move(shards_pb2.MoveRequest(key=b"a", range_end=b"b", target=1))
    cluster.change(take_moved, Moved(1, True, cluster.revision, 0), cluster.revision)
    monkeypatch.setattr(shard_tables, "SILENT_S", 0.5)
    code, out, err = run(capsys, "retire", "1", "-w", "simple", "--endpoints", endpoints)
    if endpoints == "a:1":
        assert code == 1
        assert "no host of these endpoints knows yet that shard 1 retires" in err
    else:
        assert (code, out) == (0, "1, retiring\n")
        assert cluster.begun[-1].sources == (1,)


def test_a_retirement_waits_for_a_move_that_begins_before_its_own(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two retirements at the same time one ended half way: one move goes on at a time."""
    cluster.Move(shards_pb2.MoveRequest(key=b"a", range_end=b"b", target=1))
    cluster.change(take_moved, Moved(1, True, cluster.revision, 0), cluster.revision)
    begin = cluster.Move

    def first(request: Any) -> Any:
        cluster.Move = begin  # type: ignore[method-assign]
        cluster.Move(shards_pb2.MoveRequest(key=b"x", target=2))
        return begin(request)

    cluster.Move = first  # type: ignore[method-assign]
    code, out, _ = run(capsys, "retire", "1", "--to", "2", "-w", "simple")
    assert (code, out) == (0, "1, retiring\n")
    assert [move.start for move in cluster.begun] == [b"a", b"x", b"a"]
    cluster.failing = [RequestError("no room", grpc.StatusCode.FAILED_PRECONDITION)]
    cluster.change(take_shard, 3, State.FORMING, 3, (1,))
    cluster.change(take_shard, 3, State.SERVING, 0, ())
    code, _, err = run(capsys, "retire", "2", "--to", "3", "-w", "simple")
    assert code == 1
    assert "no room" in err, "nothing else moves"


@pytest.mark.timeout(20)
def test_a_host_that_reaches_no_leader_is_not_waited_for_without_end(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was cut off, and told the table of then: the shard retired for ever."""
    cluster.change(take_shard, 2, State.RETIRING, 0, ())
    monkeypatch.setattr(shard_changes, "TELL_S", 0.0)
    monkeypatch.setattr(shard_changes, "SILENT_S", 0.2)
    cluster.silent = 1 << 30
    code, _, err = run(capsys, "retire", "2", "--endpoints", "a:1")
    assert code == 1
    assert "shard 2 is retiring, for 0 s" in err
    assert "no host of these endpoints reaches a leader: the change goes on" in err


def test_while_a_leader_answers_a_shard_is_waited_for(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster.change(take_shard, 2, State.RETIRING, 0, ())
    monkeypatch.setattr(shard_changes, "TELL_S", 0.0)
    monkeypatch.setattr(shard_changes, "SILENT_S", 0.0)
    looks, told = cluster.Moves, iter(range(50))

    def ends(request: Any) -> Any:
        if next(told, None) is None and cluster.table.shards[2].state == State.RETIRING:
            cluster.change(take_shard, 2, State.DROPPED, 0, ())
        return looks(request)

    cluster.Moves = ends  # type: ignore[method-assign]
    code, out, _ = run(capsys, "retire", "2", "-w", "simple")
    assert (code, out) == (0, "2, dropped\n")
