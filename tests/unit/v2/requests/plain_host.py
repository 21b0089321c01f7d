"""A front and its own replica in one process, and requests of version 2 to them."""

from __future__ import annotations

import random
import re
from collections import deque
from types import SimpleNamespace
from typing import Any

from cluster.errors import TIMEOUT, EtcdError
from cluster.features.v2.changes import answered, evaluate
from cluster.features.v2.refusals import V2Error
from cluster.features.v2.requests import Op, Write
from cluster.features.v2.tree import KEYS, Tree
from cluster.wire.messages import HEAD, READ, Method, Status
from node.serving.v2 import V2Tree
from proxy.http.http1 import Http1Connection
from proxy.http.http2 import Limits
from proxy.listener.filter import FilteredRegistry
from proxy.v2.endpoints import register_v2
from proxy.v2.traffic import Traffic
from tests.unit.grpc.http1.test_http1_fuzz import Output
from tests.unit.proxy.fakes import Net
from tests.unit.v2.tree.random_writes import NOW_NS, S, random_write

TERM = 3
HOST = b"Host: x\r\n"
FORM = HOST + b"Content-Type: application/x-www-form-urlencoded\r\n"
USUAL = re.compile(rb"Date: [^\r]*|\"ttl\":-?\d+|\"expiration\":\"[^\"]*")  # what time changes


class Near:
    """The node of this process, as ``tools.muster.joined`` shows it."""

    def __init__(self, tree: V2Tree) -> None:
        self.revision = self.order_index = 1
        self.generation = 0
        self.guarded = False
        self.files = 0
        self._tree = tree

    def get(self, key: bytes) -> tuple[int, int, bytes]:
        raise AssertionError("no key of version 3 is read here")

    def v2_file(self, path: bytes, after: int, now_ns: int) -> tuple[int, int, int, bytes] | None:
        found = self._tree.file(path, after, now_ns)
        self.files += found is not None
        return found


class Host:
    """A front and the node of its host in one process, with a tree that some clients have written."""

    def __init__(self, seed: int = 1, *, near: bool = True, plain: bool = True,
                 cors: tuple[str, ...] = ("*",), hosts: tuple[str, ...] = ()) -> None:  # fmt: skip
        self.net = Net(hosts=1).started()
        node = self.net.nodes[1]
        node.term = TERM
        self.writer = Tree(keep_events=False)
        self.state: Any = SimpleNamespace(enabled=False)
        self.node: Any = SimpleNamespace(
            store=SimpleNamespace(feature_rows=lambda _: [], revision=1), raft=SimpleNamespace(term=TERM),
            applied_index=71, guard=SimpleNamespace(state=self.state), loop=self.net.loop,
            patience=SimpleNamespace(hurried=lambda: None), mark_dirty=lambda link: None,
            reads=SimpleNamespace(start=lambda link, rid, work: deque(work, 0)))  # fmt: skip
        self.tree = V2Tree(self.node)
        chance = random.Random(seed)
        for _ in range(40):
            self.write(random_write(chance, self.writer))
        self.set(b"/k", b"b")
        self.set(b"/dir/10.0.0.1:80", b"<&>\n\xff")
        self.set(b"/ends", b"soon", NOW_NS + 10**6 * S)
        self.registry = FilteredRegistry(cors, hosts)
        self.traffic: Traffic = register_v2(self.registry, self.net.context, bytes)
        if not plain:
            self.registry.at_once = self.registry.find_plain = self.registry.take_whole = None
        self.near = Near(self.tree)
        if near:
            link = node.link
            assert link is not None
            link.near = self.near
        self.wrote: list[Write] = []
        self.asked = self.writes = 0  # what came by a frame
        self.fails = False  # writes
        self.now = 0.0
        self.connect()

    def write(self, write: Write) -> None:
        try:
            rows = evaluate(self.writer, write).rows
        except V2Error:
            return
        self.writer.take(rows)
        self.tree.tree.take(rows)

    def set(self, key: bytes, value: bytes, expires_ns: int = 0) -> None:
        self.write(Write(Op.SET, KEYS + key, value, expires_ns=expires_ns, now_ns=NOW_NS))

    def connect(self, limits: Limits | None = None) -> None:
        self.output = Output()
        self.connection = Http1Connection(
            self.registry.find_http, limits or Limits(), self.output, "p", 0.0, self.registry.at_once,
            self.registry.find_plain, self.registry.take_whole)  # fmt: skip

    def pump(self) -> None:
        """The node answers what comes by a frame."""
        self.net.run()
        node = self.net.nodes[1]
        while requests := node.take():
            for request in requests:
                if request.method == Method.V2_READ:
                    self.asked += 1
                    try:
                        self.tree.read(self._link(), request.rid, request.body[READ.size :])
                    except EtcdError as error:
                        node.answer(request.rid, Status.ERROR, error.encode())
                elif request.method == Method.V2_WRITE:
                    self.writes += 1
                    node.answer(request.rid, *self.written(request.body))
                elif request.method == Method.READ_INDEX:
                    node.index(request, self.near.order_index)
            self.net.run()

    def written(self, body: bytes) -> tuple[int, bytes]:
        """What the leader says of a write; its replica has applied it."""
        if self.fails:
            return Status.ERROR, EtcdError(TIMEOUT).encode()
        self.wrote.append(Write.decode(body))
        rows, answer = answered(self.writer, body)
        self.writer.take(rows)
        self.tree.tree.take(rows)
        return Status.OK, HEAD.pack(1, TERM) + answer

    def _link(self) -> Any:
        node = self.net.nodes[1]

        def ok(rid: int, revision: int, term: int, tail: bytes) -> None:
            node.answer(rid, Status.OK, HEAD.pack(revision, term) + tail)

        return SimpleNamespace(ok=ok, answer=node.answer, awaits=lambda rid: True, member_id=1)

    def send(self, *pieces: bytes) -> bytes:
        """What a client gets for what it sends."""
        before = len(self.output.data)
        for piece in pieces:
            self.now += 0.001
            self.connection.receive(piece, self.now)
            self.pump()
        return self.output.data[before:]

    def get(self, key: str, fields: bytes = HOST) -> bytes:
        return self.send(get(key, fields))


def put(key: str, body: bytes, fields: bytes = FORM) -> bytes:
    head = f"PUT /v2/keys{key} HTTP/1.1\r\n".encode() + fields
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def get(key: str, fields: bytes = HOST) -> bytes:
    return f"GET /v2/keys{key} HTTP/1.1\r\n".encode() + fields + b"\r\n"
