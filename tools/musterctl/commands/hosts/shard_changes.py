"""``shard add`` and ``shard retire``, of muster only: they begin a change, and follow it by the table of
placement that the hosts have applied."""

from __future__ import annotations

import sys
import time

from cluster.pb import shards_pb2
from cluster.placement import Table
from cluster.placement.table import State
from tools.musterctl.client import Session
from tools.musterctl.command import Exit, Invocation
from tools.musterctl.commands.hosts.shard import ask_any, placement_of, session_of, show

_LOOK_S = 0.1  # between two looks at the table
_TELL_S = 2.0  # between two lines of progress
_SILENT_S = 30.0  # without an answer of any endpoint


def add(invocation: Invocation) -> None:
    """A new shard: its id, once it serves."""
    if invocation.args:
        raise Exit(128, "shard add command accepts no arguments")
    s = session_of(invocation)
    answer = s.ask("musterpb.Shards/AddShard", shards_pb2.AddShardRequest(), shards_pb2.AddShardResponse)
    shard, state = answer.shard, State.FORMING
    if not invocation.flags.switch("no-wait"):
        shard, state = _born(s, shard)
    _show(s, shard, state)


def retire(invocation: Invocation) -> None:
    """A shard ends: once it is dropped."""
    if len(invocation.args) != 1 or not invocation.args[0].isdecimal():
        raise Exit(128, "shard retire command needs one argument as shard")
    s, shard = session_of(invocation), int(invocation.args[0])
    if shard >= 1 << 16:
        raise Exit(128, f"{shard} is no id of a shard")
    request = shards_pb2.RetireShardRequest(shard=shard)
    s.ask("musterpb.Shards/RetireShard", request, shards_pb2.RetireShardResponse)
    state = State.RETIRING
    if not invocation.flags.switch("no-wait"):
        state = _wait(s, shard, (State.DROPPED,))
    _show(s, shard, state)


def _born(s: Session, shard: int) -> tuple[int, State]:
    while _wait(s, shard, (State.SERVING, State.DROPPED)) == State.DROPPED:
        later = [other for other in _table(s).shards if other > shard]
        if not later:
            raise Exit(1, f"shard {shard} was not born in time and is dropped: are all hosts up? Try again")
        print(f"shard {shard} was not born in time: trying shard {later[0]}", file=sys.stderr)
        shard = later[0]
    return shard, State.SERVING


def _wait(s: Session, shard: int, wanted: tuple[State, ...]) -> State:
    """The state that a shard comes to, as a host has applied it."""
    began = told = time.monotonic()
    while True:
        known = _table(s).shards.get(shard)  # a host may be behind
        if known is not None and known.state in wanted:
            return known.state
        now = time.monotonic()
        if now - told >= _TELL_S:
            told = now
            state = known.state.name.lower() if known is not None else "about to form"
            print(f"shard {shard} is {state}, for {now - began:.0f} s", file=sys.stderr)
        time.sleep(_LOOK_S)


def _table(s: Session) -> Table:
    until = time.monotonic() + _SILENT_S
    while time.monotonic() < until:
        if (agreed := ask_any(s, list(s.config.endpoints), "/muster/placement")) is not None:
            return placement_of(agreed).table
        time.sleep(_LOOK_S)
    raise Exit(1, "no endpoint answers /muster/placement: the change goes on; see shard list")


def _show(s: Session, shard: int, state: State) -> None:
    facts = {"shard": shard, "state": state.name.lower()}
    show(s, ("SHARD", "STATE"), [[str(shard), state.name.lower()]], [facts], facts)
