"""The layer between a socket and its connection: broken, slow and hostile clients, and large answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import hpack
import pytest

from cluster.settings import Tls
from proxy.grpc.calls import Call
from proxy.grpc.registry import Registry
from proxy.http.http2 import PREFACE
from proxy.http.http2 import frames as f
from proxy.http.requests import HttpRequest
from proxy.listener.server import Limits
from proxy.tls import HINTS, TLS_IN_CLEAR, Credentials
from tests.authority import Authority
from tests.unit.grpc.harness import Running, serving
from tests.unit.tls.rekeying import Rekeying

LIMIT_S = 30.0


class Served:
    """What was asked, by whom; answers of any size."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.registry.http("/who", self.who)
        self.registry.http("/large", self.large)
        self.registry.http("/later", self.later)
        self.registry.unary("/t.S/Who", self.call)
        self.registry.unary("/t.S/Shown", self.shown)
        self.registry.unary("/t.S/Large", lambda call, data: call.reply(bytes(30 << 20)))
        self.registry.shown = lambda token, common_name: common_name

    def who(self, request: HttpRequest) -> None:
        request.respond(200, f"{request.secure} {request.peer_name}".encode())

    def large(self, request: HttpRequest) -> None:
        request.respond(200, b"x" * int(request.query))

    def later(self, request: HttpRequest) -> None:
        asyncio.get_running_loop().call_later(0.1, request.respond, 200, b"later")

    def call(self, call: Call, data: bytes) -> None:
        call.reply(data + f" {call.peer_name}".encode())

    def shown(self, call: Call, data: bytes) -> None:
        call.reply(f"{call.principal}".encode())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def running(authority: Authority) -> Iterator[Running]:
    pair = authority.issue("server", "127.0.0.1")
    tls = Tls(str(pair.cert), str(pair.key), client_cert_auth=True, trusted_ca_file=str(authority.file))
    limits = Limits(handshake_timeout_s=1.0)
    with serving(Served().registry, limits, Credentials(tls)) as running:
        yield running


def context(authority: Authority) -> ssl.SSLContext:
    pair = authority.issue("alice", "x")
    made = ssl.create_default_context(cafile=str(authority.file))
    made.load_cert_chain(pair.cert, pair.key)
    return made


@contextlib.contextmanager
def connected(running: Running, made: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    plain = socket.create_connection(("127.0.0.1", running.port), LIMIT_S)
    with plain, made.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        yield secure


def get(secure: ssl.SSLSocket, path: str) -> bytes:
    """The answer's body, all of it, and then the end of TLS: a cut would raise."""
    secure.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while piece := secure.recv(1 << 20):
        answer += piece
    return answer.partition(b"\r\n\r\n")[2]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def connections(running: Running) -> int:
    return int(running.call(running.server.statistics)["connections"])


def test_a_request_knows_who_asks_and_that_nobody_listened_in(running: Running, authority: Authority) -> None:
    made = context(authority)
    with connected(running, made) as secure:
        assert get(secure, "/who") == b"True alice"
    pair = authority.issue("bob", "x")
    credentials = grpc.ssl_channel_credentials(
        authority.file.read_bytes(), pair.key.read_bytes(), pair.cert.read_bytes()
    )
    with grpc.secure_channel(running.address, credentials) as channel:
        call = channel.unary_unary("/t.S/Who", lambda data: data, lambda data: data)
        assert call(b"I am", timeout=LIMIT_S) == b"I am bob"
        # a gateway that dials with a certificate of its own asks for others
        asked = channel.unary_unary("/t.S/Shown")
        assert asked(b"", timeout=LIMIT_S) == b"bob"
        assert asked(b"", metadata=(("grpcgateway-accept", "*/*"),)) == b"None"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 5_000_000])
def test_answers_of_any_size_come_whole_and_end_in_order(
    running: Running, authority: Authority, version: ssl.TLSVersion, size: int
) -> None:
    made = context(authority)
    made.maximum_version = version
    with connected(running, made) as secure:
        assert get(secure, f"/large?{size}") == b"x" * size


