"""What a front makes of the calls that move keys, and what it tells of moves."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from cluster.errors import SHARD_UNKNOWN, USER_EMPTY, EtcdError
from cluster.features import moves
from cluster.features.auth.reads import Show
from cluster.pb import shards_pb2 as pb
from cluster.placement import Table
from cluster.placement.changes import Moved, take_move, take_moved, take_shard
from cluster.placement.table import BASE, END, Move, State
from cluster.wire.frames import HIGHEST
from cluster.wire.messages import Method, Status
from proxy.http.requests import Headers, HttpHandler, HttpRequest
from proxy.listener import shard_endpoints
from tests.unit.proxy.fakes import FakeCall
from tests.unit.proxy.served import Served


class Placed(Served):
    """A front whose node has applied a table with a shard that owns nothing yet."""

    def __init__(self) -> None:
        super().__init__()
        table = take_shard(self.net.context.placement.table, 1, State.FORMING, 1, (1, 2, 3))
        self.tell(take_shard(table, 1, State.SERVING, 0, ()))
        self.speaks(HIGHEST)

    def speaks(self, version: int) -> None:
        link = self.net.router.routes[0].leader_link
        assert link is not None
        link._end.version = version

    @property
    def table(self) -> Table:
        return self.net.context.placement.table

    def tell(self, table: Table) -> None:
        self.node.answer(0, Status.PLACEMENT, table.encode())
        self.net.run()

    def begin(self, number: int, start: bytes, end: bytes, target: int = 1) -> None:
        table = self.table
        self.tell(take_move(table, Move(number, start, end, table.owners_of(start, end), target), 10))

    def end(self, *, switched: bool) -> None:
        move = self.table.move
        assert move is not None
        self.tell(take_moved(self.table, Moved(move.number, switched, 10, 1), 10))

    def split(self, key: bytes, status: int = Status.OK, body: bytes = b"") -> FakeCall:
        """A split once the front has heard that its table is as new as that."""
        call = self.call("Split", pb.SplitRequest(key=key, target=1))
        assert call.status is None
        (round_,) = (sent for sent in self.node.take() if sent.method != Method.PLACED)
        self.node.index(round_, 3)
        self.net.run()
        (asked,) = self.node.take()
        assert (asked.method, asked.body[-1]) == (Method.AUTH_SHOW, Show.STATUS)
        if status == Status.OK:
            self.node.ok(asked)
        else:
            self.node.answer(asked.rid, status, body)
        self.net.run()
        return call

    def wish(self) -> tuple[int, bytes]:
        """The kind and the body of the one change that was sent on."""
        (request,) = self.node.take(Method.SHARD_CHANGE)
        return request.body[0], request.body[1:]

    def listed(self, facts: dict[str, Any]) -> Any:
        call = self.call("Moves", pb.MovesRequest())
        (asked,) = self.node.take(Method.MOVES)
        self.node.ok(asked, tail=json.dumps({"move": facts}).encode())
        self.net.run()
        return pb.MovesResponse.FromString(call.replies[0])


@pytest.fixture
def served() -> Placed:
    return Placed()


@pytest.mark.parametrize(
    ("key", "range_end", "span"),
    [(b"k", b"", (b"k", b"k\0")), (b"a", b"c", (b"a", b"c")), (b"\0", b"\0", (END, END))])
def test_a_move_is_a_span_by_its_bounds(
    served: Placed, key: bytes, range_end: bytes, span: tuple[bytes, bytes]
) -> None:
    call = served.call("Move", pb.MoveRequest(key=key, range_end=range_end, target=1))
    (request,) = served.node.take(Method.SHARD_CHANGE)
    assert request.body[0] == moves.MOVE
    assert moves.Wish.decode(request.body[1:]) == (*span, 1)
    served.node.ok(request, tail=b"\x10\x07")
    served.net.run()
    assert pb.MoveResponse.FromString(call.replies[0]).move == 7


def test_a_split_goes_by_the_table_of_this_front(served: Placed) -> None:
    served.begin(1, b"m", b"p")
    served.end(switched=True)
    for key, end in ((b"n", b"p"), (b"a", b"m"), (b"q", END)):
        served.split(key)
        kind, body = served.wish()
        assert (kind, moves.Wish.decode(body)) == (moves.MOVE, (key, end, 1))


def test_a_split_goes_by_no_table_of_before_its_question(served: Placed) -> None:
    """A front that had just begun, or was behind, took keys along that another shard had got."""
    call = served.call("Split", pb.SplitRequest(key=b"a", target=1))
    assert served.node.take(Method.SHARD_CHANGE) == []
    (round_,) = served.node.take(Method.READ_INDEX)
    served.node.index(round_, 3)
    served.net.run()
    (asked,) = served.node.take(Method.AUTH_SHOW)
    served.begin(1, b"m", b"p")
    served.end(switched=True)
    served.node.ok(asked)
    served.net.run()
    kind, body = served.wish()
    assert (kind, moves.Wish.decode(body)) == (moves.MOVE, (b"a", b"m", 1))
    assert call.status is None


@pytest.mark.parametrize("may", [True, False])
def test_who_may_not_split_hears_nothing_of_where_keys_have_moved(
    served: Placed, monkeypatch: pytest.MonkeyPatch, may: bool
) -> None:
    """Anybody found bounds of spans that have moved, which are parts of keys."""
    refusal, denied = moves.refused("a split here would move keys of other shards"), EtcdError(USER_EMPTY)

    def part_from(table: Table, key: bytes) -> None:
        raise refusal

    monkeypatch.setattr("proxy.services.moves.part_from", part_from)
    served.net.router.principals.enabled = True
    call = served.split(b"/secret/") if may else served.split(b"/secret/", Status.ERROR, denied.encode())
    error = refusal if may else denied
    assert call.status == (error.code, error.text)
    stats = served.net.context.method("unary", "musterpb.Shards", "Split")
    assert (stats.ok, stats.codes) == (0, {error.code: 1})
    served.net.router.principals.enabled = False
    call = served.split(b"/secret/")
    assert call.status == (refusal.code, refusal.text)


def test_a_split_to_a_shard_that_cannot_be_tells_nothing_of_where_keys_have_moved(
    served: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its refusal came for other keys alone: who may not split found by it where keys have moved."""
    monkeypatch.setattr(served.net.router.principals, "enabled", True)
    calls = [served.call("Split", pb.SplitRequest(key=b"/secret/", target=BASE))]
    refusal = moves.refused("a split here would move keys of other shards")
    monkeypatch.setattr("proxy.services.moves.part_from", Mock(side_effect=refusal))
    calls.append(served.call("Split", pb.SplitRequest(key=b"/secret/", target=BASE)))
    error = SHARD_UNKNOWN.error(shard=BASE)
    assert [call.status for call in calls] == 2 * [(error.code, error.text)]
    assert served.node.take() == []


