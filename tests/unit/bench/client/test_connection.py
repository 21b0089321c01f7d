"""The client against a real etcd, and against a scripted server for what etcd never does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import h2.settings
import pytest
import uvloop

from bench.client import Client, Connection, RpcError, Status, parse_endpoint
from bench.systems.systems import System
from cluster.pb import rpc_pb2 as pb
from tests.unit.bench.conftest import ScriptedServer

PUT = "/etcdserverpb.KV/Put"
RANGE = "/etcdserverpb.KV/Range"
KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
WATCH = "/etcdserverpb.Watch/Watch"
T = TypeVar("T")


def with_client(system: System, work: Callable[[Client], Awaitable[T]]) -> T:
    async def run() -> T:
        client = await Client.open([parse_endpoint(e) for e in system.endpoints], 1)
        try:
            return await work(client)
        finally:
            await client.close()

    return uvloop.run(run())


def with_server(server: ScriptedServer, work: Callable[[Connection], Awaitable[T]]) -> T:
    async def run() -> T:
        port = await server.start()
        connection = await Connection.open("127.0.0.1", port)
        try:
            async with asyncio.timeout(60):
                return await work(connection)
        finally:
            connection.close()
            await server.stop()

    return asyncio.run(run())


async def calls(
    connection: Connection, bodies: list[bytes], path: str = PUT
) -> list[tuple[RpcError | None, bytes]]:
    """Make all calls at once and wait for all answers; fails on an answer too many."""
    answers: dict[int, tuple[RpcError | None, bytes]] = {}
    done = asyncio.get_running_loop().create_future()

    def answered(place: int, error: RpcError | None, body: bytes) -> None:
        assert place not in answers
        answers[place] = error, body
        if len(answers) == len(bodies):
            done.set_result(None)

    for place, body in enumerate(bodies):
        connection.call(path, body, lambda e, b, place=place: answered(place, e, b))
    async with asyncio.timeout(60):
        await done
    return [answers[i] for i in range(len(bodies))]


def test_a_unary_call_returns_the_servers_message(etcd: System) -> None:
    async def work(client: Client) -> pb.RangeResponse:
        await client.unary(PUT, pb.PutRequest(key=b"unary", value=b"there"), pb.PutResponse)
        return await client.unary(RANGE, pb.RangeRequest(key=b"unary"), pb.RangeResponse)

    answer = with_client(etcd, work)
    assert [(kv.key, kv.value) for kv in answer.kvs] == [(b"unary", b"there")]
    assert answer.header.revision >= 2


def test_errors_carry_code_and_text_of_the_server(etcd: System) -> None:
    async def work(client: Client) -> list[RpcError]:
        found = []
        for path, request in ((PUT, pb.PutRequest(value=b"x")), (PUT, pb.PutRequest(key=b"k", lease=12345)),
                              ("/etcdserverpb.KV/Nothing", pb.PutRequest())):
            with pytest.raises(RpcError) as caught:
                await client.unary(path, request, pb.PutResponse)
            found.append(caught.value)
        return found

    empty, lease, nothing = with_client(etcd, work)
    assert (empty.code, empty.message) == (Status.INVALID_ARGUMENT, "etcdserver: key is not provided")
    assert (lease.code, lease.message) == (Status.NOT_FOUND, "etcdserver: requested lease not found")
    assert nothing.code == Status.UNIMPLEMENTED
    assert str(empty) == "INVALID_ARGUMENT: etcdserver: key is not provided"


def test_each_of_1000_calls_at_once_on_one_connection_gets_its_own_answer(etcd: System) -> None:
    async def work(client: Client) -> list[bytes]:
        connection = client.connections[0]
        puts = [pb.PutRequest(key=b"many/%04d" % i, value=b"%d" % i).SerializeToString() for i in range(1000)]
        assert all(error is None for error, _ in await calls(connection, puts))
        gets = [pb.RangeRequest(key=b"many/%04d" % i).SerializeToString() for i in range(1000)]
        found = await calls(connection, gets, RANGE)
        assert connection.open_calls == 0
        return [pb.RangeResponse.FromString(body).kvs[0].value for _, body in found]

    assert with_client(etcd, work) == [b"%d" % i for i in range(1000)]


def test_messages_beyond_every_window_pass_both_ways(etcd: System) -> None:
    value = bytes(range(256)) * 5_000  # 1.28 MB: many times the 64 KiB windows and 16 KiB frames

    async def work(client: Client) -> list[bytes]:
        connection = client.connections[0]
        puts = [pb.PutRequest(key=b"big/%d" % i, value=value[i:]).SerializeToString() for i in range(5)]
        assert [error for error, _ in await calls(connection, puts)] == [None] * 5
        ((error, body),) = await calls(
            connection, [pb.RangeRequest(key=b"big/", range_end=b"big0").SerializeToString()], RANGE
        )
        assert error is None
        return [kv.value for kv in pb.RangeResponse.FromString(body).kvs]

    assert with_client(etcd, work) == [value[i:] for i in range(5)]


def test_a_request_above_the_servers_limit_fails_alone(etcd: System) -> None:
    async def work(client: Client) -> tuple[Any, ...]:
        small = pb.PutRequest(key=b"small").SerializeToString()
        large = pb.PutRequest(key=b"large", value=bytes(1_600_000)).SerializeToString()
        return tuple(error for error, _ in await calls(client.connections[0], [small, large, small]))

    first, large, last = with_client(etcd, work)
    assert first is None
    assert last is None
    assert (large.code, large.message) == (Status.INVALID_ARGUMENT, "etcdserver: request is too large")


def test_a_watch_stream_brings_its_messages_in_order(etcd: System) -> None:
    async def work(client: Client) -> list[bytes]:
        events: list[bytes] = []
        created, enough = asyncio.Event(), asyncio.Event()

        def ended(error: RpcError | None) -> None:
            raise AssertionError(f"ended with {error}")

        def message(body: bytes) -> None:
            response = pb.WatchResponse.FromString(body)
            if response.created:
                created.set()
            events.extend(event.kv.value for event in response.events)
            if len(events) == 50:
                enough.set()

        stream = client.connections[0].stream(WATCH, message, ended)
        stream.send(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"watched")).SerializeToString())
        async with asyncio.timeout(60):
            await created.wait()
            for i in range(50):
                await client.unary(PUT, pb.PutRequest(key=b"watched", value=b"%d" % i), pb.PutResponse)
            await enough.wait()
        stream.cancel()
        return events

    assert with_client(etcd, work) == [b"%d" % i for i in range(50)]


def test_a_stream_ends_with_ok_once_this_side_has_closed_it(etcd: System) -> None:
    async def work(client: Client) -> tuple[list[bytes], RpcError | None]:
        answers: list[bytes] = []
        ended = asyncio.get_running_loop().create_future()
        stream = client.connections[0].stream(KEEP_ALIVE, answers.append, ended.set_result)
        stream.send(pb.LeaseKeepAliveRequest(ID=404).SerializeToString())
        stream.close_send()
        stream.send(b"dropped")
        async with asyncio.timeout(60):
            return answers, await ended

    (answer,), error = with_client(etcd, work)
    assert pb.LeaseKeepAliveResponse.FromString(answer).TTL == 0
    assert error is None


def test_a_cancelled_call_and_stream_say_nothing_more_and_leave_the_connection_working(etcd: System) -> None:
    async def work(client: Client) -> None:
        connection = client.connections[0]

        def never(*_: object) -> None:
            raise AssertionError("called after cancel")

        call = connection.call(PUT, pb.PutRequest(key=b"cancelled").SerializeToString(), never)
        stream = connection.stream(WATCH, never, never)
        stream.send(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"w")).SerializeToString())
        connection.cancel(call)
        stream.cancel()
        assert connection.open_calls == 0
        for _ in range(20):
            await client.unary(PUT, pb.PutRequest(key=b"after"), pb.PutResponse)

    with_client(etcd, work)


def test_a_killed_server_answers_every_open_call_with_unavailable_and_refuses_later_ones_unsent(
        own_etcd: System) -> None:
    async def work(client: Client) -> tuple[list[RpcError | None], RpcError | None]:
        connection = client.connections[0]
        own_etcd.processes[0].send_signal(signal.SIGSTOP)
        waiting = asyncio.ensure_future(
            calls(connection, [pb.PutRequest(key=b"k").SerializeToString()] * 100))
        await asyncio.sleep(0)
        own_etcd.processes[0].kill()
        open_ones = [error for error, _ in await waiting]
        (later, _), = await calls(connection, [b""])
        return open_ones, later

    open_ones, later = with_client(own_etcd, work)
    assert {error.code for error in open_ones if error} == {Status.UNAVAILABLE}
    assert len([error for error in open_ones if error]) == 100
    assert later is not None
    assert (later.code, later.sent) == (Status.UNAVAILABLE, False)


def test_opening_fails_where_nobody_listens_and_where_nobody_answers() -> None:
    async def run() -> None:
        with pytest.raises(OSError, match="111"):
            await Connection.open("127.0.0.1", 1)
        accepted: list[asyncio.StreamWriter] = []
        silent = await asyncio.start_server(lambda r, w: accepted.append(w), "127.0.0.1", 0)
        try:
            with pytest.raises(TimeoutError):
                await Connection.open("127.0.0.1", silent.sockets[0].getsockname()[1], timeout_s=0.1)
        finally:
            silent.close()
            for writer in accepted:
                writer.close()
            await silent.wait_closed()

    asyncio.run(run())


class LimitedServer(ScriptedServer):
    """At most three calls at once, in windows of 1000 bytes, answered only when it must."""

    settings = {
        h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 3,
        h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000,
    }

    def __init__(self) -> None:
        super().__init__()
        self._held: list[tuple[int, bytes]] = []

    def request(self, stream_id: int, body: bytes) -> None:
        self._held.append((stream_id, body))
        if len(self._held) == 3:
            for held in reversed(self._held):
                self.answer(*held)
            self._held.clear()


def test_the_servers_stream_limit_and_small_windows_are_kept() -> None:
    server = LimitedServer()
    bodies = [b"%02d" % i * 2000 for i in range(30)]
    answers = with_server(server, lambda connection: calls(connection, bodies))
    assert [body for error, body in answers if error is None] == bodies
    assert server.most_open == 3


class OddServer(ScriptedServer):
    """Pings, pads its data and sends trailers so long that they need CONTINUATION frames."""

    def request(self, stream_id: int, body: bytes) -> None:
        self.h2.ping(b"12345678")
        self.answer(stream_id, body, pad=100, trailers=(("long", f"{stream_id}" * 40_000),))


def test_padding_continuations_and_pings_are_understood() -> None:
    server = OddServer()
    answers = with_server(server, lambda connection: calls(connection, [b"one", b"two", b"three"]))
    assert answers == [(None, b"one"), (None, b"two"), (None, b"three")]
    assert server.pings_answered >= 1


class LeavingServer(ScriptedServer):
    """Takes four calls, then goes away: the first two are answered, the others were not seen."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[tuple[int, bytes]] = []

    def request(self, stream_id: int, body: bytes) -> None:
        self._seen.append((stream_id, body))
        if len(self._seen) == 4:
            frame_head = (8).to_bytes(3, "big") + b"\x07\x00" + bytes(4)
            # h2 would close at once
            self.writer.write(frame_head + self._seen[1][0].to_bytes(4, "big") + bytes(4))
            for seen in self._seen[:2]:
                self.answer(*seen)


