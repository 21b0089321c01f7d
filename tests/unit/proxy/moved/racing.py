"""A front over nodes that apply one order, each at its own pace, in which keys move between shards. What a
node shows is said naively (G6); what it answers, by ``node.serving.reads`` (G7)."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

from cluster.errors import EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate.reading.ranges import RangeRead
from cluster.evaluate.view import Current
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_compact, take_move, take_moved, take_shard
from cluster.placement.table import END, Move, State
from cluster.wire.messages import HEAD, Method, Status
from node.links.fronts import FrontLink
from node.serving.reads import Reads
from proxy.services.table import register_all
from tests.unit.proxy.fakes import FakeCall, FakeNode, Net, Request
from tests.unit.proxy.served import Methods
from tests.unit.semantics.memory import MemoryShard, read_all
from tools.muster.joined import NearNode

SHARDS = 3
KEYS = [b"k%02d" % i for i in range(12)]
BOUNDS = [b"\0", *KEYS[::2]]
READS = frozenset(map(int, (Method.RANGE, Method.RANGE_ROWS, Method.READ_TXN)))


class View:
    """What a shard owns, as of an applied revision, or at an older one that is named (``at``)."""

    def __init__(self, node: Node, at: int) -> None:
        self._node = node
        self._at = at
        self.revision = at or node.revision
        self.compact_revision = node.compacted

    def _owns(self, key: bytes, revision: int) -> bool:
        table, shard = self._node.table, self._node.shard
        return (table.owners_at(key, b"", revision) if revision else table.owners(key, b"")) == (shard,)

    def get(self, key: bytes, revision: int = 0) -> bytes | None:
        whole = self._node.order.whole
        return whole.get(key, revision or self.revision) if self._owns(key, revision or self._at) else None

    def current(self, key: bytes) -> Current | None:
        found = MemoryShard()
        found.history[key] = [(1, self.get(key))]
        return found.current(key)

    def scan(
        self, start: bytes, end: bytes, revision: int = 0, look: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        whole = self._node.order.whole
        return (row for row in whole.scan(start, end, revision or self.revision)
                if self._owns(row[0], revision or self._at))

    def count(self, start: bytes, end: bytes) -> int:
        return sum(1 for _ in self.scan(start, end))

    def lease_exists(self, lease: int) -> bool:
        raise AssertionError("nothing is put")

    def lease_keys(self, lease: int) -> list[bytes]:
        raise AssertionError("no lease is revoked")


class Way(FrontLink):
    """A front's link, as its node sees it."""

    def __init__(self, node: FakeNode) -> None:
        super().__init__(b"f", lambda parts: True, b"", 1)
        self.node = node

    def answer(self, rid: int, status: int, body: bytes) -> None:
        if self.alive:
            self.node.answer(rid, status, body)


class Node:
    def __init__(self, order: Order, node: FakeNode) -> None:
        self.order = order
        self.node = node
        self.shard = node.shard
        self.applied = self.compacted = 0
        self.revision = 1
        self.table = order.tables[0]
        loop: Any = SimpleNamespace(time=lambda: order.net.loop.now)
        self.reads = Reads(loop, None, lambda link: None, lambda: self.applied)  # type: ignore[arg-type]
        self.reads.placed(self.table)
        self.link = Way(node)
        node.forget = self.forget
        says = node.say_state

        def say_state() -> None:
            says()
            if self.table.moved:
                node.answer(0, Status.PLACEMENT, self.table.encode())

        node.say_state = say_state  # type: ignore[method-assign]

    def forget(self) -> None:
        self.link.alive = False
        self.link = Way(self.node)

    def apply(self) -> None:
        """The next record."""
        if self.applied == len(self.order.records):
            return
        self.revision, self.compacted, table = self.order.records[self.applied]
        self.applied += 1
        self.node.revision = self.revision
        if table is not self.table:
            self.table = table
            self.reads.placed(table)
            self.node.answer(0, Status.PLACEMENT, table.encode())
        self.reads.waiting.release(self.applied, self.order.net.loop.now)

    def take(self) -> None:
        for request in self.node.take():
            if request.method == Method.PLACED:
                self.link.placed(request.body)
                self.reads.told(self.link)
            elif request.method == Method.READ_INDEX:
                self.node.index(request, len(self.order.records), self.order.whole.revision)
            elif request.method in READS:
                self.read(request)

    def read(self, request: Request) -> None:
        method = request.method

        def serve(link: Any, rid: int, revision: int, body: bytes) -> None:
            if link.alive:  # else its front has gone
                self.serve(rid, method, revision, body)

        self.reads.submit(self.link, request.rid, request.timeout_ms, request.body, serve, method)

    def serve(self, rid: int, method: int, at: int, body: bytes) -> None:
        if method == Method.READ_TXN:
            self.check(at)
            self.ok(rid, evaluate.txn(View(self, at), body, 128).tail)
            return
        asked = pb.RangeRequest.FromString(body)
        at = at or asked.revision
        self.check(at)
        asked.revision = 0
        view = View(self, at)
        if method == Method.RANGE:
            self.ok(rid, read_all(view, RangeRead(asked)))
            return
        read = RangeRead(asked, sized=True)
        rows = list(view.scan(asked.key, asked.range_end))
        if not read.empty:
            read.feed(iter(rows))
            read.add_count(len(rows) - read.count)
        read.end()
        self.ok(rid, b"".join(read.take_sized()))

    def check(self, at: int) -> None:
        if at and at < self.compacted:
            raise EtcdError(evaluate.errors.COMPACTED)
        if at > self.revision:
            raise EtcdError(evaluate.errors.FUTURE_REV)

    def ok(self, rid: int, tail: bytes) -> None:
        self.node.answer(rid, Status.OK, HEAD.pack(self.revision, 1) + tail)


