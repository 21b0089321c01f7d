"""What operators do with shards, muster's own: births, retirements, and moves of keys between them."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from muster_client import Client, KeyRange, MusterError, PermissionDenied

from cluster.pb import shards_pb2 as pb
from tools.console.store import raw

_BEGUN_S = 10.0  # a change is answered once it has begun
_ASKED_S = 2.0
NO_ROOM = -2  # a lag: the copy waits for room on its host


@dataclass(frozen=True, slots=True)
class Copy:
    """One host's copy of what moves. ``whole``: all is there, and changes follow. ``lag_ms``: -1: unknown,
    or :data:`NO_ROOM`."""

    host: str
    keys: int
    size_bytes: int
    whole: bool
    lag_ms: int


@dataclass(frozen=True, slots=True)
class Move:
    """A move of keys. ``step``: ``unknown``, ``copying``, ``switching``, ``pausing``, ``switched``,
    ``cancelled``."""

    number: int
    keys: KeyRange
    sources: tuple[int, ...]
    target: int
    step: str = "unknown"
    failed_switches: int = 0
    copies: tuple[Copy, ...] = ()

    @property
    def goes_on(self) -> bool:
        return self.step not in ("switched", "cancelled")


async def read(client: Client, names: dict[str, str]) -> tuple[Move, ...] | None:
    """The last moves, behind them the one that goes on; None: the hosts know none. ``names``: of hosts, by
    ID. A user that may not ask sees none. MusterError."""
    try:
        told = await raw.call(client, raw.MOVES, pb.MovesRequest(), timeout=_ASKED_S)
    except PermissionDenied:
        return ()
    except MusterError as error:
        if getattr(error, "code", None) is grpc.StatusCode.UNIMPLEMENTED:
            return None
        raise
    return tuple(_move(one, names) for one in told.moves)


async def table(client: Client) -> bytes:
    """The table of placement, for a user that may ask; else empty. MusterError."""
    try:
        return (await raw.call(client, raw.MOVES, pb.MovesRequest(table=True), timeout=_ASKED_S)).table
    except PermissionDenied:
        return b""


def _move(one: pb.Move, names: dict[str, str]) -> Move:
    copies = (
        Copy(
            names.get(f"{copy.member:x}", f"{copy.member:x}"), copy.keys, copy.bytes, copy.whole, copy.lag_ms
        )
        for copy in one.copies
    )
    return Move(
        one.move,
        KeyRange(one.key, one.range_end),
        tuple(one.sources),
        one.target,
        pb.Move.Step.Name(one.step).lower(),
        one.failed_switches,
        tuple(sorted(copies, key=lambda copy: copy.host)),
    )


async def enable_growth(client: Client) -> int:
    """Let the cluster's data grow; the level from here on. MusterError."""
    return (await raw.call(client, raw.ENABLE_GROWTH, pb.EnableGrowthRequest(), timeout=_BEGUN_S)).level


async def add(client: Client) -> int:
    """Begin a shard's birth; its id. MusterError."""
    return (await raw.call(client, raw.ADD_SHARD, pb.AddShardRequest(), timeout=_BEGUN_S)).shard


async def retire(client: Client, shard: int, *, with_keys: bool = False) -> None:
    """Begin a shard's end. ``with_keys``: though it owns some, which are then to be moved away.
    MusterError."""
    await raw.call(
        client, raw.RETIRE_SHARD, pb.RetireShardRequest(shard=shard, with_keys=with_keys), timeout=_BEGUN_S
    )


async def move(client: Client, keys: KeyRange, target: int) -> int:
    """Begin to move keys to a shard; the move's number. MusterError."""
    request = pb.MoveRequest(key=keys.start, range_end=keys.end, target=target)
    return (await raw.call(client, raw.MOVE, request, timeout=_BEGUN_S)).move


async def split(client: Client, key: bytes, target: int) -> int:
    """Begin to move what a shard owns from a key on; the move's number. MusterError."""
    request = pb.SplitRequest(key=key, target=target)
    return (await raw.call(client, raw.SPLIT, request, timeout=_BEGUN_S)).move


async def cancel(client: Client, number: int) -> None:
    """End a move before it switches. MusterError."""
    await raw.call(client, raw.CANCEL, pb.CancelMoveRequest(move=number), timeout=_BEGUN_S)
