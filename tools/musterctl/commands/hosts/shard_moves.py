"""``shard move``, ``split``, ``cancel`` and ``moves``, of muster only: they begin or end a move of keys, and
follow it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from cluster.gotext import quote, raw, si_bytes, text
from cluster.pb import shards_pb2
from cluster.placement.table import span_of
from tools.musterctl.client import RequestError, Session
from tools.musterctl.command import Exit, Flags, Invocation
from tools.musterctl.commands.hosts.shard import UNSURE, Facts, session_of, show
from tools.musterctl.commands.hosts.shard_tables import LOOK_S, SILENT_S, TELL_S, ask_moves, table_of
from tools.musterctl.commands.keys.kv import span

HEADER = ("MOVE", "KEY", "RANGE END", "FROM", "TO", "STEP", "KEYS", "SIZE", "LAG", "FAILED")
_NO_ROOM = -2  # a lag: a copy waits for room on its host
_WAITS_S = 10.0  # so long all hosts copy; then it is told which ones lack
_AGAIN_S = 10.0  # while the leader has not applied an earlier change
_MOST_SHARD = (1 << 16) - 1
OVER = (shards_pb2.Move.SWITCHED, shards_pb2.Move.CANCELLED)
R = TypeVar("R", bound=Message)


def move(invocation: Invocation) -> None:
    """A span of keys goes to another shard: once that owns it."""
    s, target = session_of(invocation), target_of(invocation.flags, "move")
    key, range_end = span(invocation.flags, invocation.args, "shard move")
    following = Following(s, (key, range_end, target))
    _go(invocation, s, begin(s, key, range_end, target), following)


def split(invocation: Invocation) -> None:
    """What a shard owns from a key on goes to another one."""
    s, target = session_of(invocation), target_of(invocation.flags, "split")
    if len(invocation.args) != 1:
        raise Exit(128, "shard split command needs one argument as key")
    request = shards_pb2.SplitRequest(key=raw(invocation.args[0]), target=target)
    number = _asked(s, "Split", request, shards_pb2.MoveResponse).move
    _go(invocation, s, number, Following(s))


def cancel(invocation: Invocation) -> None:
    """A move ends, and nothing has changed."""
    if len(invocation.args) != 1 or not invocation.args[0].isdecimal():
        raise Exit(128, "shard cancel command needs one argument as move")
    s, number = session_of(invocation), int(invocation.args[0])
    if number >= 1 << 64:
        raise Exit(128, f"{number} is no number of a move")
    _asked(s, "CancelMove", shards_pb2.CancelMoveRequest(move=number), shards_pb2.CancelMoveResponse)
    ended = Following(s).until_it_ends(number)
    _show(s, [ended])
    if ended.step != shards_pb2.Move.CANCELLED:
        raise Exit(1, f"move {number} had switched")


def moves(invocation: Invocation) -> None:
    """The move that goes on, and the last ones that ended."""
    if invocation.args:
        raise Exit(128, "shard moves command accepts no arguments")
    s = session_of(invocation)
    answer = s.ask("musterpb.Shards/Moves", shards_pb2.MovesRequest(), shards_pb2.MovesResponse, True)
    _show(s, answer.moves)


def target_of(flags: Flags, command: str) -> int:
    if "to" not in flags.given:
        raise Exit(128, f"shard {command} command needs --to, the shard that gets the keys")
    target = flags.number("to")
    if not 0 <= target < _MOST_SHARD:
        raise Exit(128, f"{target} is no id of a shard")
    return target


def begin(s: Session, key: bytes, range_end: bytes, target: int) -> int:
    """The number of a move that has begun."""
    request = shards_pb2.MoveRequest(key=key, range_end=range_end, target=target)
    return _asked(s, "Move", request, shards_pb2.MoveResponse).move


def _asked(s: Session, method: str, request: Message, response: type[R]) -> R:
    """The answer once an earlier change is in force."""
    client, until = s.client(), time.monotonic() + _AGAIN_S
    while True:
        try:
            return client.unary(f"musterpb.Shards/{method}", request, response, s.timeout_s)
        except RequestError as error:
            if error.code is grpc.StatusCode.ABORTED and time.monotonic() < until:
                time.sleep(LOOK_S)
                continue
            unsure = "; `shard moves` shows whether it happened" if error.code in UNSURE else ""
            raise Exit(1, f"{error}{unsure}") from None


def _go(invocation: Invocation, s: Session, number: int, following: Following) -> None:
    if invocation.flags.switch("no-wait"):
        _show(s, [following.look(number)])
        return
    ended = following.until_it_ends(number)
    _show(s, [ended])
    check_switched(ended)


def check_switched(ended: shards_pb2.Move) -> None:
    if ended.step == shards_pb2.Move.CANCELLED:
        raise Exit(1, f"move {ended.move} was cancelled: its keys are where they were")


class Following:
    """A move, looked at until it ends; its progress on stderr."""

    def __init__(self, s: Session, span: tuple[bytes, bytes, int] | None = None) -> None:
        """``span``: key, range_end and target, as they were asked for."""
        self._session = s
        self._client = s.client()
        self._told_s = self._began_s = time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self._seen = shards_pb2.Move()
        if span is not None:
            key, range_end, self._seen.target = span
            self._seen.key, self._seen.range_end = span_of(key, range_end)

    def until_it_ends(self, number: int) -> shards_pb2.Move:
        """The move, switched or cancelled."""
        told = False
        try:
            while (found := self.look(number)).step not in OVER:
                told = self._tell(found) or told
                time.sleep(LOOK_S)
            return found
        finally:
            if told and self._on_terminal:
                print(file=sys.stderr)

    def look(self, number: int) -> shards_pb2.Move:
        """The move as some host knows it."""
        until = time.monotonic() + SILENT_S
        while True:
            reason = "no host knows of it yet"
            try:
                answer = ask_moves(self._client, self._session.timeout_s)
            except RequestError as error:
                reason = str(error)
                if error.code not in UNSURE:
                    raise Exit(1, reason) from None
            else:
                for found in answer.moves:
                    if found.move == number:
                        self._seen = found
                        return found
                if answer.last_move >= number:
                    return self._by_table(number)
            if time.monotonic() >= until:
                raise Exit(1, f"{reason}; move {number} goes on: see `shard moves`")
            time.sleep(LOOK_S)

    def _by_table(self, number: int) -> shards_pb2.Move:
        """How a move ended whose end the host has not seen, as it came later."""
        seen = self._seen
        if not seen.key:
            raise Exit(1, f"move {number} has ended; `shard of` tells where keys are")
        seen.move = number
        table = table_of(self._session, number)
        owners = table.owners_of(seen.key, seen.range_end)
        seen.step = shards_pb2.Move.SWITCHED if owners == (seen.target,) else shards_pb2.Move.CANCELLED
        return seen

    def _tell(self, found: shards_pb2.Move) -> bool:
        now, facts = time.monotonic(), _facts(found)
        if not self._on_terminal and now - self._told_s < TELL_S:
            return False
        self._told_s = now
        told = f"move {found.move} is {facts['step']} for {now - self._began_s:.0f} s"
        if found.copies:
            told += f": {facts['keys']} keys, {si_bytes(facts['bytes'])} on {len(found.copies)} hosts"
            told += f", {facts['lag_ms']} ms behind" if facts["lag_ms"] >= 0 else ""
            full = ", ".join(facts["without_room"])
            told += f", and no room for more on {full}: see the log there" if full else ""
        if facts["waits_for"] and now - self._began_s >= _WAITS_S:
            told += f"; waits for the copies of {', '.join(facts['waits_for'])}"
        if found.failed_switches:
            told += f"; {found.failed_switches} switches failed"
        if self._on_terminal:
            print(f"\r\x1b[K{told}", end="", file=sys.stderr, flush=True)
        else:
            print(told, file=sys.stderr)
        return True


def _facts(found: shards_pb2.Move) -> Facts:
    """For programs; of the copies the slowest one's figures."""
    end = b"" if found.range_end == found.key + b"\0" else found.range_end
    lags = [copy.lag_ms for copy in found.copies] or [-1]
    return {
        "move": found.move, "key": text(found.key), "range_end": text(end), "sources": list(found.sources),
        "target": found.target, "step": shards_pb2.Move.Step.Name(found.step).lower(),
        "keys": min((copy.keys for copy in found.copies), default=0),
        "bytes": min((copy.bytes for copy in found.copies), default=0),
        "hosts": len(found.copies), "lag_ms": min(lags) if min(lags) < 0 else max(lags),
        "failed_switches": found.failed_switches, "waits_for": [f"{host:x}" for host in found.waits_for],
        "without_room": [f"{copy.member:x}" for copy in found.copies if copy.lag_ms == _NO_ROOM],
    }


def _row(facts: Facts) -> list[str]:
    lag = "" if facts["lag_ms"] < 0 else f"{facts['lag_ms']} ms"
    lag = f"no room on {' '.join(facts['without_room'])}" if facts["without_room"] else lag
    copied = (str(facts["keys"]), si_bytes(facts["bytes"])) if facts["hosts"] else ("", "")
    return [
        str(facts["move"]), quote(facts["key"])[1:-1], shown_end(facts["range_end"]),
        " ".join(map(str, facts["sources"])), str(facts["target"]), facts["step"], *copied, lag,
        str(facts["failed_switches"])]


def shown_end(key: str) -> str:
    """As it is quoted, without the quotes; the end of all keys has a name."""
    return "(end)" if key == "\0" else quote(key)[1:-1]


def _show(s: Session, found: Iterable[shards_pb2.Move]) -> None:
    facts = [_facts(one) for one in found]
    show(s, HEADER, [_row(one) for one in facts], facts, facts)