def test_a_move_is_cancelled_by_its_number(served: Placed) -> None:
    served.call("CancelMove", pb.CancelMoveRequest(move=(1 << 64) - 1))
    kind, body = served.wish()
    assert (kind, moves.read_cancel(body)) == (moves.CANCEL, (1 << 64) - 1)


@pytest.mark.parametrize(
    ("method", "request_"),
    [("Move", pb.MoveRequest(target=1)), ("Split", pb.SplitRequest(target=1)),
     ("Move", pb.MoveRequest(key=b"k", target=65535)), ("Split", pb.SplitRequest(key=b"k", target=1 << 31)),
     ("Move", b"\xff"), ("Moves", b"\xff"), ("CancelMove", b"\xff")])
def test_what_cannot_be_moved_is_refused_here(served: Placed, method: str, request_: Any) -> None:
    call = served.call(method, request_)
    assert call.status is not None
    assert call.status[0] in (3, 5, 13)
    assert not served.node.take()


def test_a_leader_of_an_older_version_is_not_asked(served: Placed) -> None:
    served.speaks(HIGHEST - 1)
    for method, request in (
        ("Move", pb.MoveRequest(key=b"k", target=1)), ("Split", pb.SplitRequest(key=b"k", target=1)),
        ("CancelMove", pb.CancelMoveRequest(move=1)), ("Moves", pb.MovesRequest()),
    ):
        call = served.call(method, request)
        assert call.status == (9, "muster: the leader's version knows no data of level 3, and none above 2")
    assert not served.node.take()


def test_moves_are_told_from_the_table_and_the_leaders_facts(served: Placed) -> None:
    assert served.listed({}) == pb.MovesResponse(header=served.listed({}).header)
    served.begin(1, b"a", b"b")
    served.end(switched=True)
    served.begin(2, b"c", b"d")
    served.end(switched=False)
    served.begin(3, b"e", END)
    copy = {"whole": True, "keys": 5, "bytes": 70, "lag_ms": 3}
    answer = served.listed({"move": 3, "step": "pausing", "failed_switches": 2, "hosts": {"ff": copy},
                            "waits_for": ["ff", "1"]})
    first, second, third = answer.moves
    assert answer.last_move == 3
    assert [one.step for one in answer.moves] == [pb.Move.SWITCHED, pb.Move.CANCELLED, pb.Move.PAUSING]
    assert (first.move, first.key, first.range_end, first.sources, first.target) == (1, b"a", b"b", [0], 1)
    assert (second.copies, second.failed_switches) == ([], 0)
    assert (third.failed_switches, third.range_end) == (2, END)
    assert third.waits_for == [255, 1]
    assert third.copies == [pb.Move.Copy(member=255, keys=5, bytes=70, whole=True, lag_ms=3)]


