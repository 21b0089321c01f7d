"""Compares of a transaction that is parsed, decided on the state before it."""

from __future__ import annotations

from typing import Any, Protocol

from cluster.evaluate.reading.ranges import Fields
from cluster.evaluate.reading.rows import scan, some_rows
from cluster.evaluate.spans import inverted
from cluster.evaluate.steps import STEP_BYTES, Steps
from cluster.evaluate.txns.plain_txn import ABSENT, RESULTS, value_of
from cluster.evaluate.view import View
from cluster.grain import GRAIN

_VERSION, _CREATE, _MOD, VALUE, _LEASE = range(5)  # Compare.CompareTarget
_TARGET_FIELD = ("version", "create_revision", "mod_revision", "value", "lease")
_TARGET_AT = {_CREATE: 0, _MOD: 1, _VERSION: 2, _LEASE: 3}  # place in Current
RANGE_COST = 8  # of a range besides its rows, in rows
_ROW_BYTES = 4096  # larger ones count as several: reading them takes as long


class Unlooked(Exception):
    """The request takes too long for one turn: its range compares are looked at ahead (``range_compares``),
    or all of it is evaluated ahead (``draft``)."""


class Undrafted(Unlooked):
    """It deletes many ranges: all of it is evaluated ahead."""


class Decided(Protocol):
    """Range compares that were looked at."""

    def holds(self, compare: Any, view: View) -> bool:
        """Unlooked: it has to be looked at, or again."""


class Turn:
    """How many rows range compares may look at where one turn decides them, as for a transaction that
    writes; and values of single keys, which others of its compares may ask for."""

    __slots__ = ("_left", "_values", "drafts", "looked")

    def __init__(self, looked: Decided | None = None, drafts: bool = False) -> None:
        """``looked``: range compares that were looked at ahead, changes since included. ``drafts``: it may be
        Undrafted."""
        self.looked = looked
        self.drafts = drafts
        self._left = GRAIN.turn_rows
        self._values: dict[bytes, bytes | None] = {}

    def spend(self, rows: int) -> None:
        """So many more are looked at. Unlooked: too many."""
        self._left -= rows
        if self._left < 0:
            raise Unlooked

    def value(self, view: View, key: bytes) -> bytes | None:
        return value_of(view, key, self._values)


def is_known(target: int) -> bool:
    """Whether etcd knows a compare's target: with another one it compares as equal."""
    return 0 <= target < len(_TARGET_FIELD)


def given_of(compare: Any) -> Any:
    """What a compare of a known target compares with."""
    return getattr(compare, _TARGET_FIELD[compare.target])


def holds(view: View, compare: Any, turn: Turn | None) -> Steps[bool]:
    """Whether one compare holds. ``turn``: None: it may look at as many rows as it needs."""
    key, range_end = compare.key, compare.range_end
    target = compare.target
    if not is_known(target):
        return matches(compare.result, 0, 0)
    given = given_of(compare)
    if not range_end and target != VALUE:
        return matches(compare.result, (view.current(key) or ABSENT)[_TARGET_AT[target]], given)
    if turn is not None and not range_end:
        return (yield from _value_holds(turn.value(view, key), compare))
    if turn is not None and not inverted((key, range_end)):
        if turn.looked is not None:
            return turn.looked.holds(compare, view)
        turn.spend(RANGE_COST)
    else:
        turn = None
    rows = scan(view, key, range_end)
    found = ended = False
    while not ended:
        some, ended = some_rows(rows)
        for _, kv in some:
            found = True
            fields = Fields(kv)
            stored: Any = (fields.version, fields.create, fields.mod, fields.value, fields.lease)[target]
            if not matches(compare.result, stored, given):
                return False
        if turn is not None:
            # a step without a row has passed over very many
            turn.spend(len(some) if some or ended else GRAIN.turn_rows + 1)
            turn.spend(sum([len(kv) // _ROW_BYTES for _, kv in some]))
        if not ended:
            yield
    # a missing key has no value to compare with, not even an unequal one
    return found or (target != VALUE and matches(compare.result, 0, given))


def _value_holds(value: bytes | None, compare: Any) -> Steps[bool]:
    """Of a single key whose value was just read."""
    if value is None:
        return False
    if len(value) > STEP_BYTES:
        yield
    return matches(compare.result, value, compare.value)


def matches(result: int, stored: Any, given: Any) -> bool:
    """Whether a compare's result is what it asks for; one that etcd does not know always holds."""
    return not 0 <= result < len(RESULTS) or RESULTS[result](stored, given)
