"""What one client may hold of a front's memory, and what all may together."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection as WebSocket
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage

from proxy.grpc.calls import BACKLOG_BYTES, SHARED_BACKLOG_BYTES
from proxy.grpc.kinds import ASKED_BYTES
from proxy.grpc.registry import Registry
from proxy.http.http2 import Limits
from proxy.http.http2 import frames as f
from proxy.http.memory import PATIENT_IN_ALL, STEP_BYTES, STREAM_BYTES, TOO_MANY, Memory
from proxy.http.requests import HttpRequest
from proxy.http.upgrade import accept
from tests.unit.grpc.calls.talking import Talk, message
from tests.unit.grpc.harness import connected, serving, wait_for
from tools.muster.machine.process.memory import for_clients, of_the_host

WINDOW = 100_000
PIECE = 10_000


def upload(talk: Talk, stream_id: int, data: bytes, end: bool = True) -> None:
    """A request's message, in frames."""
    for at in range(0, len(data), 16_384):
        talk.data(stream_id, data[at : at + 16_384], end=end and at + 16_384 >= len(data))


def given_back(talk: Talk) -> int:
    """Window of the connection that the client has got since it was last asked."""
    updates = [frame for frame in talk.take() if frame.kind == f.WINDOW_UPDATE and not frame.stream_id]
    return sum(f.U32.unpack(frame.payload)[0] for frame in updates)


def park(talk: Talk, count: int, size: int = PIECE, first: int = 1) -> None:
    """So many requests that are not answered for now."""
    for at in range(count):
        talk.headers(first + 2 * at, path="/a.B/Park")
        upload(talk, first + 2 * at, message(bytes(size)))


def test_window_is_given_back_when_requests_are_answered_and_not_when_they_are_read() -> None:
    talk = Talk(connection_window_bytes=WINDOW)
    park(talk, 8)
    assert given_back(talk) == 0
    assert talk.server.unanswered == 8 * PIECE
    for call in talk.parked:
        call.reply(b"done")
    assert given_back(talk) >= WINDOW // 2
    assert talk.server.unanswered == 0


def test_a_client_that_goes_on_never_has_more_than_its_window_unanswered() -> None:
    talk = Talk(connection_window_bytes=WINDOW)
    window, stream_id, most = WINDOW, 1, 0
    for turn in range(200):
        while window >= PIECE + 5:
            park(talk, 1, first=stream_id)
            stream_id += 2
            window += given_back(talk) - PIECE - 5
        most = max(most, talk.server.unanswered)
        talk.parked.pop(turn % len(talk.parked)).reply(b"done")
        window += given_back(talk)
        assert talk.parked, "the client is never left without a window"
    assert WINDOW / 2 < most <= WINDOW + PIECE, "what is just being read is not counted yet"


@pytest.mark.parametrize("how", ["reset", "expire", "refuse", "reply late"])
def test_however_a_request_ends_its_window_is_given_back(how: str) -> None:
    talk = Talk(connection_window_bytes=WINDOW)
    park(talk, 8)
    talk.take()
    if how == "reset":
        talk.server.receive(b"".join(f.rst_stream(1 + 2 * at, 8) for at in range(8)), 100.0)
    elif how == "expire":
        for call in talk.parked:
            call.expired()
    elif how == "refuse":
        for call in talk.parked:
            call.finish(8, "no")
    else:  # the answer waits for a window of the client's: the request does not
        talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
        for call in talk.parked:
            call.reply(bytes(5))
    assert talk.server.unanswered == 0
    assert given_back(talk) >= WINDOW // 2


@pytest.mark.parametrize("fields", [{"x_large": "a" * 20_000}, {f"x_{at}": "" for at in range(600)}])
def test_header_blocks_of_calls_without_a_request_count(fields: dict[str, str]) -> None:
    """A client without rights opened calls, sent no request, and had all memory of the host."""
    memory = Memory(1 << 20)
    talk = Talk(memory=memory)
    count = 0
    while not memory.refused:
        talk.headers(2 * count + 1, path="/a.B/Park", **fields)
        talk.take()
        count += 1
        assert count < 100, "32 KB in each"
    assert memory.used > memory.limit_bytes
    for stream in list(talk.server.streams.values()):
        stream.reset()
    talk.take()
    assert (talk.server.heads, memory.used < STEP_BYTES) == (0, True)


