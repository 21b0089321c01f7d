"""Which span of a leader's keys carries so much of its load that a move helps, and cuts few transactions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from math import inf
from typing import NamedTuple

from cluster.gotext import prefix_end
from cluster.growth.bounds import Bounds
from cluster.growth.facts import Shard
from cluster.growth.sample import MOST_KEY_BYTES, Span, Weighed
from cluster.placement.table import BASE, END, Table, before, span_of

_MOST_TRIED = 12  # spans that are looked at closely
_MOST_ASKED = 100  # spans of one look whose owners, or bytes, are asked for: up to 50 us each
_MOST_GROUPS = 128  # transactions that each of them is held against
_MOST_DEEP = 8  # directories of each key, below what all keys have in common
_NEAR = 0.05  # of the load: a cut at a slash is worth so much
_LARGE = 0.1  # of the load: all bytes are worth so much; else what is idle moves to and fro
_OLD_SHARE = 0.2  # of the load, in each half of the time: else the load walks

_Bounds = tuple[bytes, bytes]  # of a span


class Cut(NamedTuple):
    """A span, and what is known of it."""

    start: bytes
    end: bytes
    share: float  # of the leader's load
    crossing: float  # of the load: transactions that would be over two shards
    size_bytes: int  # about


class _Near(NamedTuple):
    """A span that may be cut off."""

    worse: float  # than one at a slash
    start: bytes
    end: bytes
    share: float


class Hottest(NamedTuple):
    key: bytes
    share: float


def hottest(sample: Sequence[Weighed]) -> Hottest:
    """The key with the largest share of the load."""
    found: dict[bytes, float] = {}
    for one in sample:
        found[one.key] = found.get(one.key, 0.0) + one.weight
    total = sum(found.values())
    if not total > 0:
        return Hottest(b"", 0.0)
    key = max(found, key=lambda key: found[key])
    return Hottest(key, found[key] / total)


def cut(table: Table, shard: int, told: Shard, wanted: float, limits: Bounds) -> Cut | None:
    """As :meth:`Cuts.best`, whichever shard may take it."""
    return Cuts(table, shard, told, limits).best(wanted)


class Cuts:
    """What may be cut off a shard. For all targets, what does not depend on them is looked at once: one look
    of the policy is one turn of a leader that is busy."""

    def __init__(self, table: Table, shard: int, told: Shard, limits: Bounds) -> None:
        self._table, self._shard, self._told, self._limits = table, shard, told, limits
        own = sorted(one for one in told.sample if table.owner(one.key) == shard)
        total = sum(one.weight for one in own)
        runs = _runs(table, shard)
        self._runs = _Spans(runs)
        self._found = list(_spans(own, total, limits, runs)) if total > 0 else []
        if self._found:
            self._halves = _Halves(own)
            self._groups, self._load = _groups(own)
        self._owned: dict[_Near, bool] = {}
        self._crossing: dict[_Near, float] = {}  # of the load; inf: it does not stay

    def best(
        self, wanted: float, target: int | None = None, helps: Callable[[float], bool] = bool
    ) -> Cut | None:
        """The span whose share of the load is nearest to what is ``wanted``, by the limits; None: there is
        none. ``target``: that may take it. Those go first whose share ``helps``."""

        def order(near: _Near) -> tuple[bool, float]:
            return not helps(near.share), abs(near.share - wanted) + near.worse

        def order_by_size(near: _Near) -> tuple[bool, float]:
            first, distance = order(near)
            return first, distance + _LARGE * _size(told, near.start, near.end)

        told, had = self._told, _Spans(_pasts(self._table, target) if target is not None else ())
        free = (
            near for near in sorted(self._found, key=order)
            if not had.meet(near.start, near.end) and self._is_own(near))  # G11
        found = sorted(islice(free, _MOST_ASKED), key=order_by_size)
        for near in found[:_MOST_TRIED]:
            if (crossing := self._crosses(near)) < self._limits.crossing:
                size = size_bytes(told, near.start, near.end)
                return Cut(near.start, near.end, near.share, crossing, size)
        return None

    def _is_own(self, near: _Near) -> bool:
        """Whether no hash has spread it, and no key in it has moved."""
        if self._runs.hold(near.start, near.end):
            return True
        if near not in self._owned:
            self._owned[near] = len(self._owned) < _MOST_ASKED and (
                self._table.owners_of(near.start, near.end) == (self._shard,))
        return self._owned[near]

    def _crosses(self, near: _Near) -> float:
        if near not in self._crossing:
            self._crossing[near] = (
                _crossing(self._groups, near.start, near.end) / self._load
                if self._halves.stays(near.start, near.end) else inf)
        return self._crossing[near]


def _runs(table: Table, shard: int) -> list[_Bounds]:
    """What a shard owns, as spans without a gap. Not what a hash spreads: of that it may own directories."""
    return _union(
        (start, end) for start, end, owner, _, _ in table.pieces_of(shard, END, END)
        if owner == shard or table.base_shards(start, end) == (shard,))


def _pasts(table: Table, shard: int) -> list[_Bounds]:
    """What a shard had."""
    return _union(
        (past.start, past.end) for past in table.past
        if shard in ((past.owner,) if past.owner != BASE else table.base_shards(past.start, past.end)))


def _union(spans: Iterable[_Bounds]) -> list[_Bounds]:
    """Spans in order of their starts, without what they have in common."""
    found: list[_Bounds] = []
    for start, end in spans:
        if found and (found[-1][1] == END or start <= found[-1][1]):
            low, high = found[-1]
            found[-1] = low, end if before(high, end) else high
        else:
            found.append((start, end))
    return found


class _Spans:
    """Spans in order, with gaps between them."""

    def __init__(self, spans: Sequence[_Bounds]) -> None:
        self._spans = spans
        self._starts = [start for start, _ in spans]

    def meet(self, start: bytes, end: bytes) -> bool:
        last = len(self._starts) if end == END else bisect_left(self._starts, end)
        return last > 0 and before(start, self._spans[last - 1][1])

    def hold(self, start: bytes, end: bytes) -> bool:
        """Whether one of them has all of a span."""
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and (self._spans[at][1] == END or (end != END and end <= self._spans[at][1]))


def had(table: Table, shard: int, start: bytes, end: bytes) -> bool:
    """Whether a shard has a past of a span."""
    return any(
        shard in ((past.owner,) if past.owner != BASE else table.base_shards(past.start, past.end))
        for past in table.past if past.meets(start, end))


def _spans(
    own: Sequence[Weighed], total: float, limits: Bounds, runs: Iterable[_Bounds]
) -> Iterator[_Near]:
    """Parts of the shard's runs, and directories."""
    keys: list[bytes] = []
    before_key: list[float] = []  # share of the load below each key
    sums: dict[bytes, float] = {}
    at = 0.0
    for one in own:
        if not keys or one.key != keys[-1]:
            keys.append(one.key)
            before_key.append(at / total)
        at += one.weight
    common = max(_common(keys[0], keys[-1]), 1)
    for one in own:  # a key, and directories above it
        for name in _above(one.key, common):
            sums[name] = sums.get(name, 0.0) + one.weight / total

    def fits(share: float) -> bool:
        return limits.least_span <= share <= limits.most_span

    before_key.append(1.0)
    for start, end in runs:
        first = bisect_left(keys, start)
        last = len(keys) if end == END else bisect_left(keys, end)
        low, high = before_key[first], before_key[last]
        if fits(share := high - low):
            yield _Near(0.0, start, end, share)
        for index in range(first + 1, last):
            lower, upper = before_key[index] - low, high - before_key[index]
            if not (fits(lower) or fits(upper)):
                continue
            place, slash = _between(keys[index - 1], keys[index])
            worse = 0.0 if slash else _NEAR
            if fits(lower):
                yield _Near(worse, start, place, lower)
            if fits(upper):
                yield _Near(worse, place, end, upper)
    for name, share in sums.items():
        if fits(share):
            end = prefix_end(name) if name.endswith(b"/") or may_be_cut(name) else name + b"\0"
            yield _Near(_NEAR, name, end, share)


