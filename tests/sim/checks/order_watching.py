"""What watches were sent, against what was committed (I16): as it is sent, and all of it at the end of a
run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.pb import rpc_pb2 as pb
from tests.sim.clients.order_streams import PROGRESS_S, WHOLE_STREAM
from tests.sim.world.order_world import Violation
from tests.unit.semantics.model import inside

if TYPE_CHECKING:
    from tests.sim.checks.order_replay import Change, Replay
    from tests.sim.clients.order_streams import Stream, Watch
    from tests.sim.world.order_sim import Simulation

# in the simulation: an answer of more events than fit is sent in parts, if its watch wants that
FRAGMENT_BYTES = 150
TOLD_S = 1.0  # once all is quiet, a progress request is answered by then
# a round of notices leaves out a watch that had events; ticks, a twentieth of it, sweeps
NOTIFIED_S = 2 * (1.1 * PROGRESS_S + 0.1)


def wants(watch: Watch, change: Change) -> bool:
    """Whether a change is an event of a watch."""
    request = watch.request
    dropped = pb.WatchCreateRequest.NODELETE if change.kv is None else pb.WatchCreateRequest.NOPUT
    return inside(change.key, request.key, request.range_end) and dropped not in request.filters


def loose(replay: Replay, revision: int) -> bool:
    """Whether a key changed twice in a revision that was compacted. A watch that reads it from there is told
    the last change alone; one that was there before is told all."""
    changes = replay.changes.get(revision, ())
    return (len(changes) > len({change.key for change in changes})
            and any(compacted == revision for _, compacted in replay.compactions))


def expected(replay: Replay, watch: Watch, after: int, upto: int) -> list[int]:
    """The revisions of a watch's events, one for each event. Without loose ones."""
    return [
        r for r in range(max(after, 1) + 1, upto + 1) for c in replay.changes.get(r, ())
        if wants(watch, c) and not loose(replay, r)
    ]


def _acknowledged(watch: Watch, response: Any) -> bool:
    """Whether a client hears, once, that the watch is cancelled which a compaction had ended: as by etcd."""
    ended = watch.responses[-1][1].compact_revision and response.canceled and not response.compact_revision
    return bool(ended and watch.cancelled_at)