def test_a_large_header_block_counts_for_each_call_until_its_answer() -> None:
    """Also where they share one: the connection may forget it before they end."""
    talk = Talk()
    for stream_id in (1, 3, 5, 7):
        talk.headers(stream_id, path="/a.B/Park", token="a" * 2_000)
    talk.headers(9, path="/a.B/Park")
    large = talk.server.streams[5].headers
    assert (large, talk.server.heads) == (talk.server.streams[7].headers, 4 * large.weight)
    for stream_id in (1, 9, 5, 7, 3):
        talk.data(stream_id, message(b"x"))
    for call, left in zip(talk.parked, (3, 3, 2, 1, 0), strict=True):
        call.reply(b"done")
        assert talk.server.heads == left * large.weight


def test_what_was_gathered_for_a_small_answer_is_not_counted_once_that_is_given() -> None:
    talk = Talk()
    park(talk, 1)
    (call,) = talk.parked
    call.gather(1 << 20)  # rows of several shards, of which the answer shows the keys
    assert talk.server.gathered == 1 << 20
    call.reply(b"small")
    assert talk.server.gathered == 0
    assert call.closed


def test_an_unfinished_message_is_not_counted_once_its_call_has_expired() -> None:
    talk = Talk()
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
    talk.headers(1, path="/a.B/Bidi")
    talk.stream.calls[0].send(b"not taken")
    talk.data(1, message(bytes(1000))[:500], end=False)
    assert talk.server.buffered == 500
    talk.stream.calls[0].expired()
    assert not talk.server.streams
    assert talk.server.buffered == 0


def test_large_requests_that_are_sent_at_once_do_not_wait_for_each_others_end() -> None:
    talk = Talk(connection_window_bytes=WINDOW)
    whole = message(bytes(60_000))
    window = WINDOW
    for at in range(0, 60_005, 1_000):
        for stream_id in range(1, 21, 2):
            if not at:
                talk.headers(stream_id, path="/a.B/Park")
            assert window >= 1_000, "nobody could go on"
            talk.data(stream_id, whole[at : at + 1_000], end=at == 60_000)
            window += given_back(talk) - len(whole[at : at + 1_000])
    assert len(talk.parked) == 10
    assert talk.server.unanswered == 600_000


def test_small_answers_that_nobody_takes_are_few_objects() -> None:
    talk = Talk()
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
    talk.headers(1, path="/a.B/Bidi")
    (call,) = talk.stream.calls
    for _ in range(100_000):
        call.send(b"ok")
    queue = call.queue
    assert queue is not None
    assert call.queued == 700_000
    assert sum(map(sys.getsizeof, queue)) < 1_000_000
    talk.server.receive(
        f.settings_frame({f.INITIAL_WINDOW_SIZE: 1 << 20}) + f.window_update(0, 1 << 20), 100.0)
    taken = b"".join(frame.payload for frame in talk.take() if frame.kind == f.DATA)
    assert taken == message(b"ok") * 100_000


# -- all connections


def test_who_holds_more_than_a_share_of_what_is_used_up_is_refused_and_others_are_not() -> None:
    memory = Memory(500_000)
    greedy, other = Talk(memory=memory), Talk(memory=memory)
    park(other, 1)
    park(greedy, 60)
    other.take()
    greedy.take()
    assert memory.used > memory.limit_bytes
    greedy.headers(201)
    assert greedy.status(201) == (8, TOO_MANY)
    assert memory.refused == 1
    greedy.headers(203, path="/a.B/Bidi")
    assert greedy.status(203) == (8, TOO_MANY)
    assert not greedy.stream.calls, "its handler has never heard of it"
    other.headers(101)
    other.data(101, message(b"x"))
    assert other.answer(101)[1] == message(b"x")
    for call in greedy.parked:
        call.reply(b"done")
    greedy.take()
    greedy.headers(205)
    greedy.data(205, message(b"y"))
    assert greedy.answer(205)[1] == message(b"y")