def _above(key: bytes, common: int) -> Iterator[bytes]:
    """Not those that hold all keys."""
    yield key
    at = common - 1
    for _ in range(_MOST_DEEP):
        at = key.find(b"/", at + 1)
        if not 0 <= at < len(key) - 1:
            return
        yield key[: at + 1]


def may_be_cut(key: bytes) -> bool:
    """Whether a key of the sample may stand for several, of which it is the beginning."""
    return len(key) >= MOST_KEY_BYTES


def _common(low: bytes, high: bytes) -> int:
    """So many bytes they begin with."""
    pairs = enumerate(zip(low, high, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(low), len(high)))


def _between(low: bytes, high: bytes) -> tuple[bytes, bool]:
    """A bound above ``low``, and not above ``high``; whether it is that of a directory."""
    common = _common(low, high)
    slash = high.find(b"/", common)
    if slash >= 0:
        return high[: slash + 1], True
    return high[: common + 1], False


def _groups(own: Sequence[Weighed]) -> tuple[list[Weighed], float]:
    """The newest transactions and ranges, and all the load while they came."""
    wide = [one for one in own if len(one.spans) > 1 or (one.spans and one.spans[0][1])]
    wide.sort(key=lambda one: one.age_s)
    since_s = wide[_MOST_GROUPS - 1].age_s if len(wide) >= _MOST_GROUPS else inf
    return wide[:_MOST_GROUPS], sum(one.weight for one in own if one.age_s <= since_s)


