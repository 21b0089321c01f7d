"""CPU of a front per watch event and per keep-alive: ``python -m tests.unit.proxy.cost``.

From a node's frame to the bytes for the sockets, HTTP/2 included; sockets and ZeroMQ are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, Method, Status
from cluster.wire.protobuf import key_value
from proxy.grpc.calls import Peer
from proxy.grpc.deadlines import Deadlines
from proxy.grpc.registry import Registry
from proxy.http.http2 import PREFACE, Connection, Limits, encode_block
from proxy.http.http2 import frames as f
from proxy.services import watch
from proxy.services.leases import lease
from tests.events import record
from tests.unit.proxy.fakes import Net

VALUE = bytes(256)


class Fronted:
    """A front with real connections, whose one node answers by hand."""

    def __init__(self, connections: int, path: str) -> None:
        self.net = Net(hosts=1)
        self.net.started(leader=1)
        self.registry = Registry()
        watch.register(self.registry, self.net.context)
        lease.register(self.registry, self.net.context)
        self.connections = [self._connect(path) for _ in range(connections)]

    def _connect(self, path: str) -> Connection:
        peer = Peer("client", Deadlines(lambda when: None))
        limits = Limits()
        made = Connection(self.registry.open, limits, 0.0, lambda: None, peer)
        made.receive(
            PREFACE + f.settings_frame({f.INITIAL_WINDOW_SIZE: 1 << 30}) + f.window_update(0, 1 << 30), 0.0
        )
        block = encode_block([(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()),
                              (b":authority", b"a"), (b"content-type", b"application/grpc")])
        made.receive(f.header_frames(1, block, False), 0.0)
        return made

    def say(self, message: bytes) -> None:
        """Every client sends this."""
        data = f.frame(f.DATA, 0, 1, b"\0" + len(message).to_bytes(4, "big") + message)
        for connection in self.connections:
            connection.receive(data, 0.0)

    def take(self) -> int:
        """Everything that would go to the sockets; the number of bytes."""
        size = 0
        for connection in self.connections:
            while data := connection.take():
                size += len(data)
            for stream in connection.streams.values():  # as if the client gave its windows back
                stream.send_window = 1 << 30
            connection.send_window = 1 << 30
        return size


def fan_out_us(connections: int, watches: int, keys: int, revisions: int, repeats: int = 10) -> float:
    """Microseconds per event delivered: ``watches`` per connection on one key (``keys`` 1) or on a prefix, so
    many revisions a tick."""
    front = Fronted(connections, "/etcdserverpb.Watch/Watch")
    create = rpc_pb2.WatchCreateRequest(key=b"k", range_end=b"l" if keys > 1 else b"")
    for _ in range(watches):
        front.say(rpc_pb2.WatchRequest(create_request=create).SerializeToString())
    front.net.run()
    node = front.net.nodes[1]
    (subscribe,) = node.take(Method.SUBSCRIBE)
    node.answer(subscribe.rid, Status.SUBSCRIBED, (2).to_bytes(8, "little") + bytes(8))
    front.net.run()
    front.take()
    revision = node.revision

    def tick() -> None:
        nonlocal revision
        events = []
        for _ in range(revisions):
            revision += 1
            key = b"k%07d" % (revision % keys) if keys > 1 else b"k"
            events.append((revision, 0, key_value(key, revision, revision, 1, VALUE, 0)))
        node.answer(subscribe.rid, Status.EVENTS, record(events))
        node.watermark(revision)

    def deliver() -> None:
        front.net.run()
        assert front.take() > connections * watches * revisions * len(VALUE)

    return _cost(tick, deliver, repeats) / (connections * watches * revisions)


def keep_alive_us(connections: int) -> float:
    """Microseconds per keep-alive: each connection sends one a tick, the node answers them."""
    front = Fronted(connections, "/etcdserverpb.Lease/LeaseKeepAlive")
    message = rpc_pb2.LeaseKeepAliveRequest(ID=0x1234_5678_9ABC_DEF0).SerializeToString()
    node = front.net.nodes[1]

    def renew() -> None:
        front.say(message)
        front.net.run()
        for request in node.take():
            node.answer(
                request.rid, Status.OK,
                HEAD.pack(1, 1) + (600).to_bytes(8, "little") * (len(request.body) // 8),
            )
        front.net.run()
        assert front.take()

    return _cost(lambda: None, renew, 200) / connections


def _cost(before: Callable[[], None], what: Callable[[], None], repeats: int) -> float:
    """Microseconds of CPU of ``what``, the least of three times so many."""
    best = float("inf")
    for _ in range(3):
        spent = 0.0
        for _ in range(repeats):
            before()
            started = time.process_time()
            what()
            spent += time.process_time() - started
        best = min(best, spent / repeats * 1e6)
    return best


if __name__ == "__main__":
    print(
        f"one key, 100 connections with 100 watches each: "
        f"{fan_out_us(100, 100, 1, 1):.2f} us per event delivered"
    )
    print(
        f"one key, 100 streams with one watch each:       "
        f"{fan_out_us(100, 1, 1, 1, 200):.2f} us per event delivered"
    )
    print(
        f"prefix, 10 streams with 10 watches, 20 a tick:  "
        f"{fan_out_us(10, 10, 1000, 20, 20):.2f} us per event delivered"
    )
    print(f"keep-alive, 100 streams:                        {keep_alive_us(100):.2f} us")