def test_a_large_request_of_a_crowded_connection_is_refused_before_it_is_whole() -> None:
    memory = Memory(500_000)
    talk = Talk(memory=memory)
    for stream_id in range(1, 21, 2):
        talk.headers(stream_id, path="/a.B/Park")
    for stream_id in range(1, 21, 2):
        upload(talk, stream_id, message(bytes(100_000))[:-1], end=False)
        talk.take()
    assert talk.server.buffered <= 500_000 + 2 * 100_000
    assert memory.refused
    talk.data(1, b"\0")
    assert len(talk.parked) == 1, "those that were first are served"


def test_a_stream_of_a_crowded_connection_is_refused_before_its_large_request_is_whole() -> None:
    memory = Memory(150_000)
    talk = Talk(memory=memory)
    for stream_id in (1, 3):
        talk.headers(stream_id, path="/a.B/Bidi")
    upload(talk, 1, message(bytes(200_000))[:-1], end=False)
    talk.take()
    upload(talk, 3, message(bytes(200_000))[:-1], end=False)
    assert talk.status(3) == (8, TOO_MANY)
    assert memory.refused == 1, "metrics tell it"


@pytest.mark.parametrize("size", [60_000, 200_000])
@pytest.mark.parametrize("kind", ["gRPC", "plain HTTP", "a body that is followed"])
def test_a_crowded_connection_holds_little_of_requests_that_are_not_whole(kind: str, size: int) -> None:
    """Of plain HTTP it held up to 64 MiB, and of small requests: some hundred connections ended the front."""
    registry, memory = Registry(), Memory(300_000)
    registry.unary("/a.B/Park", lambda call, data: call.reply(data))
    registry.http("/plain", lambda request: request.respond(200))
    registry.http("/followed", lambda request: request.follow(lambda data, ended: size - 1))
    registry.early = frozenset(("/followed",))
    path = {"gRPC": "/a.B/Park", "plain HTTP": "/plain"}.get(kind, "/followed")
    talk = Talk(registry, memory)
    for stream_id in range(1, 81, 2):
        talk.headers(stream_id, path=path, content_type="application/grpc" if kind == "gRPC" else "a/b")
    for stream_id in range(1, 81, 2):
        upload(talk, stream_id, message(bytes(size))[:-1], end=False)
        talk.take()
    assert talk.server.buffered <= PATIENT_IN_ALL + size
    assert memory.refused


def test_a_body_over_http_2_for_which_there_is_no_room_is_refused() -> None:
    registry, memory = Registry(), Memory(150_000)
    registry.http("/plain", lambda request: request.respond(200))
    talk = Talk(registry, memory)
    for stream_id in (1, 3):
        talk.headers(stream_id, path="/plain", content_type="a/b")
    upload(talk, 1, bytes(200_000), end=False)
    talk.take()
    upload(talk, 3, bytes(70_000), end=False)
    (head,) = (frame for frame in talk.take() if frame.kind == f.HEADERS)
    assert head.stream_id == 3
    assert dict(talk.decoder.decode(head.payload))[":status"] == "429"
    assert memory.refused == 1
    talk.data(1, b"\0")
    (head,) = (frame for frame in talk.take() if frame.kind == f.HEADERS)
    assert head.stream_id == 1
    assert dict(talk.decoder.decode(head.payload))[":status"] == "200", "it is whole"


