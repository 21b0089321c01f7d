"""The store as shards grant it to a transaction over several of them. Messages: ``cluster.order.prepare``."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from cluster.evaluate.before import Before
from cluster.evaluate.footprint import overlap
from cluster.evaluate.overlay import LOOK, AppliedState, Overlay
from cluster.evaluate.reading.ranges import Fields, without_value
from cluster.evaluate.spans import Span, bounds, inverted, keys_in
from cluster.evaluate.steps import Effort, Steps
from cluster.evaluate.txns.plain_txn import Large
from cluster.evaluate.view import Current, Late, Version, View
from cluster.features.auth.permissions import Ranges
from cluster.grain import GRAIN
from cluster.order.prepare import MOST_GRANTED_BYTES, Grant, Prepare, Row, Touch
from cluster.order.sequencing.fetching import Fetched
from cluster.order.shown import few_rows
from cluster.placement import Placement


class TooLarge(Exception):
    """A grant would have more bytes of values than ``MOST_GRANTED_BYTES``."""


class Unread(Exception):
    """It reads at a revision that was in the future when its locks were asked for: ask again."""


class Uncounted(Exception):
    """It must see rows that were only counted: ask for them."""


class GrantedView:
    """The store as a transaction sees it: shard 0's speculative state, and the rest as granted."""

    def __init__(
        self, own: Overlay, placement: Placement, touches: Mapping[int, Sequence[Touch]],
        grants: Mapping[int, Grant], leases: Sequence[int], homes: Mapping[bytes, int] | None = None,
    ) -> None:
        """``homes``: the shard of each key, if it touches single keys only, at the latest revision."""
        self._own = own
        self._placement = placement
        self.revision = own.revision
        self.compact_revision = own.compact_revision
        self._rows: dict[bytes, bytes] = {}
        self._at: dict[tuple[int, bytes, bytes, int], list[Row]] = {}
        self._lease_keys: dict[int, list[bytes]] = {}
        self._counts: dict[Span, dict[int, int]] = {}  # spans of which shards have only counted the keys
        # of which this shard has rows for the answer that are not here
        self._pinned: list[tuple[int, Span]] = []
        self._written: set[Span] = set()  # whatever is shown of these besides
        self._touches = touches
        self._home: Callable[[bytes], int] = homes.__getitem__ if homes else placement.shard_of
        if homes and not leases:  # hot path: nothing is counted or of the past
            for grant in grants.values():
                if grant.counts:
                    break
                for rows in grant.rows:
                    self._rows.update(rows)
            else:
                self._keys = sorted(self._rows)
                return
        for shard, grant in grants.items():
            for at, (touch, rows) in enumerate(zip(touches[shard], grant.rows, strict=True)):
                if touch.write:
                    self._written.add((touch.key, touch.range_end))
                if at in grant.counts:
                    if touch.shown:
                        self._pinned.append((shard, (touch.key, touch.range_end)))
                    if touch.write:
                        self._counts.setdefault((touch.key, touch.range_end), {})[shard] = grant.counts[at]
                elif touch.revision:
                    self._at[shard, touch.key, touch.range_end, touch.revision] = rows
                else:
                    self._rows.update(rows)
            for lease, keys in zip(leases, grant.lease_keys, strict=False):
                self._lease_keys.setdefault(lease, []).extend(keys)
        self._keys = sorted(self._rows)

    def _has_all(self, span: Span) -> bool:
        shards = self._placement.shards_of(*span)
        if not any(shard in shards and overlap(span, other) for shard, other in self._pinned):
            return True
        low, high = bounds(span)
        return any(
            first <= low and (last is None or (high is not None and high <= last))
            for first, last in map(bounds, self._written))

    def weigh(self, start: bytes, end: bytes) -> int:
        """How many rows a range shows, about; above GRAIN.late_rows if any are not here."""
        span = (start, end)
        if any(overlap(span, other) for _, other in self._pinned):
            return GRAIN.late_rows + 1
        own = self._own.applied.live_count(start, end) if 0 in self._placement.shards_of(start, end) else 0
        return own + len(keys_in(self._keys, span))

    def behind(self, late: Late) -> tuple[Late, Fetched]:
        """An answer to be made once the transaction is applied, with the rows fetched by then."""
        fetched: Fetched = {}
        placement = self._placement.pinned()  # a switch may be applied before the answer is made
        return Late(lambda before: late.pieces(ShownView(before, self, placement, fetched))), fetched

    def current(self, key: bytes) -> Current | Version | None:
        kv = self._rows.get(key)
        if kv is None:
            return self._own.current(key) if self._home(key) == 0 else None
        fields = Fields(kv)
        return Current(fields.create, fields.mod, fields.version, fields.lease)

    def get(self, key: bytes) -> bytes | None:
        kv = self._rows.get(key)
        return self._lacking(key) if kv is None else kv

    def _lacking(self, key: bytes) -> bytes | None:
        if any(span == (key, b"") for _, span in self._pinned):
            raise Large  # a get's: what decides anything is here
        return self._own.get(key) if self._home(key) == 0 else None

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[Row]:
        shards = self._placement.shards_at(start, end, revision)
        parts: list[Iterable[Row]] = []
        if 0 in shards:
            parts.append(self._own.scan(start, end, revision))
        if revision:
            for shard in shards:
                if shard:
                    rows = self._at.get((shard, start, end, revision))
                    if rows is None:
                        raise Unread
                    parts.append(rows)
        else:
            if any(overlap((start, end), span) for span in self._counts):
                raise Uncounted
            assert self._has_all((start, end)), "an answer with rows that are not here is made late"
            granted = self._rows
            parts.append((key, granted[key]) for key in keys_in(self._keys, (start, end)))
        return heapq.merge(*parts)

    def count(self, start: bytes, end: bytes) -> int:
        return sum(self.counts(start, end).values())

    def counts(self, start: bytes, end: bytes) -> dict[int, int]:
        span = (start, end)
        counted = self._counts.get(span, {})
        if any(overlap(span, other) for other in self._counts if other != span):
            raise Uncounted
        found = dict(counted)
        if 0 in self._placement.shards_of(start, end):
            found[0] = self._own.count(start, end)
        for key in keys_in(self._keys, span):
            shard = self._placement.shard_of(key)
            if shard not in counted:
                found[shard] = found.get(shard, 0) + 1
        return found

    def lease_exists(self, lease: int) -> bool:
        return self._own.lease_exists(lease)

    def lease_keys(self, lease: int, limit: int = 0, *, but: Ranges | None = None) -> list[bytes]:
        granted: Iterable[bytes] = self._lease_keys.get(lease, ())
        if but is not None:
            granted = (key for key in granted if but.behind(key) == key)
        return sorted((*self._own.lease_keys(lease, limit, but=but), *granted))


