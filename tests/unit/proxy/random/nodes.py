"""Fake nodes of all shards: what has come to each, what it still owes, and where each marked write came."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.features.auth.principal import named
from cluster.wire.messages import HEAD, Method, Status
from tests.unit.proxy.fakes import FakeNode, Net, Request
from tests.unit.proxy.random.requests import mark_of

FIRST_REVISION = 5
_WRITES = frozenset(map(int, (Method.PUT, Method.TXN, Method.DELETE_RANGE, Method.WIDE, Method.LONE)))
#: Answers that say: certainly not logged, send it elsewhere
_NOT_TAKEN = frozenset(map(int, (Status.NOT_LEADER, Status.ELSEWHERE)))
#: A front expects no answer
_TOLD = frozenset(map(int, (
    Method.CREDIT, Method.CATCH_UP, Method.FAREWELL, Method.PLACED, Method.V2_FOLLOW)))


@dataclass(eq=False)
class Served:
    """A request at a node, until its last answer."""

    nodes: Nodes
    node: FakeNode
    request: Request
    method: int
    body: bytes
    parts: int = 0  # PARTIAL answers so far
    status: int | None = None  # the last one that was answered

    def answer(self, status: int, body: bytes = b"") -> None:
        self.status = status
        self.parts += status == Status.PARTIAL
        self.node.answer(self.request.rid, status, body)

    def ok(self, tail: bytes = b"") -> None:
        self.answer(Status.OK, self.head + tail)

    def error(self, kind: ErrorKind) -> None:
        self.answer(Status.ERROR, EtcdError(kind).encode())

    @property
    def head(self) -> bytes:
        return HEAD.pack(self.node.revision, self.node.term)

    @property
    def taken(self) -> bool:
        """Whether the node may have logged it."""
        return self.status not in _NOT_TAKEN

    @property
    def done(self) -> bool:
        """Whether it may have changed something."""
        return self.status is None or self.status == Status.OK

    def __str__(self) -> str:
        return f"{Method(self.method).name} at {self.node.shard}/{self.node.member}: {self.status}"


class Nodes:
    def __init__(self, random: Random, net: Net, users: bool) -> None:
        self.random = random
        self.net = net
        self.revision = FIRST_REVISION
        self.refusals = [errors.TIMEOUT, errors.TOO_MANY_REQUESTS]
        if users:
            self.refusals += [errors.PERMISSION_DENIED, errors.USER_EMPTY, errors.INVALID_AUTH_TOKEN]
        self.owed: dict[FakeNode, list[Served]] = {}
        self.subscriptions: dict[FakeNode, set[int]] = {}
        self.writes: dict[int, list[Served]] = {}  # by mark: everywhere that it came
        self.term = 1
        self.leader = next(iter(net.nodes.values())).leader
        for node in net.every.values():
            self._follow(node)

    def bear(self, shard: int) -> None:
        """A shard has nodes."""
        for member in self.net.nodes:
            node = FakeNode(member, shard, leader=self.leader, term=self.term)
            self.net.every[shard, member] = node
            self._follow(node)

    def _follow(self, node: FakeNode) -> None:
        node.revision = self.revision
        node.came = partial(self._came, node)
        node.forget = partial(self._forget, node)
        self._forget(node)

    def _forget(self, node: FakeNode) -> None:
        """Another link comes: nothing is owed to the one before."""
        self.owed[node] = []
        self.subscriptions[node] = set()

    def _came(self, node: FakeNode, request: Request) -> None:
        node.requests.clear()
        _, method, body = named(request.method, request.body)
        owed = self.owed[node]
        if method == Method.CANCEL:
            owed[:] = [one for one in owed if one.request.rid != request.rid]
        elif method == Method.UNSUBSCRIBE:
            self.subscriptions[node].discard(request.rid)
            owed[:] = [one for one in owed if one.request.rid != request.rid]
        elif method not in _TOLD:
            served = Served(self, node, request, method, body)
            owed.append(served)
            if method in _WRITES and (mark := mark_of(body)):
                self.writes.setdefault(mark, []).append(served)

    def alive(self) -> Iterator[FakeNode]:
        return (node for node in self.net.every.values() if node.alive)

    # -- faults

    def lose_a_link(self) -> None:
        node = self._any()
        if node.up and node.link is not None:
            node.link.close("connection lost")

    def cut_or_mend(self) -> None:
        node = self._any()
        if node.up:
            self._cut(node)
        else:
            node.up = True

    def cut_a_shard_or_mend(self) -> None:
        """All nodes of a shard are lost to the front; where any node is, all come back."""
        every = self.net.every.values()
        if all(node.up for node in every):
            shard = self._any().shard
            for node in every:
                if node.shard == shard:
                    self._cut(node)
        else:
            for node in every:
                node.up = True

    def _cut(self, node: FakeNode) -> None:
        node.up = False
        if node.link is not None:
            node.link.close("cut")

    def elect(self, leader: int) -> None:
        """0: nobody."""
        self.leader, self.term = leader, self.term + 1
        self.net.lead(leader, self.term)

    def mend(self) -> None:
        for node in self.net.every.values():
            node.up = True
        self.elect(1)

    def _any(self) -> FakeNode:
        return self.random.choice(list(self.net.every.values()))
