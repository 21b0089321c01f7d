"""The port itself: HTTP/1.1 beside HTTP/2, TLS, back-pressure."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import hpack
import pytest

from cluster.faults import faults
from cluster.settings import Tls
from proxy.grpc.calls import Call
from proxy.grpc.registry import Registry
from proxy.http.http2 import PREFACE
from proxy.http.http2 import frames as f
from proxy.http.requests import HttpRequest
from proxy.listener.server import Limits, Server
from proxy.tls import Credentials
from tests.unit.grpc.harness import Running, Service, connected, same, serving, wait_for

CURL = shutil.which("curl")


@pytest.fixture
def client(running: Running) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    yield connection
    connection.close()


# -- HTTP/1.1


def test_requests_follow_each_other_on_one_connection(
    client: http.client.HTTPConnection, running: Running
) -> None:
    for i in range(20):
        client.request("POST", f"/echo?q={i}", body=b"body", headers={"X-A": "1"})
        response = client.getresponse()
        assert (response.status, response.headers["x-reply"]) == (201, "yes")
        assert response.read() == b"POST /echo q=%d 1 body" % i
    assert running.call(running.server.statistics)["connections_accepted"] == 1


def test_chunked_bodies_both_ways(client: http.client.HTTPConnection) -> None:
    client.request("PUT", "/echo", body=iter([b"a", b"b" * 5000]), encode_chunked=True,
                   headers={"Transfer-Encoding": "chunked"})
    assert client.getresponse().read() == b"PUT /echo  None a" + b"b" * 5000
    client.request("GET", "/pieces")
    response = client.getresponse()
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.read() == b"".join(b"%d," % i for i in range(1000))


def test_nobody_hides_behind_an_answer_without_an_end(service: Service, running: Running) -> None:
    """Requests behind it are held up to a limit. A connection that is not read any more would stay."""
    request = b"GET /park HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as client:
        client.sendall(request)
        wait_for(lambda: len(service.streams) == 1)
        with suppress(ConnectionError):
            client.sendall(request * 20_000)
        wait_for(lambda: len(service.closed) == 1)


def test_prefixes_and_paths_nobody_serves(client: http.client.HTTPConnection) -> None:
    client.request("GET", "/below/this")
    assert client.getresponse().read() == b"below /below/this"
    client.request("GET", "/nope")
    response = client.getresponse()
    assert (response.status, response.read()) == (404, b"404 page not found\n")


def test_head_has_no_body(client: http.client.HTTPConnection) -> None:
    client.request("HEAD", "/echo")
    response = client.getresponse()
    assert (response.status, response.read()) == (201, b"")
    client.request("GET", "/echo")
    assert client.getresponse().status == 201


def test_a_body_above_the_limit_is_refused(client: http.client.HTTPConnection) -> None:
    client.request("POST", "/echo", body=b"x" * 100_001)
    assert client.getresponse().status == 413


def raw(running: Running, data: bytes) -> bytes:
    """Everything the server says to ``data`` until it closes."""
    with connected(running) as sock:
        sock.sendall(data)
        out = b""
        while piece := sock.recv(65_536):
            out += piece
        return out


def test_pipelined_requests_are_answered_in_order(running: Running) -> None:
    said = raw(running, b"GET /echo?1 HTTP/1.1\r\nHost: x\r\n\r\n" * 3
               + b"GET /below/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert said.count(b"HTTP/1.1 201") == 3
    assert said.endswith(b"below /below/")


def test_calls_whose_end_was_waited_for_share_turns_with_others() -> None:
    """Those of 10 ms were all answered in one turn of the loop."""
    slow: list[bytes] = []
    registry = Registry()

    def work(call: Call, data: bytes) -> None:
        time.sleep(0.005)
        slow.append(data)

    registry.unary("/t.S/Slow", work)
    registry.unary("/t.S/Count", lambda call, data: call.reply(b"%d" % len(slow)))
    encoder, count = hpack.Encoder(), 60
    fields = {":method": "POST", ":path": "/t.S/Slow", ":scheme": "http", ":authority": "x",
              "content-type": "application/grpc", "te": "trailers"}  # fmt: skip
    calls = b"".join(
        f.header_frames(id, encoder.encode(list(fields.items())), False) + f.frame(f.DATA, 0, id, bytes(5))
        for id in range(1, 2 * count, 2))
    with serving(registry) as running, grpc.insecure_channel(running.address) as channel:
        ask = channel.unary_unary("/t.S/Count", request_serializer=same, response_deserializer=same)
        assert ask(b"", timeout=30) == b"0"
        with connected(running) as sock:
            sock.sendall(PREFACE + f.settings_frame({}) + calls)
            wait_for(lambda: bool(slow))
            assert int(ask(b"", timeout=30)) < count
            wait_for(lambda: len(slow) == count)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("ends", [[b"\r\n"], [b"\n"], [b"\r", b"\n"], [b"\r\n\r\n"]])
@pytest.mark.parametrize(
    ("field", "body"),
    [(b"Content-Length: 4", b"body"), (b"Expect: 100-continue\r\nContent-Length: 4", b"body"),
     (b"Transfer-Encoding: chunked", b"4\r\nbody\r\n0\r\n\r\n")],
)  # fmt: skip
def test_a_line_end_behind_a_body_does_not_count(
    running: Running, field: bytes, body: bytes, ends: list[bytes], apart: bool
) -> None:
    """Small programs print one behind what they announced: its 400 was taken for the next answer."""
    posts = [b"POST /echo HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n%s%s" % (field, body, ends[0]), *ends[1:]] * 2
    last = b"GET /below/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with connected(running) as sock:
        for piece in [*posts, last] if apart else [b"".join(posts) + last]:
            sock.sendall(piece)
            time.sleep(0.02 * apart)
        said = b"".join(iter(lambda: sock.recv(65_536), b""))
    assert (said.count(b"HTTP/1.1 201"), said.count(b"HTTP/1.1 400")) == (2, 0)
    assert said.endswith(b"below /below/")


def test_thousands_of_pipelined_requests_in_one_read(running: Running) -> None:
    said = raw(running, b"GET /below/ HTTP/1.1\r\nHost: x\r\n\r\n" * 5_000
               + b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (said.count(b"HTTP/1.1 200"), said.count(b"HTTP/1.1 201")) == (5_000, 1)


def test_a_client_that_pipelines_and_does_not_read_is_bounded_and_gets_all_in_the_end(
    service: Service,
) -> None:
    served = 0

    def large(request: HttpRequest) -> None:
        nonlocal served
        served += 1
        request.respond(200, b"z" * 100_000)

    service.registry.http("/large", large)
    limits = Limits(write_high_bytes=100_000, max_unsent_bytes=1_000_000)
    with serving(service.registry, limits) as running, connected(running) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 999
                     + b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_for(lambda: served > 5)
        time.sleep(0.2)  # nothing to wait for: it is the absence of further answers that is claimed
        assert served < 500, "about 1 MB of ours and what the kernel buffers"
        got = 0
        while piece := sock.recv(1 << 20):
            got += piece.count(b"z")
        assert got == 1_000 * 100_000


def test_a_handler_that_fails_as_its_client_reads_on_ends_that_connection_alone() -> None:
    """What comes out of a callback of the loop ends the process."""
    registry, ended = Registry(), list[object]()

    def serve(request: HttpRequest) -> None:
        def on_drain() -> None:
            raise RuntimeError("a mistake")

        request.on_drain = on_drain
        request.start(200)
        request.write(bytes(32 << 20))

    registry.http("/", serve)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: ended.append(context["message"]))
        server = Server(registry)
        await server.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.addresses[0])
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                while await reader.read(1 << 20):
                    pass
        writer.close()
        await server.stop()

    asyncio.run(main())
    assert ended == []
    assert [type(met[1]) for met in faults.take()] == [RuntimeError]


def test_clients_of_a_unix_socket_are_told_from_each_other() -> None:
    """Shares of connections go by their addresses, and these had none."""
    registry, peers = Registry(), list[str]()

    def serve(request: HttpRequest) -> None:
        peers.append(request.peer)
        request.respond(200)

    registry.http("/", serve)

    async def ask(path: str) -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        return writer

    async def main() -> None:
        server, path = Server(registry), f"{folder}/s"
        await server.start_unix(path, mode=0o600)
        for writer in [await ask(path), await ask(path)]:
            writer.close()
        await server.stop()

    with tempfile.TemporaryDirectory() as folder:  # a short name: the kernel allows 107 bytes
        asyncio.run(main())
    assert peers == ["@1", "@2"]


@pytest.mark.parametrize("junk", [
    b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"PRI /x HTTP/1.1\r\nbad header\r\n\r\n",
    b"\x16\x03\x01\0\0\0\0\r\n\r\n",
])  # fmt: skip
def test_what_is_not_http_is_refused_and_closed(running: Running, junk: bytes) -> None:
    assert raw(running, junk).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["no end in sight", "whole"])
def test_oversized_headers_are_refused(running: Running, end: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000
    assert raw(running, head + end).startswith(b"HTTP/1.1 431 ")


def test_a_client_that_leaves_a_stream_reaches_its_handler(running: Running, service: Service) -> None:
    with socket.create_connection(("127.0.0.1", running.port)) as sock:
        sock.sendall(b"GET /park HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(10).startswith(b"HTTP/1.1 2")
    wait_for(lambda: len(service.closed) == 1)
    running.call(service.streams[0].write, b"late and harmless")


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest.mark.parametrize("options", [
    [], ["--http2"], ["--http2-prior-knowledge"], ["-H", "Expect: 100-continue"],
    ["-H", "Transfer-Encoding: chunked"],
])  # fmt: skip
def test_curl(running: Running, options: list[str]) -> None:
    command = [CURL or "", "-sS", "--max-time", "20", *options, "-d", "data", "-H", "x-a: 7",
               f"http://{running.address}/echo?q"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == b"POST /echo q 7 data", done


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest.mark.parametrize("option", ["--http1.1", "--http2-prior-knowledge"])
def test_of_fields_that_repeat_the_first_counts_as_in_go_or_they_are_joined(
    service: Service, running: Running, option: str
) -> None:
    names = ("content-type", "authorization", "origin", "x-a")
    service.registry.http("/fields", lambda request: request.respond(
        200, ";".join(request.headers[name] for name in names).encode()))
    sent = [word for name in names for value in "pq" for word in ("-H", f"{name}: {value}")]
    command = [CURL or "", "-sS", "--max-time", "20", option, *sent, f"http://{running.address}/fields"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"p;p;p;p, q"


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(folder / "key.pem"), "-out",
         str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.mark.skipif(not (CURL and shutil.which("openssl")), reason="curl and openssl are not installed")
def test_tls_serves_grpc_http2_and_http1_on_one_port(certificate: Path, service: Service) -> None:
    tls = Credentials(Tls(str(certificate / "cert.pem"), str(certificate / "key.pem")))
    with serving(service.registry, tls=tls) as running:
        credentials = grpc.ssl_channel_credentials((certificate / "cert.pem").read_bytes())
        with grpc.secure_channel(running.address, credentials) as channel:
            message = b"x" * 1_000_000
            assert channel.unary_unary("/t.S/Echo", same, same)(message) == message
        for version, option in ((b"2", "--http2"), (b"1.1", "--http1.1")):
            command = [CURL or "", "-sS", option, "--cacert", str(certificate / "cert.pem"),
                       "-w", "%{http_version}", "-d", "data", f"https://{running.address}/echo"]
            said = subprocess.run(command, capture_output=True, check=True).stdout
            assert said == b"POST /echo  None data" + version


# -- limits over time, and stopping


def test_a_connection_that_says_nothing_is_closed() -> None:
    with serving(Registry(), Limits(handshake_timeout_s=0.1)) as running, connected(running) as sock:
        sock.sendall(b"PRI")
        assert sock.recv(1) == b""


def test_an_idle_http1_connection_is_closed(service: Service) -> None:
    limits = Limits(http1_idle_timeout_s=0.1)
    with serving(service.registry, limits) as running, connected(running) as sock:
        sock.sendall(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while piece := sock.recv(1000):
            data += piece
        assert data.startswith(b"HTTP/1.1 201")