@pytest.mark.parametrize("what", ["a message of a WebSocket", "what comes behind an answer"])
def test_what_a_crowded_connection_of_http_1_cannot_use_yet_ends_it(what: str) -> None:
    sockets: list[object] = []
    registry = Registry()
    registry.http("/pieces", lambda request: request.start(200))
    registry.http("/socket", lambda request: sockets.append(accept(request, lambda message: None)))
    client = WebSocket(ConnectionType.CLIENT)
    with serving(registry, small()) as running:
        with connected(running) as sock:
            if what == "what comes behind an answer":
                sock.sendall(b"GET /pieces HTTP/1.1\r\nHost: x\r\n\r\n")
                rest = bytes(4_000_000)
            else:
                sock.sendall(b"GET /socket HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n"
                             b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
                             b"dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
                rest = client.send(BytesMessage(data=bytes(4_000_000), message_finished=False))
            assert sock.recv(10)
            with contextlib.suppress(ConnectionError):
                sock.sendall(rest)
                while sock.recv(65_536):
                    pass
        wait_for(lambda: running.call(running.server.statistics)["memory_bytes"] == 0)


def test_open_streams_count() -> None:
    memory = Memory(100 * STREAM_BYTES)
    talk = Talk(memory=memory)
    for stream_id in range(1, 401, 2):
        talk.headers(stream_id, path="/a.B/Park")
        talk.take()
    assert 100 <= len(talk.server.streams) <= 110


def test_a_stream_of_a_crowded_connection_that_asks_on_and_takes_no_answer_is_reset() -> None:
    memory = Memory(500_000)
    talk = Talk(memory=memory)
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
    talk.headers(1, path="/a.B/Bidi")
    (call,) = talk.stream.calls
    call.send(bytes(400_000))
    assert call.backlog_bytes() == BACKLOG_BYTES
    talk.data(1, message(b"still fine"), end=False)
    call.send(bytes(200_000))
    assert call.backlog_bytes() < BACKLOG_BYTES
    talk.data(1, message(b"too much"), end=False)
    assert talk.stream.heard == ["opened", b"still fine", "cancelled"]
    talk.take()
    assert memory.used < 20_000


def test_a_stream_may_ask_for_more_while_its_client_takes_a_large_answer() -> None:
    """A watch's past comes in answers of 16 MiB. The next request ended all watches of the stream."""
    talk = Talk()
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
    talk.headers(1, path="/a.B/Bidi")
    (call,) = talk.stream.calls
    past = bytes(talk.server.limits.max_unsent_bytes + 1)
    for turn in range(3):
        call.send(past)
        for _ in range(1500):
            talk.data(1, message(b"a watch of a key that is a hundred bytes long" * 3), end=False)
        assert len(talk.stream.heard) == 1 + 1500 * (turn + 1)
        for stream_id in (0, 1):  # it takes all
            talk.server.receive(f.window_update(stream_id, 5 + len(past)), 100.0)
        talk.take()
        assert not call.queued
    call.send(past)
    for _ in range(10_000):
        talk.data(1, message(b"on and on, and takes no answer"), end=False)
    assert talk.stream.heard[-1] == "cancelled"
    assert len(talk.stream.heard) < 1 + 1500 * 3 + ASKED_BYTES // 30


def test_streams_of_a_connection_share_what_may_wait_for_it() -> None:
    talk = Talk()
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
    talk.headers(1, path="/a.B/Bidi")
    talk.headers(3, path="/a.B/Bidi")
    first, second = talk.stream.calls
    first.send(bytes(SHARED_BACKLOG_BYTES))
    assert second.backlog_bytes() == talk.server.limits.drain_mark_bytes
    first.reset()
    assert second.backlog_bytes() == BACKLOG_BYTES


def test_a_connection_that_has_gone_holds_nothing() -> None:
    memory = Memory(1 << 20)
    talks = [Talk(memory=memory) for _ in range(2)]
    for talk in talks:
        park(talk, 10)
        talk.take()
    assert (memory.holders, memory.used > 200_000) == (2, True)
    talks[0].server.lost()
    talks[1].server.receive(b"\xff" * 100, 100.0)  # a breach of the protocol ends it
    for talk in talks:
        for call in talk.parked:
            call.reply(bytes(100_000))
        talk.take()
    assert (memory.holders, memory.used) == (0, 0)


class Holder:
    def __init__(self) -> None:
        self.counted = 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1000)), max_size=60), st.integers(1, 3000))
