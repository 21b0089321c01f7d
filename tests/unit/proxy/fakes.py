"""A loop, calls and nodes that tests drive by hand. The nodes speak the real frames of
``cluster.wire.messages``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cluster.settings import Common, FrontSettings, Peer
from cluster.wire import messages
from cluster.wire.messages import HEAD, LEADER, READ_INDEX_ANSWER, STATE_BODY, Method, Status
from proxy.grpc.calls import BACKLOG_BYTES
from proxy.grpc.wire import split_messages
from proxy.routing.links import Link, Near
from proxy.routing.members.answering import kind_of
from proxy.routing.router import SWEEP_S
from proxy.shared.context import Context


class ManualLoop:
    """Time stands still unless told; callbacks run when told."""

    def __init__(self) -> None:
        self.now = 100.0
        self._soon: list[Callable[[], object]] = []
        self.later: list[Callable[[], object]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], object]) -> None:
        self._soon.append(callback)

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> None:
        self.later.append(callback)

    def turn(self) -> None:
        """What was to be called soon."""
        soon, self._soon = self._soon, []
        for callback in soon:
            callback()

    def run(self) -> None:
        """Ticks until nothing is left to do."""
        for _ in range(1000):
            if not self._soon:
                return
            self.turn()
        raise AssertionError("the loop never comes to rest")


class FakeCall:
    """Records what a handler says."""

    timed = False

    def __init__(self, metadata: dict[bytes, bytes] | None = None, deadline: float | None = None) -> None:
        self.metadata = metadata or {}
        self.deadline = deadline
        self.closed = False
        self.principal: Any = None
        self.peer = "127.0.0.1:1"
        self.context: Any = None
        self.replies: list[bytes] = []
        self.status: tuple[int, str] | None = None
        self.on_drain: Callable[[], None] | None = None
        self.unread = 0
        self.paused = False
        self.id = 1
        self.connection: Any = self  # unless a test gives it one: of this call alone
        self.streams = {1: self}
        self.shares: dict[object, list[int]] = {}
        self.gathered = 0
        self.room_to_gather = self.takes = self.large_answers = True
        self.progress: object = 0
        self.beyond_all_room = False
        self.work = 0  # units, of its connection's turn
        self.reads = True  # a client that does not read lets ``unread`` grow

    def costs(self, work: int) -> None:
        self.work += work

    def waits_long(self, kept: int) -> None: ...

    def reply(self, *parts: bytes) -> None:
        assert not self.closed, "answered twice"
        self.replies.append(b"".join(parts))
        self.closed = True
        self.status = (0, "")

    def send(self, *parts: bytes) -> None:
        if not self.closed:
            self.replies.append(b"".join(parts))
            if not self.reads:
                self.unread += len(self.replies[-1])

    def send_framed(self, data: bytes) -> None:
        buffer = bytearray(data)
        for message in split_messages(buffer, 1 << 30):
            self.send(message)
        assert not buffer, "a message is cut short"

    def finish(self, status: int = 0, message: str = "") -> None:
        assert not self.closed, "answered twice"
        self.closed = True
        self.status = (status, message)

    def pause(self) -> None:
        self.paused = True

    def read_on(self) -> None:
        self.paused = False

    def pending_bytes(self) -> int:
        return self.unread

    def field(self, name: bytes) -> bytes:
        return self.metadata.get(name, b"")

    def gather(self, size: int) -> None:
        self.gathered += size

    def backlog_bytes(self) -> int:
        return BACKLOG_BYTES

    def read_all(self) -> None:
        """The client reads everything and goes on reading."""
        self.reads = True
        self.unread = 0
        if self.on_drain is not None:
            self.on_drain()


def hand_in(handler: Any, call: FakeCall, data: bytes) -> None:
    """A call's only request, and its end, as the connection hands them to a method."""
    if callable(handler):
        handler(call, data)
    else:
        handler.opened(call)
        handler.message(call, data)
        handler.half_closed(call)


@dataclass
class Request:
    """A request as a node got it."""

    rid: int
    method: int
    timeout_ms: int
    body: bytes