class ShownView(Before):
    """The store before a transaction that is done, as far as its answer shows it."""

    def __init__(
        self, own: View, granted: GrantedView, placement: Placement, fetched: Fetched
    ) -> None:
        self._own = own
        self._placement = placement
        self._rows, self._keys, self._at = granted._rows, granted._keys, granted._at
        self._touches, self._fetched = granted._touches, fetched  # which comes later than this
        self._single: dict[bytes, bytes] | None = None
        self.revision = own.revision
        self.compact_revision = own.compact_revision

    def current(self, key: bytes) -> Current | Version | None:
        if self._placement.shard_of(key) == 0:
            return self._own.current(key)
        return super().current(key)

    def get(self, key: bytes) -> bytes | None:
        if self._placement.shard_of(key) == 0:
            return self._own.get(key)
        return kv if (kv := self._rows.get(key)) is not None else self._fetched_kv(key)

    def _fetched_kv(self, key: bytes) -> bytes | None:
        if self._single is None:  # once all is fetched
            self._single = {
                self._touches[shard][place].key: rows[0][1] for (shard, place), rows in self._fetched.items()
                if rows and not self._touches[shard][place].range_end}
        return self._single.get(key)

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[Row]:
        parts: list[Iterable[Row]] = []
        for shard in self._placement.shards_at(start, end, revision):
            if not shard:
                parts.append(self._own.scan(start, end, revision))
            elif revision:
                parts.append(self._at.get((shard, start, end, revision), ()))
        if not revision:
            granted = self._rows
            parts.append((key, granted[key]) for key in keys_in(self._keys, (start, end)))
        for (shard, place), rows in self._fetched.items():
            touch = self._touches[shard][place]
            if touch.revision == revision and (not revision or (touch.key, touch.range_end) == (start, end)):
                parts.append(_rows_in(rows, (start, end)))
        return _each_once(heapq.merge(*parts))


