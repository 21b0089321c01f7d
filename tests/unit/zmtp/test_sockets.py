"""DEALER and ROUTER over real sockets, with libzmq and with themselves as partner."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvloop
import zmq
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

import tools.muster.machine.zmtp.lookups
import tools.muster.machine.zmtp.stream
from cluster.endpoints import peer_address, peer_endpoint, tcp_endpoint
from cluster.errors import EtcdError
from cluster.members.checks import checked_urls
from cluster.members.table import Host
from tests.ports import free_ports
from tools.muster.machine.zmtp import Dealer, LinkOptions, Router
from tools.muster.machine.zmtp.codec import GREETING, ready
from tools.muster.machine.zmtp.curve.keys import CurveKeys
from tools.muster.machine.zmtp.links import Links
from tools.muster.machine.zmtp.options import split


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    context: zmq.Context[Any] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture(params=["ipc", "tcp"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/s" if request.param == "ipc" else f"tcp://127.0.0.1:{free_port()}"


def free_port() -> int:
    return free_ports(1)[0]


async def until(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.001)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


def test_libzmq_dealer_and_our_router(context: zmq.Context[Any], endpoint: str) -> None:
    async def scenario() -> None:
        came: list[list[bytes]] = []
        router = Router(asyncio.get_running_loop(), endpoint, came.append, LinkOptions(100))
        partner = context.socket(zmq.DEALER)
        partner.linger = 0
        partner.routing_id = b"libzmq"
        partner.connect(endpoint)
        big = bytes(3_000_000)
        partner.send(b"one")
        partner.send_multipart([b"two", big])
        await until(lambda: len(came) == 2)
        assert came == [[b"libzmq", b"one"], [b"libzmq", b"two", big]]
        assert router.send([b"libzmq", b"small"])
        assert router.send([b"libzmq", b"x", big])
        assert not router.send([b"nobody", b"x"])
        got: list[list[bytes]] = []

        def receive() -> bool:
            while partner.poll(0):
                got.append(partner.recv_multipart())
            return len(got) == 2

        await until(receive)
        assert got == [[b"small"], [b"x", big]]
        partner.close()
        await until(lambda: not router.send([b"libzmq", b"x"]))
        router.close()

    run(scenario)


def test_our_dealer_and_libzmq_router(context: zmq.Context[Any], endpoint: str) -> None:
    async def scenario() -> None:
        partner = context.socket(zmq.ROUTER)
        partner.linger = 0
        partner.bind(endpoint)
        came: list[list[bytes]] = []
        dealer = Dealer(asyncio.get_running_loop(), endpoint, b"ours", came.append, LinkOptions(100))
        await until(lambda: dealer.send([b"hello", b"x" * 100_000]))
        await until(lambda: partner.poll(0))
        assert partner.recv_multipart() == [b"ours", b"hello", b"x" * 100_000]
        partner.send_multipart([b"ours", b"back"])
        await until(lambda: came)
        assert came == [[b"back"]]
        dealer.close()
        partner.close()

    run(scenario)


def test_nothing_is_kept_for_a_partner_that_is_not_there_and_it_is_found_again(endpoint: str) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        came: list[list[bytes]] = []
        dealer = Dealer(loop, endpoint, b"d", lambda parts: None, LinkOptions(100))
        assert not dealer.send([b"old"])
        for _ in range(2):
            came.clear()
            router = Router(loop, endpoint, came.append, LinkOptions(100))
            await until(lambda: dealer.send([b"new"]))
            await until(lambda: came)
            assert {parts[1] for parts in came} == {b"new"}
            router.close()
            await until(lambda: not dealer.send([b"old"]))
        dealer.close()

    run(scenario)


def test_a_newcomer_with_the_same_identity_takes_over(endpoint: str) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        router = Router(loop, endpoint, lambda parts: None, LinkOptions(100))
        lost: list[str] = []
        first_came: list[list[bytes]] = []
        second_came: list[list[bytes]] = []
        first = Dealer(
            loop, endpoint, b"same", first_came.append, LinkOptions(100), lost=lost.append, redials=False)
        await until(lambda: first.send([b"x"]))
        second = Dealer(loop, endpoint, b"same", second_came.append, LinkOptions(100), redials=False)
        await until(lambda: lost)
        assert router.send([b"same", b"for the second"])
        await until(lambda: second_came)
        assert (first_came, second_came) == ([], [[b"for the second"]])
        for each in (first, second, router):
            each.close()

    run(scenario)


@pytest.mark.parametrize(
    ("hwm", "most_bytes", "times"), [(3, 1 << 40, 4), (1 << 40, 1_200_000, 4), (1 << 40, 1_200_000, 1 << 20)],
    ids=["messages", "bytes", "bytes for long"],
)
def test_a_partner_that_does_not_read_is_warned_of_and_its_connection_ends(
    endpoint: str, hwm: int, most_bytes: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools.muster.machine.zmtp.stream, "MOST_BYTES", most_bytes)
    monkeypatch.setattr(tools.muster.machine.zmtp.stream, "_TIMES", times)
    if times > 4:
        monkeypatch.setattr(tools.muster.machine.zmtp.stream, "_TAKES_S", 0.0)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        names: list[bytes] = []
        gone: list[bytes] = []
        router = Router(
            loop, endpoint, lambda parts: names.append(parts[0]), LinkOptions(hwm), gone=gone.append)
        transport, _, place = endpoint.partition("://")
        family = socket.AF_UNIX if transport == "ipc" else socket.AF_INET
        with socket.socket(family) as mute:
            host, _, port = place.rpartition(":")
            mute.connect(place if transport == "ipc" else (host, int(port)))
            mute.sendall(GREETING + ready(b"DEALER", b"mute") + b"\0\1x")
            await until(lambda: names)
            sent = 0
            async with asyncio.timeout(20):
                while router.send([b"mute", bytes(500_000)]):
                    sent += 1
                    await asyncio.sleep(0)
            assert 2 <= sent <= 40
            await until(lambda: gone)
            assert not router.send([b"mute", b"x"])
            while mute.recv(1 << 20):
                pass  # what the kernel has, and the end: what waited for it here has gone
        assert gone == [b"mute"]
        router.close()

    with capture_logs() as logs:
        run(scenario)
    assert [line["event"] for line in logs] == ["a connection is stuck: the other side does not read"]


def test_a_partner_that_reads_may_be_far_behind(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large answers to many clients at once ended a front's link, and the next host's after it."""
    monkeypatch.setattr(tools.muster.machine.zmtp.stream, "MOST_BYTES", 2_000_000)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        names: list[bytes] = []
        came: list[int] = []
        router = Router(loop, endpoint, lambda parts: names.append(parts[0]), LinkOptions(1000))
        dealer = Dealer(loop, endpoint, b"d", lambda parts: came.append(len(parts[0])), LinkOptions(1000))
        await until(lambda: dealer.send([b"x"]))
        await until(lambda: names)
        assert router.send([b"d", bytes(6_000_000)])
        assert router.send([b"d", b"behind it"]), "the partner has not had the time to read"
        await until(lambda: len(came) == 2)
        sent = 0
        while router.send([b"d", bytes(1_000_000)]):
            sent += 1
        assert 8 <= sent <= 30, "no more than so often as much"
        for each in (dealer, router):
            each.close()

    run(scenario)


