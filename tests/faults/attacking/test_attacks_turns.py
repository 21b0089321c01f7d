"""Requests of clients without rights that cost a front far more than others of their size. Each was once
worked on in one turn of the loop, or counted as one small request (docs/run/security.md)."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cluster.pb import rpc_pb2 as pb
from tests.faults.attacking.beside import BOTH_FRONTS, FLOOR_S, TURN_S, Attacked, attacked
from tests.faults.attacking.raw import Raw

pytestmark = [pytest.mark.timeout(300), pytest.mark.soak]
_LIMIT_S = 60.0
_CLIENTS = 16


@pytest.fixture(scope="module", params=BOTH_FRONTS)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacked(tmp_path_factory.mktemp("attacks") / "d", request.param) as found:
        yield found


def _connected(endpoint: str) -> socket.socket:
    host, _, port = endpoint.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=_LIMIT_S)


def _told(endpoint: str, head: bytes, body: bytes, patience_s: float = _LIMIT_S) -> None:
    """One request over HTTP/1.1, and the begin of its answer, if it comes in time."""
    with _connected(endpoint) as connection:
        with contextlib.suppress(ConnectionError):  # it may be refused before all of it has come
            fields = b"Host: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
            connection.sendall(b"%b HTTP/1.1\r\n%b\r\n%b" % (head, fields, body))
        connection.settimeout(patience_s)
        with contextlib.suppress(OSError):
            connection.recv(65_536)


def _together(work: Callable[[], None], clients: int = _CLIENTS) -> None:
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def scrapes(endpoint: str) -> None:
    """GET /metrics on 32 connections, again and again."""
    until = time.monotonic() + TURN_S

    def scrape() -> None:
        while time.monotonic() < until:
            _told(endpoint, b"GET /metrics", b"")

    _together(scrape, 32)


def long_pipelines(endpoint: str) -> None:
    """On each of 16 connections a GET /health, and behind it 20 of /livez with queries of 63 KB."""
    one = b"GET /livez?exclude=serializable_read&" + b"a=1&" * 15_900 + b" HTTP/1.1\r\nHost: x\r\n\r\n"

    def send() -> None:
        with _connected(endpoint) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + one * 20)
            answers = b""
            while answers.count(b"HTTP/1.1 ") < 21 and (data := connection.recv(65_536)):
                answers += data

    _together(send)


def broken_json(endpoint: str) -> None:
    """JSON of 12 MB that never ends, at /v2/members."""
    _told(endpoint, b"POST /v2/members", b'{"a":[' + b"[]," * 4_000_000)


def gateway_messages(endpoint: str) -> None:
    """Two bodies of 12 MB at /v3/watch, each of six million empty messages, whose clients leave."""
    _together(lambda: _told(endpoint, b"POST /v3/watch", b"{}" * 6_000_000, 1.0), 2)


def nested_transactions(endpoint: str) -> None:
    """20 transactions of 1.9 KB on each of 16 connections: 10 operations nested 40 deep."""
    deep = pb.RequestOp(request_put=pb.PutRequest(key=b"k"))
    for _ in range(40):
        deep = pb.RequestOp(request_txn=pb.TxnRequest(success=[deep]))
    body = pb.TxnRequest(success=[deep] * 10).SerializeToString()

    def send() -> None:
        with Raw(endpoint) as raw:
            raw.read_until_ended(*[raw.call_in_turn("/etcdserverpb.KV/Txn", body) for _ in range(20)])

    _together(send)


def future_watches(endpoint: str) -> None:
    """30,000 watches of a revision far ahead on one stream, which ends at once."""
    create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k", start_revision=1 << 40))
    with Raw(endpoint) as raw:
        raw.call_in_turn("/etcdserverpb.Watch/Watch", *[create.SerializeToString()] * 30_000, end=False)
        raw.read_until_received(30_000 * 20)


ATTACKS = (scrapes, long_pipelines, broken_json, gateway_messages, nested_transactions, future_watches)


@pytest.mark.parametrize("attack", ATTACKS)
def test_work_that_is_out_of_proportion_holds_nobody_up(
    cluster: Attacked, attack: Callable[[str], object]
) -> None:
    cluster.beside(lambda: attack(cluster.endpoint), floor_s=FLOOR_S)