@pytest.mark.parametrize("facts", [{}, {"move": 9, "step": "copying", "failed_switches": 0, "hosts": {}}])
def test_what_the_leader_says_of_another_move_is_not_this_ones(served: Placed, facts: dict[str, Any]) -> None:
    served.begin(1, b"a", b"b")
    (one,) = served.listed(facts).moves
    assert (one.move, one.step) == (1, pb.Move.UNKNOWN)


def test_the_last_sixteen_ends_are_kept(served: Placed) -> None:
    for number in range(1, 19):
        served.begin(number, b"a", b"b")
        served.end(switched=False)
    assert [one.move for one in served.listed({}).moves] == list(range(3, 19))


def test_a_client_that_has_gone_is_answered_nothing(served: Placed) -> None:
    call: FakeCall = served.call("Moves", pb.MovesRequest())
    (asked,) = served.node.take(Method.MOVES)
    call.closed = True
    served.node.ok(asked, tail=b"{}")
    served.net.run()
    assert call.replies == []
    stats = served.net.context.method("unary", "musterpb.Shards", "Moves")
    assert (stats.ok, stats.codes) == (0, {1: 1})


def test_the_table_is_told_where_it_is_wanted(served: Placed) -> None:
    served.begin(1, b"/secret/", b"/secret0")
    assert not served.listed({}).table
    call = served.call("Moves", pb.MovesRequest(table=True))
    (asked,) = served.node.take(Method.MOVES)
    served.node.ok(asked, tail=b"{}")
    served.net.run()
    assert Table.decode(pb.MovesResponse.FromString(call.replies[0]).table) == served.table


class Web(HttpRequest):
    """Of anybody, without credentials."""

    def __init__(self) -> None:
        super().__init__("GET", "/muster/placement", "", {}, b"", "127.0.0.1:1")
        self.body = b""

    def respond(self, status: int, body: bytes = b"", headers: Headers = (), content_type: str = "") -> None:
        self.body = body


def test_keys_in_the_table_are_for_root_while_there_are_users(served: Placed) -> None:
    """Anybody could read them at /muster/placement."""
    handlers: dict[str, HttpHandler] = {}
    shard_endpoints.register(cast(Any, SimpleNamespace(http=handlers.__setitem__)), served.net.context)

    def told() -> dict[str, Any]:
        request = Web()
        handlers["/muster/placement"](request)
        found: dict[str, Any] = json.loads(request.body)
        assert (found["shards"], found["depth"]) == (1, 2), "which a proxy needs"
        assert found["generation"] == served.table.generation
        return found

    principals = served.net.context.principals
    principals.heard(1, True, 2, b"")
    assert told()["table"] == served.table.encode().hex(), "it names no key yet"
    served.begin(1, b"/secret/", b"/secret0")
    assert "table" not in told()
    served.end(switched=True)
    assert "table" not in told()
    principals.heard(2, False, 3, b"")
    assert told()["table"] == served.table.encode().hex()


@pytest.mark.parametrize("users", [False, True])
def test_bounds_of_what_moves_are_for_root_while_there_are_users(
    served: Placed, users: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also at /muster/shards."""
    move = {"move": 1, "start": "61", "end": "62", "target": 1}
    facts = [{"shard": 0, "up": True, "move": move}, {"shard": 1, "up": False}]
    monkeypatch.setattr(shard_endpoints, "gather", lambda context, done: done(facts))
    handlers: dict[str, HttpHandler] = {}
    shard_endpoints.register(cast(Any, SimpleNamespace(http=handlers.__setitem__)), served.net.context)
    served.net.context.principals.heard(1, users, 2, b"")
    request = Web()
    handlers["/muster/shards"](request)
    shown = json.loads(request.body)["shards"]
    assert shown == (facts if not users else [{**facts[0], "move": {"move": 1, "target": 1}}, facts[1]])


def test_very_many_that_ask_for_shards_share_answers(served: Placed, monkeypatch: pytest.MonkeyPatch) -> None:
    """700 took 0.7 s of the nodes' time."""
    gathers: list[Callable[[list[dict[str, Any]]], None]] = []
    monkeypatch.setattr(shard_endpoints, "gather", lambda context, done: gathers.append(done))
    handlers: dict[str, HttpHandler] = {}
    shard_endpoints.register(cast(Any, SimpleNamespace(http=handlers.__setitem__)), served.net.context)
    loop = served.net.loop
    loop.later.clear()
    asked = [Web() for _ in range(50)]
    for request in asked:
        handlers["/muster/shards"](request)
    assert len(gathers) == 1, "the others could be told what was before they asked"
    gathers.pop()([{"shard": 0, "up": False}])
    assert [bool(one.body) for one in asked] == [True] + 49 * [False]
    loop.later.pop()()
    gathers.pop()([{"shard": 0, "up": True}])
    assert [bool(one.body) for one in asked] == 21 * [True] + 29 * [False]
    loop.run()
    assert {one.body for one in asked[1:]} == {asked[1].body}
    loop.later.pop()()
    assert (gathers, loop.later) == ([], [])
