"""Linearizability of a history, key by key: Wing and Gong's search with Lowe's memory of what was tried.

Linearizability is local (Herlihy and Wing 1990), so a history is good if what it says of each key is; that
keeps the search small. An operation on several keys counts as one operation on each: that may miss what only
the keys together show (the oracle sees it) but never blames a good history.

Ambiguous writes could stand anywhere, which would make the search exponential. They are placed only where an
operation reads what they wrote, directly before the first that does: values are unique, so if there is any
good order there is one of this form, and a write that nobody saw can be left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tests.linearizability.history import Operation, Outcome

_ANY: Final = object()  # reads nothing, or writes nothing


@dataclass(slots=True, eq=False)
class _Access:
    """One operation's part in one key."""

    operation: Operation
    reads: object
    writes: object
    bit: int = 0


class _Entry:
    """A call or a return, in a doubly linked list by time."""

    __slots__ = ("access", "match", "next", "previous", "time_ns")

    def __init__(self, access: _Access, time_ns: int) -> None:
        self.access = access
        self.time_ns = time_ns
        self.match: _Entry | None = None  # a call's return; a return has none
        self.next: _Entry | None = None
        self.previous: _Entry | None = None


def unlinearizable(operations: Iterable[Operation]) -> str:
    """Why the history is not linearizable; "" if it is. All keys are absent in the beginning."""
    keys: dict[bytes, list[_Access]] = {}
    for operation in operations:
        if operation.outcome is Outcome.FAILED:
            continue
        reads, writes = dict(operation.reads), dict(operation.writes)
        for key in {**reads, **writes}:
            keys.setdefault(key, []).append(
                _Access(operation, reads.get(key, _ANY), writes.get(key, _ANY)))
    for key, accesses in sorted(keys.items()):
        stuck = _search(accesses)
        if stuck:
            lines = "\n  ".join(str(a.operation) for a in stuck)
            return f"key {key.decode()}: no order explains these together:\n  {lines}"
    return ""


def _timeline(certain: list[_Access]) -> _Entry:
    """The calls and returns by time; at the same instant calls come first (they then overlap)."""
    moments: list[tuple[int, int, int, _Entry]] = []
    for number, access in enumerate(certain):
        access.bit = 1 << number
        call = _Entry(access, access.operation.invoked_ns)
        call.match = _Entry(access, access.operation.returned_ns)
        moments += [(call.time_ns, 0, number, call), (call.match.time_ns, 1, number, call.match)]
    moments.sort(key=lambda m: m[:3])
    head = last = _Entry(certain[0], 0)
    for *_, entry in moments:
        last.next, entry.previous = entry, last
        last = entry
    return head


def _unlink(entry: _Entry) -> None:
    assert entry.previous is not None
    entry.previous.next = entry.next
    if entry.next is not None:
        entry.next.previous = entry.previous


def _relink(entry: _Entry) -> None:
    assert entry.previous is not None
    entry.previous.next = entry
    if entry.next is not None:
        entry.next.previous = entry


def _search(accesses: list[_Access]) -> list[_Access]:
    """The operations at the furthest point that could be reached, empty if all found a place."""
    certain = [a for a in accesses if a.operation.outcome is Outcome.OK]
    if not certain:
        return []
    head = _timeline(certain)
    unknown = _Unknown(
        [a for a in accesses if a.operation.outcome is Outcome.AMBIGUOUS and a.writes is not _ANY],
        len(certain),
    )
    everything = (1 << len(certain)) - 1
    state: object = None
    done = 0  # bits of what has its place
    tried: set[tuple[int, object]] = set()
    stack: list[tuple[_Entry, object, int]] = []
    furthest, stuck = -1, certain
    entry = head.next
    while True:
        if entry is not None and entry.match is not None:
            access = entry.access
            used = (
                0
                if access.reads is _ANY or access.reads == state
                else unknown.reach(access.reads, state, done, entry)
            )
            after = (
                access.writes
                if access.writes is not _ANY
                else access.reads
                if access.reads is not _ANY
                else state
            )
            if used >= 0 and (done | used | access.bit, after) not in tried:
                tried.add((done | used | access.bit, after))
                stack.append((entry, state, done))
                done |= used | access.bit
                state = after
                _unlink(entry)
                _unlink(entry.match)
                if done & everything == everything:
                    return []
                entry = head.next
            else:
                entry = entry.next
            continue
        # Somebody returned before all candidates were through: this way leads nowhere.
        if len(stack) > furthest:
            furthest, stuck = len(stack), _around(head, stack)
        if not stack:
            return stuck
        entry, state, done = stack.pop()
        assert entry.match is not None
        _relink(entry.match)
        _relink(entry)
        entry = entry.next


def _around(head: _Entry, stack: list[tuple[_Entry, object, int]]) -> list[_Access]:
    """For people: the last that found a place and the candidates that did not."""
    found = [entry.access for entry, _, _ in stack[-4:]]
    entry = head.next
    while entry is not None:
        if entry.match is None:
            break
        found.append(entry.access)
        entry = entry.next
    return found


class _Unknown:
    """Writes whose fate is unknown, by what they wrote."""

    def __init__(self, accesses: list[_Access], first_bit: int) -> None:
        self._by_value: dict[object, list[_Access]] = {}
        for number, access in enumerate(sorted(accesses, key=lambda a: a.operation.invoked_ns)):
            access.bit = 1 << (first_bit + number)
            self._by_value.setdefault(access.writes, []).append(access)

    def reach(self, value: object, state: object, done: int, call: _Entry) -> int:
        """The bits of the unknown writes that lead from ``state`` to ``value`` now; -1 if none do."""
        before_ns = _first_return(call)
        used = 0
        while value != state:
            # Those that qualify are alike from here on: they never return, so each can wait as well as
            # another.
            chosen = next((a for a in self._by_value.get(value, ())
                           if not (done | used) & a.bit and a.operation.invoked_ns <= before_ns), None)
            if chosen is None:
                return -1
            used |= chosen.bit
            if chosen.reads is _ANY:
                break
            value = chosen.reads  # a compare-and-swap: something must have led there first
        return used


def _first_return(call: _Entry) -> int:
    entry: _Entry | None = call
    while entry is not None and entry.match is not None:
        entry = entry.next
    assert entry is not None  # the call's own return is still in the list
    return entry.time_ns