def test_goaway_lets_older_calls_finish_and_says_which_were_not_seen() -> None:
    lost: list[RpcError] = []

    async def work(connection: Connection) -> list[tuple[RpcError | None, bytes]]:
        connection._on_lost = lambda _, error: lost.append(error)
        answers = await calls(connection, [b"1", b"2", b"3", b"4"])
        while connection._transport is not None:  # closed by this side once the last answer was there
            await asyncio.sleep(0.01)
        return answers

    answers = with_server(LeavingServer(), work)
    assert answers[:2] == [(None, b"1"), (None, b"2")]
    assert [(e.code, e.sent) for e, _ in answers[2:] if e] == [(Status.UNAVAILABLE, False)] * 2
    assert len(lost) == 1


class EchoServer(ScriptedServer):
    """Answers with the request."""

    def request(self, stream_id: int, body: bytes) -> None:
        self.answer(stream_id, body)


def test_a_connection_whose_stream_ids_run_out_finishes_its_calls_and_makes_room_for_another() -> None:
    lost: list[RpcError] = []

    async def work(connection: Connection) -> list[tuple[RpcError | None, bytes]]:
        connection._on_lost = lambda _, error: lost.append(error)
        connection._next_id = 0x7FFFFFFF - 10_000_002
        first = await calls(connection, [b"1", b"2"])
        return first + await calls(connection, [b"3"])

    one, two, (error, _) = with_server(EchoServer(), work)
    assert [one, two] == [(None, b"1"), (None, b"2")]
    assert error is not None
    assert (error.code, error.sent) == (Status.UNAVAILABLE, False)
    assert len(lost) == 1


