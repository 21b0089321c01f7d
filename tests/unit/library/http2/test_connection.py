"""A connection beside a server by ``h2``, and one that sends whatever bytes it likes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from muster_client import Client
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire import connections
from muster_client.wire.http2 import connection as module
from muster_client.wire.http2 import frames
from muster_client.wire.http2.answers import NOT_SENT, CallError
from muster_client.wire.http2.call import CREDIT
from muster_client.wire.http2.dialing import DialError, dial

from tests.unit.library.http2.servers import (
    HEAD,
    LIMIT_S,
    PATH,
    WELL,
    Code,
    Server,
    asked,
    connected,
    echo,
    head,
    listening,
    run,
    saying,
)
from tests.unit.library.scripted import until


def test_calls_at_once_get_their_own_answers() -> None:
    async def main() -> None:
        async with connected(echo) as (line, server):
            bodies = [
                b"", b"a", b"x" * 16_379, b"y" * 16_380, b"z" * 300_000, *(b"%d" % n for n in range(100))]
            assert await asyncio.gather(*(asked(line, body) for body in bodies)) == bodies
            [request] = {tuple(event.headers)[-1] for event in server.seen(h2.events.RequestReceived)}
            assert request == ("grpc-timeout", "20000m")
            assert not line._calls
            assert not line._bodies

    run(main)


@pytest.mark.parametrize("window", [0, 100, 1000, 70_000])
def test_a_large_request_keeps_to_the_windows(window: int) -> None:
    """h2 ends a connection that sends too much."""

    async def main() -> None:
        settings = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        async with connected(echo, settings) as (line, server):
            asking = asyncio.create_task(asked(line, b"x" * 200_000))
            await server.until(lambda: server.seen(h2.events.RequestReceived))
            if not window:
                server.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 5000})
                server.flush()
            assert await asking == b"x" * 200_000

    run(main)


def holding(held: list[int]) -> Callable[[Server, Any], None]:
    """Requests that have come wait there for an answer."""
    def on(server: Server, event: Any) -> None:
        if isinstance(event, h2.events.StreamEnded):
            held.append(event.stream_id)

    return on


def test_calls_wait_for_others_to_end() -> None:
    async def main() -> None:
        held: list[int] = []
        settings = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 2}
        async with connected(holding(held), settings) as (line, server):
            asking = [asyncio.create_task(asked(line, b"%d" % n)) for n in range(3)]
            await server.until(lambda: len(held) == 2)
            with pytest.raises(CallError, match=f"UNAVAILABLE: {NOT_SENT}"):
                await asked(line, b"late", 0.05)
            for _ in range(3):
                await server.until(lambda: held)
                server.answer(held.pop(0), b"")
                server.flush()
            assert await asyncio.gather(*asking) == [b""] * 3

    run(main)


def test_calls_leave_streams_to_renewals_of_leases() -> None:
    """One that was free went to the next call: renewals, which wait for none, were refused."""
    async def main() -> None:
        held: list[int] = []
        settings = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 8}
        async with connected(holding(held), settings) as (line, server):
            asking = [asyncio.create_task(asked(line, b"%d" % n)) for n in range(12)]
            for _ in range(12):
                await server.until(lambda: held)
                server.answer(held.pop(0), b"")
                server.flush()
                line.stream(PATH, None, ()).cancel()
            assert await asyncio.gather(*asking) == [b""] * 12

    run(main)


def test_what_waits_is_not_sent_once_it_is_cancelled_or_cannot_be() -> None:
    async def main() -> None:
        paths: list[str] = []
        held: list[int] = []

        def on(server: Server, event: Any) -> None:
            if isinstance(event, h2.events.StreamEnded):
                held.append(event.stream_id)
            elif isinstance(event, h2.events.RequestReceived):
                paths.append(dict(event.headers)[":path"])

        settings = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1}
        async with connected(on, settings) as (line, server):
            told: dict[str, CallError | None] = {}

            def ask(path: str, metadata: Any = ()) -> Any:
                return line.unary(path, b"", 20, metadata, lambda error, body: told.update({path: error}))

            ask("/first")
            await server.until(lambda: held)
            line.cancel(ask("/given/up"))
            ask("/too/large", (("x", "y" * 20_000),))
            later = ask("/later")
            ask("/last")
            for _ in range(2):
                server.answer(held.pop(0), b"")
                server.flush()
                await server.until(lambda: held)
                if paths[-1] == "/later":
                    line.cancel(later)
                    held.clear()
                    await server.until(lambda: held)
                    break
            server.answer(held.pop(0), b"")
            server.flush()
            async with asyncio.timeout(LIMIT_S):
                while "/last" not in told:
                    await asyncio.sleep(0.01)
            assert paths == ["/first", "/later", "/last"]
            assert (told["/first"], told["/last"]) == (None, None)
            assert str(told["/too/large"]).startswith("INTERNAL")
            assert told.keys() == {"/first", "/last", "/too/large"}

    run(main)


def test_a_deadline_ends_the_call_at_the_server_too() -> None:
    async def main() -> None:
        async with connected(lambda server, event: None) as (line, server):
            with pytest.raises(CallError) as met:
                await asked(line, b"a", 0.05)
            assert met.value.code is Code.DEADLINE_EXCEEDED
            await server.until(lambda: server.seen(h2.events.StreamReset))

    run(main)


@pytest.mark.parametrize(("code", "prefix", "expected"), [
    (frames.REFUSED_STREAM, NOT_SENT, Code.UNAVAILABLE), (frames.CANCEL, "", Code.CANCELLED),
    (2, "", Code.INTERNAL),
])
def test_a_stream_that_is_reset(code: int, prefix: str, expected: grpc.StatusCode) -> None:
    def on(server: Server, event: Any) -> None:
        if isinstance(event, h2.events.StreamEnded):
            server.h2.reset_stream(event.stream_id, code)

    async def main() -> None:
        async with connected(on) as (line, _):
            with pytest.raises(CallError) as met:
                await asked(line, b"a")
            assert met.value.code is expected
            assert met.value.details.startswith(f"{prefix}the server reset")

    run(main)


def test_what_a_server_that_goes_away_has_not_seen_is_told_so() -> None:
    async def main() -> None:
        ended: list[int] = []

        def on(server: Server, event: Any) -> None:
            if isinstance(event, h2.events.StreamEnded):
                ended.append(event.stream_id)
                if len(ended) == 2:
                    assert server.writer is not None
                    # by hand: h2 sends no more on a connection of which it said so
                    server.writer.write(frames.frame(frames.GOAWAY, 0, 0, struct.pack(">II", 1, 0) + b"bye"))
                    server.answer(1, b"well")

        async with connected(on) as (line, _):
            first, second = asyncio.create_task(asked(line, b"a")), asyncio.create_task(asked(line, b"b"))
            with pytest.raises(CallError, match=f"UNAVAILABLE: {NOT_SENT}the server goes away.*bye"):
                await second
            assert await first == b"well"
            with pytest.raises(CallError, match=NOT_SENT):
                await asked(line, b"c")
            with pytest.raises(CallError, match=NOT_SENT):
                line.stream(PATH, pb.PutResponse, ())

    run(main)


@pytest.mark.parametrize("serves", [True, False])
def test_the_next_connection_waits_only_behind_one_that_served_nothing(
    serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short it was: proxies end each in order, behind so many calls."""
    pauses: list[int] = []

    def pause(failures: int) -> float:
        pauses.append(failures)
        return 0.0

    def goes_away(server: Server, event: Any) -> None:
        if serves and isinstance(event, h2.events.StreamEnded):
            server.answer(event.stream_id, b"")
        elif serves or not isinstance(event, h2.events.SettingsAcknowledged):
            return
        server.flush()
        assert server.writer is not None  # by hand, as above
        server.writer.write(frames.frame(frames.GOAWAY, 0, 0, struct.pack(">II", 1 if serves else 0, 0)))

    servers: list[Server] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        servers.append(Server(goes_away, {}))
        await servers[-1].serve(reader, writer)

    async def main() -> None:
        listener = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with listener, Client(f"127.0.0.1:{port}", timeout=LIMIT_S) as client:
            if serves:
                for _ in range(5):
                    await client.put("a", "b")
            else:
                asking = asyncio.create_task(client.put("a", "b"))
                await until(lambda: len(pauses) > 3)
                asking.cancel()
        for server in servers:
            await server.ended.wait()

    monkeypatch.setattr(connections, "pause_s", pause)
    monkeypatch.setattr(connections, "_LONGEST_PAUSE_S", LIMIT_S)  # none is old, however busy the machine is
    run(main)
    assert pauses[:4] == ([] if serves else [1, 2, 3, 4])


