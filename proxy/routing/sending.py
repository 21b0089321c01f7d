"""The router's half that sends requests into links' frames, and fails those that no node answers.

Hot path: a request costs one dictionary entry and two list appends here; a link's frame leaves once a tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.faults import HANDLER_MISTAKES, faults
from cluster.features.auth.principal import SAID
from cluster.pacing.lull import Lull
from cluster.settings import Common
from cluster.wire.messages import REQUEST, Method, Status
from cluster.wire.protobuf import ResponseHeaders, header_prefix
from proxy.auth.shown import Principals
from proxy.routing.links import Link, Near
from proxy.routing.reads.shared import Shared
from proxy.routing.routes import ShardRoute
from proxy.routing.waiting import READ_ANY, SERIALIZABLE, WRITE, Loop, MethodStats, Then, Waiting, why_ended

SWEEP_S = 0.05
LULL_S = 0.15  # while nothing happens: each sweep wakes an idle host
_LULL_SHARE = 0.15  # of an election timeout, at most: a quarter without a look counts as a loop that was held
_QUEUE_LIMIT = 20_000  # requests waiting for a leader, per shard
_ERROR = int(Status.ERROR)
# reads that etcd answers by its log: what no leader was there for ends as a write does
_OF_ETCDS_LOG = frozenset(map(int, (Method.ALARM, Method.AUTH_SHOW)))
# a node that starts again, or a link that a new front has not yet, comes within a second as a rule
_OWN_AGAIN_S, _OWN_TRIES = 0.05, 20


class Sending:
    """What the router's parts need of it: sending, failing, and headers of answers."""

    routes: dict[int, ShardRoute]

    def __init__(self, loop: Loop, common: Common) -> None:
        self.loop = loop
        # when shard 0 was last found without a leader; inf while it has one
        self.leaderless_since = loop.time()
        self.common = common
        self.limit_s = common.limit_s  # the server's own time limit
        self.election_s = common.election_timeout_ms / 1000
        self.highest = 0  # the highest revision this front has shown to a client
        self.shared: Shared | None = None  # with what the host's other fronts have shown, if it has any
        self._compacted = 0  # the highest compaction that this front has acknowledged, or refused as done
        self.quiet = MethodStats()  # of requests without a client
        self.principals = Principals(None)  # proxy.shared.context sets them
        self.header_prefix = header_prefix(common.cluster_id, common.member_id)
        self._headers = ResponseHeaders(self.header_prefix)
        self._header_key = (-1, -1)
        self._header = b""
        self._dirty: list[Link] = []
        self._scheduled = False
        self._late: list[Link] = []
        self.lull = Lull(SWEEP_S, min(LULL_S, _LULL_SHARE * self.election_s))  # of sweeps
        self.stirred: Callable[[float], None] = lambda pause_s: None  # the next sweep is due so soon
        self._gathering: list[Callable[[], None]] = []

    # -- requests

    def to_leader(self, waiting: Waiting) -> None:
        """Send to the leader, or queue until there is one."""
        route = self.routes.get(waiting.shard)
        if route is None:  # the shard was dropped meanwhile
            if waiting.route == WRITE:
                self.to_sequencer(waiting)
            else:
                self.fail(waiting, errors.TIMEOUT_DUE_TO_LEADER_FAIL)
            return
        link = route.leader_link
        if link is not None:
            if waiting.route == WRITE:
                waiting.waited(self.loop.time())
            self.send(link, waiting)
        elif len(route.queue) < _QUEUE_LIMIT:
            route.queue.append(waiting)
        else:
            self.fail(waiting, errors.TOO_MANY_REQUESTS)

    def to_sequencer(self, waiting: Waiting) -> None:
        """A write that is certainly not logged, of keys that another shard has: the sequencer knows which."""
        waiting.body = bytes((waiting.method,)) + waiting.body
        waiting.method, waiting.shard = Method.WIDE, 0
        self.to_leader(waiting)

    def to_replica(self, waiting: Waiting) -> None:
        """Send to the own host's node of the shard, or to another one while that is down."""
        route = self.routes.get(waiting.shard)
        if route is None:
            self.fail(waiting, errors.TIMEOUT_DUE_TO_LEADER_FAIL)
            return
        link = route.replica
        if link is not None:
            self.send(link, waiting)
        elif len(route.reads) < _QUEUE_LIMIT:
            route.reads.append(waiting)
        else:
            self.fail(waiting, errors.TOO_MANY_REQUESTS)

    def own(self, call: Any, method: int, body: bytes, shard: int, stats: MethodStats,
            then: Then | None = None, context: Any = None, limit_s: float = 0.0) -> None:
        """A question about this host's replica as it is, whose answer bears this member's ID."""
        limit_s = limit_s or self.limit_s
        waiting = Waiting(call, method, body, shard, READ_ANY, self.loop.time(), limit_s, stats)
        self.to_own(waiting.calls(then, context, SERIALIZABLE))

    def to_own(self, waiting: Waiting) -> None:
        """Send to the own host's node of the shard once there is a link, or refuse: no other host's answer
        counts. A proxy, which has no node, asks any host."""
        if not self.common.member_id:
            self.to_replica(waiting)
        else:
            self.seek_own(lambda: (waiting.shard,), partial(self._send_own, waiting))

    def _send_own(self, waiting: Waiting) -> None:
        if waiting.left:
            self.gone(waiting)
        elif (link := self.own_link(waiting.shard)) is None:
            self.fail(waiting, errors.TIMEOUT_DUE_TO_LEADER_FAIL)
        else:
            waiting.pieces = []  # it ends with the link
            self.send(link, waiting)

    def seek_own(self, shards: Callable[[], Iterable[int]], then: Callable[[], None],
                 left: int = _OWN_TRIES) -> None:
        """Call ``then`` once there are links to the own host's nodes of these shards, or after a second."""
        lacking = self.common.member_id and any(
            shard in self.routes and self.own_link(shard) is None for shard in shards())
        if lacking and left:
            self.loop.call_later(_OWN_AGAIN_S, partial(self.seek_own, shards, then, left - 1))
        else:
            then()

    def own_link(self, shard: int) -> Link | None:
        """To the own host's node of a shard, also a quiet one: it is late. At a proxy, where reads go."""
        route, own = self.routes.get(shard), self.common.member_id
        if route is None or not own:
            return None if route is None else route.replica
        link = route.links.get(own)
        return link if link is not None and link.up and not link.leaving else None

    def send(self, link: Link, waiting: Waiting) -> None:
        """Put a request into a link's frame of this tick."""
        call = waiting.call
        principal = getattr(call, "principal", None) if call is not None else self.principals
        try:
            said = b"" if principal is None else self.principals.said(principal, waiting)
        except HANDLER_MISTAKES as error:  # of this request alone: queues send many in a row
            faults.met("naming a client", error)
            self.fail(waiting, errors.INTERNAL_FAULT)
            return
        rid = link.next_rid
        link.next_rid = rid + 1
        link.pending[rid] = waiting
        assert not waiting.rid or waiting.route != WRITE, (
            "I23: a write is sent again only if it was certainly not logged")
        waiting.rid = rid
        outbox = link.outbox
        if not outbox:
            self._dirty.append(link)
            if not self._scheduled:
                self.schedule()
        limit_s = waiting.limit_s
        if call is not None and call.deadline is not None:
            left = call.deadline - waiting.started
            if left < limit_s:
                limit_s = left if left > 0.001 else 0.001
        body = waiting.body
        prefix = waiting.prefix
        if said:
            size = len(said) + len(prefix) + len(body)
            outbox.append(REQUEST.pack(rid, waiting.method | SAID, int(limit_s * 1000), size) + said + prefix)
        elif prefix:
            outbox.append(REQUEST.pack(rid, waiting.method, int(limit_s * 1000), len(body) + 16) + prefix)
        else:
            outbox.append(REQUEST.pack(rid, waiting.method, int(limit_s * 1000), len(body)))
        outbox.append(body)

    def post(self, link: Link, rid: int, method: int, body: bytes) -> None:
        """Send a record without an answer of the usual kind (SUBSCRIBE, UNSUBSCRIBE, CANCEL)."""
        if link.closed or link.left:
            return
        if not link.outbox:
            self._dirty.append(link)
            if not self._scheduled:
                self.schedule()
        link.post(rid, method, body)

    def credit(self, waiting: Waiting, size: int) -> None:
        """So many bytes in all of a SNAPSHOT's answer have been passed on: the node may send more."""
        if (link := self._link_of(waiting)) is not None:
            self.post(link, waiting.rid, Method.CREDIT, size.to_bytes(8, "little"))

    def cancel(self, waiting: Waiting) -> bool:
        """Whether it was on its way. One that is not is found by a sweep, where its client has gone."""
        if (link := self._link_of(waiting)) is None:
            return False
        del link.pending[waiting.rid]
        self.post(link, waiting.rid, Method.CANCEL, b"")
        return True

    def _link_of(self, waiting: Waiting) -> Link | None:
        route = self.routes.get(waiting.shard)
        links = () if route is None else route.links.values()  # None: the shard has been dropped meanwhile
        return next((link for link in links if link.pending.get(waiting.rid) is waiting), None)

    # -- the tick

    def schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._flush)
            self.stir()

    def stir(self) -> None:
        """Something happens: sweeps come as usual."""
        if (pause_s := self.lull.stir()) is not None:
            self.stirred(pause_s)

    def at_flush(self, gather: Callable[[], None]) -> None:
        """Call ``gather`` once before this tick's frames leave: it asks one question for the whole tick."""
        self._gathering.append(gather)
        self.schedule()

    def _flush(self) -> None:
        raise NotImplementedError

    def _flush_late(self) -> None:
        late, self._late = self._late, []
        for link in late:
            link.flush()

    # -- ends and headers

    def fail(self, waiting: Waiting, kind: ErrorKind) -> None:
        self.finish_error(waiting, EtcdError(kind).encode())

    def finish_error(self, waiting: Waiting, body: bytes) -> None:
        """Answer with an encoded EtcdError."""
        if waiting.then is not None:
            waiting.tell(_ERROR, body)
            return
        error = self.ended_as_in_etcd(waiting, body)
        waiting.stats.failed(error.code)
        if not waiting.call.closed:
            waiting.call.finish(error.code, error.text)

    def ended_as_in_etcd(self, waiting: Waiting, body: bytes) -> EtcdError:
        error = EtcdError.decode(body)
        leaderless = self.leaderless_since <= waiting.started
        if error.kind is errors.TIMEOUT and leaderless and waiting.method in _OF_ETCDS_LOG:
            return EtcdError(errors.CONTEXT_DEADLINE_EXCEEDED)
        return error

    def gone(self, waiting: Waiting) -> None:
        """The call has ended by its deadline, or its client has gone."""
        self.fail(waiting, why_ended(waiting.client, self.loop.time()))

    def header(self, revision: int, term: int) -> bytes:
        """Field 1 of a response, in shard 0's term (decision 102); this revision has been shown."""
        if revision > self.highest:
            self.show(revision)
        return self._headers.make(revision, self.routes[0].term or term)

    def knows_of(self, revision: int) -> None:
        """This one was applied. It counts as shown: an answer with it tells other fronts nothing later."""
        if revision > self.highest:
            self.show(revision)

    def show(self, revision: int) -> None:
        """A client is about to see this one, which is the highest by now."""
        self.highest = revision
        if self.shared is not None:
            self.shared.show(revision)

    @property
    def shown(self) -> int:
        """The highest revision that this host's fronts have shown."""
        return self.highest if self.shared is None else max(self.highest, self.shared.revision)

    @property
    def compacted(self) -> int:
        """The highest compaction that this host's fronts have acknowledged, or refused as done: so much is
        compacted at least."""
        return self._compacted if self.shared is None else max(self._compacted, self.shared.compacted)

    def show_compaction(self, revision: int) -> None:
        """A client is about to hear that this one is done."""
        if revision > self._compacted:
            self._compacted = revision
            if self.shared is not None:
                self.shared.show_compaction(revision)

    def check_compacted(self, revision: int) -> None:
        """EtcdError: a front has told a client of a compaction above this revision (0: the newest). The
        host's replica may be behind it and still show that revision; an etcd member would not."""
        if 0 < revision < self.compacted:
            raise EtcdError(errors.COMPACTED)

    def _new_header(self, link: Link, key: tuple[int, ...]) -> None:
        revision, term = key
        if revision > link.revision:
            link.revision = revision
        if revision > self.highest:
            self.highest = revision
            if self.shared is not None:
                self.shared.show(revision)
        self._header_key = (revision, term)
        self._header = self._headers.make(revision, self.routes[0].term or term)

    def get_near(self, link: Link, near: Near, call: Any, key: bytes, stats: MethodStats) -> None:
        """Answer a read of one key's newest version from a node in this process."""
        revision, term, tail = near.get(key)
        shown = (revision, term)
        if shown != self._header_key:
            self._new_header(link, shown)
        call.reply(self._header, tail)
        stats.ok += 1