class TwiceServer(ScriptedServer):
    """Answers with two messages in one frame, then with a third cut in two."""

    def request(self, stream_id: int, body: bytes) -> None:
        self.h2.send_headers(stream_id, [(":status", "200")])
        self.h2.send_data(stream_id, b"\0\0\0\0\x03one\0\0\0\0\x03two")
        self.h2.send_data(stream_id, b"\0\0\0\0\x05th")
        self.h2.send_data(stream_id, b"ree")
        self.h2.send_headers(stream_id, [("grpc-status", "5")], end_stream=True)


@pytest.mark.parametrize(("cancel_after", "wanted"), [(9, [b"one", b"two", b"three"]), (1, [b"one"]),
                                                      (2, [b"one", b"two"])])
def test_messages_of_a_stream_are_cut_out_of_frames_until_it_is_cancelled(
        cancel_after: int, wanted: list[bytes]) -> None:
    async def work(connection: Connection) -> tuple[list[bytes], list[RpcError | None]]:
        found: list[bytes] = []
        ended: list[RpcError | None] = []

        def message(body: bytes) -> None:
            found.append(body)
            if len(found) == cancel_after:
                stream.cancel()

        stream = connection.stream(WATCH, message, ended.append)
        stream.send(b"")
        stream.close_send()
        while not ended and len(found) < cancel_after:
            await asyncio.sleep(0.01)
        assert connection.open_calls == 0
        return found, ended

    found, ended = with_server(TwiceServer(), work)
    assert found == wanted
    assert [error.code for error in ended if error] == ([Status.NOT_FOUND] if cancel_after == 9 else [])


