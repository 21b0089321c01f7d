"""What clients are told when the front ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import grpc
import hpack
import pytest

from proxy.grpc.calls import Call
from proxy.grpc.registry import Registry
from proxy.http.http2 import PREFACE
from proxy.http.http2 import frames as f
from tests.unit.grpc.calls.talking import REQUEST
from tests.unit.grpc.harness import Echo, Running, Service, connected, same, serving, wait_for


def test_stopping_answers_what_is_open_and_tells_clients_to_go(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.listener.server._LINGER_S", 60.0)  # a client on a busy machine reads late
    with serving(service.registry) as running, grpc.insecure_channel(running.address) as channel:
        future = channel.unary_unary("/t.S/Park", same, same).future(b"")
        wait_for(lambda: len(service.parked) == 1)
        stopper = threading.Thread(target=running.stop, args=(200,))
        stopper.start()
        wait_for(lambda: service.parked[0].connection.draining)
        running.call(service.parked[0].reply, b"done")
        assert future.result(timeout=60) == b"done"
        stopper.join(100)
        assert not stopper.is_alive(), "nothing is open, so the grace need not pass"
        assert running.call(running.server.statistics)["connections"] == 0


def test_an_answer_that_is_said_in_the_turn_of_the_close_is_sent(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = asyncio.sleep

    async def answers(delay_s: float) -> None:
        """No turn of the loop lies between the answer and the next look whether all is answered."""
        if replies and replies[0].connection.draining:
            replies.pop().reply(b"done")
        else:
            await sleep(delay_s)

    with serving(service.registry) as running, grpc.insecure_channel(running.address) as channel:
        future = channel.unary_unary("/t.S/Park", same, same).future(b"")
        wait_for(lambda: len(service.parked) == 1)
        replies = list(service.parked)
        monkeypatch.setattr("proxy.listener.server.asyncio.sleep", answers)
        monkeypatch.setattr("proxy.listener.server._LINGER_S", 60.0)
        running.stop(200)
        assert future.result(timeout=60) == b"done"


class Slow:
    """An HTTP/2 client that looks at what it was sent only when told to, as one behind a long way does."""

    def __init__(self, running: Running) -> None:
        self.sock = connected(running)
        self.encoder = hpack.Encoder()
        self.sock.sendall(PREFACE + f.settings_frame({}) + f.SETTINGS_ACK)
        self.data = b""
        self.frames: list[tuple[int, int, bytes]] = []  # kind, stream, payload

    def request(self, stream_id: int) -> None:
        block = self.encoder.encode([(":method", "POST"), (":scheme", "http"), (":path", "/t.S/Echo"),
                                     (":authority", "x"),
                                     ("content-type", "application/grpc"), ("te", "trailers")])
        body = b"\0\0\0\0\x02hi"
        self.sock.sendall(f.frame(f.HEADERS, f.END_HEADERS, stream_id, block)
                          + f.frame(f.DATA, f.END_STREAM, stream_id, body))

    def read(
        self, until: Callable[[tuple[int, int, bytes]], bool] = lambda frame: False
    ) -> list[tuple[int, int, bytes]]:
        """Frames until one that is wanted, or the end."""
        while True:
            while len(self.data) >= 9 and len(self.data) >= (
                    size := 9 + int.from_bytes(self.data[:3], "big")):
                found = (self.data[3], int.from_bytes(self.data[5:9], "big"), self.data[9:size])
                self.data = self.data[size:]
                self.frames.append(found)
                if until(found):
                    return self.frames
            piece = self.sock.recv(65536)
            if not piece:
                return self.frames
            self.data += piece


def test_stopping_an_idle_connection_waits_for_its_client_to_know(service: Service) -> None:
    """A request that leaves its client before that has seen GOAWAY is answered, not cut off."""
    with serving(service.registry) as running:
        slow = Slow(running)
        slow.request(1)
        slow.read(lambda frame: frame[0] == f.HEADERS and frame[2][:1] != b"\x88")  # the trailers
        stopper = threading.Thread(target=running.stop, args=(20,))
        stopper.start()
        slow.read(lambda frame: frame[0] == f.PING)
        slow.request(3)
        ping = slow.frames[-1][2]
        slow.sock.sendall(f.frame(f.PING, f.ACK, 0, ping))
        slow.request(5)  # crosses the second GOAWAY
        frames = slow.read()
        slow.sock.close()
        stopper.join(20)
        assert any(kind == f.DATA and stream == 3 and payload.endswith(b"hi")
                   for kind, stream, payload in frames)
        goaways = [int.from_bytes(payload[:4], "big") for kind, _, payload in frames if kind == f.GOAWAY]
        assert goaways[0] == f.MAX_STREAM_ID
        assert goaways[1] in (3, 5)
        assert goaways[1] == 5 or not any(stream == 5 for _, stream, _ in frames)


def test_stopping_does_not_wait_for_ever_for_a_client_that_never_answers(service: Service) -> None:
    with serving(service.registry) as running:
        slow = Slow(running)
        slow.request(1)
        slow.read(lambda frame: frame[0] == f.HEADERS and frame[2][:1] != b"\x88")
        began = time.monotonic()
        running.stop(20)
        assert time.monotonic() - began < 10
        slow.read()
        assert int.from_bytes(slow.frames[-1][2][:4], "big") == 1
        slow.sock.close()


def test_what_is_open_when_the_grace_is_over_is_answered_before_the_connection_ends(service: Service) -> None:
    with serving(service.registry) as running, grpc.insecure_channel(running.address) as channel:
        future = channel.unary_unary("/t.S/Park", same, same).future(b"")
        wait_for(lambda: len(service.parked) == 1)
        stop = running.server.stop(0.1, lambda: service.parked[0].finish(14, "etcdserver: server stopped"))
        asyncio.run_coroutine_threadsafe(stop, running.loop).result(30)
        error = future.exception(timeout=20)
        assert isinstance(error, grpc.RpcError)
        assert error.details() == "etcdserver: server stopped"


def test_stopping_cuts_off_what_outlasts_the_grace(service: Service) -> None:
    with serving(service.registry) as running, grpc.insecure_channel(running.address) as channel:
        future = channel.unary_unary("/t.S/Park", same, same).future(b"")
        wait_for(lambda: len(service.parked) == 1)
        running.stop(0.1)
        error = future.exception(timeout=20)
        assert isinstance(error, grpc.RpcError)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert service.parked[0].closed


def opening(count: int) -> bytes:
    """What a client says that opens so many calls."""
    encoder, fields = hpack.Encoder(), list((REQUEST | {":path": "/a.B/Bidi"}).items())
    return PREFACE + f.settings_frame({}) + b"".join(
        f.header_frames(2 * number + 1, encoder.encode(fields), False) for number in range(count))


def test_very_many_calls_of_a_client_that_breaks_a_rule_and_stays_end_before_it_goes() -> None:
    stream, registry = Echo(), Registry()
    registry.stream("/a.B/Bidi", stream)
    with serving(registry) as running, connected(running) as sock:
        sock.sendall(opening(1000) + f.goaway(0, 0) + f.frame(f.PING, 0, 0, b""))
        wait_for(lambda: stream.log.count("cancelled") == 1000 and not running.server.memory.used)
        assert len(running.server._connections) == 1


def test_a_stop_waits_until_all_calls_of_a_lost_connection_have_ended() -> None:
    class Stops(Echo):
        """The server is told to stop as the first of them ends."""

        def cancelled(self, call: Call) -> None:
            super().cancelled(call)
            if len(self.log) == count + 1:
                asyncio.ensure_future(running.server.stop(0)).add_done_callback(
                    lambda stopped: ended.append((self.log.count("cancelled"), running.server.memory.used)))

    count, ended, stream = 1000, list[tuple[int, int]](), Stops()
    registry = Registry()
    registry.stream("/a.B/Bidi", stream)
    with serving(registry) as running:
        with connected(running) as sock:
            sock.sendall(opening(count))
            wait_for(lambda: len(stream.log) == count)
        wait_for(lambda: len(ended) == 1)
    assert ended == [(count, 0)]
