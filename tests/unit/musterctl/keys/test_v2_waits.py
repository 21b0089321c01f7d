"""Waits of version 2 that a host ends without an event."""

from __future__ import annotations

import errno
import http.client
import socket
from typing import Any

import pytest

from tests.unit.v2.host import BROKEN, Asked, Said, host
from tools.musterctl.v2 import exchange
from tools.musterctl.v2.client import Client
from tools.musterctl.v2.exchange import Connections, Request, RequestError
from tools.musterctl.v2.keys import KeyRefused, Keys

EVENT = {"action": "delete", "node": {"key": "/a", "modifiedIndex": 8, "createdIndex": 3}}
OUTDATED = {"errorCode": 401, "message": "outdated", "cause": "cleared [1000/8]", "index": 2000}


@pytest.mark.parametrize(("index", "ended", "first", "again"), [
    (7, (200, ""), 0, 8),
    (7, (200, BROKEN), 0, 8),
    (7, (200, ""), 3, 3),
    (7, (503, ""), 0, 0),
    (0, (200, ""), 0, 0),  # it had not begun
])  # fmt: skip
def test_a_wait_goes_on_from_where_it_began(index: int, ended: Said, first: int, again: int) -> None:
    """It began anew, "from now on": what had happened meanwhile was lost."""
    answers = iter([ended, (200, EVENT)])
    with host(lambda asked: next(answers), index) as (url, seen):
        keys = Keys(Client([url, url], Connections(None), 10, 10))
        assert keys.wait("/a", first, True).action == "delete"
    assert [asked.line for asked in seen] == [
        f"GET /v2/keys/a?recursive=true&wait=true&waitIndex={since}" for since in (first, again)]


def test_a_wait_from_now_on_goes_on_where_its_place_is_outdated() -> None:
    """A quiet key of a busy cluster: each stop of a host ended the watch with error 401."""
    answers = iter([(200, ""), (400, OUTDATED), (200, EVENT)])
    with host(lambda asked: next(answers)) as (url, seen):
        assert Keys(Client([url], Connections(None), 10, 10)).wait("/a", 0, True).action == "delete"
    assert [asked.line.partition("&waitIndex=")[2] for asked in seen] == ["0", "8", "2001"]


def test_a_wait_from_an_index_ends_where_that_is_outdated() -> None:
    answers = iter([(200, ""), (400, OUTDATED)])
    with host(lambda asked: next(answers)) as (url, _), pytest.raises(KeyRefused, match="401: outdated"):
        Keys(Client([url], Connections(None), 10, 10)).wait("/a", 3, True)


def test_a_wait_looks_whether_its_host_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as etcdctl's. It has no time limit: a host that lost its power was never noticed."""
    dialled, dial = list[socket.socket](), exchange._dial
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
               (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)]  # fmt: skip

    def kept(*given: Any) -> socket.socket:
        dialled.append(dial(*given))
        return dialled[-1]

    def answered(asked: Asked) -> Said:
        found.append([dialled[-1].getsockopt(*option) for option in options])
        return 200, EVENT

    found = list[list[int]]()
    monkeypatch.setattr(exchange, "_dial", kept)
    with host(answered) as (url, _):
        Keys(Client([url], Connections(None), 10, 10)).wait("/a", 0, True)
    assert found == [[1, 30, 30]]


def test_a_host_that_is_gone_is_no_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        raise OSError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", gone)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(RequestError, match="read tcp: read: connection timed out") as met:
            Connections(None).send(url, Request("GET", "/v2/keys/a"), 0, None)
    assert met.value.connecting


def test_an_address_whose_dial_the_kernel_gives_up_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait sets no time of its own, so the kernel ends its dial of a host that is gone."""
    class Socket(socket.socket):
        def connect(self, address: Any) -> None:
            if address[0] == "127.0.0.9":
                raise OSError(errno.ETIMEDOUT, "Connection timed out")
            super().connect(address)

    def found(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "socket", Socket)
    monkeypatch.setattr(socket, "getaddrinfo", found)
    addresses = ["127.0.0.9"]
    told = r"^dial tcp 127\.0\.0\.9:1: connect: connection timed out$"
    with pytest.raises(RequestError, match=told) as met:
        exchange._dial("there", 1, None)
    assert met.value.connecting
    with socket.create_server(("127.0.0.1", 0)) as listener:
        addresses.append("127.0.0.1")
        exchange._dial("there", listener.getsockname()[1], None).close()
