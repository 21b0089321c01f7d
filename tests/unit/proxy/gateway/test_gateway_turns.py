"""Very many requests in a call of the gateway: each turn of the loop takes some of them."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from cluster.errors import Code
from cluster.faults import faults
from cluster.pb import rpc_pb2
from proxy.gateway.calls import LARGE_ANSWER_BYTES, TURN_REQUESTS, GatewayCall
from proxy.gateway.paths import TARGETS
from proxy.gateway.room import LARGE_BYTES, Room
from proxy.gateway.talk import Conversation, TalkedCall
from proxy.grpc.registry import Registry
from proxy.http.backlog import AGAIN_S, LOUD_S, LOUD_TURNS, SHARED_S, Backlog
from proxy.http.http1 import Http1Connection
from proxy.http.http2 import Limits
from proxy.http.memory import Memory
from proxy.http.requests import HttpRequest
from proxy.routing.waiting import ended_with
from tests.garbage import no_garbage
from tests.unit.grpc.http1.test_websocket import ASK, Output

WATCH = TARGETS["/v3/watch"]
CREATE = '{"create_request":{"key":"YQ=="}}'
MANY = 2000
TAKE_S = AGAIN_S / 10  # of a request
# in a turn of the loop: as they come, behind that, in the middle and by loud ones; the last may go beyond it
MOST = round((2 * SHARED_S + AGAIN_S + LOUD_S) / TAKE_S) + 4
LIMIT_S = 30.0


class Watches:
    """A stream that counts its requests by turns of the loop."""

    def __init__(self) -> None:
        self.got: Counter[int] = Counter()
        self.turn = 0
        self.now = 0.0  # stands still but for requests that are taken
        self.ended = 0
        self.cancelled_with: list[int | None] = []

    def opened(self, call: Any) -> None: ...

    def message(self, call: Any, data: bytes) -> None:
        self.got[self.turn] += 1
        self.now += TAKE_S

    def half_closed(self, call: Any) -> None:
        self.ended += 1

    def cancelled(self, call: Any) -> None:
        self.cancelled_with.append(ended_with(call, 0.0))


class Front:
    """A connection of HTTP/1.1, with the gateway's watches behind it."""

    def __init__(self, memory_bytes: int = 1 << 30) -> None:
        self.loop = asyncio.get_running_loop()
        self.target = WATCH._replace(request=self.made)
        self.begun = 0  # requests that were begun to be translated
        self.faults: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.watches = Watches()
        self.backlog = Backlog(self.loop.call_soon, self.loop.call_later, lambda: self.watches.now)
        self.room = Room(self.loop, Memory(memory_bytes), 1 << 20, 8 << 20, self.backlog)
        self.told: list[tuple[str, str, float]] = []  # unary calls that have ended
        self.registry = Registry(timed=True, slow=lambda *call: self.told.append(call))
        self.registry.stream(WATCH.method, self.watches)
        self.output = Output()
        self.connect()

    def connect(self) -> None:
        """A client of its own."""
        limits = Limits(max_body_bytes=4 << 20)
        self.http1 = Http1Connection(lambda path: self.serve, limits, self.output, "peer", 0.0)

    def made(self) -> Any:
        self.begun += 1
        return WATCH.request()

    def post(self, body: bytes) -> None:
        head = b"POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.http1.receive(head + body, 0.0)

    def serve(self, request: HttpRequest) -> None:
        if "upgrade" not in request.headers:
            GatewayCall(self.room, request, self.target, {}, self.registry).begin()
            return
        talk = Conversation(request)
        assert talk.accept()
        talk.call = TalkedCall(self.room, talk, self.target, {}, self.registry)

    async def until(self, count: int) -> None:
        """Go on until so many requests have been taken."""
        async with asyncio.timeout(LIMIT_S):
            while self.watches.got.total() < count and not self.faults:
                await asyncio.sleep(0)
                self.watches.turn += 1
                turns, self.output.turns = self.output.turns, 0
                if turns:
                    self.http1.go_on()
        assert not self.faults
        assert max(self.watches.got.values()) <= MOST


def test_very_many_messages_behind_a_large_one_are_taken_in_turns() -> None:
    """They were read by calls within calls: the recursion ended the process."""
    asyncio.run(_messages())


