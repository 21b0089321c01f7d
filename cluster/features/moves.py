"""Whether keys may move to another shard, judged by the leader of shard 0 (growth.md, G11, G14, G16).

A wish is the body of SHARD_CHANGE behind its kind, little-endian::

    MOVE    target u16 | start length u32 | start | end
    CANCEL  move u64

``start`` is the first key, ``end`` the first one behind; b"\\0" is the end of the key space. The answer to
both is the move's number, as field 2 (uint64) of the response.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from cluster import errors
from cluster.errors import EtcdError
from cluster.features import births
from cluster.features.births import going_on
from cluster.features.growth import MOVES, Growth
from cluster.placement.changes import take_move
from cluster.placement.table import END, Move, State, Table, before

MOVE, CANCEL = 3, 4  # kinds of SHARD_CHANGE
_MOVE = struct.Struct("<HI")
_NUMBER = struct.Struct("<Q")
MOST_KEY_BYTES = 64 << 10  # of either bound
LATER = "if there is none yet, put a key first"  # the newest revision keeps its owners
MOST_TABLE_BYTES = 1 << 20  # from there on no move begins: each node writes the table with each change of it


UNBOUNDED = 1 << 62


@dataclass(frozen=True, slots=True)
class Room:
    """What the leader's host has room for, in bytes: a copy lies beside the rows that it copies."""

    refuses: bool = False  # no data is accepted, of whatever size
    quota: int = UNBOUNDED  # that a copy may take
    disk: int = UNBOUNDED
    sizes: Mapping[int, int] = field(default_factory=dict)  # what shards have in use


class Moving(Protocol):
    """The sequencer's part in moves (``node.replica.moving.sequencing``)."""

    @property
    def settled(self) -> bool:
        """Whether all that was logged of placement is applied here."""

    def begun(self) -> None:
        """A change of placement is about to be logged."""

    def stop(self) -> None:
        """End the switch that is under way, if there is one."""


class Wish(NamedTuple):
    start: bytes
    end: bytes
    target: int

    def encode(self) -> bytes:
        """The body behind the kind."""
        return _MOVE.pack(self.target, len(self.start)) + self.start + self.end

    @classmethod
    def decode(cls, data: bytes) -> Wish:
        """EtcdError: it is none."""
        if len(data) < _MOVE.size:
            raise refused("the span is cut short")
        target, length = _MOVE.unpack_from(data)
        at = _MOVE.size + length
        start, end = data[_MOVE.size : at], data[at:]
        if not start or len(start) != length or not end or not before(start, end):
            raise refused("the span has no keys: it needs a first key, and an end behind it")
        if max(len(start), len(end)) > MOST_KEY_BYTES:
            raise refused(f"a bound of the span is longer than {MOST_KEY_BYTES} bytes")
        return cls(start, end, target)


def cancel_body(number: int) -> bytes:
    """The body of CANCEL behind its kind."""
    return _NUMBER.pack(number)


def read_cancel(data: bytes) -> int:
    """EtcdError: it is none."""
    if len(data) != _NUMBER.size:
        raise refused("the number of the move is cut short")
    return int(_NUMBER.unpack(data)[0])


def refused(reason: str) -> EtcdError:
    return errors.MOVE_REFUSED.error(reason=reason)


def check_level(grown: Growth) -> None:
    """EtcdError: the cluster's data has not grown so far."""
    births.check_level(grown, MOVES)


def check_settled(moving: Moving | None) -> Moving:
    """EtcdError: it is not known yet what may change."""
    if moving is None or not moving.settled:
        raise EtcdError(errors.MOVE_SETTLES)
    return moving


def check_move(table: Table, wish: Wish, revision: int) -> Move:
    """The move, if it may begin. EtcdError: why not. ``table``: as logged; ``revision``: the last there."""
    if (move := table.move) is not None:
        raise refused(f"move {move.number} is under way: wait for its end, or cancel it")
    target = table.shards.get(wish.target)
    if target is None or target.state == State.DROPPED:
        raise errors.SHARD_UNKNOWN.error(shard=wish.target)
    if target.state != State.SERVING:
        raise going_on(wish.target, target.state)
    owners = table.owners_of(wish.start, wish.end)
    if wish.target in owners:
        raise refused(f"shard {wish.target} owns a part of the span already")
    if last := table.past_of(wish.target, wish.start, wish.end):
        raise refused(f"shard {wish.target} had a part of the span up to revision {last}: "
                      f"compact a later one first ({LATER})")
    move = Move(table.last_move + 1, wish.start, wish.end, owners, wish.target)
    try:
        changed = take_move(table, move, revision)
    except AssertionError as e:
        raise refused(str(e)) from None
    if len(changed.encode()) > MOST_TABLE_BYTES:
        raise refused(f"the table of shards has more than {MOST_TABLE_BYTES} bytes: compact, or name shorter "
                      f"bounds")
    return move


def check_room(table: Table, spans: Collection[tuple[bytes, bytes]], room: Room) -> None:
    """EtcdError: there is no room for a copy of these spans, which are in order. Only the size of whole
    shards is known; other copies wait where they find no room (``node.upkeep.space.copies``)."""
    if room.refuses:
        raise EtcdError(errors.NO_SPACE)
    sources = {shard for span in spans for shard in table.owners_of(*span)}
    size = sum(room.sizes.get(shard, 0) for shard in sources
               if [piece for span in spans for piece in table.pieces_of(shard, *span)]
               == table.pieces_of(shard, END, END))
    for what, left, remedy in (("the quota", room.quota, "raise --quota-backend-bytes"),
                               ("the leader's disk", room.disk, "enlarge the disk")):
        if left <= 0 or size > left:
            needs = f", and needs about {size}" if size else ""
            raise refused(f"a copy of these keys may take {max(left, 0)} bytes of {what}{needs}: delete and "
                          f"compact, or {remedy}")


def check_cancel(table: Table, number: int) -> None:
    """EtcdError: no such move is under way."""
    if table.move is None or table.move.number != number:
        raise errors.MOVE_UNKNOWN.error(move=number)