def test_statuses_and_other_answers() -> None:
    answers: dict[bytes, tuple[list[tuple[str, str]], Code, str]] = {
        b"a": ([*HEAD, ("grpc-status", "5"), ("grpc-message", "no %C3%A4")], Code.NOT_FOUND, "no ä"),
        b"b": ([(":status", "503")], Code.UNAVAILABLE, "HTTP status 503"),
        b"c": ([HEAD[0], ("content-type", "text/html")], Code.UNKNOWN, "no gRPC: content-type text/html"),
        b"d": (HEAD, Code.INTERNAL, "the answer has no grpc-status"),
        b"e": ([*HEAD, ("grpc-status", "0")], Code.INTERNAL, "the answer is no message, or more than one"),
        b"f": ([*HEAD, ("grpc-status", "99")], Code.UNKNOWN, ""),
    }

    def on(server: Server, event: Any) -> None:
        if isinstance(event, h2.events.DataReceived):
            server.h2.send_headers(event.stream_id, answers[event.data[5:]][0], end_stream=True)

    async def main() -> None:
        async with connected(on) as (line, _):
            for _ in range(2):  # decoded, and looked up
                for body, (_, code, details) in answers.items():
                    with pytest.raises(CallError) as met:
                        await asked(line, body)
                    assert (met.value.code, met.value.details) == (code, details)

    run(main)


