"""``shard add`` and ``shard retire``, of muster only: they begin a change, and follow it by the table of
placement that the hosts have applied."""

from __future__ import annotations

import sys
import time
from itertools import count

from cluster import errors
from cluster.features import moves
from cluster.gotext import quote, text
from cluster.pb import shards_pb2
from cluster.placement import Table
from cluster.placement.table import END, State
from tools.musterctl.client import Client, RequestError, Session
from tools.musterctl.command import Exit, Invocation
from tools.musterctl.commands.hosts.shard import UNSURE, session_of, show
from tools.musterctl.commands.hosts.shard_moves import Following, begin, check_switched, shown_end, target_of
from tools.musterctl.commands.hosts.shard_tables import (
    GOES_ON,
    LOOK_S,
    NO_TABLE,
    SILENT_S,
    TELL_S,
    ask_moves,
    state_of,
    table_of,
    tables,
)


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
    """A shard ends: its keys move away, then it is dropped. Run again, it goes on where it was."""
    if len(invocation.args) != 1 or not invocation.args[0].isdecimal():
        raise Exit(128, "shard retire command needs one argument as shard")
    s, shard = session_of(invocation), int(invocation.args[0])
    if shard >= 1 << 16:
        raise Exit(128, f"{shard} is no id of a shard")
    if not shard:  # before its keys are looked at: no other shard would help
        raise Exit(1, errors.SHARD_STAYS.text)
    to = target_of(invocation.flags, "retire") if "to" in invocation.flags.given else None
    table = _at_rest(s)
    state = state_of(table, shard)
    if state == State.DROPPED:  # an earlier call was interrupted, perhaps
        _show(s, shard, state)
        return
    owned, with_others = owned_by(table, shard), invocation.flags.switch("with-others")
    _check_others(table, shard, with_others)
    for span in owned:  # before it is no target any more, which has no way back
        taker(table, *span, to)
    if to is not None and (to == shard or state_of(table, to) != State.SERVING):  # also if empty
        raise Exit(1, f"shard {to} cannot take keys: it " + ("retires" if to == shard else "does not serve"))
    if state != State.RETIRING:
        request = shards_pb2.RetireShardRequest(shard=shard, with_keys=True)
        s.ask("musterpb.Shards/RetireShard", request, shards_pb2.RetireShardResponse)
    state, past = State.RETIRING, _emptied(s, shard, to, with_others)
    if past:
        print(f"shard {shard} owns no keys; it ends once revision {past + 1} or a later one is compacted "
              f"({moves.LATER})", file=sys.stderr)
    elif not invocation.flags.switch("no-wait"):
        state, _ = _wait(s, shard, (State.DROPPED,))
    _show(s, shard, state)


def _check_others(table: Table, shard: int, with_others: bool) -> None:
    """Exit: other shards have keys in a shard's spans, and may not lose them."""
    others = {owner for span in owned_by(table, shard) for owner in table.owners_of(*span)} - {shard}
    if others and not with_others:
        told = " and ".join(map(str, sorted(others)))
        raise Exit(1, f"the keys of shard {shard} lie among those of {told}, which would move "
                      f"along: --with-others allows that")


def _at_rest(s: Session, ended: int = 0, retires: int = 0) -> Table:
    """The table once no keys move; those that do may be an earlier call's. ``ended``, ``retires``: a move
    and a shard of which it knows that."""
    while (move := (table := table_of(s, ended, retires)).move) is not None:
        ended = move.number
        Following(s, (move.start, move.end, move.target)).until_it_ends(ended)
    return table


def _emptied(s: Session, shard: int, to: int | None, with_others: bool) -> int:
    """The last revision at which a shard owned keys, once it owns none; 0: compacted, or there was none."""
    ended = 0
    for turn in count():
        # one of before its retirement may not have what it got meanwhile
        table = _at_rest(s, ended, shard)
        owned = owned_by(table, shard)
        if not owned:
            return table.past_of(shard, END, END)
        _check_others(table, shard, with_others)
        key, end = owned[0]
        target = taker(table, key, end, to, turn)
        try:
            ended = begin(s, key, end, target)
        except Exit:
            if table_of(s).move is None:
                raise
            continue  # another one began first, of other keys perhaps
        check_switched(Following(s, (key, end, target)).until_it_ends(ended))
    raise AssertionError("the count has no end")


def owned_by(table: Table, shard: int) -> list[tuple[bytes, bytes]]:
    """The spans in which a shard owns keys, by their bounds: the base may place others' there, too."""
    return [(piece.start, piece.end) for piece in table.pieces_of(shard, END, END)]


def taker(table: Table, start: bytes, end: bytes, to: int | None, turn: int = 0) -> int:
    """The shard that gets a span: ``to``, or each that may in its turn. Exit: none may."""
    owners = table.owners_of(start, end)
    wanted = [to] if to is not None else [
        shard for shard, known in sorted(table.shards.items())
        if known.state == State.SERVING and shard not in owners]
    reasons = {shard: _reason(table, start, end, shard) for shard in wanted}
    able = [shard for shard, reason in reasons.items() if not reason]
    if not able:
        told = "; ".join(reasons.values()) or "there is no other: add one first"
        span = f"{quote(start)[1:-1]} to {shown_end(text(end))}"
        raise Exit(1, f"the keys from {span} cannot move: {told}")
    return able[turn % len(able)]


def _reason(table: Table, start: bytes, end: bytes, shard: int) -> str:
    """Why a shard may not get a span; empty: it may."""
    if state_of(table, shard) != State.SERVING:
        return f"shard {shard} does not serve"
    if shard in table.owners_of(start, end):
        return f"shard {shard} owns a part of them"
    last = table.past_of(shard, start, end)
    if not last:
        return ""
    return f"shard {shard} owned a part of them up to revision {last}: compact a later one ({moves.LATER})"


def _born(s: Session, shard: int) -> tuple[int, State]:
    while (found := _wait(s, shard, (State.SERVING, State.DROPPED)))[0] == State.DROPPED:
        later = [other for other in found[1].shards if other > shard]
        if not later:
            raise Exit(1, f"shard {shard} was not born in time and is dropped: are all hosts up? Try again")
        print(f"shard {shard} was not born in time: trying shard {later[0]}", file=sys.stderr)
        shard = later[0]
    return shard, State.SERVING


def _wait(s: Session, shard: int, wanted: tuple[State, ...]) -> tuple[State, Table]:
    """The state that a shard comes to, as the first host has applied it, with that host's table."""
    client, began = s.client(), time.monotonic()
    told, led = began, began
    while True:
        known: State | None = None
        why = NO_TABLE
        for table in tables(s):
            why = "no host of these endpoints reaches a leader"
            known = state_of(table, shard) or known
            if known is not None and known in wanted:
                return known, table
        now = time.monotonic()
        if now - told >= TELL_S:
            told = now
            led = now if _leads(client, s.timeout_s) else led
            state = known.name.lower() if known is not None else "about to form"
            print(f"shard {shard} is {state}, for {now - began:.0f} s", file=sys.stderr)
            if now - led > SILENT_S:  # their tables may be old ones
                raise Exit(1, f"{why}: {GOES_ON}")
        time.sleep(LOOK_S)


def _leads(client: Client, timeout_s: float) -> bool:
    """Whether some leader answers, whatever it says."""
    try:
        ask_moves(client, timeout_s)
    except RequestError as error:
        return error.code not in UNSURE
    return True


def _show(s: Session, shard: int, state: State) -> None:
    facts = {"shard": shard, "state": state.name.lower()}
    show(s, ("SHARD", "STATE"), [[str(shard), state.name.lower()]], [facts], facts)
