"""Shards in the cluster view: births and retirements on real hosts, moves as hosts' messages tell them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import muster_client as m
import pytest
from google.protobuf.message import Message

from cluster.pb import shards_pb2 as pb
from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.table import END, Move, Piece, Shard, State
from tests.interop.console.conftest import Visits, one_muster
from tests.interop.console.visitor import Visitor
from tools.console.store import moves, shards
from tools.console.store.shards import Growth, Shards


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A muster that grows."""
    with one_muster(tmp_path_factory.mktemp("grows")) as address:
        yield address


def test_a_shard_is_born_and_retired(own: str, visit: Visits) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/cluster")
        await user.sees("Growth level 0 of ")
        await user.sees("by hash of the first 2 directories, over shards 0 to 1")
        assert "Add a shard" not in user.seen(), "the data may not grow yet"
        await user.fill("Enable growth", {"Type the word": "growth"})
        await user.click("Add a shard")
        await user.click("Add a shard")
        await user.sees("Shard 2")
        await user.until(lambda: user.in_row("Shard 2", "Leader"))
        await user.click_in("Shard 2", "Retire")
        await user.sees("Its id is never used again.")
        user.type("Type the word", "Shard 2")
        await user.click("Retire")
        await user.until(lambda: not user.in_row("Shard 2", ""))

    visit(steps, address=own)


def test_a_read_only_console_shows_shards_and_changes_none(own: str, visit: Visits) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/cluster")
        await user.sees("Who owns which keys")
        for name in ("Enable growth", "Add a shard", "Move keys", "Split", "Retire"):
            assert name not in user.seen().splitlines()
        with pytest.raises(m.MusterError, match="read-only"):
            await moves.add(user.console.sessions.nobody.client)

    visit(steps, address=own, read_only=True)


TABLE = Table(
    Base(1),
    {0: Shard(State.SERVING, 0, ()), 1: Shard(State.SERVING, 1, ()), 2: Shard(State.RETIRING, 2, ())},
    spans=(Piece(b"/b/", b"/b0", 1, 12), Piece(b"/c", b"/c\0", 2, 15)),
    past=(Piece(b"/b/", b"/b0", 0, 0, 11),),
    generation=7,
)
COPYING = pb.Move(
    move=3, key=b"/d/", range_end=b"/d0", sources=[0], target=1, step=pb.Move.COPYING, failed_switches=2,
    copies=[pb.Move.Copy(member=7, keys=1234, bytes=5 << 20, whole=True, lag_ms=12),
            pb.Move.Copy(member=8, keys=5, bytes=70, lag_ms=-2)],
)  # fmt: skip
DONE = pb.Move(move=2, key=b"/c", sources=[0], target=2, step=pb.Move.SWITCHED)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """What is asked of hosts that have moved keys; they tell of their table and moves."""
    asked: list[Message] = []
    look, call = shards.look, moves.raw.call

    async def grown(*of: Any) -> Shards:
        found = await look(*of)
        return replace(found, table=TABLE, growth=Growth(3, 3))

    async def answered(client: m.Client, method: Any, request: Message, **how: Any) -> Any:
        if method is moves.raw.MOVES:
            return pb.MovesResponse(moves=[DONE, COPYING], last_move=3)
        if method.path.startswith("/musterpb.Shards/"):
            asked.append(request)
            return method.answer()
        return await call(client, method, request, **how)

    monkeypatch.setattr(shards, "look", grown)
    monkeypatch.setattr(moves.raw, "call", answered)
    return asked


def test_placement_and_moves_are_shown(told: list[Message], visit: Visits) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/cluster")
        for text in ("Placement 7", "Growth level 3 of 3", "/b/", "since revision 12", "revisions 0 to 11",
                     "Move 3", "copying", "Failed switches: 2", "Shard 0 → Shard 1", "1,234 keys", "5.0 MiB",
                     "12 ms behind", "complete", "waits for room on this host", "Move 2", "done",
                     "retiring"):  # fmt: skip
            await user.sees(text)
        assert user.seen().splitlines().count("/c") == 2, "the key that was moved, and its span"
        await user.click("Cancel the move")
        await user.sees("Nothing has changed yet")
        await user.click("Cancel the move")
        await user.until(lambda: told)
        assert told == [pb.CancelMoveRequest(move=3)]

    visit(steps)


def test_keys_are_moved_and_split_to_shards_that_take_some(told: list[Message], visit: Visits) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/cluster")
        await user.fill("Move keys", {"Keys are": "range", "Keys": "b..a"})
        await user.sees("That is no range of keys")
        assert set(user.all("To")[-1].options) == {0, 1}, "a shard that retires takes none"
        user.type("Keys", "a..b")
        user.type("To", 0)
        await user.click("Move keys")
        await user.until(lambda: len(told) == 1)
        await user.fill("Split", {"Key": "/e", "To": 1})
        await user.until(lambda: len(told) == 2)
        await user.click_in("Shard 1", "Move keys here")
        await user.sees("the keys pause for a moment")
        assert user.all("To")[-1].value == 1
        user.type("Keys are", "all")
        await user.click("Move keys")
        await user.until(lambda: len(told) == 3)
        await user.click("Move /b/")
        user.type("To", 0)
        await user.click("Move keys")
        await user.until(lambda: len(told) == 4)
        await user.click_in("Shard 1", "Retire")
        await user.sees("This shard owns keys.")
        user.type("Type the word", "Shard 1")
        await user.click("Retire")
        await user.until(lambda: len(told) == 5)
        assert told == [
            pb.MoveRequest(key=b"a", range_end=b"b", target=0),
            pb.SplitRequest(key=b"/e", target=1),
            pb.MoveRequest(key=b"\0", range_end=b"\0", target=1),
            pb.MoveRequest(key=b"/b/", range_end=b"/b0", target=0),
            pb.RetireShardRequest(shard=1, with_keys=True),
        ]

    visit(steps)


def test_the_table_tells_of_a_move_where_hosts_tell_no_more() -> None:
    table = replace(TABLE, move=Move(3, b"/d/", END, (0,), 1))
    found = Shards(table=table)
    assert found.move == moves.Move(3, m.KeyRange(b"/d/", END), (0,), 1)
    assert found.targets == [0, 1]
    assert found.running == [0, 1, 2]
    switched = moves.Move(3, m.KeyRange(b"/d/", END), (0,), 1, "switched")
    assert Shards(table=table, moves=(switched,)).move is None
