"""The revision oracle: every answer against the store's own history.

A successful write tells its revision and a read the revision of what it shows, so there is nothing to search
for: a full watch gives the one order, and each answer either fits it or does not. This sees what the search
of ``search`` cannot: revisions that are missing or used twice, snapshots torn over several keys, a write that
an answer places elsewhere than the watch does.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from tests.linearizability.history import Event, Operation, Outcome, Pairs


def check_stream(events: Sequence[Event], first: int, last: int) -> list[str]:
    """What is wrong with a watch of everything from revision ``first`` that should have come to ``last``.

    Revisions must be dense and rise, a revision changes a key once, and creation revision and version must
    follow from the events before (of keys that were absent before ``first``).
    """
    problems: list[str] = []
    expected = first - 1
    keys_of_revision: set[bytes] = set()
    alive: dict[bytes, tuple[int, int]] = {}  # key -> create revision, version
    for event in events:
        if event.revision == expected:
            if event.key in keys_of_revision:
                problems.append(f"revision {event.revision} tells of {event.key.decode()} twice")
        elif event.revision == expected + 1:
            keys_of_revision = set()
        elif event.revision <= expected:
            problems.append(f"revision {event.revision} comes again after {expected}")
            continue
        else:
            problems.append(f"revisions {expected + 1} to {event.revision - 1} are missing")
            keys_of_revision = set()
        expected = event.revision
        keys_of_revision.add(event.key)
        created, version = alive.get(event.key, (event.revision, 0))
        if event.value is None:
            if not alive.pop(event.key, None):
                problems.append(
                    f"revision {event.revision} deletes {event.key.decode()}, which was not there"
                )
        else:
            alive[event.key] = created, version + 1
            if (event.create_revision, event.version) != (created, version + 1):
                problems.append(
                    f"{event.key.decode()} at revision {event.revision} has create revision "
                    f"{event.create_revision} and "
                    f"version {event.version}, want {created} and {version + 1}"
                )
    if expected != last:
        problems.append(f"the stream ends at revision {expected}, want {last}")
    return problems


def check_operations(operations: Iterable[Operation], events: Sequence[Event]) -> list[str]:
    """What is wrong with the answers, given the (checked) stream of all that was changed since they began."""
    return _Oracle(list(operations), events).problems


class _Oracle:
    def __init__(self, operations: list[Operation], events: Sequence[Event]) -> None:
        self.problems: list[str] = []
        self._revisions: dict[int, dict[bytes, bytes | None]] = {}
        self._versions: dict[bytes, tuple[list[int], list[bytes | None]]] = {}
        self._claimed: dict[int, Operation] = {}
        written: dict[bytes, int] = {}
        for event in events:
            self._revisions.setdefault(event.revision, {})[event.key] = event.value
            revisions, values = self._versions.setdefault(event.key, ([], []))
            revisions.append(event.revision)
            values.append(event.value)
            if event.value is not None and written.setdefault(event.value, event.revision) != event.revision:
                self.problems.append(
                    f"value {event.value.decode()} was written at {written[event.value]} and {event.revision}"
                )
        certain = [o for o in operations if o.outcome is Outcome.OK]
        returns = sorted((o.returned_ns, o.revision) for o in certain)
        self._returned_ns = [at for at, _ in returns]
        self._highest = [0]
        for _, revision in returns:
            self._highest.append(max(self._highest[-1], revision))
        for operation in certain:
            self._certain(operation)
        self._leftovers([o for o in operations if o.outcome is not Outcome.OK])

    def _known_before(self, at_ns: int) -> int:
        """The highest revision that anybody had been told of before that time."""
        return self._highest[bisect_left(self._returned_ns, at_ns)]

    def _value_at(self, key: bytes, revision: int) -> bytes | None:
        revisions, values = self._versions.get(key, ((), ()))
        place = bisect_right(revisions, revision)
        return values[place - 1] if place else None

    def _holds(self, pairs: Pairs, revision: int) -> str:
        for key, value in pairs:
            stored = self._value_at(key, revision)
            if stored != value:
                revisions, values = self._versions.get(key, ((), ()))
                when = [
                    (r, next(iter(revisions[i + 1 :]), "now"))
                    for i, r in enumerate(revisions)
                    if values[i] == value
                ]
                return (
                    f"{key.decode()} was {stored!r} at revision {revision}, not {value!r} "
                    f"(that from, to: {when[-3:]})"
                )
        return ""

    def _blame(self, operation: Operation, what: str) -> None:
        self.problems.append(f"{what}: {operation}")

    def _certain(self, operation: Operation) -> None:
        known, revision = self._known_before(operation.invoked_ns), operation.revision
        if operation.writes:
            if self._revisions.get(revision) != dict(operation.writes):
                self._blame(
                    operation,
                    f"an acknowledged write is not in the history, which has {self._revisions.get(revision)}",
                )
            elif self._claimed.setdefault(revision, operation) is not operation:
                self._blame(operation, f"revision {revision} was told to somebody else too")
            if revision <= known:
                self._blame(operation, f"written before revision {known}, which was known before it began")
            wrong = self._holds(operation.reads, revision - 1)
        else:
            if revision < known:
                self._blame(operation, f"stale: revision {known} was known before it began")
            wrong = self._holds(operation.reads, revision)
        if wrong:
            self._blame(operation, wrong)

    def _leftovers(self, uncertain: list[Operation]) -> None:
        """Whatever no acknowledged write explains must be the doing of an ambiguous one, at most once
        each."""
        by_value: dict[bytes, Operation] = {}
        deletes: dict[bytes, list[Operation]] = {}
        for operation in sorted(uncertain, key=lambda o: o.invoked_ns):
            values = [v for _, v in operation.writes if v is not None]
            if values:
                by_value[values[0]] = operation
            elif operation.writes and operation.outcome is Outcome.AMBIGUOUS:
                deletes.setdefault(operation.writes[0][0], []).append(operation)
        for revision, changes in sorted(self._revisions.items()):
            if revision in self._claimed:
                continue
            found = next((by_value[v] for v in changes.values() if v in by_value), None)
            if found is None and len(changes) == 1 and None in changes.values():
                waiting = deletes.get(next(iter(changes)), [])
                found = waiting.pop(0) if waiting else None  # the first asked for is the easiest to place
            if found is None:
                self.problems.append(f"nobody wrote revision {revision}: {changes}")
                continue
            self._claimed[revision] = found
            if found.outcome is Outcome.FAILED:
                self._blame(found, f"failed for certain, and yet took effect at revision {revision}")
            elif dict(found.writes) != changes:
                self._blame(found, f"took effect in part at revision {revision}: {changes}")
            elif self._known_before(found.invoked_ns) >= revision:
                self._blame(found, f"took effect at revision {revision}, before it began")
            elif wrong := self._holds(found.reads, revision - 1):
                self._blame(found, f"took effect although {wrong}")
