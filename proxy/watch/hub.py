"""All watches of this front, tied to the links.

Streams ask for subscriptions, subscriptions get their shards' events from the links; when a link ends, its
parts move to another node and go on from where they stood. So they do when the own host's node has known no
leader for two election timeouts where others know one. Parts go home to the own host's node when that is
back, and knows a leader.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from random import random
from typing import Any

import structlog

from cluster.errors import EtcdError
from cluster.placement import Placement
from cluster.wire.messages import Status
from cluster.wire.protobuf import response_header
from proxy.routing.links import Link
from proxy.routing.router import Router
from proxy.watch.cohort import ClientWatch, Cohort
from proxy.watch.encode import batch_of_record, is_part
from proxy.watch.ending import Ending
from proxy.watch.gathered import Gathered
from proxy.watch.history import History, Slice
from proxy.watch.joining import Joining
from proxy.watch.parts import Part
from proxy.watch.permissions import Permissions
from proxy.watch.progress import ProgressRequests
from proxy.watch.stream import WatchStream
from proxy.watch.subscription import Room, Subscription

log = structlog.get_logger("watch")

# subscriptions over several shards that are looked at in a turn: 2 ms with 16 shards, without the events
_LOOKS = 200
_EVENTS, _SUBSCRIBED = int(Status.EVENTS), int(Status.SUBSCRIBED)


class WatchHub:
    """Subscriptions by range, streams, and what is under way between them."""

    def __init__(self, router: Router, placement: Placement, progress_interval_s: float, fragment_bytes: int,
                 merge_bytes: int) -> None:
        """``merge_bytes``: room for events that wait for other shards."""
        self.fragment_bytes = fragment_bytes
        self.room = Room(merge_bytes)
        self.streams: dict[WatchStream, None] = {}
        self.subscriptions: dict[tuple[bytes, bytes, bool], Subscription] = {}
        self.random: Callable[[], float] = random
        self.events_received = 0
        self.responses_sent = 0
        self._router = router
        self._placement = placement
        self._progress_interval_s = progress_interval_s
        self.history = History(router, fragment_bytes)
        self._progress = ProgressRequests(router)
        self._joining = Joining(router)
        self._ending = Ending(router)
        self.permissions = Permissions(router, self.streams)
        # over several shards, with events that wait for watermarks
        self._merging: dict[Subscription, None] = {}
        self._looks: dict[Subscription, None] = {}  # those of them that a watermark may let go on
        self._looking = False
        self._stalled_parts: dict[Part, None] = {}  # asked history without getting further: ask again
        self._stalled_cohorts: dict[Cohort, None] = {}
        self._ticking: dict[WatchStream, None] = {}  # streams with a watch that wants periodic progress
        # shards whose own node knows no leader, where others do; since when
        self._cut_off: dict[int, float] = {}
        self._next_look = 0.0
        self._header_key = (-1, -1)
        self._header = b""

    # -- for streams --------------------------------------------------------------------------------

    def header(self, revision: int) -> bytes:
        """Field 1 of a response; the last one is kept, because an event goes to many watches."""
        key = (revision, self._router.term)
        if key != self._header_key:
            self._header_key = key
            self._header = response_header(self._router.header_prefix, *key)
            if revision > self._router.highest:
                self._router.highest = revision
        return self._header

    def store_revision(self) -> int:
        """R0 for a watch from "now"; 0 while no node has been heard."""
        return self._router.store_revision()

    def open(self, stream: WatchStream) -> None:
        """A new stream."""
        self.streams[stream] = None

    def close(self, stream: WatchStream) -> None:
        """A stream's call has ended."""
        self.streams.pop(stream, None)
        self._ticking.pop(stream, None)
        self._progress.forget(stream)
        stream.close()
        self._ending.add(stream)

    def subscribe(self, key: bytes, range_end: bytes, prev_kv: bool, revision: int) -> Subscription:
        """The one subscription of a range; a new one brings the events after ``revision``."""
        wanted = (key, range_end, prev_kv)
        found = self.subscriptions.get(wanted)
        if found is None:
            shards = self._placement.shards_of(key, range_end)
            found = self.subscriptions[wanted] = Subscription(self, key, range_end, prev_kv, shards, revision)
            for part in found.parts:
                self._joining.join(part)
        return found

    def ended(self, watch: ClientWatch) -> None:
        """A watch has ended; with its last one a subscription ends too."""
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
                self._stalled_parts.pop(part, None)
                self._joining.drop(part)
                part.end(self._router)

    def may_watch(self, call: Any, key: bytes, range_end: bytes,
                  then: Callable[[EtcdError | None], None]) -> bool:
        """Ask whether a client may watch a range; False, and nothing is asked, where nobody is judged."""
        return self.permissions.ask(call, key, range_end, then)

    def merging(self, subscription: Subscription) -> None:
        """A subscription over several shards has events that some of them must bring more for."""
        self._merging[subscription] = None

    # -- history ------------------------------------------------------------------------------------

    def fill(self, subscription: Subscription, part: Part) -> None:
        """Read a part's gap."""
        generation = part.generation

        def answer(found: Slice) -> None:
            if part.generation != generation:
                return
            if found.compacted:
                self._compacted(subscription, part, found.compacted)
            elif found.failed or not part.filled(found.batch, found.next_revision):
                part.filling = True  # until the tick asks again
                self._stalled_parts[part] = None

        self.history.ask(subscription.key, subscription.range_end, subscription.prev_kv,
                          subscription.client(), (part.shard,), part.position + 1, answer)

    def _compacted(self, subscription: Subscription, part: Part, revision: int) -> None:
        """A gap was compacted away: whoever needs it ends; the others go on from the compaction."""
        for cohort in subscription.cohorts():
            has = max(cohort.cursor, part.position) if cohort.synced else cohort.cursor
            if has + 1 < revision:
                cohort.compacted(revision)
        if subscription.cohorts():
            part.filled(None, max(revision, part.position + 2))

    def catch_up(self, subscription: Subscription, cohort: Cohort) -> None:
        """Read what a lagging cohort has not got, as much as goes into an answer."""
        cohort.asking = True
        gathered = Gathered(cohort.stream.call, cohort.cursor + 1, self.fragment_bytes)

        def ask() -> None:
            self.history.ask(subscription.key, subscription.range_end, subscription.prev_kv, cohort.client,
                              tuple(p.shard for p in subscription.parts), gathered.next_revision, answer)

        def answer(found: Slice) -> None:
            wanted = cohort in subscription.lagging  # else it has ended
            if found.batch is not None:
                found.batch.encoded(cohort.filters)  # slice by slice, not all of it at the end
            more = not (found.compacted or found.failed) and gathered.add(found)
            if more and wanted and not cohort.blocked:
                ask()
                return
            gathered.release()
            cohort.asking = False
            if wanted:
                self._caught_up(subscription, cohort, gathered, found)

        ask()

    def _caught_up(self, subscription: Subscription, cohort: Cohort, gathered: Gathered, last: Slice) -> None:
        """What has been gathered goes to a lagging cohort; then it goes on, or ends."""
        before = cohort.cursor
        if gathered.applied:
            cohort.caught_up(gathered.batches, gathered.next_revision - 1, gathered.applied)
        if last.compacted and cohort.cursor + 1 < last.compacted:
            cohort.compacted(last.compacted)
        elif last.compacted or last.failed or cohort.cursor == before:
            self._stalled_cohorts[cohort] = None
        else:
            subscription.resume(cohort)

    # -- from the links -----------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        """A node can be reached: parts without one go where reads go, and all of them home."""
        route = self._router.routes[link.shard]
        if route.replica is route.home is link:
            for other in tuple(route.links.values()):
                if other is not link:
                    self._joining.move(link.shard, other.parts.values())
        self._joining.go_on(link.shard)
        for stream in tuple(self.streams):
            if stream.deferred and self.store_revision():
                stream.resume_deferred()

    def link_down(self, link: Link) -> None:
        """A link has ended: its parts go on elsewhere."""
        self._joining.move(link.shard, link.parts.values())

    def _settle(self, now: float) -> None:
        """Parts go where reads go: home at once, away from home not for an election."""
        router = self._router
        for route in router.routes:
            home, replica = route.home, route.replica
            if home is None or replica is home:
                self._cut_off.pop(route.shard, None)
            elif now - self._cut_off.setdefault(route.shard, now) < 2 * router.election_s:
                continue
            if home is None or replica is None:
                continue
            for link in (home,) if replica is not home else tuple(route.links.values()):
                if link is not replica and link.parts:
                    self._joining.move(route.shard, link.parts.values())

    def record(self, link: Link, rid: int, status: int, body: bytes) -> None:
        """A record of one subscription."""
        part: Part | None = link.parts.get(rid)
        if part is None:
            return  # ended here while it was under way
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
        # LOST (the node installed a snapshot), or refused: subscribe anew, the gap is read from history
        else:
            part.leave(None)
            self._stalled_parts.pop(part, None)
            if status == int(Status.LOST):
                self._joining.join(part)
            else:
                self._stalled_parts[part] = None

    def watermark(self, link: Link) -> None:
        """A shard's watermark has moved."""
        if self._merging:
            self._looks.update(self._merging)
            self._look_soon()
        self._progress.look()

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            self._router.at_flush(self._look)

    def _look(self) -> None:
        """Once for all watermarks of a turn, and at some subscriptions in a turn: emit what the watermarks
        allow."""
        self._looking = False
        for subscription in list(islice(self._looks, _LOOKS)):
            del self._looks[subscription]
            if subscription.advance():
                self._merging.pop(subscription, None)
        if self._looks:
            self._look_soon()
        self._progress.look()

    # -- time ---------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Every sweep: what stalled is tried again; who serves which part; periodic progress."""
        self._settle(now)
        self._joining.tick()
        if self._stalled_parts:
            parts, self._stalled_parts = self._stalled_parts, {}
            for part in parts:
                if part.link is None:
                    self._joining.join(part)
                elif part.filling:
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
                    stream.periodic()

    def want_progress(self, stream: WatchStream) -> None:
        """A watch of the stream wants periodic progress: one ticker per stream, with etcd's jitter of a
        tenth."""
        if stream not in self._ticking:
            stream.progress_at = self._router.loop.time() + self._progress_delay_s()
            self._ticking[stream] = None

    def ask_progress(self, stream: WatchStream) -> None:
        """A client asks how far its watches are."""
        self._progress.ask(stream)

    def _progress_delay_s(self) -> float:
        return self._progress_interval_s * (1 + 0.1 * self.random())

    def statistics(self) -> dict[str, int]:
        """Figures for /metrics."""
        watches = sum(len(s.watches) for s in self.streams) + self._ending.count
        slow = sum(len(c.members) for s in self.subscriptions.values() for c in s.lagging)
        return {"streams": len(self.streams), "watches": watches, "slow": slow,
                "subscriptions": len(self.subscriptions), "events": self.events_received,
                "responses": self.responses_sent, "history_slices": self.history.slices,
                "merge_bytes": self.room.held_bytes, "merge_pauses": self.room.pauses}