class Watching:
    """Each response when it is sent."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def streamed(self, stream: Stream, response: Any) -> None:
        """A stream was sent a response."""
        checker = self._simulation.checker
        revision, name = response.header.revision, response.watch_id
        if revision > checker.replay.revision:
            raise Violation("I7 answered after commit", f"{stream}: {response}")
        if name == WHOLE_STREAM and response.canceled:
            self._refused(stream, response)
            return
        if name == WHOLE_STREAM:
            checker.kinds["watch: progress, as asked"] += 1
            # those that one look sends are alike: one for each request
            alike, stream.answered = stream.answered, (self._simulation.now, revision)
            if stream.asked and revision < stream.asked[0] and stream.answered != alike:
                raise Violation(
                    "I16 progress covers what was told before",
                    f"{[*stream.watches.values()]}: {revision}, by this front {stream.asked[0]}",
                )
            stream.asked = [low for low in stream.asked if low > revision]
            for watch in stream.watches.values():
                if watch.responses and not watch.cancelled:
                    self._progress(watch, revision, alone=False)
            return
        watch = stream.watches.get(name)
        if watch is None or (watch.cancelled and not _acknowledged(watch, response)):
            raise Violation("I16 only watches that are there are sent anything", f"{stream}: {response}")
        if response.fragment:
            if not watch.request.fragment:
                raise Violation("I16 only who asked gets fragments", f"{watch}: {response}")
            watch.fragments.append(response)
            return
        if watch.fragments:
            checker.kinds["watch: fragments"] += 1
            response = self._put_together(watch, response)
        if not watch.responses:
            if not response.created:
                raise Violation("I16 a watch is confirmed first", f"{watch} got {response}")
            watch.cursor = (watch.request.start_revision or revision + 1) - 1
            checker.kinds["watch: confirmed"] += 1
        elif response.created:
            raise Violation("I16 a watch is confirmed once", f"{watch} got {response}")
        elif response.canceled:
            self._cancelled(watch, response)
        elif response.events:
            self._events(watch, response)
        else:
            checker.kinds["watch: progress, periodic"] += 1
            if not watch.request.progress_notify:
                raise Violation("I16 only who asked is told of progress", f"{watch}: {response}")
            watch.progress_at = self._simulation.now
            self._progress(watch, revision, alone=True)
            return
        watch.responses.append((self._simulation.now, response))

    def _refused(self, stream: Stream, response: Any) -> None:
        """The first watch of a stream that has no answer yet is none, by its user's rights."""
        asked = [watch for watch in stream.watches.values() if not watch.responses and watch.denied is None]
        if not asked or not stream.judged or not response.created or response.events:
            raise Violation("I16 a watch is refused once", f"{stream}: {response}")
        self._denied(asked[0], response)

    def _denied(self, watch: Watch, response: Any) -> None:
        self._simulation.checker.kinds["watch: denied"] += 1
        watch.denied, watch.denied_at = response.cancel_reason, self._simulation.now

    def _put_together(self, watch: Watch, last: Any) -> Any:
        parts, watch.fragments = [*watch.fragments, last], []
        whole = pb.WatchResponse()
        whole.CopyFrom(last)
        del whole.events[:]
        for part in parts:
            if part.header != last.header or not part.events or (
                    len(part.events) > 1 and part.ByteSize() > FRAGMENT_BYTES):
                raise Violation("I16 fragments are parts of one response", f"{watch}: {parts}")
            whole.events.extend(part.events)
        return whole

    def _progress(self, watch: Watch, revision: int, *, alone: bool) -> None:
        missing = expected(self._simulation.checker.replay, watch, watch.cursor, revision)
        if missing or watch.fragments or (alone and revision < watch.cursor):
            raise Violation(
                "I16 progress comes behind its events",
                f"{watch} was at {watch.cursor}, told {revision} without {missing}",
            )
        # of a whole stream it is how far the last of its watches is
        watch.cursor = max(revision, watch.cursor)

    def _events(self, watch: Watch, response: Any) -> None:
        replay = self._simulation.checker.replay
        revisions = [event.kv.mod_revision for event in response.events]
        if revisions != sorted(revisions) or revisions[0] <= watch.cursor:
            raise Violation("I16 revisions rise", f"{watch} was at {watch.cursor} and got {revisions}")
        if revisions[-1] > response.header.revision:
            raise Violation(
                "I16 a header covers its events",
                f"{watch} got {revisions}, header {response.header.revision}",
            )
        wanted = expected(replay, watch, watch.cursor, revisions[-1])
        if wanted != [r for r in revisions if not loose(replay, r)]:
            raise Violation(
                "I16 every event once, in order",
                f"{watch} was at {watch.cursor} and got {revisions}, not {wanted}",
            )
        watch.cursor = revisions[-1]

    def _cancelled(self, watch: Watch, response: Any) -> None:
        checker = self._simulation.checker
        compacted = response.compact_revision
        if compacted:
            checker.kinds["watch: compacted"] += 1
            if compacted not in (r for _, r in checker.replay.compactions) or watch.cursor + 1 >= compacted:
                raise Violation(
                    "I24 compacted only what is compacted",
                    f"{watch} at {watch.cursor}: {compacted}, {checker.replay.compactions}",
                )
        elif response.cancel_reason and watch.stream.judged:
            self._denied(watch, response)
        elif not watch.cancelled_at:
            raise Violation("I16 a watch ends for a reason", f"{watch} at {watch.cursor}: {response}")
        else:
            checker.kinds["watch: cancelled"] += 1