def test_who_speaks_something_else_is_dropped_and_told_in_the_log_once(endpoint: str) -> None:
    async def scenario() -> None:
        router = Router(
            asyncio.get_running_loop(), endpoint, lambda parts: None, LinkOptions(3), strangers=True)
        transport, _, place = endpoint.partition("://")
        for _ in range(3):
            if transport == "ipc":
                reader, writer = await asyncio.open_unix_connection(place)
            else:
                reader, writer = await asyncio.open_connection(*place.split(":"))
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            async with asyncio.timeout(20):
                while await reader.read(1000):
                    pass
            writer.close()
        router.close()

    with capture_logs() as logs:
        run(scenario)
    assert [(line["event"], line["reason"]) for line in logs] == [
        ("a peer connection was not established", "it does not speak ZMTP")]


def test_a_client_with_curve_is_refused(context: zmq.Context[Any], endpoint: str) -> None:
    async def scenario() -> None:
        router = Router(
            asyncio.get_running_loop(), endpoint, lambda parts: None, LinkOptions(3), strangers=True)
        partner = context.socket(zmq.DEALER)
        partner.linger = 0
        public, secret = zmq.curve_keypair()
        partner.curve_serverkey = partner.curve_publickey = public
        partner.curve_secretkey = secret
        partner.connect(endpoint)
        with capture_logs() as logs:
            await until(lambda: logs)
        partner.close()
        router.close()
        assert "peer-key-file" in logs[0]["hint"]

    run(scenario)


