"""What endpoints tell of placement and moves, for commands that wait until a change is in force."""

from __future__ import annotations

import time
from collections.abc import Iterator

from cluster.pb import shards_pb2
from cluster.placement import Table
from cluster.placement.table import State
from tools.musterctl.client import Client, Session
from tools.musterctl.command import Exit
from tools.musterctl.commands.hosts.shard import placement_at

LOOK_S = 0.1  # between two looks at what changes
TELL_S = 2.0  # between two lines of progress
SILENT_S = 30.0  # without the answer that is waited for
NO_TABLE, GOES_ON = "no endpoint answers /muster/placement", "the change goes on; see shard list"


def ask_moves(client: Client, timeout_s: float | None) -> shards_pb2.MovesResponse:
    """Of the leader. RequestError."""
    return client.unary(
        "musterpb.Shards/Moves", shards_pb2.MovesRequest(), shards_pb2.MovesResponse, timeout_s, True)


def state_of(table: Table, shard: int) -> State | None:
    """None: it is unknown there."""
    known = table.shards.get(shard)
    return known.state if known is not None else None


def tables(s: Session) -> Iterator[Table]:
    """The table of placement of each endpoint's host that answers. A host may be behind for long."""
    for endpoint in s.config.endpoints:
        if (placement := placement_at(s, [endpoint])) is not None:
            yield placement.table


def table_of(s: Session, ended: int = 0, retires: int = 0) -> Table:
    """The newest table of placement of these hosts, once one knows that a move has ended, and a shard
    retires. 0: none."""
    until, told = time.monotonic() + SILENT_S, NO_TABLE
    while time.monotonic() < until:
        table = max(tables(s), key=lambda table: table.generation, default=None)
        if table is None:
            told = NO_TABLE
        elif table.last_move < ended or (table.move is not None and table.move.number <= ended):
            told = f"no host of these endpoints knows yet how move {ended} ended"
        elif retires and state_of(table, retires) not in (State.RETIRING, State.DROPPED):
            told = f"no host of these endpoints knows yet that shard {retires} retires"
        else:
            return table
        time.sleep(LOOK_S)
    raise Exit(1, f"{told}: {GOES_ON}")
