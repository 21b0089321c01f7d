"""CPU per unary call through ``proxy.http.http2`` and ``proxy.grpc.calls``: ``python -m
tests.unit.grpc.cost``."""

from __future__ import annotations

import time

import hpack

from proxy.grpc.calls import Peer
from proxy.grpc.deadlines import Deadlines
from proxy.grpc.registry import Registry
from proxy.http.http2 import PREFACE, Connection, Limits
from proxy.http.http2 import frames as f

CALLS_PER_READ = 200
READS = 200
REQUEST = [
    (":method", "POST"), (":scheme", "http"), (":path", "/etcdserverpb.KV/Put"),
    (":authority", "127.0.0.1:2379"),
    ("content-type", "application/grpc"), ("user-agent", "grpc-go/1.71.1"), ("te", "trailers"),
]  # fmt: skip


def cost_us(timeouts: bool) -> float:
    """Microseconds of CPU per call, reading, handing over and answering included; the socket is not."""
    registry = Registry()
    answer = bytes(60)
    registry.unary("/etcdserverpb.KV/Put", lambda call, data: call.reply(answer))
    server = Connection(
        registry.open, Limits(), 0.0, lambda: None, Peer("client", Deadlines(lambda when: None))
    )
    server.receive(
        PREFACE + f.settings_frame({f.INITIAL_WINDOW_SIZE: 1 << 30}) + f.window_update(0, 1 << 30), 0.0
    )
    encoder = hpack.Encoder()
    message = b"\0" + (120).to_bytes(4, "big") + bytes(120)
    stream_id = 1
    spent = 0.0
    for _ in range(READS):
        parts = []
        for _ in range(CALLS_PER_READ):
            timeout = [("grpc-timeout", f"{4_000_000 + stream_id}u")] if timeouts else []
            parts += (
                f.header_frames(
                    stream_id, encoder.encode([*REQUEST, *timeout, ("client-api-version", "3.6.0")]), False
                ),
                f.frame(f.DATA, 1, stream_id, message),
            )
            stream_id += 2
        data = b"".join(parts)
        started = time.process_time()
        server.receive(data, 0.0)
        while server.take() or server.more:
            if server.more:
                server.receive(b"", 0.0)
        spent += time.process_time() - started
    assert not server.streams
    return spent / READS / CALLS_PER_READ * 1e6


if __name__ == "__main__":
    print(f"cached header block:        {min(cost_us(False) for _ in range(3)):.2f} us per call")
    print(f"a new grpc-timeout in each: {min(cost_us(True) for _ in range(3)):.2f} us per call")
