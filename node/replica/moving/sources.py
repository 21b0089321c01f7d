"""What a node answers to copies of what moves away from it, and how durable its host's nodes are."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.order.moving.copier import Ask
from cluster.placement.table import Move
from cluster.wire.messages import Method, Status
from node.links.fronts import FrontLink
from node.replica.moving.moved import MovedKeys

if TYPE_CHECKING:
    from node.replica.shards.role_node import RoleNode

DURABLE_OF = struct.Struct("<H")  # a shard
DURABLE = struct.Struct("<Q")  # the order record up to which the host's node has it on disk


class Sources:
    def __init__(self, node: RoleNode, moved: MovedKeys) -> None:
        self._node = node
        self._moved = moved
        node.handlers[Method.COPY] = lambda link, rid, timeout_ms, body: self._copy(link, rid, body)

    def _copy(self, link: FrontLink, rid: int, body: bytes) -> None:
        """One page, or some events: some 3 ms of a turn. The target asks no faster than it may."""
        number, ask = Ask.decode(body)
        move = self._move(number)
        found = self._moved.answer(move, ask) if move is not None else None
        if found is None:
            link.answer(rid, Status.UNKNOWN, b"")
        else:
            link.answer(rid, Status.OK, found.encode())
        self._node.mark_dirty(link)

    def _move(self, number: int) -> Move | None:
        table = self._moved.table
        if table is not None and table.move is not None and table.move.number == number:
            return table.move
        left = self._moved.left.get(number)
        return None if left is None else left.move


class Durability:
    """At a node 0: what its host's nodes have on disk (``node.replica.moving.leaving`` asks)."""

    def __init__(self, node: RoleNode, durable: Callable[[int], int]) -> None:
        self._node = node
        self._durable = durable
        node.handlers[Method.DURABLE] = lambda link, rid, timeout_ms, body: self._say(link, rid, body)

    def _say(self, link: FrontLink, rid: int, body: bytes) -> None:
        link.answer(rid, Status.OK, DURABLE.pack(self._durable(*DURABLE_OF.unpack(body))))
        self._node.mark_dirty(link)
