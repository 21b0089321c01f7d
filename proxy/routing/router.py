"""Every request's way to a node and back.

Hot path: a put is one object, one dictionary entry and two list appends, and its answer one dictionary pop
and a splice: 1.8 us from handler to reply, a linearizable range 2.3 us (100 a tick, without gRPC and ZeroMQ,
2-core reference machine). No request has a future, task or timer: a sweep every 50 ms finds overdue ones.

Rules
- Writes and questions to the leader wait in a bounded queue while the shard has none.
- I23: a write is sent again only after the node said that it was certainly not logged (NOT_LEADER). A write
  whose link broke has an unknown fate, and its client is told so, as in etcd.
- Reads, and questions that change nothing, are sent again freely.
- H2, I13: linearizable reads share rounds of read-index questions (``proxy.routing.reads.read_index``).
- Monotone: a serializable read waits briefly for the highest revision that this host has shown. Programs
  rely on it: an etcd member has applied a put before it answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import structlog

from cluster import errors
from cluster.features.auth.principal import read_news
from cluster.members.table import Table
from cluster.pacing.resting import LARGE_BYTES
from cluster.repeats import Repeats
from cluster.settings import Common
from cluster.wire.messages import HEAD, LEADER, LONE_HEAD, Method, Status
from proxy.routing.in_turn import InTurn
from proxy.routing.links import ASTRAY, REFUSED, Link, Subscriber
from proxy.routing.members.following import Following
from proxy.routing.members.reach import Reach
from proxy.routing.moved import Moved
from proxy.routing.overdue import moved_on, resume, sweep_link, sweep_waiting
from proxy.routing.pieces import Pieces
from proxy.routing.reads.read_index import ReadIndexRounds
from proxy.routing.reads.recent import RecentReads
from proxy.routing.rounds import Rounds
from proxy.routing.routes import Connect, ShardRoute
from proxy.routing.sending import SWEEP_S, Sending
from proxy.routing.slow import SlowRequests
from proxy.routing.waiting import ASK, READ_ANY, SERIALIZABLE, WRITE, Loop, MethodStats, Then, Waiting

__all__ = [
    "ASK", "READ_ANY", "SERIALIZABLE", "SWEEP_S", "WRITE", "MethodStats", "Router", "Subscriber", "Waiting",
]

log = structlog.get_logger("router")

_BUSY, _GATHER_S = 32, 0.001  # from so many requests under way on a link on, frames gather for so long
_LAST_WORDS = 4  # failed at a stop, a Lock's read asks to delete its key, and then to revoke its lease
LONE_AFTER = 3  # lone writes in a row before the next one counts as alone

# plain integers: comparing enum members costs three times as much
_OK, _NOT_LEADER, _PARTIAL, _ELSEWHERE, _MOVED = map(
    int, (Status.OK, Status.NOT_LEADER, Status.PARTIAL, Status.ELSEWHERE, Status.MOVED))
_SUBSCRIPTION = frozenset(map(int, (Status.EVENTS, Status.SUBSCRIBED, Status.LOST)))
_STATE, _WATERMARK, _REFUSED, _LEAVING, _AUTH, _MEMBERS, _V2_EVENTS, _PLACEMENT = map(int, (
    Status.STATE, Status.WATERMARK, Status.REFUSED, Status.LEAVING, Status.AUTH, Status.MEMBERS,
    Status.V2_EVENTS, Status.PLACEMENT))


class Router(Sending):
    """Requests to the nodes, and their answers."""

    def __init__(self, loop: Loop, common: Common, connect: Connect,
                 large_write_window_bytes: int = 1 << 20, range_compares: int = 16,
                 scarce: Callable[[], bool] = lambda: True) -> None:
        """``scarce()``: whether CPUs are."""
        super().__init__(loop, common)
        self.members = Table(common.peers)
        # a node has applied this table of placement. ValueError: it cannot be read
        self.placed: Callable[[bytes], None] = lambda row: None
        # this host stays a learner until it is promoted
        self.learner = self.members.learner(common.member_id)
        members = [p.member_id for p in common.peers]
        self._connect = connect
        self._owners: Container[int] = range(common.shard_count)
        # by shard; those of the table of placement (follow_shards)
        self.routes = {shard: self._route(shard, members) for shard in range(common.shard_count)}
        self.reach = Reach(common.peers)
        self.following = Following(self)
        self._refusals = Repeats()
        self.hub: Subscriber | None = None
        self.in_turn = InTurn(self, large_write_window_bytes, range_compares)
        self.pieces = Pieces(self, common.client_stall_timeout_ms / 1000)
        self.read_index = ReadIndexRounds(self)
        self.slow = SlowRequests(common.warning_request_ms / 1000)
        self.recent = RecentReads(self, self.index)
        self.rounds = Rounds(loop, self._leader_links, scarce)
        self.moved = Moved(self)
        self.draining = False
        self._ended_frames = [0, 0]  # sent and received, of links that have ended
        self._lone = 0  # writes in a row that found nothing under way
        self.v2_news: Callable[[Link, bytes], None] | None = None  # takes V2_EVENTS: proxy.v2.waiting.feed
        self.lone_after = LONE_AFTER

    def _route(self, shard: int, members: Iterable[int]) -> ShardRoute:
        return ShardRoute(shard, self.common.member_id, members, self._connect, self, self.election_s)

    def follow_shards(self, running: Sequence[int], owners: Container[int]) -> None:
        """The cluster has these shards now. ``owners``: those without which this front is not ready."""
        self._owners = owners
        members = [peer.member_id for peer in self.members.peers]
        # other maps: a node of this process may tell a table while a loop goes through the present one
        self.routes = self.routes | {
            shard: self._route(shard, members) for shard in running if shard not in self.routes}
        for shard in self.routes.keys() - set(running):
            route = self.routes[shard]
            route.end()
            route.close("the shard is dropped")
            self.moved.leaves(route)
            self.routes = {other: known for other, known in self.routes.items() if other != shard}

    # -- requests

    def write(self, call: Any, method: int, body: bytes, shard: int, stats: MethodStats,
              then: Then | None = None, context: Any = None) -> None:
        """A request that may change something, to the shard's leader."""
        waiting = Waiting(call, method, body, shard, WRITE, self.loop.time(), self.limit_s, stats)
        waiting.then = then
        waiting.context = context
        if len(body) > LARGE_BYTES and not self.in_turn.large.lets_in(waiting, len(body)):
            return
        link = self.routes[shard].leader_link
        if link is not None:
            self.send(link, waiting)
        else:
            self.to_leader(waiting)

    def wide(self, call: Any, method: int, body: bytes, stats: MethodStats) -> None:
        """A transaction over several shards: the sequencer coordinates it."""
        self.write(call, Method.WIDE, bytes((method,)) + body, 0, stats)

    def lone(self) -> bool:
        """Whether this write, as the last few, finds no request of this front under way at a leader. On
        another shard than 0, LONE is then the shorter way: one quorum round instead of two (decision 22)."""
        for route in self.routes.values():
            if route.leader_link is not None and route.leader_link.pending:
                self._lone = 0
                return False
        self._lone += 1
        return self._lone > self.lone_after

    def ask(self, call: Any, method: int, body: bytes, shard: int, stats: MethodStats,
            then: Then | None = None, context: Any = None) -> None:
        """A question to the shard's leader that may be asked twice."""
        waiting = Waiting(call, method, body, shard, ASK, self.loop.time(), self.limit_s, stats)
        self.to_leader(waiting.calls(then, context))

    def read(self, call: Any, method: int, body: bytes, shard: int, serializable: bool, stats: MethodStats,
             then: Then | None = None, context: Any = None) -> None:
        """A read of a replica; a linearizable one after a read index."""
        waiting = Waiting(call, method, body, shard, READ_ANY, self.loop.time(), self.limit_s, stats)
        waiting.began = self.moved.began or waiting.began
        if serializable:
            self.recent.read(waiting.calls(then, context, SERIALIZABLE))
        else:
            self.read_index.add(waiting.calls(then, context))

    def index(self, then: Then) -> None:
        """A read index for reads of several shards, of a round that other reads share."""
        waiting = Waiting(
            None, Method.READ_INDEX, b"", 0, READ_ANY, self.loop.time(), self.limit_s, self.quiet)
        self.read_index.add(waiting.calls(then))

    def get(self, call: Any, body: bytes, key: bytes, serializable: bool, shard: int,
            stats: MethodStats) -> None:
        """:meth:`read` of one key's newest version, at once where a node in this process has it."""
        if serializable:
            link, generation = self.routes[shard].replica, self.moved.generation
            near = link.near if link is not None else None
            # monotone; to tell its revision, the node applies what is due, and a table may come by it (G7)
            recent = near is not None and near.revision >= self.highest and self.recent.stands(link)
            anew = generation != self.moved.generation
            if link is not None and near is not None and recent and not anew and not near.guarded:
                self.get_near(link, near, call, key, stats)
                return
        waiting = Waiting(call, Method.RANGE, body, shard, READ_ANY, self.loop.time(), self.limit_s, stats)
        waiting.began = self.moved.began or waiting.began
        if not serializable:
            waiting.key = key
            self.read_index.add(waiting)
        elif anew:
            self.moved.ask(waiting)
        else:
            waiting.prefix = SERIALIZABLE
            self.recent.read(waiting)

    def local(self, call: Any, method: int, body: bytes, shard: int, stats: MethodStats,
              then: Then | None = None, context: Any = None, limit_s: float = 0.0) -> None:
        """A question that the own host's replica answers as it is (Snapshot), or another one while that is
        down; ``own``: that alone. ``limit_s``: its own time limit, if any."""
        limit_s = limit_s or self.limit_s
        waiting = Waiting(call, method, body, shard, READ_ANY, self.loop.time(), limit_s, stats)
        waiting.calls(then, context, SERIALIZABLE)
        nearest = self.routes[shard].nearest
        if nearest is not None:
            self.send(nearest, waiting)
        else:
            self.to_replica(waiting)

    def history(self, body: bytes, shard: int, then: Then, context: Any) -> None:
        """A slice of a watch's past."""
        waiting = Waiting(
            None, Method.HISTORY, body, shard, READ_ANY, self.loop.time(), self.limit_s, self.quiet)
        self.to_replica(waiting.calls(then, context))

    # -- the tick

    def _flush(self) -> None:
        if self._gathering:
            gathering, self._gathering = self._gathering, []
            for gather in gathering:
                gather()
        if self.read_index.waiting:
            self.read_index.ask()
        self._scheduled = False
        if self._gathering:  # wanted meanwhile: with the next tick
            self.schedule()
        dirty = self._dirty
        if dirty:
            self._dirty = []
            for link in dirty:
                queued = len(link.outbox) // 2
                if len(link.pending) - queued < _BUSY or queued >= _BUSY:
                    link.flush()
                    continue
                # at the leader it would wait for the entry before it anyway (cluster.pacing.pace)
                self._late.append(link)
                if len(self._late) == 1:
                    self.loop.call_later(_GATHER_S, self._flush_late)

    # -- answers

    def link_answers(self, link: Link, answers: list[tuple[int, int, bytes]]) -> None:
        pop = link.pending.pop
        for rid, status, body in answers:
            if status == _OK:
                waiting = pop(rid, None)
                if waiting is None:
                    continue
                if waiting.then is not None:
                    waiting.tell(_OK, body)
                    continue
                pieces = waiting.pieces
                key = HEAD.unpack_from(pieces[0] if pieces else body)
                if key != self._header_key:
                    self._new_header(link, key)
                if not pieces:
                    if len(body) == 16:  # a put's, as a rule
                        waiting.call.reply(self._header)
                    else:
                        waiting.call.reply(self._header, body[16:])
                else:
                    waiting.call.reply(self._header, pieces[0][16:], *pieces[1:], body)
                waiting.stats.ok += 1
            else:
                self._other(link, rid, status, body)

    def link_pieces(self, link: Link, rid: int, status: int, parts: list[bytes]) -> None:
        """A large answer, PARTIAL or OK, in pieces (``Link.pieces``)."""
        waiting = link.pending.get(rid)
        if waiting is None or waiting.then is not None:
            self.link_answers(link, [(rid, status, b"".join(parts))])
            return
        if waiting.pieces is None:
            waiting.pieces = parts
        else:
            waiting.pieces += parts
        if status == _PARTIAL:
            waiting.started = self.loop.time()
            self.pieces.came(link, waiting, sum(map(len, parts)))
        else:
            self.link_answers(link, [(rid, _OK, b"")])

    def _other(self, link: Link, rid: int, status: int, body: bytes) -> None:
        if rid == 0:
            self._heard(link, status, body)
            return
        if status in _SUBSCRIPTION:
            if self.hub is not None:
                self.hub.record(link, rid, status, body)
            return
        waiting: Waiting | None
        if status == _PARTIAL:
            waiting = link.pending.get(rid)
            if waiting is not None:
                waiting.started = self.loop.time()
                if waiting.then is not None:
                    waiting.tell(_PARTIAL, body)
                elif waiting.pieces is None:
                    waiting.pieces = [body]
                else:
                    waiting.pieces.append(body)
            self.pieces.came(link, waiting, len(body))
            return
        waiting = link.pending.pop(rid, None)
        if waiting is None:
            if rid in link.parts and self.hub is not None:
                self.hub.record(link, rid, status, body)
        elif status == _NOT_LEADER:
            waiting.rid = 0
            self._not_leader(link, waiting, body)
        elif status == _ELSEWHERE:  # certainly not logged: only the sequencer can tell
            waiting.rid = 0
            if waiting.method == Method.LONE:  # it would have to wait there
                (waiting.shard,) = LONE_HEAD.unpack_from(waiting.body)
                waiting.method, waiting.body = Method.PUT, waiting.body[LONE_HEAD.size :]
                self.to_leader(waiting)
            else:
                self.to_sequencer(waiting)
        elif status == _MOVED:
            self._heard(link, _PLACEMENT, body)
            self.moved.ask(waiting)
        else:
            self.finish_error(waiting, body)

    def _not_leader(self, link: Link, waiting: Waiting, body: bytes) -> None:
        """Certainly not logged: it goes to the present leader (I23)."""
        leader, term = LEADER.unpack(body)
        route = self.routes[waiting.shard]
        if term > link.term or (term == link.term and leader != link.leader):
            link.leader, link.term = leader, term
        elif leader == 0 or leader == link.leader == link.member_id:
            # it said STATE before it knew, or leads and does not serve yet: its next STATE decides
            link.leader = 0
        route.choose(self.loop.time())
        if route.leader_link is link:
            route.leader_link = None  # asking the same node at once would only spin
        self.to_leader(waiting)

    # -- what a node tells unasked

    def _heard(self, link: Link, status: int, body: bytes) -> None:
        if link.closed:  # by the record before, of another shard's node
            return
        if status == _WATERMARK:
            self._watermark(link, int.from_bytes(body, "little"))
        elif status == _STATE:
            link.state(body)
        elif status == _AUTH:
            self.principals.heard(*read_news(body))
        elif status == _LEAVING:
            link.leave()
            self.stir()
        elif status == _MEMBERS:
            self.following.told(link, body)
        elif status == _PLACEMENT:
            try:
                self.placed(body)
            except ValueError as error:  # of a newer program
                link.close(f"{REFUSED}{error}")
        elif status == _V2_EVENTS:
            if self.v2_news is not None:
                self.v2_news(link, body)
        elif status == _REFUSED:
            link.refused(body)

    def _watermark(self, link: Link, revision: int) -> None:
        if revision > link.watermark:
            link.watermark = revision
            if revision > link.revision:
                link.revision = revision
        self.recent.release()
        if self.hub is not None:
            self.hub.watermark(link)

    # -- links

    def link_up(self, link: Link) -> None:
        log.info("link up", shard=link.shard, peer=self.reach.name(link.member_id),
                 member=f"{link.member_id:x}")
        self.stir()
        link.rounds = self.rounds
        link.up_at = self.loop.time()
        self.moved.greet(link)
        self.routes[link.shard].opened(link, link.up_at)
        if self.hub is not None:
            self.hub.link_up(link)

    def link_state(self, link: Link) -> None:
        route = self.routes[link.shard]
        route.choose(self.loop.time())
        self.following.look(link)
        if not link.shard:
            self._header_key = (-1, -1)  # shard 0 may be in another term
        resume(self, self.recent, route)

    def link_down(self, link: Link, reason: str) -> None:
        """A link has ended: its writes have an unknown fate, its questions are asked elsewhere (I23)."""
        self.stir()
        now = self.loop.time()
        say = log.info if link.term else log.debug  # one that never came up is tried again and again
        told = reason.startswith((REFUSED, ASTRAY))
        if told and self._refusals.news((link.shard, link.member_id, reason), now):
            say = log.warning
        say("link down", shard=link.shard, peer=self.reach.name(link.member_id),
            member=f"{link.member_id:x}", reason=reason, pending=len(link.pending))
        self.routes[link.shard].lost(link, now, reason)
        self._ended_frames = [had + more for had, more in zip(self._ended_frames, link.frames, strict=True)]
        self.pieces.lost(link)
        moved_on(self, self.recent, link, self.moved.placed_anew)
        if self.hub is not None:
            self.hub.link_down(link)
        resume(self, self.recent, self.routes[link.shard])

    # -- time

    def sweep(self) -> None:
        now = self.loop.time()
        self.pieces.sweep(now)
        self.in_turn.sweep(now)
        for route in self.routes.values():
            if not self.draining:
                route.upkeep(now)
            route.choose(now)  # also offers the leader again that a NOT_LEADER had taken back
            resume(self, self.recent, route)
            for link in tuple(route.links.values()):
                sweep_link(self, link, route, now)
            sweep_waiting(self, route, now)
        self.reach.look(self.routes.values(), now)
        self.recent.sweep()
        self.read_index.sweep(now)
        self.slow.look(self.routes.values(), self.read_index.unanswered(), now)
        if self.has_leader:
            self.leaderless_since = float("inf")
        elif self.leaderless_since == float("inf"):
            self.leaderless_since = now
        if self.hub is not None:
            self.hub.tick(now)

    @property
    def calm(self) -> bool:
        """Whether sweeps find nothing: no request waits, and this front has the links that it wants."""
        return not self.draining and (self.hub is None or not self.hub.restless) and all(
            route.leader_link is not None and route.replica is not None and not (route.queue or route.reads)
            and not any(link.pending for link in route.links.values()) for route in self.routes.values())

    def _leader_links(self) -> list[Link]:
        return [route.leader_link for route in self.routes.values() if route.leader_link is not None]

    # -- what others ask

    @property
    def has_leader(self) -> bool:
        """Whether this host knows a leader of shard 0."""
        return self.routes[0].has_leader

    @property
    def ready(self) -> bool:
        """Whether every shard with keys has a leader that can be reached, and a replica to read from."""
        return all(r.leader_link is not None and r.replica is not None
                   for shard, r in self.routes.items() if shard in self._owners)

    def store_revision(self) -> int:
        """The newest revision known here: shown, or applied at a node that this front reads from. 0: none."""
        known = self.highest
        for route in self.routes.values():
            if (replica := route.replica) is not None:
                known = max(known, replica.revision, replica.near.revision if replica.near is not None else 0)
        return known and max(known, self.shown)

    @property
    def term(self) -> int:
        """Shard 0's, for headers that no node's answer provides."""
        return self.routes[0].term

    def close(self) -> None:
        """End every link. Open requests are answered as of unknown fate."""
        self.draining = True
        self.in_turn.close()
        routes = tuple(self.routes.values())
        for route in routes:
            route.close("shutting down")
        for _ in range(_LAST_WORDS):
            self.recent.close()
            for waiting in [*self.read_index.take(lambda _: True), *(w for r in routes for w in r.unsent())]:
                # what may be asked twice may have been sent once
                self.fail(waiting, errors.TIMEOUT_DUE_TO_LEADER_FAIL if waiting.rid else errors.STOPPED)

    def statistics(self) -> dict[str, int]:
        links = [link for route in self.routes.values() for link in route.links.values()]
        sent, received = self._ended_frames
        return {
            "frames_sent": sent + sum(link.frames[0] for link in links),
            "frames_received": received + sum(link.frames[1] for link in links),
            "pending": sum(len(link.pending) for link in links),
            "queued": sum(len(r.queue) + len(r.reads) for r in self.routes.values()),
            "read_index_rounds": self.read_index.rounds, "read_index_slow": self.read_index.slow,
            "read_index_failed": self.read_index.failed,
            **self.in_turn.statistics(),
            "links_up": sum(link.up for link in links),
        }