def _rows_in(rows: list[Row], span: Span) -> Iterator[Row]:
    low, high = bounds(span)
    for at in range(bisect_left(rows, (low, b"")), len(rows)):
        if high is not None and rows[at][0] >= high:
            return
        yield rows[at]


def _each_once(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows of several touches, where equal keys have equal rows. Pauses stay."""
    last = b""
    for row in rows:
        if row[0] != last or not last:
            yield row
        last = row[0] or last


RowsOf = tuple[list[list[Row]], dict[int, int], list[int]]
_TOUCH = 3  # what one costs besides its rows, in rows of a range


def _rows(
    store: AppliedState, touch: Touch, sent: dict[bytes, bool], count: int, left: int, effort: Effort
) -> Steps[list[Row]]:
    """The rows of a touch, but those ``sent`` with another one, unless without a value that is wanted now.
    ``count``: 0: a range has none, however many that are gone. ``left``: bytes of values; TooLarge."""
    key, range_end, brief = touch.key, touch.range_end, touch.brief
    rows: Iterable[Row]
    if range_end or touch.revision:
        rows = store.scan(key, range_end, touch.revision, LOOK) if count else ()
    else:
        rows = () if (kv := store.get(key)) is None else ((key, kv),)
    found: list[Row] = []
    for key, kv in rows:
        for _ in effort.takes(1, len(kv)):
            yield
        if not key:  # PAUSE
            yield
        elif sent.get(key, 2) > brief:
            found.append((key, without_value(kv) if brief else kv))
            sent[key] = brief
            if not brief and (left := left - len(kv)) < 0:
                raise TooLarge
    return found


def rows_in_steps(store: AppliedState, prepare: Prepare) -> Steps[RowsOf]:
    """What a leader grants: the rows of each touch; numbers of those not sent, by place; places to pin.
    TooLarge. Under the lock nothing that is touched changes between two steps (I9)."""
    rows: list[list[Row]] = []
    counts: dict[int, int] = {}
    pinned: list[int] = []
    left, left_bytes = GRAIN.late_rows, GRAIN.late_bytes  # of all shown: what is fetched need not be here
    sent: dict[bytes, bool] = {}  # latest rows, each sent once; whether without its value
    size = 0
    effort = Effort()
    for at, touch in enumerate(prepare.touches):
        for _ in effort.takes(_TOUCH):
            yield
        key, range_end, revision = touch.key, touch.range_end, touch.revision
        found: list[Row] = []
        count = 1  # or more, unless it is counted
        if inverted((key, range_end)):
            pass
        elif (touch.count or (touch.shown and touch.write)) and (
                count := store.live_count(key, range_end)) > GRAIN.many_keys:
            counts[at] = count
            if touch.shown:
                pinned.append(at)
        elif 0 < revision < store.compact_revision:
            pass  # the sequencer knows the compaction and refuses
        elif touch.shown and not touch.write:
            few = yield from few_rows(store, touch, left, left_bytes, effort)
            if few is None:
                counts[at] = left + 1  # at least
                pinned.append(at)
            else:
                found = few
                left -= len(few)
                left_bytes -= sum(len(kv) for _, kv in few)
        else:
            # rows of the past are others, and not of the latest ones that are sent once
            found = yield from _rows(store, touch, {} if revision else sent, count,
                                     MOST_GRANTED_BYTES - size, effort)
        if not touch.brief:
            size += sum([len(kv) for _, kv in found])
            if size > MOST_GRANTED_BYTES:
                raise TooLarge
        rows.append(found)
    return rows, counts, pinned