def test_a_server_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_S", 0.05)
    monkeypatch.setattr(module, "PONG_S", 3.0)

    async def main() -> None:
        async with connected(lambda server, event: None) as (line, server):
            answered = asyncio.create_task(asked(line, b"a"))
            await server.until(lambda: len(server.seen(h2.events.PingReceived)) > 2)  # and answered
            assert not line.lost
            assert line._transport is not None
            reading = server.h2
            server.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
            server.h2.receive_data = lambda data: []  # type: ignore[method-assign]
            with pytest.raises(CallError, match="UNAVAILABLE: it does not answer"):
                await answered
            assert reading is not server.h2

    run(main)


def test_what_is_not_read_waits_at_the_server() -> None:
    """And a message that is larger than the window comes through."""

    async def main() -> None:
        large = pb.WatchResponse(cancel_reason="x" * (3 * CREDIT)).SerializeToString()
        small = pb.WatchResponse(cancel_reason="y" * 1000).SerializeToString()
        data = b"".join(struct.pack(">BI", 0, len(one)) + one for one in [large, *[small] * 4000])
        sent = 0

        def on(server: Server, event: Any) -> None:
            nonlocal sent
            if isinstance(event, h2.events.RequestReceived):
                server.h2.send_headers(event.stream_id, HEAD)
            if not server.seen(h2.events.RequestReceived):
                return
            while sent < len(data) and (room := min(16_384, server.h2.local_flow_control_window(1))):
                server.h2.send_data(1, data[sent : sent + room])
                sent += len(data[sent : sent + room])
            if sent == len(data):
                server.h2.send_headers(1, WELL, end_stream=True)
                sent += 1

        async with connected(on) as (line, server):
            call = line.stream("/etcdserverpb.Watch/Watch", pb.WatchResponse, ())
            call.send(pb.WatchRequest())
            assert len((await call.read()).cancel_reason) == 3 * CREDIT
            await server.until(lambda: server.h2.local_flow_control_window(1) == 0)
            assert sent <= len(large) + 2 * CREDIT
            count = 0
            while (answer := await call.read()) is not None:
                assert len(answer.cancel_reason) == 1000
                count += 1
            assert count == 4000

    run(main)


