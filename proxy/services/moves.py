"""musterpb.Shards about keys that move: what Move, Split, CancelMove and Moves send on and answer."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.features import moves
from cluster.features.auth.reads import Show
from cluster.features.growth import MOVES
from cluster.pb import shards_pb2
from cluster.placement import Table
from cluster.placement.table import BASE, END, Move, before, lower, span_of
from cluster.wire.frames import MOVES_SINCE
from cluster.wire.messages import HEAD, READ, Method
from proxy.routing.router import MethodStats, Waiting
from proxy.shared.context import Call, Context, Registry, Serve

MOST_ENDED = 16  # moves that ended, of which a front tells
_NOW = READ.pack(0, 0)
_STEPS = {"copying": shards_pb2.Move.COPYING, "switching": shards_pb2.Move.SWITCHING,
          "pausing": shards_pb2.Move.PAUSING}


def register(registry: Registry, context: Context, service: str) -> None:
    ended = Ended()
    context.on_table.append(ended.follow)
    for name, request, serve in (
        ("Move", shards_pb2.MoveRequest, _move(context)), ("Split", shards_pb2.SplitRequest, _split(context)),
        ("CancelMove", shards_pb2.CancelMoveRequest, _cancel(context)),
        ("Moves", shards_pb2.MovesRequest, _moves(context, ended)),
    ):
        context.unary(registry, service, name, request, serve)


class Ended:
    """The last moves that ended while this front followed the table."""

    def __init__(self) -> None:
        self.moves: deque[tuple[Move, bool]] = deque(maxlen=MOST_ENDED)  # and whether each switched

    def follow(self, older: Table, table: Table) -> None:
        move = older.move
        if move is not None and (table.move is None or table.move.number != move.number):
            self.moves.append((move, table.owners_of(move.start, move.end) == (move.target,)))


def part_from(table: Table, key: bytes) -> tuple[bytes, bytes]:
    """The span that a split at a key moves: see SplitRequest. EtcdError: other shards have keys in it."""
    for span in table.spans:
        if span.start <= key and before(key, span.end):
            return key, span.end
    end = next((span.start for span in table.spans if span.start > key), END)
    if table.base.shards == 1:
        return key, end
    prefix = table.base.prefix_of(key)
    is_directory = prefix.endswith(b"/")  # else a key that has none, which is placed alone
    end = lower(end, prefix[:-1] + b"0" if is_directory else key + b"\0")
    if len(owners := table.owners_of(key, end)) > 1:
        shards = " and ".join(map(str, owners))
        raise moves.refused(f"a split here would move keys of shards {shards}: a hash places each directory "
                            f"below this one; to move all, use `shard move`")
    return key, end


def _check(context: Context, target: int = 0) -> None:
    """EtcdError: the leader's version knows no moves, or there can be no such shard."""
    if context.leader_lacks(MOVES_SINCE):
        raise errors.GROWTH_UNKNOWN.error(level=MOVES, known=MOVES - 1)
    if target >= BASE:
        raise errors.SHARD_UNKNOWN.error(shard=target)


def _begin(context: Context, call: Call, start: bytes, end: bytes, target: int, stats: MethodStats) -> None:
    wish = moves.Wish(start, end, target).encode()
    context.router.write(call, Method.SHARD_CHANGE, bytes((moves.MOVE,)) + wish, 0, stats)


def _move(context: Context) -> Serve:
    def move(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        if not request.key:
            raise EtcdError(errors.EMPTY_KEY)
        _check(context, request.target)
        _begin(context, call, *span_of(request.key, request.range_end), request.target, stats)

    return move


def _split(context: Context) -> Serve:
    def known(waiting: Waiting, status: int, body: bytes) -> None:
        if context.failed(waiting, status, body):
            return
        request = waiting.context
        try:
            span = part_from(context.placement.table, request.key)
        except EtcdError as refusal:
            context.refuse(waiting.call, waiting.stats, refusal)
        else:
            if not context.given_up(waiting.call, waiting.stats):
                _begin(context, waiting.call, *span, request.target, waiting.stats)

    def split(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        if not request.key:
            raise EtcdError(errors.EMPTY_KEY)
        _check(context, request.target)  # first, or it would tell which keys' spans are refused
        # This front's table may be an old one, by which other shards' keys would move along. And a refusal
        # tells where keys have moved: a node says first who may ask. A split needs the same permission
        show = bytes((Show.STATUS,))
        context.router.read(call, Method.AUTH_SHOW, show, 0, False, stats, known, request)

    return split


def _cancel(context: Context) -> Serve:
    def cancel(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        _check(context)
        body = bytes((moves.CANCEL,)) + moves.cancel_body(request.move)
        context.router.write(call, Method.SHARD_CHANGE, body, 0, stats)

    return cancel


def _moves(context: Context, ended: Ended) -> Serve:
    def answer(waiting: Waiting, status: int, body: bytes) -> None:
        if context.failed(waiting, status, body) or context.given_up(waiting.call, waiting.stats):
            return
        waiting.stats.ok += 1
        table = context.placement.table
        response = shards_pb2.MovesResponse(
            last_move=table.last_move, table=table.encode() if waiting.context else b"")
        for move, switched in ended.moves:
            step = shards_pb2.Move.SWITCHED if switched else shards_pb2.Move.CANCELLED
            _add(response, move).step = step
        if table.move is not None:
            _tell(_add(response, table.move), json.loads(body[HEAD.size:]).get("move", {}))
        waiting.call.reply(
            context.router.header(*HEAD.unpack_from(body)), response.SerializeToString())

    def list_moves(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        _check(context)
        context.router.ask(call, Method.MOVES, _NOW, 0, stats, answer, context=request.table)

    return list_moves


def _add(response: Any, move: Move) -> Any:
    return response.moves.add(
        move=move.number, key=move.start, range_end=move.end, sources=move.sources, target=move.target)


def _tell(shown: Any, facts: dict[str, Any]) -> None:
    """``facts``: of the leader, which may be about another move than this front's table has."""
    if facts.get("move") != shown.move:
        return
    shown.step = _STEPS.get(facts["step"], shards_pb2.Move.UNKNOWN)
    shown.failed_switches = facts["failed_switches"]
    shown.waits_for.extend(int(member, 16) for member in facts.get("waits_for", ()))
    for member, copy in facts["hosts"].items():
        shown.copies.add(member=int(member, 16), keys=copy["keys"], bytes=copy["bytes"],
                         whole=copy["whole"], lag_ms=copy["lag_ms"])
