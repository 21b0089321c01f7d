"""A client of HTTP/1.1 that ends its side behind its request, as ``nc -N`` does, still gets the answer. So
does one whose connection the server ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.features.v2.requests import PROVE, Answer
from cluster.wire.messages import HEAD, Method
from proxy.gateway.calls import GatewayCall
from proxy.gateway.paths import TARGETS
from proxy.grpc.registry import Registry
from proxy.http.http1 import Http1Connection
from proxy.http.requests import HttpRequest
from proxy.listener.filter import FilteredRegistry
from proxy.listener.server import Limits
from proxy.v2.keys import Keys
from proxy.v2.waiting.feed import Feed
from proxy.v2.waiting.waits import Waits
from tests.unit.grpc.harness import Service, connected, serving, wait_for
from tests.unit.grpc.http1.test_websocket import Output
from tests.unit.proxy.fakes import Net
from tests.unit.proxy.gateway.test_gateway_turns import Front
from tests.unit.v2.requests.waiting.feeding import Router, events_of

GET = b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n"
OLD = b"GET /later HTTP/1.0\r\n\r\n"
BROKEN = b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"
PARK = b"GET /park HTTP/1.1\r\nHost: a\r\n\r\n"


class Later:
    """A service that also has requests that are answered when a test wants it."""

    def __init__(self) -> None:
        self.service = Service()
        self.asked: list[HttpRequest] = []
        self.registry: Registry = self.service.registry
        self.registry.http("/later", self.asked.append)

    def answer(self) -> None:
        self.asked[-1].respond(200, b"answer %d" % len(self.asked))


def rest(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65_536), b""))


@pytest.mark.parametrize("sent", [GET, OLD, 3 * GET], ids=["plain", "by 1.0", "pipelined"])
def test_what_is_pending_is_answered_then_the_connection_ends(sent: bytes) -> None:
    later = Later()
    with serving(later.registry) as running, connected(running) as sock:
        sock.sendall(sent)
        wait_for(lambda: len(later.asked) == 1)
        sock.shutdown(socket.SHUT_WR)
        for number in range(1, sent.count(b"/later") + 1):
            wait_for(lambda number=number: len(later.asked) == number)  # type: ignore[misc]
            running.call(later.answer)
        answers = rest(sock)
    assert [answers.count(b"answer %d" % number) for number in (1, 2, 3)] == [
        int(number <= len(later.asked)) for number in (1, 2, 3)]


@pytest.mark.parametrize("sent", [GET, GET.replace(b"a\r\n", b"a\r\nExpect:\r\n")], ids=["plain", "by h11"])
def test_what_waits_until_its_client_reads_is_answered(sent: bytes) -> None:
    output, limits = Output(), Limits()

    def answer(request: HttpRequest) -> None:
        request.respond(200, b"answer")
        output.unsent = limits.max_unsent_bytes + 1

    http1 = Http1Connection(lambda path: answer, limits, output, "peer", 0.0)
    http1.receive(3 * sent, 0.0)
    assert output.data.count(b"answer") == 1
    for number in (2, 3):
        assert http1.half_closed()
        output.unsent = 0
        http1.drained()
        assert output.data.count(b"answer") == number
    output.unsent = 0
    http1.drained()
    assert output.closed


@pytest.mark.parametrize("sent", [PARK, GET + PARK], ids=["alone", "behind a request"])
def test_a_stream_ends_at_once(sent: bytes) -> None:
    later = Later()
    with serving(later.registry) as running, connected(running) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        if GET in sent:
            wait_for(lambda: len(later.asked) == 1)
            running.call(later.answer)
        rest(sock)
        wait_for(lambda: bool(later.service.closed))


def test_an_answer_that_says_close_ends_the_connection() -> None:
    with serving(FilteredRegistry((), ())) as running, connected(running) as sock:
        sock.sendall(2 * BROKEN)
        answer = rest(sock)
    assert answer.count(b"HTTP/1.1 400 Bad Request\r\n") == answer.count(b"\r\nConnection: close\r\n") == 1


def test_a_client_that_is_sending_yet_hears_why_it_is_refused() -> None:
    """The end of its connection took back what it had not read."""
    later, limits = Later(), Limits(max_body_bytes=1000)
    with serving(later.registry, limits) as running, connected(running) as sock:
        sock.sendall(b"POST /later HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(200):
            sock.sendall(b"ffff\r\n" + b"x" * 65_535 + b"\r\n")
        assert rest(sock).startswith(b"HTTP/1.1 413 ")
    assert not later.asked


@pytest.mark.parametrize("end", [lambda front: front.http1.half_closed(), lambda front: front.http1.lost()],
                         ids=["its side", "all"])
def test_a_call_of_the_gateway_is_cancelled(end: Callable[[Front], Any]) -> None:
    """A lock, for one: its client has gone. One that has ended its side alone hears of that, as from etcd."""
    asyncio.run(_cancelled(end))


async def _cancelled(end: Callable[[Front], Any]) -> None:
    front, target = Front(), TARGETS["/v3/kv/range"]
    front.registry.unary(target.method, lambda call, data: None)
    front.serve = lambda request: (  # type: ignore[method-assign]
        GatewayCall(front.room, request, target, {}, front.registry).begin())
    front.http1.receive(b"POST /v3/kv/range HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 0.0)
    assert not front.output.data
    heard = end(front) is not None
    assert front.output.data.startswith(b"HTTP/1.1 408 Request Timeout") == heard
    assert (b'"message":"context canceled"' in front.output.data) == heard
    assert front.output.closed == heard


@pytest.mark.parametrize("value", [b"", b"found", 20_000 * b"v"], ids=["nothing", "an event", "a long one"])
@pytest.mark.parametrize("stream", [False, True], ids=["a poll", "a stream"])
@pytest.mark.parametrize("early", [True, False], ids=["before it begins", "begun"])
def test_a_wait_of_version_2_has_what_has_happened_already(early: bool, stream: bool, value: bytes) -> None:
    """As at etcd. It got 500, "request timed out", if its side ended before it began."""
    asyncio.run(_waiting(early, stream, value))


def _waits(front: Front, router: Router, stream: bool) -> tuple[Waits, Callable[[HttpRequest], None]]:
    waits = Waits(Feed(router), 10, 1 << 20)  # type: ignore[arg-type]

    def wait(request: HttpRequest) -> None:
        def begin(answer: Answer | None) -> bool:
            request.start(200)
            return True

        waits.add(request, b"/1/k", False, stream, 1, begin, None, False)

    front.serve = wait  # type: ignore[method-assign]
    return waits, wait


async def _waiting(early: bool, stream: bool, value: bytes) -> None:
    front, router = Front(), Router()
    waits, _ = _waits(front, router, stream)
    front.http1.receive(b"GET /v2/keys/k HTTP/1.1\r\nHost: a\r\n\r\n", 0.0)
    if early:
        assert front.http1.half_closed()
        assert not front.output.closed
    ((_, waiting),) = router.sent
    assert waiting.then is not None
    row = events_of([value])[0] if value else b""
    waiting.then(waiting, 0, bytes(HEAD.size) + Answer(1, row).encode())
    assert front.output.data.startswith(b"HTTP/1.1 200 ")
    if not early:
        front.http1.half_closed()
    while router.soon:
        router.turn()
    assert front.output.data.endswith(b"\r\n0\r\n\r\n")
    assert value in front.output.data
    assert front.output.closed
    assert not len(waits)


@pytest.mark.parametrize("when", ["there is none", "it is lost", "it ended its side before"])
def test_a_wait_whose_client_leaves_does_not_wait_for_a_link(when: str) -> None:
    """Clients that gave up and asked again while there was none left a wait each, up to the limit."""
    asyncio.run(_without_link(when))


async def _without_link(when: str) -> None:
    front, router = Front(), Router()
    waits, wait = _waits(front, router, False)
    asked, link = list[HttpRequest](), router.routes[0].replica
    if when != "it is lost":
        router.routes[0].replica = None
    if when == "it ended its side before":  # and its password was compared meanwhile
        front.serve = asked.append  # type: ignore[method-assign]
    front.http1.receive(b"GET /v2/keys/k HTTP/1.1\r\nHost: a\r\n\r\n", 0.0)
    assert front.http1.half_closed() is (when != "there is none")
    if when == "it is lost":
        link.closed = True
        ((_, waiting),) = router.sent
        assert waiting.then is not None
        waiting.then(waiting, 0, bytes(HEAD.size) + Answer(1, b"").encode())
    for request in asked:
        wait(request)
    assert front.output.data.startswith(b"HTTP/1.1 200 ")
    assert front.output.data.endswith(b"\r\n\r\n0\r\n\r\n")
    assert front.output.closed
    assert not len(waits)


@pytest.mark.parametrize("users", [False, True], ids=["at a shutdown", "as users are enabled"])
def test_a_wait_that_has_not_begun_ends(users: bool) -> None:
    asyncio.run(_ending(users))


async def _ending(users: bool) -> None:
    front, net = Front(), Net().started()
    keys = Keys(net.context)
    front.serve = keys.serve  # type: ignore[method-assign]
    keys.feed.shown(7)
    front.http1.receive(b"GET /v2/keys/k?wait=true HTTP/1.1\r\nHost: a\r\n\r\n", 0.0)
    net.run()
    if users:
        net.context.principals.enabled = True
    keys.waits.end()
    status, tail = (b"401", b'"index":0}\n') if users else (b"200", b"\r\n\r\n0\r\n\r\n")
    assert front.output.data.startswith(b"HTTP/1.1 " + status)
    assert front.output.data.endswith(tail)
    assert b"X-Etcd-Index: 0\r\n" in front.output.data, "clients ask from then on; none was passed by"
    assert not len(keys.waits)


@pytest.mark.parametrize(("half", "right"), [(True, True), (True, False), (False, True)])
def test_a_wait_ends_whose_client_leaves_while_its_password_is_compared(half: bool, right: bool) -> None:
    asyncio.run(_compared(half, right))


async def _compared(half: bool, right: bool) -> None:
    front, net, proven = Front(), Net().started(), list[Callable[[bool], None]]()
    net.context.passwords = SimpleNamespace(check=lambda asks, password, known, then: proven.append(then))
    keys, node = Keys(net.context), net.nodes[1]
    front.serve = keys.serve  # type: ignore[method-assign]
    front.http1.receive(
        b"GET /v2/keys/k?wait=true HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YTpi\r\n\r\n", 0.0)
    net.run()
    (asked,) = node.take(Method.V2_READ)
    node.ok(asked, 7, Answer(9, b"hash", PROVE).encode())
    net.run()
    (compared,) = proven
    if not half:
        front.http1.lost()
        compared(True)
        net.run()
        assert not node.take(Method.V2_READ)
        assert not front.output.data
        assert not len(keys.waits)
        return
    assert front.http1.half_closed()
    compared(right)
    net.run()
    if right:
        (asked,) = node.take(Method.V2_READ)
        node.ok(asked, 7, Answer(9, b"").encode())
        net.run()
    assert front.output.data.startswith(b"HTTP/1.1 200 " if right else b"HTTP/1.1 401 ")
    assert front.output.closed
    assert not len(keys.waits)