class WatchHistory:
    """All that watches were sent, when the run is over."""

    def __init__(self, simulation: Simulation, replay: Replay) -> None:
        self._simulation = simulation
        self._replay = replay

    def check(self, w: Watch) -> None:
        """Raises Violation."""
        replay, kinds = self._replay, self._simulation.checker.kinds
        if not w.responses:
            if w.ended is None and w.denied is None:
                raise Violation("I16 a watch is confirmed", f"{w} has no answer")
            return
        start = w.request.start_revision or w.responses[0][1].header.revision + 1
        got: dict[int, tuple[float, list[Any]]] = {}
        for at, response in w.responses[1:]:
            for event in response.events:
                got.setdefault(event.kv.mod_revision, (at, []))[1].append(event)
        alive = w.ended is None and not w.cancelled
        wanted = sorted(
            set(expected(replay, w, start - 1, replay.revision if alive else max(got, default=0)))
        )
        if [r for r in got if not loose(replay, r)] != wanted:
            raise Violation(
                "I16 every event once, in order",
                f"{w} from {start} got {list(got)}, wanted {wanted}, alive {alive}",
            )
        if w.cancelled_at and w.ended is None and (not w.cancelled or w.responses[-1][1].compact_revision):
            raise Violation("I16 a watch that was cancelled ends", f"{w}")
        if alive and start <= replay.revision:
            self._told_of_progress(w, max((at for at, _ in got.values()), default=w.asked_at))
        for revision, (at, events) in got.items():
            self._events(w, revision, at, events)
            kinds["watch: events" + ("" if not w.request.filters else ", filtered")] += len(events)
        counts = self._simulation.checker.counts
        counts["events seen"] = counts.get("events seen", 0) + len(got)

    def _told_of_progress(self, w: Watch, last_event_at: float) -> None:
        last = self._replay.revision  # a stream of which a watch begins later is answered nothing, as by etcd
        if w.stream.asked and all(
            other.cancelled or other.request.start_revision <= last for other in w.stream.watches.values()
        ):
            raise Violation("I16 progress is told when asked for", f"{w}: {w.stream.asked}")
        # a replica whose state is being installed is behind, and so are its host's watches
        installed_at = self._simulation.checker.installed_at.get(w.front, 0.0)
        began_at = self._committed_at(w.request.start_revision)  # nothing is told before
        quiet_s = self._simulation.now - max(last_event_at, self._simulation.calm_at, installed_at, began_at)
        if (
            w.request.progress_notify
            and quiet_s > NOTIFIED_S
            and w.progress_at < self._simulation.now - NOTIFIED_S
        ):
            raise Violation("I16 progress is told from time to time", f"{w}: at {w.progress_at}")

    def _events(self, w: Watch, revision: int, at: float, events: list[Any]) -> None:
        kinds = self._simulation.checker.kinds
        changes = [c for c in self._replay.changes[revision] if wants(w, c)]
        if len(events) < len(changes) and loose(self._replay, revision):
            last = {c.key: c for c in self._replay.changes[revision]}
            changes = [c for c in changes if last[c.key] is c]
        if len(events) != len(changes):
            raise Violation("I16 a revision is sent whole", f"{w} {revision}: {events} of {changes}")
        before = self._replay.states[revision - 1]
        for event, change in zip(events, changes, strict=True):
            same = event.kv.key == change.key and (
                event.type == 1 if change.kv is None else event.kv == change.kv
            )
            if not same:
                raise Violation("I16 events in order", f"{w} {revision}: {event} for {change}")
            # as in etcd, a creation has none: not even behind a delete of the same transaction
            born = change.kv is not None and change.kv.create_revision == revision
            old = before.get(change.key) if w.request.prev_kv and not born else None
            if (
                event.prev_kv != old
                if event.HasField("prev_kv")
                else old is not None and not self._compacted(revision - 1, at)
            ):
                raise Violation("I16 what was there before", f"{w} {revision}: {event}, before: {old}")
            kinds["watch: what was there before"] += old is not None

    def _committed_at(self, revision: int) -> float:
        """When the store came to a revision; 0.0 for those that need no record."""
        record = self._replay.record_of.get(revision)
        return 0.0 if record is None else self._simulation.checker.committed_at[record]

    def _compacted(self, revision: int, time: float) -> bool:
        """Whether a revision may have been compacted away by then."""
        committed_at = self._simulation.checker.committed_at
        return any(
            revision < compacted and committed_at[index] <= time
            for index, compacted in self._replay.compactions
        )