def _crossing(groups: Sequence[Weighed], start: bytes, end: bytes) -> float:
    """The weight of those that touch both the span and what is outside of it."""
    crossing = 0.0
    for one in groups:
        inside = [_inside(span, start, end) for span in one.spans]
        if None in inside or len(set(inside)) > 1:
            crossing += one.weight
    return crossing


def _inside(span: Span, start: bytes, end: bytes) -> bool | None:
    """None: in part."""
    low, high = span_of(*span)
    if not (before(low, end) and before(start, high)):
        return False
    ends_inside = end == END or (high != END and high <= end)
    return True if low >= start and ends_inside else None


class _Halves:
    """The older half of a sample, and the newer one, each as sums of weights in the order of keys."""

    def __init__(self, own: Sequence[Weighed]) -> None:
        """``own``: in the order of keys."""
        middle_s = sorted(one.age_s for one in own)[len(own) // 2]
        self._keys = [one.key for one in own]
        self._sums = [
            list(accumulate((one.weight * ((one.age_s > middle_s) == older) for one in own), initial=0.0))
            for older in (False, True)]

    def stays(self, start: bytes, end: bytes) -> bool:
        """Whether the span had its load in both of them."""
        first = bisect_left(self._keys, start)
        last = len(self._keys) if end == END else bisect_left(self._keys, end)
        return all(
            sums[last] - sums[first] >= _OLD_SHARE * sums[-1] for sums in self._sums if sums[-1] > 0)


def size_bytes(told: Shard, start: bytes, end: bytes) -> int:
    """About, by the marks; without marks all that the shard has."""
    return int(told.live_bytes * _size(told, start, end))


def _size(told: Shard, start: bytes, end: bytes) -> float:
    """As a share of what the shard has."""
    if not told.marks:
        return 1.0
    first = bisect_left(told.marks, start)
    last = len(told.marks) if end == END else bisect_left(told.marks, end)
    return max(min(last - first + 1, len(told.marks)), 1) / len(told.marks)
