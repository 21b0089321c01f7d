"""The v2 tree as this replica has applied it: reads, the past for waits, events for fronts that follow.

A front with a wait follows: it gets every event of the tree with the tick that applied it. A wait begins with
a look back (SCAN), whose answer names the tree's index: events up to it are in the answer, later ones come
behind it on the same link. So nothing is missed, and nothing comes twice.

Other shards' nodes have a tree, too, which stays empty.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from cluster.errors import PERMISSION_DENIED, REQUEST_TOO_LARGE, TOO_MANY_REQUESTS, EtcdError
from cluster.evaluate.steps import Steps
from cluster.faults import answered
from cluster.features.rows import Row, RowsOf
from cluster.features.v2.events import encode_news, told
from cluster.features.v2.refusals import V2Error
from cluster.features.v2.requests import Answer, Get, Kind, Scan, by_clock, left_to_front, split_read
from cluster.features.v2.shown import LatelyShown, Listing, get_json
from cluster.features.v2.tree import Node, Tree, namespace
from cluster.features.v2.users import Show, enabled, lists, refusal, shown, steps
from cluster.pacing.patience import Patience
from cluster.raft import Raft
from cluster.wire.messages import Method, Status
from node.links.fronts import FrontLink, Request
from node.machine import NodeMachine
from node.serving.reads import Reads
from node.serving.streams import with_signs
from node.serving.v2_ends import Ends
from node.slicing.slicer import Slices
from node.storage import StateStore

if TYPE_CHECKING:
    from node.replica.writes import Writes
    from node.serving.auth.guard import Guard

_PATIENCE_S = 0.5  # a read waits so long for what its front has shown; then it is answered
_MOST_WAITING = 20_000
_SHORT_BYTES = 16_384  # of a value that is read at once: 2 ms where each octet is to be escaped
_SLICE = 200  # nodes of a list that are shown in a step: 0.5 ms
_SIGN_STEPS = 100  # of a list, between two signs that it goes on
_MOST_LIST_BYTES = 256 << 20  # of an answer: a link takes no frame of 1 GiB

_V2_WRITE = int(Method.V2_WRITE)
_Asked = Get | Scan | Show | None  # None: the counts
_REQUESTS: dict[int, Callable[[bytes], _Asked]] = {
    Kind.GET: Get.decode,
    Kind.SCAN: Scan.decode,
    Kind.USERS: Show.decode,
}


class V2Node(Protocol):
    machine: NodeMachine
    loop: asyncio.AbstractEventLoop
    store: StateStore
    reads: Reads
    writes: Writes
    guard: Guard
    patience: Patience
    raft: Raft
    applied_index: int

    def wake(self) -> None: ...
    def mark_dirty(self, link: FrontLink) -> None: ...


class V2Tree:
    def __init__(self, node: V2Node) -> None:
        self._node = node
        self.tree = Tree(node.store.feature_rows(RowsOf.V2))
        self._shown = LatelyShown()
        self._followers: set[FrontLink] = set()
        self._untold: deque[Iterator[tuple[bytes, bool]]] = deque()  # what they are to be told
        # (until, index, link, rid, body), the oldest first
        self._waiting: deque[tuple[float, int, FrontLink, int, bytes]] = deque()
        self._ends = Ends(node)

    @property
    def awaited(self) -> bool:
        """Whether a front follows or a read waits for an apply."""
        return bool(self._followers or self._waiting)

    # -- what is applied

    def applied(self, rows: Mapping[int, list[Row]]) -> None:
        own = rows.get(RowsOf.V2)
        if own is None:
            return
        events = self.tree.take(own)
        if self._followers:
            self._untold.append(told(self.tree.index, events))
            if len(self._untold) == 1:
                self._tell_on()
        self._release()

    def replaced(self) -> None:
        """A snapshot was installed: events were jumped over."""
        self.tree = Tree(self._node.store.feature_rows(RowsOf.V2))
        self._shown = LatelyShown()
        if self._followers:
            self._untold.clear()
            self._tell(encode_news(self.tree.index, True, []))
        self._release()

    def follow(self, link: FrontLink, body: bytes) -> None:
        """A front wants the events from now on, or no more."""
        if body[:1] == b"\1":
            self._followers.add(link)
        else:
            self._followers.discard(link)

    def _tell_on(self) -> None:
        """Tell of what was applied, a step in each turn of the loop: a large directory has many."""
        if not self._untold:
            return
        news, more = next(self._untold[0])
        self._tell(news)
        if not more:
            self._untold.popleft()
        if not self._followers:
            self._untold.clear()
        elif self._untold:
            self._node.loop.call_soon(self._tell_on)

    def _tell(self, news: bytes) -> None:
        self._followers = {link for link in self._followers if link.alive}
        for link in self._followers:
            link.answer(0, Status.V2_EVENTS, news)
            self._node.mark_dirty(link)

    # -- what proxies ask: a member's clock counts, as in etcd, for proxies may run on any machine

    @property
    def _now_ns(self) -> int:
        return int(self._node.machine.wall_time() * 1e9)

    def timed(self, requests: list[Request]) -> list[Request]:
        """A proxy's requests, their writes with this host's time. Reads get it in their turn."""
        if all(method != _V2_WRITE for _, method, _, _ in requests):
            return requests
        now_ns = self._now_ns
        return [
            (rid, method, timeout_ms, by_clock(body, now_ns) if method == _V2_WRITE else body)
            for rid, method, timeout_ms, body in requests
        ]

    # -- reads

    def file(self, path: bytes, after: int, now_ns: int) -> tuple[int, int, int, bytes] | None:
        """For a front in this process that has shown the index ``after``: the tree's index, the raft index,
        the term, and the answer to a read of a file. None: no file that all may read, a long one, or this
        replica is behind."""
        tree = self.tree
        if tree.index < after or enabled(tree):
            return None
        try:
            node = tree.find(path)
        except V2Error:
            return None
        if node.children is not None or len(node.value) > _SHORT_BYTES:
            return None
        body = self._shown.get(node)
        if body is None:
            body = get_json(node, namespace(path), False, False, now_ns)
            if not node.expires_ns:  # what is left of a TTL is told again
                self._shown.keep(node, body)
        return tree.index, self._node.applied_index, self._node.raft.term, body

    def read(self, link: FrontLink, rid: int, body: bytes) -> None:
        """A read of a front, once this replica has what the front has shown."""
        _, after, _ = split_read(body)
        if after <= self.tree.index:
            self._answer(link, rid, body)
            return
        if len(self._waiting) >= _MOST_WAITING:
            raise EtcdError(TOO_MANY_REQUESTS)
        self._waiting.append((self._node.loop.time() + _PATIENCE_S, after, link, rid, body))
        self._node.patience.hurried()

    def _release(self) -> None:
        if not self._waiting:
            return
        now, index = self._node.loop.time(), self.tree.index
        waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            until, after, link, rid, body = entry
            if after > index and now < until:
                self._waiting.append(entry)
            elif link.awaits(rid):
                try:
                    self._answer(link, rid, body)
                except EtcdError as error:
                    self._node.reads.refuse(link, rid, error)

    def _answer(self, link: FrontLink, rid: int, body: bytes) -> None:
        node = self._node
        if node.guard.state.enabled and body[0] != Kind.COUNTS:  # a front may not know of it yet
            raise EtcdError(PERMISSION_DENIED)
        asked = self._asked(link, body)
        if isinstance(asked, Get) and self._may_be_long(asked):
            work = self._in_slices(link, rid, asked)
            node.reads.start(link, rid, with_signs(
                work, _SIGN_STEPS, lambda: link.answer(rid, Status.PARTIAL, b"")))
            return
        answer = self._refused(asked)
        if answer is None:
            if isinstance(asked, Show) and lists(asked):
                node.reads.start(link, rid, self._in_steps(link, rid, asked))
                return
            answer = self._answered(asked)
        link.ok(rid, node.store.revision, node.raft.term, answer.encode())
        node.mark_dirty(link)

    @answered
    def _asked(self, link: FrontLink, body: bytes) -> _Asked:
        kind, _, request = split_read(body)
        decode = _REQUESTS.get(kind)
        asked = None if decode is None else decode(request)
        if isinstance(asked, Get) and not link.member_id:
            return replace(asked, now_ns=self._now_ns)
        return asked

    def _in_steps(self, link: FrontLink, rid: int, asked: Show) -> Slices:
        for answer in steps(self.tree, asked):
            if answer is None:
                yield
            else:
                link.ok(rid, self._node.store.revision, self._node.raft.term, answer.encode())

    @answered
    def _refused(self, asked: _Asked) -> Answer | None:
        """The answer to a user of version 2 without the right to the real one."""
        if asked is None or isinstance(asked, Show):
            return None
        return refusal(self.tree, asked.who, asked.path, asked.slash, asked.recursive, write=False)

    def _may_be_long(self, get: Get) -> bool:
        """Whether it is a list that is begun in slices, too: that looks at every directory below."""
        try:
            node = self.tree.find(get.path)
        except V2Error:
            return False
        children = node.children
        if not children:
            return False
        return get.recursive or len(children) > _SLICE or self._list(node, get).size > _SLICE

    def _list(self, node: Node, get: Get) -> Listing:
        return Listing(node, namespace(get.path), get.recursive, get.sorted, get.now_ns)

    def _in_slices(self, link: FrontLink, rid: int, get: Get) -> Slices:
        revision, term = self._node.store.revision, self._node.raft.term
        answer = self._refused(get)
        if answer is None:
            try:
                listing = self._list(self.tree.find(get.path), get)
            except V2Error:  # it is gone by now
                answer = self._answered(get)
            else:
                answer = self._made(b"")
                answer.body = yield from _in_steps(listing)
        link.ok(rid, revision, term, answer.encode())

    @answered
    def _answered(self, asked: _Asked) -> Answer:
        if isinstance(asked, Get):
            return self._get(asked)
        if isinstance(asked, Scan):
            return self._scan(asked)
        if isinstance(asked, Show):
            return shown(self.tree, asked)
        leader = self._node.writes.leader
        counts = self.tree.counted()
        if leader is not None and leader.counted is not None:  # refusals are final before they are logged
            counts |= {name: n for name, n in leader.counted.counted().items() if name.endswith("Fail")}
        return self._made(json.dumps(counts, separators=(",", ":")).encode())

    def _made(self, body: bytes, code: int = 0) -> Answer:
        return Answer(self.tree.index, body, code, raft_index=self._node.applied_index)

    def _get(self, get: Get) -> Answer:
        prefix = namespace(get.path)
        left: list[bytes] = []
        try:
            node = self.tree.find(get.path)
        except V2Error as error:
            return self._made(error.json(prefix), error.code)
        body = get_json(node, prefix, get.recursive, get.sorted, get.now_ns, left)
        return left_to_front(self._made(body), left)

    def _scan(self, scan: Scan) -> Answer:
        history, index = self.tree.history, self.tree.index
        assert history is not None, "a replica keeps events"
        if not scan.since:
            return self._made(b"")
        try:
            found = history.scan(scan.path, scan.recursive, scan.since, index)
        except V2Error as error:
            return self._made(error.json(namespace(scan.path)), error.code)
        return self._made(found or b"")

    # -- clockwork

    def look(self) -> None:
        """Every heartbeat interval: if this node leads, expire nodes, and clear what large directories held.
        End reads that have waited."""
        self.tree.free()
        self._release()
        if self._followers:
            self._followers = {link for link in self._followers if link.alive}
        self._ends.look(self.tree)


def _in_steps(listing: Listing) -> Steps[bytes]:
    parts: list[bytes] = []
    size = 0
    for part in listing.parts(_SLICE):
        if part:
            parts.append(part.encode())
            size += len(parts[-1])
        elif size > _MOST_LIST_BYTES:
            raise EtcdError(REQUEST_TOO_LARGE)
        else:
            yield
    return b"".join(parts)