def test_somebody_is_beyond_his_share_whenever_too_much_is_held(
    steps: list[tuple[int, int]], limit: int
) -> None:
    memory = Memory(limit)
    holders = [Holder() for _ in range(10)]
    for who, size in steps:
        memory.count(holders[who], size)
        held = [holder.counted for holder in holders]
        crowded = [holder.counted for holder in holders if memory.crowded(holder)]
        assert bool(crowded) == (sum(held) > limit)
        mine = [size for size in held if size]
        assert all(size * len(mine) > limit for size in crowded)
        assert memory.used == sum(held)


# -- real sockets


def small(**limits: float) -> Limits:
    return Limits(max_memory_bytes=300_000, write_high_bytes=65_536, **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("later", [False, True], ids=["answered at once", "answered later"])
def test_a_client_that_takes_nothing_of_what_others_need_loses_its_connection(later: bool) -> None:
    def answer(request: HttpRequest) -> None:
        if later:
            asyncio.get_running_loop().call_later(0.05, request.respond, 200, bytes(30 << 20))
        else:
            request.respond(200, bytes(30 << 20))

    registry = Registry()
    registry.http("/large", answer)
    registry.http("/ok", lambda request: request.respond(200, b"fine"))
    with serving(registry, small(stalled_s=1.0)) as running, contextlib.ExitStack() as stack:
        greedy, other = (stack.enter_context(connected(running)) for _ in range(2))
        greedy.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: running.call(running.server.statistics)["connections_stalled"] == 1)
        other.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
        assert other.recv(100).startswith(b"HTTP/1.1 200 ")
        assert running.call(running.server.statistics)["memory_bytes"] == 0


def test_a_body_of_http_1_for_which_there_is_no_room_is_refused() -> None:
    registry = Registry()
    registry.http("/echo", lambda request: request.respond(200, b"%d" % len(request.body)))
    with serving(registry, small()) as running:
        with connected(running) as sock:
            sock.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                sock.sendall(bytes(3_900_000))
            with contextlib.suppress(ConnectionError):
                assert sock.recv(1000).startswith(b"HTTP/1.1 429 ")
        assert running.call(running.server.statistics)["requests_refused"] == 1
        with connected(running) as sock:
            sock.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))
            assert sock.recv(1000).endswith(b"100000")
        wait_for(lambda: running.call(running.server.statistics)["memory_bytes"] == 0)


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "reset"])
def test_bodies_count_until_their_requests_are_answered(answered: bool) -> None:
    """Large writes of version 2 wait for their turn: a front took gigabytes of them uncounted."""
    registry, memory, pending = Registry(), Memory(), list[HttpRequest]()
    registry.http("/later", pending.append)
    talk = Talk(registry, memory)
    talk.headers(1, method="PUT", path="/later", content_type="text/plain")
    upload(talk, 1, bytes(1_000_000))
    talk.take()
    assert memory.used >= len(pending[0].body) == 1_000_000
    if answered:
        pending[0].respond(200)
    else:
        talk.server.receive(f.rst_stream(1, 8), 100.0)
    talk.take()
    assert (memory.used, talk.server.unanswered) == (0, 0)


@pytest.mark.parametrize(
    ("host", "clients"), [(256 << 20, 64 << 20), (2 << 30, 256 << 20), (64 << 30, 2 << 30)])
def test_clients_may_hold_a_part_of_the_hosts_memory(host: int, clients: int) -> None:
    assert for_clients(host) == clients
    assert of_the_host() > 64 << 20


# -- answers that come in pieces


