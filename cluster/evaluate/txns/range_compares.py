"""Range compares of a transaction that writes, looked at ahead of its turn.

They have to hold on the state that the transaction is evaluated on, and may be over very many keys. So they
are walked first, in slices, at a pinned revision (:meth:`RangeCompares.walk`). Then what was written
since is looked at again: in slices while it is much (:meth:`RangeCompares.catch_up`), the rest in the turn
(:meth:`RangeCompares.look_again`). Nothing is locked, and no write waits.

Of each compare a few keys that fail it are kept. While one is left the compare is false; with none, and none
ever left out, it is true. If all kept keys have changed and others were left out, its range is walked again.
Ranges that overlap share a walk, and their compares a test: a row that passes the narrowest of them passes
all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from cluster.evaluate.overlay import AppliedState, NotYet, Overlay
from cluster.evaluate.reading.ranges import Fields
from cluster.evaluate.reading.rows import some_rows
from cluster.evaluate.spans import Span, bounds, inverted
from cluster.evaluate.steps import Steps, compares
from cluster.evaluate.txns.compares import VALUE, Unlooked, given_of, is_known, matches
from cluster.evaluate.view import Current, Version, View
from cluster.faults import answered
from cluster.pb import rpc_pb2 as pb

FEW = 64  # changes: no more are left to its turn, if they do not come as fast as they are looked at
LOOKS = 4096  # keys looked at again in its turn, times ranges: 1 ms
MOST_LOOKS = 16 * LOOKS  # once that was too few too often
ROUNDS = 8  # so often
_KEPT = 16  # keys that fail a compare
_CHEAP_RULES = 16  # so many cost what a range costs
_STEP_CHANGES = 128
_STEP_CHECKS = 2048

# of a row, by Compare.CompareTarget: version, create, mod, value, lease
_Values = tuple[int, int, int, bytes, int]


class _Rule:
    """One compare of a range, and keys that fail it."""

    __slots__ = ("failing", "given", "more", "result", "target")

    def __init__(self, target: int, result: int, given: Any) -> None:
        self.target, self.result, self.given = target, result, given
        self.failing: set[bytes] = set()
        self.more = False  # others were left out

    def keep(self, key: bytes) -> bool:
        """The key fails the compare: whether it is kept."""
        if len(self.failing) < _KEPT:
            self.failing.add(key)
            return True
        self.more = True
        return False


class _Bounds:
    """What passes all compares of one target, in one test."""

    __slots__ = ("above", "below", "equal", "rules", "target", "unequal")

    def __init__(self, target: int, rules: list[_Rule]) -> None:
        self.target, self.rules = target, rules
        given: dict[int, list[Any]] = {}
        for rule in rules:
            given.setdefault(rule.result, []).append(rule.given)
        self.equal = set(given.get(0, ()))
        self.above = max(given.get(1, ()), default=None)
        self.below = min(given.get(2, ()), default=None)
        self.unequal = set(given.get(3, ()))

    def holds(self, value: Any) -> bool:
        return not (
            (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
            or value in self.unequal
            or (self.equal and (len(self.equal) > 1 or value not in self.equal))
        )


def _bounds_of(rules: Iterable[_Rule]) -> list[_Bounds]:
    targets: dict[int, list[_Rule]] = {}
    for rule in rules:
        targets.setdefault(rule.target, []).append(rule)
    return [_Bounds(target, rules) for target, rules in targets.items()]


class _Range:
    """The compares of one range."""

    __slots__ = ("_bounds", "at_least", "empty", "first", "rules", "upto", "valued", "walked")

    def __init__(self, span: Span) -> None:
        self.first, self.upto = bounds(span)
        self.rules: dict[tuple[int, int, Any], _Rule] = {}
        self.valued = False  # values are compared
        self._bounds: list[_Bounds] | None = None
        self.forget()

    def ask(self, target: int, result: int, given: Any) -> None:
        self.rules.setdefault((target, result, given), _Rule(target, result, given))
        self.valued = self.valued or target == VALUE

    def forget(self) -> None:
        self.walked = False
        self.at_least = 0  # so many keys are there for certain, if it is above 0
        self.empty = False  # no key is there, nor was since it was walked
        for rule in self.rules.values():
            rule.failing.clear()
            rule.more = False

    def holds(self, key: bytes) -> bool:
        return self.first <= key and (self.upto is None or key < self.upto)

    def all_bounds(self) -> list[_Bounds]:
        if self._bounds is None:
            self._bounds = _bounds_of(self.rules.values())
        return self._bounds


class _Sweep:
    """A walk over the rows of ranges that overlap."""

    __slots__ = ("_here", "_ranges", "edges", "rows", "tests")

    def __init__(self, ranges: list[_Range]) -> None:
        for range_ in ranges:
            range_.forget()
        self._ranges = ranges
        # where a range begins or ends, the last edge first; between two edges all rows are in the same ranges
        edges = {edge for range_ in ranges for edge in (range_.first, range_.upto) if edge is not None}
        self.edges = sorted(edges, reverse=True)
        self.rows = 0  # since the last edge
        self.tests: list[_Bounds] = []  # of the ranges here
        self._here: list[_Range] = []

    def cross(self, key: bytes) -> None:
        """The row of ``key`` is behind the next edge."""
        while self.edges and key >= self.edges[-1]:
            self.edges.pop()
        self._count()
        self._here = [range_ for range_ in self._ranges if range_.holds(key)]
        self.open()

    def open(self) -> None:
        """Test the compares that are not known to fail at more keys than are kept."""
        self.tests = _bounds_of(
            [rule for range_ in self._here for rule in range_.rules.values() if not rule.more]
        )

    @property
    def idle(self) -> bool:
        """Whether no row before the next edge decides anything."""
        return bool(self._here) and not self.tests

    def _count(self) -> None:
        for range_ in self._here:
            range_.at_least += self.rows
        self.rows = 0

    def finish(self) -> None:
        self._count()
        for range_ in self._ranges:
            range_.walked = True
            range_.empty = not range_.at_least  # no row is passed over where none was found


class RangeCompares:
    """All range compares of one transaction, in both branches of each."""

    fit = True  # as a draft may be no longer (``draft``)

    def __init__(self, request: Any) -> None:
        self._ranges: dict[Span, _Range] = {}
        self.revision = 0  # what changed after it has not been looked at
        self.rounds = 0  # so often it was not enough
        for compare in compares_of(request):
            span = compare.key, compare.range_end
            if span not in self._ranges:
                self._ranges[span] = _Range(span)
            self._ranges[span].ask(compare.target, compare.result, given_of(compare))
        self._weight = max(
            [1, len(self._ranges), *(len(range_.rules) // _CHEAP_RULES for range_ in self._ranges.values())]
        )
        self._failed: dict[bytes, list[_Rule]] = {}  # those that keep a key
        self._checks = 0  # of single compares, in this step
        self._left_out = False  # a key that fails was not kept

    @classmethod
    def of(cls, body: bytes) -> RangeCompares:
        """Of a TxnRequest that was parsed before."""
        return cls(pb.TxnRequest.FromString(body))

    def unwalked(self, compact_revision: int) -> bool:
        """Whether ranges have to be walked: all of them, if changes since are compacted."""
        if self.revision < compact_revision:
            for range_ in self._ranges.values():
                range_.forget()
        return not all(range_.walked for range_ in self._ranges.values())

    def walk(self, view: View) -> Steps[None]:
        """Look at the ranges that need it. ``view``: the applied state, pinned."""
        if not any(range_.walked for range_ in self._ranges.values()):
            self.revision = view.revision
        unwalked = sorted(
            [range_ for range_ in self._ranges.values() if not range_.walked], key=lambda range_: range_.first
        )
        at = 0
        while at < len(unwalked):
            some = [unwalked[at]]
            upto = some[0].upto
            for range_ in unwalked[at + 1 :]:
                if upto is not None and upto <= range_.first:
                    break
                some.append(range_)
                upto = None if upto is None or range_.upto is None else max(upto, range_.upto)
            yield from self._walk(view, some, upto)
            at += len(some)

    def _walk(self, view: View, ranges: list[_Range], upto: bytes | None) -> Steps[None]:
        """Look at every row of ranges that overlap, unless all compares have failed often enough before."""
        sweep = _Sweep(ranges)
        end = b"\0" if upto is None else upto
        rows = view.scan(sweep.edges[-1], end)
        skipped_to = b""  # the edge up to which nothing had to be looked at
        ended = False
        while not ended:
            some, ended = some_rows(rows)
            for key, kv in some:
                if sweep.edges and key >= sweep.edges[-1]:
                    sweep.cross(key)
                fields = Fields(kv)
                self._check(
                    key, (fields.version, fields.create, fields.mod, fields.value, fields.lease), sweep.tests
                )
                sweep.rows += 1
                if self._left_out:
                    self._left_out = False
                    sweep.open()
                if self._checks > _STEP_CHECKS:
                    self._checks = 0
                    yield
            edge = sweep.edges[-1] if sweep.edges else upto
            # to one edge once: a scan may begin with pauses
            if sweep.idle and not ended and (not sweep.edges or edge != skipped_to):
                ended = edge == upto
                if edge is not None and not ended:
                    skipped_to = edge
                    rows = view.scan(edge, end)
            if not ended:
                yield
        sweep.finish()

    def _check(self, key: bytes, values: _Values, tests: list[_Bounds]) -> None:
        for test in tests:
            value = values[test.target]
            if test.holds(value):
                continue
            self._checks += len(test.rules)
            for rule in test.rules:
                if matches(rule.result, value, rule.given):
                    continue
                if rule.keep(key):
                    self._failed.setdefault(key, []).append(rule)
                else:
                    self._left_out = True

    def catch_up(self, store: AppliedState) -> Steps[int]:
        """Look at what has changed, up to what is applied now: the number of changes, or very many if ranges
        are to be walked again."""
        if self.unwalked(store.compact_revision):
            return LOOKS
        changes, upto = store.changes(self.revision + 1), store.revision
        found = 0
        while some := list(islice(changes, _STEP_CHANGES)):
            found += len(some)
            self._look(dict.fromkeys([key for _, _, _, key in some]), store)
            if len(some) < _STEP_CHANGES:
                break
            yield
        self.revision = upto
        return found

    @answered
    def look_again(self, view: Overlay, store: AppliedState) -> None:
        """In the turn of the evaluation, at what has changed or is about to. Unlooked: too much for one turn;
        NotYet: ranges are being deleted."""
        self.rounds += 1
        if self.revision < store.compact_revision:
            raise Unlooked
        most = (LOOKS if self.rounds <= ROUNDS else MOST_LOOKS) // self._weight
        pending: list[bytes] = []
        for span in self._ranges:
            keys = view.changing(span)
            if keys is None:
                self.rounds -= 1
                raise NotYet(view.revision)
            pending += keys
        changed = [key for _, _, _, key in islice(store.changes(self.revision + 1), most + 1)]
        if len(changed) + len(pending) > most:
            raise Unlooked
        self._look(dict.fromkeys(changed + pending), view)

    def _look(self, keys: Iterable[bytes], view: View | AppliedState) -> None:
        for key in keys:
            for rule in self._failed.pop(key, ()):
                rule.failing.discard(key)
            here = [range_ for range_ in self._ranges.values() if range_.holds(key)]
            if not here:
                continue
            values = _values(view, key, any(range_.valued for range_ in here))
            for range_ in here:
                if values is None:
                    range_.at_least -= 1
                else:
                    range_.at_least, range_.empty = max(range_.at_least, 1), False
                    self._check(key, values, range_.all_bounds())

    def holds(self, compare: Any, view: View) -> bool:
        """One compare, in the turn of the evaluation. Unlooked: its range must be walked again."""
        span = compare.key, compare.range_end
        range_ = self._ranges[span]
        rule = range_.rules[compare.target, compare.result, given_of(compare)]
        if not range_.walked:
            raise Unlooked
        if rule.failing:
            return False
        if rule.more:  # those that were kept have changed
            range_.walked = False
            raise Unlooked
        # as with a missing key (``txn_eval``)
        if range_.empty or (range_.at_least <= 0 and not view.count(*span)):
            return rule.target != VALUE and matches(rule.result, 0, rule.given)
        return True


def compares_of(request: Any) -> Iterator[Any]:
    """The range compares of a TxnRequest that have to be looked at, nested ones included."""
    return (compare for compare in compares(request) if compare is not None and is_of_range(compare))


def add_compares(found: dict[bytes, Any], request: Any) -> Steps[None]:
    """Add them, each once."""
    for compare in compares(request):
        if compare is None:
            yield
        elif is_of_range(compare):
            found[compare.SerializeToString()] = compare


def is_of_range(compare: Any) -> bool:
    """Whether a compare is of a range that may hold keys, and depends on these."""
    return (
        bool(compare.range_end)
        and is_known(compare.target)
        and not inverted((compare.key, compare.range_end))
    )


def _values(view: View | AppliedState, key: bytes, valued: bool) -> _Values | None:
    if valued:
        kv = view.get(key)
        if kv is None:
            return None
        fields = Fields(kv)
        return fields.version, fields.create, fields.mod, fields.value, fields.lease
    current: Current | Version | None = view.current(key)
    return None if current is None else (current[2], current[0], current[1], b"", current[3])