def test_a_handshake_has_a_time_limit_whatever_trickles_in(running: Running, authority: Authority) -> None:
    hello = ssl.MemoryBIO()
    client = context(authority).wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    first = hello.read()
    for sent in (b"", first[:1], first[: len(first) // 2], first):
        with socket.create_connection(("127.0.0.1", running.port), LIMIT_S) as plain:
            plain.sendall(sent)
            with contextlib.suppress(ConnectionError):
                while plain.recv(65_536):
                    pass
    until(lambda: connections(running) == 0)


def test_what_is_no_handshake_ends_its_connection_alone(running: Running, authority: Authority) -> None:
    told: list[str] = []
    running.server.handshake_failed = lambda address, reason: told.append(reason)
    generator = random.Random(7)
    with connected(running, context(authority)) as other:
        for attempt in range(60):
            kind = attempt % 3
            body = generator.randbytes(generator.randrange(1, 3000))
            record = b"\x16\x03\x01" + struct.pack("!H", min(len(body), 16_000)) + body
            plain = socket.create_connection(("127.0.0.1", running.port), LIMIT_S)
            with plain, contextlib.suppress(ConnectionError):
                plain.sendall((body, record, b"GET / HTTP/1.1\r\n\r\n")[kind])
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(65_536):
                    pass
        assert get(other, "/who") == b"True alice"
    assert "tls: first record does not look like a TLS handshake" in told
    until(lambda: connections(running) == 0)


def shake_hands(
    client: ssl.SSLObject, plain: socket.socket, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
) -> None:
    while True:
        try:
            client.do_handshake()
            return
        except ssl.SSLWantReadError:
            plain.sendall(outgoing.read())
            incoming.write(plain.recv(65_536))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("told", [False, True], ids=["of the socket", "of TLS"])
def test_a_client_that_ends_its_side_behind_its_request_is_answered(
    running: Running, authority: Authority, version: ssl.TLSVersion, told: bool
) -> None:
    made, incoming, outgoing = context(authority), ssl.MemoryBIO(), ssl.MemoryBIO()
    made.maximum_version = version
    client = made.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", running.port), LIMIT_S) as plain:
        shake_hands(client, plain, incoming, outgoing)
        client.write(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n")
        if told:
            with contextlib.suppress(ssl.SSLWantReadError):
                client.unwrap()
        plain.sendall(outgoing.read())
        plain.shutdown(socket.SHUT_WR)
        while piece := plain.recv(65_536):
            incoming.write(piece)
    assert client.read(65_536).endswith(b"\r\n\r\nlater")


def test_a_request_in_thousands_of_records_is_answered(running: Running, authority: Authority) -> None:
    """They take turns, and the end of the client's side comes behind them."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context(authority).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", running.port), LIMIT_S) as plain:
        shake_hands(client, plain, incoming, outgoing)
        for byte in b"GET /who?" + bytes(5000).hex().encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n":
            client.write(bytes((byte,)))
        plain.sendall(outgoing.read())
        plain.shutdown(socket.SHUT_WR)
        while piece := plain.recv(65_536):
            incoming.write(piece)
    assert client.read(65_536).endswith(b"True alice")


def test_key_updates_end_their_connection_alone(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("rekeyed", "127.0.0.1")
    made = ssl.create_default_context(cafile=str(authority.file))
    made.keylog_filename = str(tmp_path / "secrets")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = made.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    credentials = Credentials(Tls(str(pair.cert), str(pair.key)))
    with serving(Served().registry, Limits(handshake_timeout_s=1000.0), credentials) as running:
        with socket.create_connection(("127.0.0.1", running.port), LIMIT_S) as plain:
            shake_hands(client, plain, incoming, outgoing)
            plain.sendall(outgoing.read())
            rekeying = Rekeying(client, tmp_path / "secrets")
            with contextlib.suppress(ConnectionError):
                plain.sendall(b"".join(rekeying.update() for _ in range(5000)))
                while plain.recv(65_536):
                    pass
            until(lambda: connections(running) == 0)
        with connected(running, ssl.create_default_context(cafile=str(authority.file))) as other:
            assert get(other, "/who") == b"True None"


def test_records_that_were_changed_on_their_way_end_the_connection(
    running: Running, authority: Authority
) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context(authority).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", running.port), LIMIT_S) as plain:
        shake_hands(client, plain, incoming, outgoing)
        client.write(b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n")
        sealed = bytearray(outgoing.read())
        sealed[-1] ^= 1
        plain.sendall(sealed)
        with contextlib.suppress(ConnectionError):
            while plain.recv(65_536):
                pass
    until(lambda: connections(running) == 0)


def test_a_client_that_takes_nothing_but_asks_on_is_let_go(authority: Authority) -> None:
    """Each small answer is larger by its record: what was counted as taken fell with it."""
    pair = authority.issue("stalled", "127.0.0.1")
    limits = Limits(
        max_memory_bytes=300_000, write_high_bytes=65_536, max_unsent_bytes=1 << 30, stalled_s=1.0)
    made = ssl.create_default_context(cafile=str(authority.file))
    fields = [(":method", "POST"), (":scheme", "https"), (":path", "/t.S/Large"),
              ("content-type", "application/grpc")]
    credentials = Credentials(Tls(str(pair.cert), str(pair.key)))
    with serving(Served().registry, limits, credentials) as running, connected(running, made) as secure:
        secure.sendall(
            PREFACE + f.settings_frame({f.INITIAL_WINDOW_SIZE: 2**31 - 1})
            + f.window_update(0, 2**31 - 1 - 65_535)
            + f.header_frames(1, hpack.Encoder().encode(fields), False)
            + f.frame(f.DATA, f.END_STREAM, 1, bytes(5)))

        def let_go() -> bool:
            with contextlib.suppress(OSError):
                secure.sendall(f.frame(f.PING, 0, 0, bytes(8)))
            return bool(running.call(running.server.statistics)["connections_stalled"])

        until(let_go)


def test_a_client_that_goes_away_in_the_midst_leaves_nothing(running: Running, authority: Authority) -> None:
    made = context(authority)
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with connected(running, made) as secure:
            secure.sendall(b"GET /large?3000000 HTTP/1.1\r\nHost: x\r\n\r\n")
            secure.recv(1000)
    until(lambda: connections(running) == 0)
    until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


def test_a_client_that_begins_with_tls_where_there_is_none_is_told_of(authority: Authority) -> None:
    told: list[tuple[str, str]] = []
    with serving(Served().registry) as running:
        running.server.handshake_failed = lambda address, reason: told.append((address, reason))
        made = context(authority)
        with (
            socket.create_connection(("127.0.0.1", running.port), LIMIT_S) as plain,
            pytest.raises(OSError),
            made.wrap_socket(plain, server_hostname="127.0.0.1"),
        ):
            pass
        until(lambda: told)
        with grpc.insecure_channel(running.address) as channel:
            call = channel.unary_unary("/t.S/Who", lambda data: data, lambda data: data)
            assert call(b"I am", timeout=LIMIT_S) == b"I am None"
    assert told == [("127.0.0.1", TLS_IN_CLEAR)]
    assert TLS_IN_CLEAR in HINTS


def test_one_port_may_take_both(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("both", "127.0.0.1")

    async def also(running: Running) -> None:
        tls = Credentials(Tls(str(pair.cert), str(pair.key)))
        await running.server.start("127.0.0.1", 0, tls=tls, plain_too=True)

    with serving(Served().registry) as running:
        asyncio.run_coroutine_threadsafe(also(running), running.loop).result(LIMIT_S)
        port = running.call(lambda: running.server.addresses)[-1][1]
        made = ssl.create_default_context(cafile=str(authority.file))
        with socket.create_connection(("127.0.0.1", port), LIMIT_S) as plain:
            plain.sendall(b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"False None" in plain.recv(4096)
            second = socket.create_connection(("127.0.0.1", port), LIMIT_S)
            with second, made.wrap_socket(second, server_hostname="127.0.0.1") as secure:
                assert get(secure, "/who") == b"True None"
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/t.S/Who", lambda data: data, lambda data: data)
            assert call(b"I am", timeout=LIMIT_S) == b"I am None"
