"""Listeners of gRPC alone and of HTTP alone (``--listen-client-http-urls``)."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from cluster.settings import Tls
from proxy.listener.filter import FilteredRegistry
from proxy.listener.traffic import GrpcAlone, HttpAlone
from proxy.tls import Credentials
from tests.authority import Authority
from tests.unit.grpc.harness import serving

NAME = "127.0.0.1"
LIMIT_S = 60.0
SHOWN = (":status", "grpc-status", "grpc-message")
CALL = [("content-type", "application/grpc"), ("te", "trailers")]


def registry() -> FilteredRegistry:
    made = FilteredRegistry(("*",), ("*",))
    made.unary("/t.S/Echo", lambda call, data: call.reply(data))
    made.http("/echo", lambda request: request.respond(200, b"echo " + request.body))
    return made


@pytest.fixture(params=["clear", "tls"])
def trust(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Credentials, Path] | None:
    """What the server shows, and whom clients trust; None without TLS."""
    if request.param == "clear":
        return None
    authority = Authority(tmp_path)
    pair = authority.issue("host", NAME)
    return Credentials(Tls(str(pair.cert), str(pair.key))), authority.file


@contextmanager
def connected(port: int, trust: tuple[Credentials, Path] | None, alpn: str) -> Iterator[socket.socket]:
    with socket.create_connection((NAME, port), LIMIT_S) as raw:
        if trust is None:
            yield raw
            return
        context = ssl.create_default_context(cafile=str(trust[1]))
        context.set_alpn_protocols([alpn])
        with context.wrap_socket(raw, server_hostname=NAME) as secure:
            yield secure


def over_http2(sock: socket.socket, path: str, fields: list[tuple[str, str]], body: bytes = b"") -> list[str]:
    """The status of a request's answer and what it says; empty where the connection is ended instead."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    client.initiate_connection()
    head = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "x"), *fields]
    client.send_headers(1, head)
    client.send_data(1, body, end_stream=True)
    sock.sendall(client.data_to_send())
    found: list[str] = []
    try:
        while data := sock.recv(65_536):
            for event in client.receive_data(data):
                if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                    found += [value for name, value in event.headers or () if name in SHOWN]
                elif isinstance(event, h2.events.DataReceived):
                    found.append((event.data or b"").decode())
                elif isinstance(event, h2.events.StreamEnded):
                    return [said for said in found if said]
    except ConnectionError:
        pass
    return []


def over_http1(sock: socket.socket, path: str) -> bytes:
    try:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        return answer.read()
    except (http.client.BadStatusLine, ConnectionError):
        return b""


def test_http_alone_serves_paths_and_no_methods(trust: tuple[Credentials, Path] | None) -> None:
    with serving(registry(), tls=trust and trust[0], serves=HttpAlone(registry())) as running:
        with connected(running.port, trust, "http/1.1") as sock:
            assert over_http1(sock, "/echo") == b"echo "
        with connected(running.port, trust, "h2") as sock:
            answer = over_http2(sock, "/echo", [], b"x")
            assert answer == ([] if trust is None else ["200", "echo x"]), "HTTP/2 is there by TLS alone"
        with connected(running.port, trust, "h2") as sock:
            answer = over_http2(sock, "/t.S/Echo", CALL, b"\0\0\0\0\0")
            assert answer == ([] if trust is None else ["404", "404 page not found\n"])


def test_grpc_alone_serves_methods_and_no_paths(trust: tuple[Credentials, Path] | None) -> None:
    with serving(registry(), tls=trust and trust[0], serves=GrpcAlone(registry())) as running:
        with connected(running.port, trust, "http/1.1") as sock:
            assert over_http1(sock, "/echo") == b""
        with connected(running.port, trust, "h2") as sock:
            answer = over_http2(sock, "/echo", [("content-type", "text/plain")], b"x")
            assert answer == ["415", "3", 'invalid gRPC request content-type: "text/plain"']
        if trust is None:
            channel = grpc.insecure_channel(running.address)
        else:
            channel = grpc.secure_channel(
                running.address, grpc.ssl_channel_credentials(trust[1].read_bytes())
            )
        with channel:
            echo = channel.unary_unary("/t.S/Echo")
            for timeout_s in (LIMIT_S, LIMIT_S + 1):
                assert echo(b"x", timeout=timeout_s) == b"x"