async def _messages() -> None:
    front, client = Front(), Connection(ConnectionType.CLIENT)
    front.http1.receive(ASK, 0.0)
    large = CREATE * (1 + LARGE_BYTES // len(CREATE))
    front.http1.receive(client.send(TextMessage(data=large)), 0.0)
    front.http1.receive(b"".join(client.send(TextMessage(data=CREATE)) for _ in range(MANY)), 0.0)
    while front.output.turns:  # all of them wait for the thread
        front.output.turns = 0
        front.http1.go_on()
    await front.until(MANY + len(large) // len(CREATE))


def test_a_thread_that_cannot_be_started_ends_its_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended the process, where an answer was to be translated."""
    asyncio.run(_without_threads(monkeypatch))


async def _without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    front, told = Front(), list[Any]()
    with monkeypatch.context() as limited:
        limited.setattr("threading.Thread.start", start)
        front.room.work("a:1", LARGE_BYTES + 1, lambda: "an answer", told.append)
    async with asyncio.timeout(LIMIT_S):
        while not told:
            await asyncio.sleep(0)
        assert isinstance(told.pop(), RuntimeError)
        front.room.work("a:1", LARGE_BYTES + 1, lambda: "an answer", told.append)
        while not told:
            await asyncio.sleep(0)
    assert told == ["an answer"]


def test_clients_take_turns_with_the_threads_of_large_messages() -> None:
    """A put of 20 KB waited for all answers to another client's large ranges."""
    asyncio.run(_clients_in_turn())


async def _clients_in_turn() -> None:
    front, told, goes_on = Front(), list[str](), threading.Event()

    def work(client: str) -> None:
        front.room.work(f"{client}:1", 4 << 20, lambda: goes_on.wait(LIMIT_S) and client, told.append)

    for client in "a" * 50 + "b" * 3 + "c":
        work(client)
    assert len(front.room._turns) == 52, "two are under way"
    goes_on.set()
    async with asyncio.timeout(LIMIT_S):
        while len(told) < 54:
            await asyncio.sleep(0)
    assert sorted(told[2:]) == sorted("a" * 48 + "bbbc")
    assert told.index("c") <= 6
    assert [at for at, client in enumerate(told) if client == "b"][-1] <= 12
    assert not front.room._turns.used


def test_threads_translate_many_small_texts_between_two_turns_of_the_loop() -> None:
    """They did two, and waited: a busy front took a tenth of the puts of 20 KB that it had taken."""
    asyncio.run(_many_in_a_turn())


async def _many_in_a_turn() -> None:
    front, done, told = Front(), threading.Semaphore(0), list[None]()
    for client in range(40):
        front.room.work(f"{client}:1", 20_000, done.release, told.append)
    assert [done.acquire(timeout=LIMIT_S) for _ in range(40)] == [True] * 40
    assert told == [], "the loop had no turn meanwhile"
    async with asyncio.timeout(LIMIT_S):
        while len(told) < 40:
            await asyncio.sleep(0)
    assert not front.room._turns.used


def test_a_body_with_very_many_requests_is_taken_in_turns() -> None:
    """40,000 watches in a body held the loop for 2 s."""
    asyncio.run(_body())


async def _body() -> None:
    front = Front()
    front.post((CREATE * MANY).encode())
    await front.until(MANY)
    async with asyncio.timeout(LIMIT_S):  # a thread may look for another request yet
        while not front.watches.ended:
            await asyncio.sleep(0)


def test_all_calls_share_a_turn() -> None:
    """Fifty of them held the loop for 0.1 s in each turn."""
    asyncio.run(_shared())


async def _shared() -> None:
    front, bodies = Front(), 50
    for _ in range(bodies):
        front.connect()
        front.post((CREATE * 400).encode())
    await front.until(400 * bodies)


def test_answers_that_waited_for_a_thread_are_translated_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """17 of them held the loop for 45 ms."""
    asyncio.run(_answers(monkeypatch))


async def _answers(monkeypatch: pytest.MonkeyPatch) -> None:
    front, opened = Front(), list[Any]()

    def encode(message: Any) -> str:
        front.watches.message(None, b"")
        return str(message.watch_id)

    monkeypatch.setattr("proxy.gateway.lines.encode", encode)
    front.watches.opened = opened.append  # type: ignore[method-assign]
    front.post(b"{}")
    (call,), count = opened, 200
    front.watches.got.clear()
    for number in range(count):
        filler = b"x" * (0 if number else LARGE_ANSWER_BYTES)
        call.send(rpc_pb2.WatchResponse(watch_id=number, cancel_reason=filler.decode()).SerializeToString())
    call.finish()
    await front.until(count)
    assert [int(found) for found in re.findall(rb'"result":(\d+)', front.output.data)] == list(range(count))
    assert call.gone


def test_a_call_whose_answers_come_in_bursts_is_not_loud_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(_bursts(monkeypatch))


async def _bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    front, opened = Front(), list[Any]()

    def encode(message: Any) -> str:
        front.watches.message(None, b"")
        return "0"

    monkeypatch.setattr("proxy.gateway.lines.encode", encode)
    front.watches.opened = opened.append  # type: ignore[method-assign]
    front.post(b"{}")
    (call,) = opened
    for burst in range(1, 2 * LOUD_TURNS):
        for number in range(31):  # no two are alike
            filler = "x" * (0 if number else LARGE_ANSWER_BYTES)
            response = rpc_pb2.WatchResponse(watch_id=31 * burst + number, cancel_reason=filler)
            call.send(response.SerializeToString())
        await front.until(1 + 31 * burst)
        while call.pending_bytes() or call._busy:
            await asyncio.sleep(0)
    assert call._turns < LOUD_TURNS


def test_a_call_that_is_taken_in_very_many_turns_rests_while_others_ask() -> None:
    asyncio.run(_rests())


async def _rests() -> None:
    front, rests = Front(), list[Callable[[], None]]()
    front.backlog._later = lambda after_s, then: rests.append(then)
    front.post((CREATE * TURN_REQUESTS * (LOUD_TURNS + 2)).encode())
    while not rests:
        front.backlog.heard = True
        await front.until(front.watches.got.total() + 1)
    taken = front.watches.got.total()
    for _ in range(10):
        await asyncio.sleep(0)
    assert front.watches.got.total() == taken
    rests.pop()()
    await front.until(taken + 1)


def test_a_fault_in_a_calls_turn_leaves_the_others_theirs() -> None:
    asyncio.run(_faulty())


async def _faulty() -> None:
    front, calls = Front(), list[Any]()
    count = front.watches.message

    def message(call: Any, data: bytes) -> None:
        assert call is not calls[0] or front.watches.turn == 0
        count(call, data)

    front.watches.opened, front.watches.message = calls.append, message  # type: ignore[method-assign]
    for _ in range(2):
        front.connect()
        front.post((CREATE * 5 * TURN_REQUESTS).encode())
    front.watches.turn = 1
    async with asyncio.timeout(LIMIT_S):
        while not front.watches.ended:
            await asyncio.sleep(0)
    (fault,) = front.faults
    assert isinstance(fault["exception"], AssertionError)


@pytest.mark.parametrize(("large", "code"), [(True, Code.RESOURCE_EXHAUSTED), (False, Code.INTERNAL)])
def test_what_ends_a_stream_by_the_gateway_itself_is_what_it_counts_by(large: bool, code: Code) -> None:
    """It counted as one whose client had gone."""
    asyncio.run(_refused(large, code))


async def _refused(large: bool, code: Code) -> None:
    front = Front()
    if large:
        front.post((CREATE + CREATE.replace("YQ==", "YWFh" * 400_000)).encode())
    else:
        front.watches.message = None  # type: ignore[method-assign, assignment]
        front.post(CREATE.encode())
    async with asyncio.timeout(LIMIT_S):
        while not front.watches.cancelled_with:
            await asyncio.sleep(0)
    assert front.watches.cancelled_with == [code]
    assert len(faults.take()) == (not large)


@pytest.mark.parametrize("count", [LARGE_BYTES // 2, 200_000], ids=["in the loop", "in a thread"])
def test_requests_are_translated_as_they_are_taken_and_not_once_the_client_has_gone(count: int) -> None:
    """Two bodies whose clients had left kept the gateway's threads from others for minutes."""
    asyncio.run(_translated(count))


async def _translated(count: int) -> None:
    front = Front()
    front.post(b"{}" * count)
    await front.until(1)
    assert front.begun < count
    front.http1.lost()
    await asyncio.to_thread(front.room._pool.shutdown)
    begun = front.begun
    await asyncio.sleep(0.01)
    assert front.begun == begun < count


def test_a_value_of_very_many_counts_while_it_is_translated() -> None:
    """It takes forty times its length."""
    asyncio.run(_counts())


async def _counts() -> None:
    front = Front(memory_bytes=1 << 20)
    front.post(b'{"create_request":{"filters":[' + b"0," * 100_000 + b"0]}}")
    async with asyncio.timeout(LIMIT_S):
        while not front.output.data:
            await asyncio.sleep(0.001)
    assert b"too many requests" in front.output.data
    assert (front.watches.got.total(), front.room.memory.used) == (0, 0)
    assert front.room.memory.refused == 1


def test_bodies_and_messages_that_find_no_room_are_counted() -> None:
    asyncio.run(_without_room())


async def _without_room() -> None:
    front = Front(memory_bytes=1 << 10)
    front.post(b" " * 65_537)
    assert b"too many requests" in front.output.data
    assert front.room.memory.refused == 1
    front, client = Front(memory_bytes=1 << 10), Connection(ConnectionType.CLIENT)
    front.http1.receive(ASK, 0.0)
    front.http1.receive(client.send(TextMessage(data=" " * 2048)), 0.0)
    assert front.room.memory.refused == 1


def test_messages_beyond_their_own_bound_lack_no_memory() -> None:
    asyncio.run(_beyond_its_bound())


async def _beyond_its_bound() -> None:
    front, client = Front(), Connection(ConnectionType.CLIENT)
    front.room.max_untaken_bytes = 1 << 10
    front.http1.receive(ASK, 0.0)
    front.http1.receive(client.send(TextMessage(data=" " * 2048)), 0.0)
    assert b"too many requests" in front.output.data
    assert front.room.memory.refused == 0


def test_a_handler_is_told_that_a_request_was_too_large() -> None:
    """Its watches stayed."""
    asyncio.run(_too_large())


async def _too_large() -> None:
    front, cancelled = Front(), list[Any]()
    front.watches.cancelled = cancelled.append  # type: ignore[method-assign]
    front.room.max_message_bytes = 1000
    front.http1.receive(ASK, 0.0)
    client = Connection(ConnectionType.CLIENT)
    front.http1.receive(client.send(TextMessage(CREATE + CREATE.replace("YQ==", "YWFh" * 1000))), 0.0)
    assert len(cancelled) == 1
    assert b"received message larger than max" in front.output.data


def test_nothing_of_a_call_whose_client_has_gone_is_left_to_the_garbage_collector() -> None:
    asyncio.run(_gone())


async def _gone() -> None:
    post = f"POST /v3/watch HTTP/1.1\r\nHost: a\r\nContent-Length: {len(CREATE)}\r\n\r\n{CREATE}"
    client = Connection(ConnectionType.CLIENT)
    talk = [ASK, client.send(TextMessage(CREATE))]
    fronts = Front(), Front()
    with no_garbage("proxy"):
        for front, pieces in zip(fronts, ([post.encode()], talk), strict=True):
            for piece in pieces:
                front.http1.receive(piece, 0.0)
            await front.until(1)
            front.http1.lost()


@pytest.mark.parametrize("size", [10, LARGE_BYTES])
def test_nothing_of_a_broken_body_is_left_to_the_garbage_collector(size: int) -> None:
    """What was read of 12 MB takes 300 MB, and is held by the frames of its mistake."""
    asyncio.run(_broken(b'{"a":[' + b"[]," * size))


async def _broken(body: bytes) -> None:
    front = Front()
    front.post(b"{")  # what is made at the first use stays
    front = Front()
    with no_garbage("proxy"):
        front.post(body)
        async with asyncio.timeout(LIMIT_S):
            while not front.output.data:
                await asyncio.sleep(0)
        front.http1.lost()
    assert b"unexpected EOF" in front.output.data


def test_a_call_counts_and_is_timed_as_one_by_grpc() -> None:
    asyncio.run(_counted())


async def _counted() -> None:
    front, calls = Front(), list[Any]()
    front.watches.opened = calls.append  # type: ignore[method-assign]
    front.http1.receive(b"POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 0.0)
    (call,) = calls
    times = front.registry.times[WATCH.method]
    assert ({key: found.calls for key, found in front.registry.clients.items()}, times.count) == (
        {("stream", "unknown"): 1}, 0)
    call.finish()
    assert times.count == 1
    assert not front.told, "a stream lasts as long as its client wants"


@pytest.mark.parametrize("timed", [True, False])
def test_who_wants_to_know_of_slow_calls_is_told_of_each_that_is_no_stream(timed: bool) -> None:
    asyncio.run(_told(timed))


async def _told(timed: bool) -> None:
    front, calls = Front(), list[Any]()
    front.registry = Registry(timed=timed, slow=lambda *call: front.told.append(call))
    front.target = TARGETS["/v3/kv/put"]
    front.registry.unary(front.target.method, lambda call, data: calls.append(call))
    front.post(b"{}")
    (call,) = calls
    assert call.timed
    assert not front.told
    call.finish()
    ((path, client, took_s),) = front.told
    assert (path, client, call.timed) == ("/etcdserverpb.KV/Put", "peer", True)
    assert 0 <= took_s < LIMIT_S
