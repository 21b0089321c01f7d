"""All watches of this front, tied to the links. Parts of a link that ends move to another node and go on from
their positions. They leave a home node (the own host's) that has known no leader for two election timeouts
where others know one, and return once it knows one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from random import random

from cluster.placement import Placement, Table
from cluster.placement.table import END, Piece, asked
from cluster.wire.messages import Status
from cluster.wire.protobuf import response_header
from proxy.routing.links import Link
from proxy.routing.reads.recent import START_S
from proxy.routing.router import Router
from proxy.watch.cohort import ClientWatch, Cohort
from proxy.watch.encode import batch_of_record, is_part
from proxy.watch.ending import Ending
from proxy.watch.joining import Joining
from proxy.watch.lagging.gathered import CatchingUp, Gathered
from proxy.watch.lagging.history import History, Slice
from proxy.watch.lagging.ring import Rings
from proxy.watch.parts import Part
from proxy.watch.permissions import Permissions
from proxy.watch.progress import PeriodicProgress, ProgressRequests
from proxy.watch.stream import TOGETHER, WatchStream
from proxy.watch.subscription import Room, Subscription

_LOOKS = 200  # subscriptions over several shards, in a turn: 2 ms with 16 shards, without the events
_EVENTS, _SUBSCRIBED = int(Status.EVENTS), int(Status.SUBSCRIBED)


class WatchHub:
    def __init__(self, router: Router, placement: Placement, progress_interval_s: float, fragment_bytes: int,
                 merge_bytes: int) -> None:
        self.fragment_bytes = fragment_bytes
        self.room = Room(merge_bytes)
        self.rings = Rings(merge_bytes)
        self.streams: dict[WatchStream, None] = {}
        self.subscriptions: dict[tuple[bytes, bytes, bool], Subscription] = {}
        self.random: Callable[[], float] = random
        self.events_received = 0
        self._router = router
        self._placement = placement
        self._progress_interval_s = progress_interval_s
        self.history = History(router, placement, fragment_bytes)
        self._progress = ProgressRequests(router)
        self._periodic = PeriodicProgress(router)
        self._joining = Joining(router)
        self._ending = Ending(router)
        self.permissions = Permissions(router, self.streams)
        self.may_watch = self.permissions.may_watch
        self._begun = False  # this front takes watches
        self._waits_till = 0.0  # until then at most it waits to know how far the order is
        self._resuming: OrderedDict[WatchStream, None] = OrderedDict()  # with requests that waited
        self._resumes = False  # in the next turn
        self._merging: dict[Subscription, None] = {}  # their events wait for several shards' watermarks
        self._looks: dict[Subscription, None] = {}  # of these, where a watermark has moved
        self._looking = False
        # history brought nothing: ask again. By their generation then: a newer one has asked for itself
        self._stalled_parts: dict[Part, int] = {}
        self._stalled_cohorts: dict[Cohort, None] = {}
        self._ticking: dict[WatchStream, None] = {}  # streams with a watch that wants periodic progress
        self._cut_off: dict[int, float] = {}  # shards whose home node alone knows no leader; since when
        self._next_look = 0.0
        self._header_key = (-1, -1)
        self._header = b""

    def header(self, revision: int) -> bytes:
        """Field 1 of a response; the last one is kept: an event goes to many watches."""
        key = (revision, self._router.term)
        if key != self._header_key:
            self._header_key = key
            self._header = response_header(self._router.header_prefix, *key)
            if revision > self._router.highest:
                self._router.show(revision)
        return self._header

    def store_revision(self) -> int:
        """R0 for a watch from "now"; 0 before any node has been heard, and until :meth:`_begins`."""
        revision = self._router.store_revision()
        return revision if self._begun or (revision and self._begins()) else 0

    def _begins(self) -> bool:
        """Whether this front knows how far the order was as it started (decision 83): its replica may not
        have that yet, and a watch from "now" on would be sent the past. After START_S it goes without."""
        if not self._waits_till:
            self._waits_till = self._router.loop.time() + START_S
            self._wait()
        return self._begun

    def _wait(self) -> None:
        router = self._router
        self._begun = router.recent.knows or router.loop.time() >= self._waits_till
        if self._begun:
            self._resume_all()
        else:
            router.recent.when_caught_up((), self._wait)  # of no shard: once that is known, or after WAIT_S

    def open(self, stream: WatchStream) -> None:
        self.streams[stream] = None

    def close(self, stream: WatchStream) -> None:
        self.streams.pop(stream, None)
        self._resuming.pop(stream, None)
        self._ticking.pop(stream, None)
        self._progress.forget(stream)
        self._periodic.forget(stream)
        stream.close()
        self._ending.add(stream)

    def subscribe(self, key: bytes, range_end: bytes, prev_kv: bool, revision: int) -> Subscription:
        """The range's one subscription; a new one brings the events after ``revision``."""
        wanted = (key, range_end, prev_kv)
        found = self.subscriptions.get(wanted)
        if found is None:
            shards = self._placement.shards_of(key, range_end)
            found = self.subscriptions[wanted] = Subscription(self, key, range_end, prev_kv, shards, revision)
            for part in found.parts:
                self._joining.join(part)
            table = self._placement.table
            if table.past:
                found.follow(table)  # what it begins behind may have been another's then
        return found

    def follow(self, before: Table) -> None:
        """This front goes by another table. Ranges that it does not change are left out: with 500 spans each
        of the others takes 0.2 ms. A forced start may have given a dropped move's number to another one."""
        table = self._placement.table
        pruned_at_most = (table.last_move, table.move) == (before.last_move, before.move) and (
            table.agrees(before, END, END))
        if not pruned_at_most and (table.spans, table.past) != (before.spans, before.past):
            changed = {*table.spans, *table.past} ^ {*before.spans, *before.past}
            self._followed_by(table, lambda one: (
                one.through() + 1 < table.pruned or _meets(one, changed)))
            self._progress.look()
        elif table.shards != before.shards:  # the parts are those that they were, however far each of them is
            self._followed_by(table, lambda one: False)

    def _followed_by(self, table: Table, concerns: Callable[[Subscription], bool]) -> None:
        """Nobody can bring what a dropped shard had and this front lacks. It is compacted: watches below that
        end."""
        routes = self._router.routes
        for subscription in tuple(self.subscriptions.values()):
            if concerns(subscription) or any(part.shard not in routes for part in subscription.parts):
                subscription.follow(table)

    def join(self, part: Part) -> None:
        self._joining.join(part)

    def leave(self, part: Part) -> None:
        """It has passed (G9). It ends with the tick: its own record may have let it pass."""
        part.leave(self._router)
        self._router.at_flush(lambda: self._end(part))

    def _end(self, part: Part) -> None:
        self._stalled_parts.pop(part, None)
        self._joining.drop(part)
        part.end(self._router)

    def ended(self, watch: ClientWatch) -> None:
        cohort = watch.cohort
        subscription = cohort.subscription
        if cohort.remove(watch):
            key = (subscription.key, subscription.range_end, subscription.prev_kv)
            if self.subscriptions.get(key) is subscription:
                del self.subscriptions[key]
            self._merging.pop(subscription, None)
            self._looks.pop(subscription, None)
            subscription.close()
            for part in subscription.parts:
                self._end(part)

    def merging(self, subscription: Subscription) -> None:
        self._merging[subscription] = None

    def fill(self, subscription: Subscription, part: Part) -> None:
        generation = part.generation

        def wanted() -> bool:
            return part.generation == generation

        def answer(found: Slice) -> None:
            if not wanted():
                return
            if found.compacted:
                self._compacted(subscription, part, found.compacted)
            elif found.failed or not part.filled(found.batch, found.next_revision):
                part.filling = True  # until the tick asks again
                self._stalled_parts[part] = generation

        self.history.ask(
            subscription, subscription.client(), (part.shard,), part.position + 1, answer, wanted)

    def _compacted(self, subscription: Subscription, part: Part, revision: int) -> None:
        """A gap was compacted: cohorts that need it end, the others go on from the compaction. None needs a
        gap behind what the shard had of the range."""
        if not part.until or part.position < part.until:
            for cohort in subscription.cohorts():
                has = max(cohort.cursor, part.position) if cohort.synced else cohort.cursor
                if has + 1 < revision:
                    cohort.compacted(revision)
            subscription.compacted(revision)
        if subscription.cohorts():
            part.filled(None, max(revision, part.position + 2))

    def catch_up(self, subscription: Subscription, cohort: Cohort) -> None:
        cohort.asking = True
        CatchingUp(self.history, subscription, cohort, self._caught_up, self.fragment_bytes).ask()

    def _caught_up(self, subscription: Subscription, cohort: Cohort, gathered: Gathered, last: Slice) -> None:
        if cohort.doubted:
            return  # asked again once its user is judged
        before = cohort.cursor
        if gathered.applied:
            cohort.caught_up(gathered.batches, gathered.next_revision - 1)
        if last.compacted and cohort.cursor + 1 < last.compacted:
            cohort.compacted(last.compacted)
        elif last.compacted or last.failed or cohort.cursor == before:
            self._stalled_cohorts[cohort] = None
        else:
            subscription.resume(cohort)

    def link_up(self, link: Link) -> None:
        """Parts without a link join the node that reads go to; all of the shard's move if that is the home
        node."""
        route = self._router.routes[link.shard]
        if route.replica is route.home is link:
            for other in tuple(route.links.values()):
                if other is not link:
                    self._joining.move(link.shard, other.parts.values())
        self._joining.go_on(link.shard)
        self._resume_all()

    def _resume_all(self) -> None:
        for stream in self.streams:
            if stream.deferred and self.store_revision():
                self.resume_later(stream)

    def resume_later(self, stream: WatchStream) -> None:
        """Some requests in each turn: 60,000 that wait as a front starts take 2 s in all."""
        self._resuming[stream] = None
        self._resume_soon()

    def _resume_soon(self) -> None:
        if not self._resumes:
            self._resumes = True
            self._router.loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._resumes, left = False, TOGETHER
        while self._resuming and left > 0:
            stream, _ = self._resuming.popitem(last=False)
            left -= stream.resume_deferred()
        if self._resuming:
            self._resume_soon()

    def link_down(self, link: Link) -> None:
        self._joining.move(link.shard, link.parts.values())

    def _settle(self, now: float) -> None:
        """Parts follow the reads: home at once, elsewhere only after two election timeouts."""
        router = self._router
        for route in router.routes.values():
            home, replica = route.home, route.replica
            if replica is home:
                self._cut_off.pop(route.shard, None)
            elif now - self._cut_off.setdefault(route.shard, now) < 2 * router.election_s:
                continue
            if replica is None:
                continue
            for link in tuple(route.links.values()):
                if link is not replica and link.parts:
                    self._joining.move(route.shard, link.parts.values())

    def record(self, link: Link, rid: int, status: int, body: bytes) -> None:
        part: Part | None = link.parts.get(rid)
        if part is None:
            return  # it has ended here
        if status == _EVENTS:
            batch = batch_of_record(body)
            self.events_received += batch.count
            if is_part(body):
                part.piece(batch)
                return
            part.events(batch)
            owner = part.owner
            assert isinstance(owner, Subscription)
            if len(owner.parts) > 1:
                owner.advance()
        elif status == _SUBSCRIBED:
            part.subscribed(body)
            self._joining.go_on(link.shard)
        else:  # LOST (the node left out events) or refused: subscribe again, read the gap from history
            part.leave(None)
            self._stalled_parts.pop(part, None)
            if status == int(Status.LOST):
                self._joining.join(part)
            else:
                self._stalled_parts[part] = part.generation

    def watermark(self, link: Link) -> None:
        if self._merging:
            self._looks.update(self._merging)
            self._look_soon()
        self._progress.look()

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            self._router.at_flush(self._look)

    def _look(self) -> None:
        self._looking = False
        for subscription in list(islice(self._looks, _LOOKS)):
            del self._looks[subscription]
            if subscription.advance():
                self._merging.pop(subscription, None)
        if self._looks:
            self._look_soon()
        self._progress.look()

    def tick(self, now: float) -> None:
        self._settle(now)
        self._joining.tick()
        if self._stalled_parts:
            parts, self._stalled_parts = self._stalled_parts, {}
            for part, generation in parts.items():
                if part.link is None:
                    self._joining.join(part)
                elif part.filling and part.generation == generation:
                    part.ask_again()
        if self._stalled_cohorts:
            cohorts, self._stalled_cohorts = self._stalled_cohorts, {}
            for cohort in cohorts:
                cohort.subscription.resume(cohort)
        self._progress.look()
        if self._ticking and now >= self._next_look:
            self._next_look = now + min(1.0, self._progress_interval_s / 20)
            for stream in tuple(self._ticking):
                if now >= stream.progress_at:
                    stream.progress_at = now + self._progress_delay_s()
                    self._periodic.tell(stream)

    @property
    def restless(self) -> bool:
        """Whether the next tick goes on with something."""
        return bool(self._stalled_parts or self._stalled_cohorts or self._joining.restless)

    def want_progress(self, stream: WatchStream) -> None:
        """Periodic progress: one ticker per stream, with etcd's jitter of a tenth."""
        if stream not in self._ticking:
            stream.progress_at = self._router.loop.time() + self._progress_delay_s()
            self._ticking[stream] = None

    def ask_progress(self, stream: WatchStream) -> None:
        self._progress.ask(stream)

    def _progress_delay_s(self) -> float:
        return self._progress_interval_s * (1 + 0.1 * self.random())

    def statistics(self) -> dict[str, int]:
        watches = sum(len(s.watches) for s in self.streams) + self._ending.count
        slow = sum(len(c.members) for s in self.subscriptions.values() for c in s.lagging)
        return {"streams": len(self.streams), "watches": watches, "slow": slow,
                "subscriptions": len(self.subscriptions), "events": self.events_received,
                "history_slices": self.history.slices, "merge_bytes": self.room.held_bytes,
                "merge_pauses": self.room.pauses, "held_events": self.rings.held_events}


def _meets(subscription: Subscription, pieces: Iterable[Piece]) -> bool:
    start, end, _ = asked(subscription.key, subscription.range_end)
    return any(piece.meets(start, end) for piece in pieces)