def test_a_partner_that_ends_the_handshake_is_noticed_at_once() -> None:
    """Its last bytes and its reset come together, as from libzmq that wants a key: uvloop tells of both
    once."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            lost: list[str] = []
            dealer = Dealer(
                loop, f"tcp://127.0.0.1:{server.getsockname()[1]}", b"d", lambda parts: None,
                LinkOptions(3), lost=lost.append, redials=False)
            connection, _ = await loop.sock_accept(server)
            await until(lambda: dealer._stream is not None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.send(GREETING[:10])
            connection.close()
            await until(lambda: lost, 3.0)  # the handshake's own limit is longer
            assert lost == ["Connection reset by peer"]
            dealer.close()

    uvloop.run(scenario())


def test_a_dealer_that_tries_only_once_says_that_it_failed(endpoint: str) -> None:
    async def scenario() -> None:
        lost: list[str] = []
        dealer = Dealer(
            asyncio.get_running_loop(), endpoint, b"d", lambda parts: None, LinkOptions(3),
            lost=lost.append, redials=False)
        await until(lambda: lost)
        await asyncio.sleep(0)
        assert len(lost) == 1
        dealer.close()

    run(scenario)


def test_a_name_is_looked_up() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        came: list[list[bytes]] = []
        port = free_port()
        router = Router(loop, f"tcp://127.0.0.1:{port}", came.append, LinkOptions(3))
        dealer = Dealer(loop, f"tcp://localhost:{port}", b"d", lambda parts: None, LinkOptions(3))
        await until(lambda: dealer.send([b"hello"]))
        await until(lambda: came)
        dealer.close()
        router.close()

    run(scenario)


def test_all_addresses_of_a_name_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tools.muster.machine.zmtp.lookups, "_look_up",
        lambda name: [(socket.AF_INET, "127.0.0.2"), (socket.AF_INET, "127.0.0.1")],
    )

    async def scenario() -> None:
        loop, port = asyncio.get_running_loop(), free_port()
        router = Router(loop, f"tcp://127.0.0.1:{port}", lambda parts: None, LinkOptions(3))
        dealer = Dealer(loop, f"tcp://somebody:{port}", b"d", lambda parts: None, LinkOptions(3))
        await until(lambda: dealer.send([b"hello"]))
        dealer.close()
        router.close()

    run(scenario)


def test_what_a_name_meant_before_is_dialled_while_a_look_up_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, ends = threading.Event(), threading.Event()

    def look_up(name: str) -> list[tuple[int, str]]:
        if hangs.is_set():
            ends.wait(30)
        return [(socket.AF_INET, "127.0.0.1")]

    monkeypatch.setattr(tools.muster.machine.zmtp.lookups, "_look_up", look_up)

    async def scenario() -> None:
        loop, port = asyncio.get_running_loop(), free_port()
        dealer = Dealer(
            loop, f"tcp://somebody:{port}", b"d", lambda parts: None, LinkOptions(3, silence_s=0.1))
        for _ in range(2):
            router = Router(loop, f"tcp://127.0.0.1:{port}", lambda parts: None, LinkOptions(3))
            await until(lambda: dealer.send([b"hello"]), 5.0)
            hangs.set()
            router.close()
            await until(lambda: not dealer.stands())
        dealer.close()
        ends.set()

    run(scenario)


def test_names_that_hang_hold_up_neither_other_work_nor_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """They took the loop's threads: a scrape or a backup waited for minutes while a name server was down."""
    ends, asked = threading.Event(), list[str]()

    def look_up(name: str) -> list[tuple[int, str]]:
        asked.append(name)
        if name == "hangs":
            ends.wait(30)
        return [(socket.AF_INET, "127.0.0.1")]

    monkeypatch.setattr(tools.muster.machine.zmtp.lookups, "_look_up", look_up)

    async def scenario() -> None:
        loop, port = asyncio.get_running_loop(), free_port()
        loop.set_default_executor(ThreadPoolExecutor(1))
        shared = Links(loop)._options(keyed=True, hwm=3, silence_s=0.0).look_ups
        router = Router(loop, f"tcp://127.0.0.1:{port}", lambda parts: None, LinkOptions(3))
        dealers = [
            Dealer(loop, f"tcp://{name}:{port}", b"%d" % n, lambda parts: None,
                   LinkOptions(3, look_ups=shared))
            for n, name in enumerate(("hangs",) * 20 + ("answers",))]
        await until(lambda: "hangs" in asked)
        assert await asyncio.wait_for(loop.run_in_executor(None, lambda: "done"), 5.0) == "done"
        await until(lambda: dealers[-1].send([b"hello"]), 5.0)
        for dealer in dealers[1:]:
            dealer.close()
        ends.set()
        await until(lambda: dealers[0].send([b"hello"]), 5.0)
        assert asked.count("hangs") == 1, "a host has many links to each peer"
        dealers[0].close()
        router.close()

    run(scenario)