class ResettingServer(ScriptedServer):
    """Resets calls with the HTTP/2 code in their body; one without trailers; one with a bad length."""

    def request(self, stream_id: int, body: bytes) -> None:
        if body == b"no trailers":
            self.h2.send_headers(stream_id, [(":status", "200")])
            self.h2.send_data(stream_id, b"\0\0\0\0\x01x", end_stream=True)
        elif body == b"bad length":
            self.h2.send_headers(stream_id, [(":status", "200")])
            self.h2.send_data(stream_id, b"\0\0\0\0\x09x")
            self.h2.send_headers(stream_id, [("grpc-status", "0")], end_stream=True)
        elif body == b"http":
            self.h2.send_headers(stream_id, [(":status", "503")], end_stream=True)
        elif body == b"page":
            self.h2.send_headers(stream_id, [(":status", "503")])
            self.h2.send_data(stream_id, b"<html>no server</html>", end_stream=True)
        else:
            self.h2.reset_stream(stream_id, int(body))


def test_resets_and_broken_answers_end_their_call_with_the_right_code() -> None:
    bodies = [b"7", b"8", b"11", b"2", b"no trailers", b"bad length", b"http", b"page"]
    answers = with_server(ResettingServer(), lambda connection: calls(connection, bodies))
    assert [(e.code, e.sent) for e, _ in answers if e] == [
        (Status.UNAVAILABLE, False), (Status.CANCELED, True), (Status.RESOURCE_EXHAUSTED, True),
        (Status.INTERNAL, True), (Status.INTERNAL, True), (Status.INTERNAL, True), (Status.UNAVAILABLE, True),
        (Status.UNAVAILABLE, True)]


def test_a_client_reconnects_to_another_member_when_its_own_is_gone(etcd: System, own_etcd: System) -> None:
    async def run() -> None:
        endpoints = [parse_endpoint(own_etcd.endpoints[0]), parse_endpoint(etcd.endpoints[0])]
        client = await Client.open(endpoints, 2)
        own_etcd.processes[0].kill()
        try:
            async with asyncio.timeout(60):
                while not client.reconnects:
                    await asyncio.sleep(0.01)
            assert client.connections[0].authority == etcd.endpoints[0]
            await client.unary(PUT, pb.PutRequest(key=b"again"), pb.PutResponse, connection=0)
        finally:
            await client.close()

    uvloop.run(run())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("127.0.0.1:2379", "127.0.0.1:2379"), ("http://node:1", "node:1"), ("https://node:1", "node:1"),
        ("node", "node:2379"), ("[::1]:7", "[::1]:7"),
    ],
)
def test_endpoints_are_understood_with_and_without_a_scheme(text: str, wanted: str) -> None:
    assert str(parse_endpoint(text)) == wanted
    assert parse_endpoint(text).secure == text.startswith("https")


@pytest.mark.parametrize("text", ["ftp://node:1", "http://", "unix:/x"])
def test_other_endpoints_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"endpoint|host"):
        parse_endpoint(text)