def test_answers_on_their_way_count_until_they_are_queued_or_given_up() -> None:
    memory = Memory(2_000_000)
    talk = Talk(memory=memory, max_untaken_bytes=300_000)
    park(talk, 3, size=10)
    first, second, third = talk.parked
    assert first.room_to_gather
    first.gather(400_000)
    assert talk.server.gathered == 400_000
    assert memory.used >= 400_000
    assert not second.room_to_gather
    assert second.takes, "the client has had nothing to take yet"
    second.gather(50_000)
    first.reply(bytes(400_000))  # larger than the client's window
    assert talk.server.gathered == 50_000
    assert not second.takes
    second.finish(8, "no")
    third.gather(1_000)
    talk.server.receive(f.rst_stream(third.id, 8), 100.0)
    third.gather(1_000)
    assert talk.server.gathered == 0


def test_one_answer_may_be_larger_than_all_room_and_no_second_one() -> None:
    memory = Memory(500_000)
    one, two = Talk(memory=memory), Talk(memory=memory)
    park(one, 1, size=10)
    park(two, 1, size=10)
    (large,), (other,) = one.parked, two.parked
    large.gather(2_000_000)
    assert not large.beyond_all_room
    other.gather(100_000)
    assert not other.beyond_all_room, "it is within its share"
    other.gather(400_000)
    assert other.beyond_all_room


def _take_all_turns(talk: Talk) -> None:
    """Very many messages in one piece: each turn takes some, and what comes behind them waits."""
    while talk.server.more:
        talk.server.receive(b"", 100.0)


STEPS = ("open", "open", "body", "gather", "reply", "send", "finish", "expire", "reset", "take")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_happens_to_calls_nothing_is_counted_once_all_have_ended(data: st.DataObject) -> None:
    memory = Memory(200_000)
    # its window is never used up
    talk = Talk(memory=memory, max_buffered_bytes=150_000, max_unsent_bytes=100_000)
    window = data.draw(st.sampled_from((0, 1_000, 1 << 20)))
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: window}), 100.0)
    open_ids: list[int] = []
    calls: list[Any] = []
    for step in range(data.draw(st.integers(1, 30))):
        what = data.draw(st.sampled_from(STEPS))
        if what == "open":
            path = data.draw(st.sampled_from(("/a.B/Park", "/a.B/Bidi", "/a.B/Echo")))
            head = "a" * data.draw(st.sampled_from((0, 2_000, 20_000)))
            talk.headers(2 * step + 1, path=path, x_head=head)
            if (stream := talk.server.streams.get(2 * step + 1)) is not None:
                open_ids.append(stream.id)
                calls.append(stream)
        elif what == "body" and open_ids:
            stream_id = data.draw(st.sampled_from(open_ids))
            whole = message(bytes(data.draw(st.sampled_from((0, 10, 3_000, 80_000)))))
            cut = data.draw(st.sampled_from((len(whole), len(whole) // 2)))
            if cut == len(whole):
                open_ids.remove(stream_id)
            upload(talk, stream_id, whole[:cut], end=cut == len(whole))
        elif what == "take":
            talk.take()
        elif what == "reset" and calls:
            stream_id = data.draw(st.sampled_from(calls)).id
            open_ids = [one for one in open_ids if one != stream_id]
            talk.server.receive(f.rst_stream(stream_id, 8), 100.0)
        elif calls:
            call, size = data.draw(st.sampled_from(calls)), data.draw(st.sampled_from((5, 5_000, 120_000)))
            if what == "gather":
                call.gather(size)
            elif what == "reply" and call.remote_closed:
                call.reply(bytes(size))
            elif what == "send":
                call.send(bytes(size))
            elif what == "finish":
                call.finish(8, "no")
            elif what == "expire" and not call.closed:
                call.expired()
    assert not talk.server.finished, talk.server.reason
    server = talk.server
    _take_all_turns(talk)  # a stream may be opened behind very many messages: it is reset, too
    for stream_id in list(server.streams):
        server.receive(f.rst_stream(stream_id, 8), 100.0)
    _take_all_turns(talk)
    talk.take()
    held = server.buffered, server.unanswered, server.gathered, server.queued, server.heads
    assert held == (0, 0, 0, 0, 0)
    assert not server.streams
    assert (memory.used, memory.holders) in ((0, 0), (server.counted, 1))
    assert server.counted < STEP_BYTES