def test_a_stream_that_is_left_is_reset() -> None:
    async def main() -> None:
        async with connected(lambda server, event: None) as (line, server):
            call = line.stream(PATH, pb.PutResponse, ())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call.read(), 0.01)
            call.cancel()
            with pytest.raises(CallError, match="cancelled here"):
                await call.read()
            await server.until(lambda: server.seen(h2.events.StreamReset))

    run(main)


ANSWER = b"\x88\x5f\x10application/grpc"
TRAILERS = b"\x00\x0bgrpc-status\x010"
MESSAGE = struct.pack(">BI", 0, 3) + b"abc"
WHOLE = (
    head(frames.HEADERS, 4, 1, ANSWER) + head(frames.DATA, 0, 1, MESSAGE)
    + head(frames.HEADERS, 5, 1, TRAILERS))
ODD = (
    head(frames.HEADERS, 0, 1, ANSWER[:3]) + head(frames.CONTINUATION, 0, 1, ANSWER[3:5])
    + head(frames.CONTINUATION, 4, 1, ANSWER[5:]) + head(frames.DATA, 8, 1, b"\x02" + MESSAGE[:6] + b"\0\0")
    + head(99, 7, 1, b"unknown") + head(frames.PRIORITY, 0, 1, bytes(5))
    + head(frames.DATA, 0, 1, MESSAGE[6:])
    + head(frames.WINDOW_UPDATE, 0, 7, struct.pack(">I", 5)) + head(frames.RST_STREAM, 0, 9, bytes(4))
    + head(frames.HEADERS, 0x2C | 1, 1, b"\x03" + bytes(5) + TRAILERS + bytes(3))
)  # fmt: skip
EARLY = head(frames.HEADERS, 4, 1, b"\x08\x03103") + WHOLE  # a proxy says before that it will come


@pytest.mark.parametrize("answer", [WHOLE, ODD, EARLY], ids=["plain", "odd", "early"])
def test_an_answer_in_any_pieces(answer: bytes) -> None:
    async def main() -> None:
        for cut in range(1, len(answer)):
            async with saying(answer[:cut], answer[cut:]) as line:
                assert await asked(line, b"x") == b"abc"
        async with saying(*(answer[n : n + 1] for n in range(len(answer)))) as line:
            assert await asked(line, b"x") == b"abc"

    run(main)


@pytest.mark.parametrize("said", [
    head(frames.PUSH_PROMISE, 4, 1, bytes(4)),
    struct.pack(">IBI", (1 << 24) - 256 | frames.DATA, 0, 1),
    head(frames.CONTINUATION, 4, 1, b""),
    head(frames.HEADERS, 0, 1, ANSWER) + head(frames.DATA, 0, 1, b""),
    head(frames.HEADERS, 0, 1, ANSWER) + WHOLE,
    head(frames.HEADERS, 0x2C, 1, b"\x00"),
    head(frames.DATA, 8, 1, b"\x05abc"),
    head(frames.WINDOW_UPDATE, 0, 0, b"abc"),
    head(frames.GOAWAY, 0, 0, b"abc"),
    head(frames.SETTINGS, 0, 0, b"abc"),
    head(frames.HEADERS, 4, 1, b"\xff\xff\xff\xff\xff\x7f"),
])  # fmt: skip
def test_a_server_that_breaks_the_rules_is_left(said: bytes) -> None:
    async def main() -> None:
        async with saying(said) as line:
            with pytest.raises(CallError, match="INTERNAL: it broke HTTP/2"):
                await asked(line, b"x")
            assert line.lost

    run(main)


@pytest.mark.parametrize(("said", "why"), [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/2"), (b"", "ended")])
def test_a_server_of_something_else(said: bytes, why: str) -> None:
    async def main() -> None:
        async with listening(said, asked=False) as endpoint:
            with pytest.raises(DialError, match=why):
                await dial(endpoint, lambda: None)

    run(main)