class Beside:
    """The node of shard 0 in the front's process, as far as the front's ``NearNode`` looks at it: as it is
    asked to catch up, it applies what is due, and tells the front at once."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.answered = 0
        self.store, self.reads = node, node.reads
        self.guard = SimpleNamespace(state=SimpleNamespace(enabled=False))
        self.serve = SimpleNamespace(ranges=self, v2=SimpleNamespace(file=None))

    @property
    def order_index(self) -> int:
        return self._node.applied

    def catch_up(self) -> None:
        node = self._node
        while node.applied < len(node.order.records):
            node.apply()
        node.node.flush(node.order.net.loop.now)

    def get(self, key: bytes) -> tuple[int, int, bytes]:
        self.answered += 1
        node = self._node
        return node.revision, 1, read_all(View(node, 0), RangeRead(pb.RangeRequest(key=key)))


def grown_from_one() -> Table:
    """Of a store with one shard at first, and no key in the others yet."""
    table = Table.initial(Base(1, 2))
    for shard in range(1, SHARDS):
        table = take_shard(table, shard, State.FORMING, shard, (1,))
        table = take_shard(table, shard, State.SERVING, shard, ())
    return table


class Order:
    def __init__(self, random: Random, joined: bool = False, grown: bool = False) -> None:
        """``joined``: the front is in the process of its host's node 0. ``grown``: the store had one shard,
        and keys often move back to it."""
        self.random = random
        self.grown = grown
        self.whole = MemoryShard()
        self.tables = [grown_from_one() if grown else Table.initial(Base(SHARDS, 2))]
        self.records: list[tuple[int, int, Table]] = []  # behind each: revision, compaction, table
        self.net = Net(hosts=1, shards=SHARDS)
        if grown:
            self.net.context.follow(self.table)
        self.nodes = {at: Node(self, node) for at, node in self.net.every.items()}
        self.net.started()
        self.methods = Methods()
        register_all(self.methods, self.net.context)
        self.calls: list[Asked] = []
        self.joined = joined
        self.breaks = 0
        self.beside = Beside(self.nodes[0, 1])
        if joined:
            self.net.every[0, 1].near = NearNode(self.beside)  # type: ignore[arg-type]
            self.net.cut(1)
            self.net.every[0, 1].up = True
            self.net.pass_time(3)
            assert self.net.router.ready

    @property
    def table(self) -> Table:
        return self.tables[-1]

    def record(self, table: Table | None = None) -> None:
        if table is not None:
            self.tables.append(table)
        self.records.append((self.whole.revision, self.whole.compact_revision, self.table))

    def write(self) -> None:
        key = self.random.choice(KEYS)
        body = pb.PutRequest(key=key, value=b"at %d" % self.whole.revision).SerializeToString()
        self.whole.execute(Method.PUT, body)
        self.record()

    def compact(self) -> None:
        revision = self.random.randint(max(self.whole.compact_revision, 1), self.whole.revision)
        if revision > self.whole.compact_revision:
            self.whole.compact_revision = revision
            self.record(take_compact(self.table, revision))

    def _span(self) -> tuple[bytes, bytes, int]:
        """That may move, and whereto."""
        away = [span for span in self.table.spans if span.owner]
        if self.grown and away and self.random.random() < 0.7:
            span = self.random.choice(away)
            return span.start, span.end, 0
        start = self.random.choice(BOUNDS)
        end = self.random.choice([*BOUNDS, END, start + b"\0"])
        return start, end, self.random.randrange(SHARDS)

    def move(self) -> bool:
        start, end, target = self._span()
        if end != END and end <= start:
            return False
        owners = self.table.owners(start, b"" if end == start + b"\0" else end)
        move = Move(self.table.last_move + 1, start, end, owners, target)
        try:
            begun = take_move(self.table, move, self.whole.revision)
        except AssertionError:
            return False  # G11
        self.record(begun)
        self.record(take_moved(begun, Moved(move.number, True, self.whole.revision, 0), self.whole.revision))
        return True

    def ask(self) -> None:
        random = self.random
        if self.joined and random.random() < 0.6:  # what the node in this process may answer
            plain = pb.RangeRequest(key=random.choice(KEYS), serializable=random.random() < 0.4)
            self.calls.append(Asked(self, "Range", plain))
            return
        start, end = sorted(random.sample(KEYS, 2))
        end = random.choice((b"", end, b"\0"))
        revision = random.choice((0, 0, random.randint(1, self.whole.revision)))
        request = pb.RangeRequest(
            key=start, range_end=end, revision=revision, serializable=random.random() < 0.4,
            limit=random.choice((0, 0, 3)), sort_order=random.choice((0, 0, 2)))  # type: ignore[arg-type]
        if random.random() < 0.3:
            other = pb.RangeRequest(key=random.choice(KEYS), serializable=request.serializable)
            self.calls.append(Asked(self, "Txn", pb.TxnRequest(success=[
                pb.RequestOp(request_range=request), pb.RequestOp(request_range=other)])))
        else:
            self.calls.append(Asked(self, "Range", request))

    def step(self) -> None:
        doing = self.random.choice(
            ("write", "write", "move", "ask", "ask", "apply", "apply", "apply", "take", "take", "run", "time",
             "compact", "break"))
        node = self.random.choice(list(self.nodes.values()))
        if doing == "write":
            self.write()
        elif doing == "move" and self.random.random() < 0.5:
            any(self.move() for _ in range(10))
        elif doing == "ask":
            self.ask()
        elif doing == "apply":
            for _ in range(self.random.choice((1, 1, 5))):
                node.apply()
        elif doing == "take":
            node.take()
        elif doing == "run":
            self.net.run()
        elif doing == "time":
            self.pass_time()
        elif doing == "break" and self.random.random() < 0.5:
            if (link := node.node.link) is not None and not link.closed:
                self.breaks += 1
                link.close("connection lost")
        elif doing == "compact" and self.random.random() < 0.4:
            self.compact()

    def pass_time(self) -> None:
        """What was to be called later, too: frames of busy links."""
        later, self.net.loop.later = self.net.loop.later, []
        for callback in later:
            callback()
        self.net.pass_time(0.1)

    def finish(self) -> None:
        for _ in range(60):
            for node in self.nodes.values():
                while node.applied < len(self.records):
                    node.apply()
                node.take()
            self.pass_time()
        for asked in self.calls:
            asked.check()


class Asked:
    """A client's read."""

    def __init__(self, order: Order, method: str, request: Any) -> None:
        self.order = order
        self.request = request
        self.since = order.whole.revision
        self.call = FakeCall()
        order.methods.handlers[method](self.call, request.SerializeToString())

    def check(self) -> None:
        call, request = self.call, self.request
        assert call.status is not None, request
        single = isinstance(request, pb.RangeRequest)
        ops = [request] if single else [op.request_range for op in request.success]
        if not call.replies:
            if self.order.breaks and "timed out" in call.status[1]:
                return  # no other host has a replica
            if ops[0].serializable and "future" in call.status[1]:
                assert any(op.revision > 1 for op in ops), "a replica may be behind what is named"
                return
            assert "compacted" in call.status[1], call.status
            assert any(0 < op.revision < self.order.whole.compact_revision for op in ops)
            return
        if single:
            answer = pb.RangeResponse.FromString(call.replies[0])
            found, revision = [answer], answer.header.revision
        else:
            whole = pb.TxnResponse.FromString(call.replies[0])
            found, revision = [one.response_range for one in whole.responses], whole.header.revision
        if not ops[0].serializable:
            assert revision >= self.since, "linearizable"
        for op, answer in zip(ops, found, strict=True):
            plain = pb.RangeRequest()
            plain.CopyFrom(op)
            plain.revision = op.revision or revision
            model = SimpleNamespace(
                revision=self.order.whole.revision, compact_revision=0, scan=self.order.whole.scan,
                get=self.order.whole.get)
            wanted = pb.RangeResponse.FromString(read_all(model, RangeRead(plain)))  # type: ignore[arg-type]
            assert (list(answer.kvs), answer.count, answer.more) == (
                list(wanted.kvs), wanted.count, wanted.more), (plain, revision)


