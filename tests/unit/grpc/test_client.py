"""grpcio's client against the server: what every language's client on the C core sees."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import pytest

from proxy.grpc.calls import Call
from proxy.grpc.registry import Registry
from proxy.listener.server import Limits
from tests.unit.grpc.harness import Echo, Running, serving


def same(data: bytes) -> bytes:
    return data


class Service:
    """The methods the tests call."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.echo = Echo()
        self.cancelled = threading.Event()
        self.waiting = threading.Event()
        self.parked: list[Call] = []
        self.registry.unary("/test.Service/Echo", lambda call, data: call.reply(data))
        self.registry.unary("/test.Service/Park", self.park)
        self.registry.unary("/test.Service/Many", self.many)
        self.registry.unary("/test.Service/Fail", lambda call, data: call.finish(9, data.decode()))
        self.registry.stream("/test.Service/Bidi", self.echo)

    def park(self, call: Call, data: bytes) -> None:
        call.on_cancel = lambda _: self.cancelled.set()
        self.parked.append(call)
        self.waiting.set()

    def many(self, call: Call, data: bytes) -> None:
        for i in range(int(data)):
            call.send(b"%d" % i)
        call.finish()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def running(service: Service) -> Iterator[Running]:
    with serving(service.registry) as running:
        yield running


@pytest.fixture
def channel(running: Running) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(running.address, options) as channel:
        yield channel


def unary(channel: grpc.Channel, method: str):  # type: ignore[no-untyped-def]
    return channel.unary_unary(f"/test.Service/{method}", same, same)


def test_a_unary_call_is_answered(channel: grpc.Channel) -> None:
    echo = unary(channel, "Echo")
    assert [echo(b"%d" % i) for i in range(200)] == [b"%d" % i for i in range(200)]
    assert echo(b"") == b""


def test_large_messages_pass_both_ways_unchanged(channel: grpc.Channel) -> None:
    message = bytes(range(256)) * 8000
    assert unary(channel, "Echo")(message) == message


def test_a_message_above_the_limit_is_refused_in_the_words_of_grpc_go(channel: grpc.Channel) -> None:
    limit = Limits().max_message_bytes
    with pytest.raises(grpc.RpcError) as error:
        unary(channel, "Echo")(b"x" * (limit + 1))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.value.details() == f"grpc: received message larger than max ({limit + 1} vs. {limit})"
    assert unary(channel, "Echo")(b"x" * limit) == b"x" * limit, (
        "the connection lives on, and the limit itself passes"
    )


def test_a_gzip_request_is_read(channel: grpc.Channel) -> None:
    message = b"abc" * 5000
    assert unary(channel, "Echo")(message, compression=grpc.Compression.Gzip) == message


def test_an_encoding_that_is_not_installed_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as error:
        unary(channel, "Echo")(b"abc" * 5000, compression=grpc.Compression.Deflate)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.value.details() == 'grpc: Decompressor is not installed for grpc-encoding "deflate"'


@pytest.mark.parametrize(
    ("path", "details"),
    [
        ("/test.Service/Nope", "unknown method Nope for service test.Service"),
        ("/other.Thing/Do", "unknown service other.Thing"),
    ],
)
def test_unknown_methods_and_services_are_unimplemented(
    channel: grpc.Channel, path: str, details: str
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(path, same, same)(b"")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.value.details() == details


@pytest.mark.parametrize("text", ["plain", "100% größer\nnext", "", "a" * 1024])
def test_a_status_message_arrives_as_it_was_said(channel: grpc.Channel, text: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        unary(channel, "Fail")(text.encode())
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.value.details() == text


def test_a_long_status_message_is_cut(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as error:
        unary(channel, "Fail")(b"a" * 3000)
    assert error.value.details() == "a" * 1024


def test_a_deadline_ends_the_call_on_the_server_too(
    channel: grpc.Channel, service: Service, running: Running
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        unary(channel, "Park")(b"", timeout=0.2)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert service.cancelled.wait(60)
    running.call(service.parked[0].reply, b"too late, and harmless")
    assert unary(channel, "Echo")(b"x") == b"x"
    assert running.call(running.server.statistics)["deadlines"] == 0


def test_a_cancelled_call_reaches_its_handler(channel: grpc.Channel, service: Service) -> None:
    future = unary(channel, "Park").future(b"")
    assert service.waiting.wait(60)
    future.cancel()
    assert service.cancelled.wait(60)


def test_a_server_stream_arrives_whole_and_in_order(channel: grpc.Channel) -> None:
    got = list(channel.unary_stream("/test.Service/Many", same, same)(b"20000"))
    assert got == [b"%d" % i for i in range(20000)]


def test_a_bidi_stream_echoes_as_it_goes_and_ends_with_the_requests(channel: grpc.Channel) -> None:
    sent = [b"x" * size for size in (0, 1, 100, 20_000, 300_000, 5)]
    assert list(channel.stream_stream("/test.Service/Bidi", same, same)(iter(sent))) == sent


def test_a_thousand_streams_are_open_at_once_on_one_connection(
    channel: grpc.Channel, running: Running
) -> None:
    go_on = threading.Event()

    def requests(i: int) -> Iterator[bytes]:
        yield b"%d" % i
        go_on.wait(60)
        yield b"end"

    # A request iterator costs a thread in this client, so a few are bidi and the rest are parked unary calls.
    bidi = [channel.stream_stream("/test.Service/Bidi", same, same)(requests(i)) for i in range(20)]
    assert [next(stream) for stream in bidi] == [b"%d" % i for i in range(20)]
    parked = [unary(channel, "Park").future(b"%d" % i) for i in range(980)]
    deadline = time.monotonic() + 30
    while running.call(running.server.statistics)["streams"] < 1000:
        assert time.monotonic() < deadline
    assert running.call(running.server.statistics)["connections"] == 1
    go_on.set()
    assert [list(stream) for stream in bidi] == [[b"end"]] * 20
    for future in parked:
        future.cancel()
    while running.call(running.server.statistics)["streams"]:
        assert time.monotonic() < deadline
