"""What watches were sent, against what was committed (I16): as it is sent, and all of it at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from order_world import Violation

from tests.unit.semantics.model import inside

if TYPE_CHECKING:
    from order_clients import Watch
    from order_history import Replay
    from order_sim import Simulation


def check_response(replay: Replay, watch: Watch, response: Any) -> None:
    """A watch was sent a response: what it has got goes on where it was, whole revisions, nothing skipped."""
    if response.created:
        watch.cursor = (watch.request.start_revision or response.header.revision + 1) - 1
        return
    if len(watch.responses) == 1:
        raise Violation("I16 a watch is confirmed first", f"{watch} got {response}")
    if response.canceled or not response.events:
        return
    wanted = watch.request
    revisions = [event.kv.mod_revision for event in response.events]
    if revisions != sorted(revisions) or revisions[0] <= watch.cursor:
        raise Violation("I16 revisions rise", f"{watch} was at {watch.cursor} and got {revisions}")
    if revisions[-1] > min(replay.revision, response.header.revision):
        raise Violation("I16 a header covers its events", f"{watch} got {revisions}, header {response.header.revision}")
    expected = [r for r in range(watch.cursor + 1, revisions[-1] + 1) for c in replay.changes.get(r, ())
                if inside(c.key, wanted.key, wanted.range_end)]
    if expected != revisions:
        raise Violation("I16 every event once, in order", f"{watch} was at {watch.cursor} and got {revisions}, not {expected}")
    watch.cursor = revisions[-1]


class WatchHistory:
    """All that watches were sent, when the run is over."""

    def __init__(self, simulation: Simulation, replay: Replay) -> None:
        self._simulation = simulation
        self._replay = replay

    def check(self, w: Watch) -> None:
        """Raises Violation."""
        if not w.responses:
            if w.ended is None:
                raise Violation("I16 a watch is confirmed", f"{w} has no answer")
            return
        replay, simulation = self._replay, self._simulation
        first = w.responses[0][1]
        start = w.request.start_revision or first.header.revision + 1
        got: list[tuple[int, float, list[Any]]] = []
        compacted = 0
        for at, response in w.responses[1:]:
            if response.canceled:
                compacted = response.compact_revision
                break
            for event in response.events:
                revision = event.kv.mod_revision
                if got and got[-1][0] == revision:
                    got[-1][2].append(event)
                else:
                    got.append((revision, at, [event]))
        alive = w.ended is None and not compacted
        end = replay.revision if alive else got[-1][0] if got else start - 1
        wanted = [r for r in range(max(start, 2), end + 1)
                  if any(inside(c.key, w.request.key, w.request.range_end) for c in replay.changes[r])]
        if [r for r, _, _ in got] != wanted:
            raise Violation("I16 every event once, in order", f"watch {w.number} of {w.request} from {start} "
                            f"got {[r for r, _, _ in got]}, wanted {wanted}, alive {alive}, created {w.asked_at} "
                            f"through front {w.front}")
        for revision, at, events in got:
            self._events(w, revision, at, events)
        if compacted and not any(r >= compacted for _, r in replay.compactions):
            raise Violation("I24 compacted only what is compacted", f"{w} {compacted}")
        simulation.checker.counts["events seen"] = simulation.checker.counts.get("events seen", 0) + len(got)

    def _events(self, w: Watch, revision: int, at: float, events: list[Any]) -> None:
        changes = [c for c in self._replay.changes[revision] if inside(c.key, w.request.key, w.request.range_end)]
        if len(events) != len(changes):
            raise Violation("I16 a revision is sent whole", f"watch {w.number} {revision}: {events} of {changes}")
        before = self._replay.states[revision - 1]
        for event, change in zip(events, changes, strict=True):
            same = event.kv.key == change.key and (event.type == 1 if change.kv is None else event.kv == change.kv)
            if not same:
                raise Violation("I16 events in order", f"watch {w.number} {revision}: {event} for {change}")
            old = before.get(change.key) if w.request.prev_kv else None
            if event.prev_kv != old if event.HasField("prev_kv") else old is not None and not self._compacted(revision - 1, at):
                raise Violation("I16 what was there before", f"watch {w.number} {revision}: {event}, before: {old}")

    def _compacted(self, revision: int, time: float) -> bool:
        """Whether a revision may have been compacted away by then."""
        committed_at = self._simulation.checker.committed_at
        return any(revision < compacted and committed_at[index] <= time for index, compacted in self._replay.compactions)