@dataclass(eq=False)
class FakeNode:
    """One node as seen from one front: requests pile up here, answers leave with ``flush``."""

    member: int
    shard: int = 0
    up: bool = True
    link: Link | None = None
    frames: int = 0
    requests: list[Request] = field(default_factory=list)
    leader: int = 0
    term: int = 1
    commit: int = 1
    applied: int = 1
    revision: int = 1
    forget: Callable[[], None] = lambda: None  # what the node does when a link is replaced
    came: Callable[[Request], None] = lambda request: None  # what it does with a request at once
    near: Near | None = None  # it is in the front's process
    coming: int = 0  # bytes of a frame that has not all come
    _out: list[bytes] = field(default_factory=list)
    _sent: int = 0

    @property
    def alive(self) -> bool:
        return self.up and self.link is not None and not self.link.closed

    def attached(self, link: Link) -> None:
        self.forget()
        self.link = link
        self._out.clear()
        self._sent = 0
        self.requests.clear()

    def send(self, frame: bytes) -> bool:
        """The link's transport: a frame from the front."""
        if not self.up:
            return False
        self.frames += 1
        link = self.link
        assert link is not None
        if link.prefix:
            assert frame[:1] == link.prefix
            frame = frame[1:]
        _, records = messages.decode_requests(frame)
        for rid, method, timeout_ms, body in records:
            if method == Method.HELLO:
                self.say_state()
            else:
                self.requests.append(Request(rid, method, timeout_ms, body))
                self.came(self.requests[-1])
        return True

    def unfinished(self) -> int:
        return self.coming

    def close(self) -> None:
        """The link's transport is closed by the front."""

    def state(self) -> bytes:
        return STATE_BODY.pack(self.shard, self.leader, self.term, self.commit, self.applied, self.revision)

    def say_state(self) -> None:
        self.answer(0, Status.STATE, self.state())

    def answer(self, rid: int, status: int, body: bytes) -> None:
        self._out.append(messages.answer(rid, status, body))

    def ok(self, request: Request, revision: int = 0, tail: bytes = b"") -> None:
        self.answer(request.rid, Status.OK, HEAD.pack(revision or self.revision, self.term) + tail)

    def index(self, request: Request, index: int, revision: int = 0) -> None:
        self.answer(
            request.rid, Status.OK, READ_INDEX_ANSWER.pack(index, revision or self.revision, self.term)
        )

    def not_leader(self, request: Request, leader: int, term: int) -> None:
        self.answer(request.rid, Status.NOT_LEADER, LEADER.pack(leader, term))

    def watermark(self, revision: int) -> None:
        self.revision = max(self.revision, revision)
        self.answer(0, Status.WATERMARK, messages.SEQUENCE.pack(revision))

    def take(self, method: int | None = None) -> list[Request]:
        """The requests that have come (of one method), removed."""
        taken = [r for r in self.requests if method is None or r.method == method]
        self.requests = [r for r in self.requests if not (method is None or r.method == method)]
        return taken

    def flush(self, now: float) -> None:
        """One frame with everything said."""
        link = self.link
        if self._out and link is not None and not link.closed:
            self._sent += 1
            out, self._out = self._out, []
            link.frame(link.prefix + messages.frame(self._sent, out), now)


class Net:
    """A front's router, its loop and three hosts' nodes; the front runs on host 1. ``nodes``: those of shard
    0."""

    def __init__(
        self, hosts: int = 3, own: int = 1, shards: int = 1, loop: ManualLoop | None = None
    ) -> None:
        self.loop = loop or ManualLoop()
        self.every = {(s, m): FakeNode(m, s) for s in range(shards) for m in range(1, hosts + 1)}
        self.nodes = {m: self.every[0, m] for m in range(1, hosts + 1)}
        peers = tuple(Peer(m, f"h{m}", "127.0.0.1", 1) for m in self.nodes)
        common = Common(
            cluster_id=7,
            member_id=own,
            name="h1",
            shard_count=shards,
            placement_depth=2,
            peers=peers,
            run_dir="/nowhere",
            election_timeout_ms=1000,
        )
        self.settings = FrontSettings(common=common, index=0, listen=())
        self.sessions = 0
        self._connecting: list[Link] = []
        self.router = kind_of(common)(self.loop, common, self._connect)
        self.router.recent.knows = True  # as after a first serializable read
        self.context = Context(self.settings, self.router)
        self.context.listing.stands = True  # as once this host has been seen to list itself

    def _connect(self, receiver: Any, shard: int, member: int) -> Link:
        self.sessions += 1
        node = self.every[shard, member]
        link = Link(receiver, shard, member, self.sessions, b"" if member == 1 else b"F")
        link.seen_at = self.loop.now
        link.near = node.near
        link.attach(node)
        if node.up:
            node.attached(link)
            self._connecting.append(link)
        return link

    def lead(self, leader: int, term: int) -> None:
        """All live nodes agree on a leader."""
        for node in self.every.values():
            node.leader, node.term = leader, term
            if node.up:
                node.say_state()
        self.run()

    def run(self) -> None:
        """Frames and ticks until nobody has anything to say."""
        for _ in range(1000):
            connecting, self._connecting = self._connecting, []
            for link in connecting:
                link.connected(self.settings.common)
            self.loop.run()
            talking = [n for n in self.every.values() if n._out and n.alive]
            if not talking and not self._connecting:
                return
            for node in talking:
                node.flush(self.loop.now)
        raise AssertionError("nodes and front never come to rest")

    def pass_time(self, seconds: float, silent: tuple[int, ...] = ()) -> None:
        """Time passes in sweeps; every node but the silent ones says STATE each 100 ms."""
        for step in range(max(1, round(seconds / SWEEP_S))):
            self.loop.now += SWEEP_S
            if step % 2 == 0:
                for node in self.every.values():
                    if node.alive and node.member not in silent:
                        node.say_state()
            self.run()
            self.router.sweep()
            self.context.tick(self.loop.now)
            self.run()

    def look_again(self) -> None:
        """What was to be called later, for as long as anything is looked for: a second."""
        for _ in range(50):
            later, self.loop.later = self.loop.later, []
            for again in later:
                again()
            self.run()

    def cut(self, member: int, shard: int = 0) -> None:
        """A node's connection breaks."""
        node = self.every[shard, member]
        node.up = False
        if node.link is not None:
            node.link.close("connection lost")
        self.run()

    def started(self, leader: int = 1) -> Net:
        """Links up, a leader known."""
        for node in self.every.values():
            node.leader = leader
        self.pass_time(0.3)
        assert self.router.ready
        return self