@pytest.mark.parametrize(("error", "forgets"), [
    (socket.EAI_NONAME, True), (socket.EAI_NODATA, True), (socket.EAI_AGAIN, False)])
def test_a_name_that_ends_is_forgotten_and_one_that_nobody_can_tell_is_not(
    monkeypatch: pytest.MonkeyPatch, error: int, forgets: bool
) -> None:
    """A container that stops loses its name and its address, which another member may get."""
    ends, asked = threading.Event(), list[str]()

    def look_up(name: str) -> list[tuple[int, str]]:
        asked.append(name)
        if ends.is_set():
            raise socket.gaierror(error, "said the name server")
        return [(socket.AF_INET, "127.0.0.1")]

    monkeypatch.setattr(tools.muster.machine.zmtp.lookups, "_look_up", look_up)

    async def scenario() -> None:
        loop, port = asyncio.get_running_loop(), free_port()
        dealer = Dealer(loop, f"tcp://somebody:{port}", b"d", lambda parts: None, LinkOptions(3))
        router = Router(loop, f"tcp://127.0.0.1:{port}", lambda parts: None, LinkOptions(3))
        await until(lambda: dealer.send([b"hello"]))
        ends.set()
        seen = len(asked)
        router.close()
        await until(lambda: len(asked) > seen + 1 and not dealer.stands())
        router = Router(loop, f"tcp://127.0.0.1:{port}", lambda parts: None, LinkOptions(3))
        if forgets:
            seen = len(asked)
            await until(lambda: len(asked) > seen + 1)
            assert not dealer.stands()
            assert "said the name server" in dealer.trouble
            ends.clear()
        await until(lambda: dealer.send([b"hello"]))
        dealer.close()
        router.close()

    run(scenario)


@pytest.mark.parametrize(("host", "endpoint"), [
    ("10.0.0.1", "tcp://10.0.0.1:5"), ("::1", "tcp://[::1]:5"), ("name", "tcp://name:5")])
def test_an_endpoint_is_split_as_it_was_made(host: str, endpoint: str) -> None:
    assert tcp_endpoint(host, 5) == peer_endpoint(host, 5) == endpoint
    assert split(endpoint) == ("tcp", host, 5)


def test_a_peer_url_of_a_unix_socket_is_a_file_in_the_working_directory() -> None:
    assert peer_address("unix://Etcd.unix:1") == ("unix:Etcd.unix", 1)
    assert peer_endpoint("unix:Etcd.unix", 3) == "ipc://Etcd.unix:3"
    assert peer_address("https://[::1]:2380") == ("::1", 2380)
    assert [peer_address(url)[1] for url in ("unix://x", "unix://:1", "unix:///x", "http://x")] == [0] * 4


@pytest.mark.parametrize("how", ["in clear", "with keys", "with keys, once"])
@pytest.mark.parametrize(
    "endpoint",
    ["tcp://a\0b:1", "tcp://a b:1", "tcp://*:1", "tcp://äö.☃:1",
     f"ipc://{'y' * 300}"],
)  # fmt: skip
def test_an_address_that_cannot_be_dialled_is_trouble_and_no_fault(endpoint: str, how: str) -> None:
    """It is a member's, as a client gave it: it ended the node."""
    lost: list[str] = []
    faults: list[Any] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: faults.append(context))
        links = Links(loop, CurveKeys(*zmq.curve_keypair()) if how != "in clear" else None)
        dealer = links.dial(
            endpoint, b"x", lambda parts: None, shard=0, hwm=10, silence_s=1.0,
            lost=lost.append if "once" in how else None)
        await until(lambda: dealer.trouble != "not tried yet")
        assert dealer.trouble
        assert not dealer.stands()
        assert not dealer.send([b"x"])
        if how == "with keys, once":
            await until(lambda: lost)
        dealer.close()

    asyncio.run(scenario())
    assert faults == []


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(("http", "https", "unix")), st.text(max_size=40), st.integers(0, 65535))
def test_whatever_a_member_may_have_for_an_address_can_be_tried(scheme: str, host: str, port: int) -> None:
    try:
        (url,) = checked_urls([f"{scheme}://{host}:{port}"])
    except EtcdError:
        assume(False)
    at = Host(1, "", (url,)).peer
    faults: list[Any] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: faults.append(context))
        for keys in (None, CurveKeys(*zmq.curve_keypair())):
            endpoint = peer_endpoint(at.host, at.port)
            links = Links(loop, keys)
            dealer = links.dial(endpoint, b"x", lambda parts: None, shard=0, hwm=10)
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # it has begun
            dealer.close()

    asyncio.run(scenario())
    assert faults == []
