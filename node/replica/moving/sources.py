"""What a node answers to copies of what moves away from it, and how much of what moved here is on disk."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cluster.order.moving.copier import Ask
from cluster.placement.table import Move
from cluster.wire.messages import Method, Status
from node.links.fronts import FrontLink
from node.replica.moving.moved import MovedKeys

if TYPE_CHECKING:
    from node.replica.shards.linked import RoleNode

_PAGING_S = 1.0  # since the last page that was asked for
DURABLE = struct.Struct("<Q")  # an order record: up to it all is to be on disk, or is


class Sources:
    def __init__(self, node: RoleNode, moved: MovedKeys) -> None:
        self._node = node
        self._moved = moved
        self._paged = float("-inf")  # when a page was answered that was not the last
        node.handlers[Method.COPY] = lambda link, rid, timeout_ms, body: self._copy(link, rid, body)
        node.handlers[Method.DURABLE] = lambda link, rid, timeout_ms, body: _answer_durable(
            node, link, rid, body)

    def _copy(self, link: FrontLink, rid: int, body: bytes) -> None:
        """One page, or some events: half a millisecond. The target asks no faster than it may."""
        number, ask = Ask.decode(body)
        move = self._move(number)
        found = self._moved.answer(move, ask) if move is not None else None
        if found is None:
            link.answer(rid, Status.UNKNOWN, b"")
        else:
            link.answer(rid, Status.OK, found.encode())
            if ask.page:
                self._paged = self._node.loop.time() if found.more is not None else float("-inf")
        self._node.mark_dirty(link)

    @property
    def paging(self) -> bool:
        """Whether a copy asks for pages here, and has not got the last one."""
        return self._node.loop.time() - self._paged < _PAGING_S

    def _move(self, number: int) -> Move | None:
        table = self._moved.table
        if table is not None and table.move is not None and table.move.number == number:
            return table.move
        left = self._moved.left.get(number)
        return None if left is None else left.move


def _answer_durable(node: RoleNode, link: FrontLink, rid: int, body: bytes) -> None:
    """DURABLE. A store in which little happens flushes because it is asked."""
    (wanted,), durable = DURABLE.unpack(body), node.store.durable_position.order_index
    if durable < wanted <= node.store.position.order_index:
        node.upkeep.flushes.owe()
    link.answer(rid, Status.OK, DURABLE.pack(durable))
    node.mark_dirty(link)
