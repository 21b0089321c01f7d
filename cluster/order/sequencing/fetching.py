"""Fetches rows that leaders of shards have pinned for transactions that are done (``cluster.order.shown``): a
piece from each shard at a time, for a few transactions at once. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cluster.order.log import Attempt
from cluster.order.prepare import MOST_GRANTED_BYTES, Row
from cluster.order.shown import ENOUGH, decode_piece, encode_ask

AT_ONCE = 8  # their rows are held here until they are answered

Fetched = dict[tuple[int, int], list[Row]]  # shard and place of a touch -> its rows


@dataclass(slots=True, frozen=True)
class Ask:
    """A message to a host's node of a shard, whose answer goes to :meth:`Fetching.came`."""

    member_id: int
    shard: int
    attempt: Attempt
    number: int

    @property
    def body(self) -> bytes:
        return encode_ask(self.attempt, self.number)

    @property
    def answered(self) -> bool:
        return self.number != ENOUGH


@dataclass(slots=True)
class _Fetch:
    attempt: Attempt
    members: Mapping[int, int]  # shard -> the member that has pinned the rows
    left: dict[int, int]  # shard -> number of the piece that comes next
    rows: Fetched
    wanted: Callable[[], bool]
    then: Callable[[bool], None]
    asked_ms: int = 0
    held_bytes: int = 0  # of rows
    away_since_ms: int | None = None  # a host that it asks is out of reach


class Fetching:
    def __init__(self, heartbeat_ms: int, away_ms: int) -> None:
        """``away_ms``: a fetch waits so long for a host that is out of reach."""
        self._again_ms = 5 * heartbeat_ms
        self._away_ms = away_ms
        self._running: dict[Attempt, _Fetch] = {}
        self._waiting: deque[_Fetch] = deque()
        self._messages: list[Ask] = []

    def __len__(self) -> int:
        return len(self._running) + len(self._waiting)

    def start(
        self, attempt: Attempt, members: Mapping[int, int], rows: Fetched, wanted: Callable[[], bool],
        then: Callable[[bool], None], now_ms: int,
    ) -> None:
        """Fetch all rows of an attempt while ``wanted``; then call ``then(whether they are there)`` once."""
        self._waiting.append(_Fetch(attempt, members, dict.fromkeys(members, 0), rows, wanted, then))
        self._next(now_ms)

    def _next(self, now_ms: int) -> None:
        while self._waiting and len(self._running) < AT_ONCE:
            fetch = self._waiting.popleft()
            if not self._goes_on(fetch, now_ms):
                self._end(fetch, False)
                continue
            self._running[fetch.attempt] = fetch
            self._ask(fetch, now_ms)

    def _ask(self, fetch: _Fetch, now_ms: int) -> None:
        fetch.asked_ms = now_ms
        for shard, number in fetch.left.items():
            self._messages.append(Ask(fetch.members[shard], shard, fetch.attempt, number))

    def came(self, ask: Ask, piece: bytes | None, now_ms: int) -> None:
        """The answer to a message; None: it is not kept there any more. struct.error if it is cut short.

        A fetch ends without its rows where all that are held would have more than ``MOST_GRANTED_BYTES``."""
        fetch = self._running.get(ask.attempt)
        if fetch is None or fetch.left.get(ask.shard) != ask.number:
            return  # it was asked for twice
        if piece is not None:
            fetch.held_bytes += len(piece)
        if piece is None or sum(one.held_bytes for one in self._running.values()) > MOST_GRANTED_BYTES:
            self._end(fetch, False)
            self._next(now_ms)
            return
        more, place, rows = decode_piece(piece)
        if rows:
            fetch.rows.setdefault((ask.shard, place), []).extend(rows)
        fetch.asked_ms = now_ms
        if more:
            fetch.left[ask.shard] += 1
            self._messages.append(Ask(ask.member_id, ask.shard, ask.attempt, ask.number + 1))
            return
        del fetch.left[ask.shard]
        if not fetch.left:
            self._end(fetch, True)
            self._next(now_ms)

    def _end(self, fetch: _Fetch, there: bool) -> None:
        self._running.pop(fetch.attempt, None)
        self.enough(fetch.attempt, fetch.members)
        fetch.then(there)

    def enough(self, attempt: Attempt, members: Mapping[int, int]) -> None:
        self._messages += [Ask(member_id, shard, attempt, ENOUGH) for shard, member_id in members.items()]

    def again(self, now_ms: int, is_up: Callable[[int, int], bool]) -> None:
        """Every heartbeat: ask again for what has not come, unless it is not wanted any more. ``is_up(member,
        shard)``: whether that node is in reach. A fetch from one that stays away ends without its rows: it
        would keep the place of others."""
        for fetch in [*self._running.values(), *self._waiting]:
            if all(is_up(fetch.members[shard], shard) for shard in fetch.left):
                fetch.away_since_ms = None
            elif fetch.away_since_ms is None:
                fetch.away_since_ms = now_ms
        for fetch in list(self._running.values()):
            if not self._goes_on(fetch, now_ms):
                self._end(fetch, False)
            elif now_ms - fetch.asked_ms >= self._again_ms:
                self._ask(fetch, now_ms)
        self._next(now_ms)

    def _goes_on(self, fetch: _Fetch, now_ms: int) -> bool:
        since = fetch.away_since_ms
        return fetch.wanted() and (since is None or now_ms - since < self._away_ms)

    def take_messages(self) -> list[Ask]:
        messages, self._messages = self._messages, []
        return messages
