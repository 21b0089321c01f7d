"""Limits against abuse, ping policing, keep-alive."""

from __future__ import annotations

import pytest

from proxy.grpc.calls import Peer
from proxy.grpc.deadlines import Deadlines
from proxy.http.http2 import PREFACE, ErrorCode, Limits
from proxy.http.http2 import frames as f
from tests.unit.http2.client import REQUEST, Client


def flood(client: Client, frame: bytes, count: int) -> ErrorCode | None:
    for _ in range(count):
        client.send(frame)
    return client.goaway()


TIGHT = Limits(control_burst=50, control_rate=10, fault_burst=50, fault_rate=10, reset_burst=50,
               reset_rate=10)
SECURE = Peer("client", Deadlines(lambda when: None), secure=True)


@pytest.mark.parametrize(
    "frame",
    [f.settings_frame({}), f.settings_frame({f.INITIAL_WINDOW_SIZE: 70_000}), f.SETTINGS_ACK,
     f.frame(f.DATA, 0, 1, b""), f.ping(bytes(8), ack=True),
     f.frame(f.DATA, f.PADDED, 1, b"\x01\0"), f.frame(f.PRIORITY, 0, 9, bytes(5)), f.frame(0x55, 0, 0, b"")],
)  # fmt: skip
def test_a_flood_of_frames_that_bring_nothing_ends_the_connection(frame: bytes) -> None:
    client = Client(TIGHT)
    client.request(1)
    assert flood(client, frame, 40) is None
    assert flood(client, frame, 40) is ErrorCode.ENHANCE_YOUR_CALM


def test_the_same_frames_spread_over_time_are_fine() -> None:
    client = Client(TIGHT)
    for _ in range(500):
        client.now += 0.11
        client.send(f.settings_frame({}))
    assert client.goaway() is None


def test_rapid_resets_end_the_connection() -> None:
    client = Client(TIGHT)
    for i in range(60):
        client.send(f.header_frames(2 * i + 1, client.block(), True), f.rst_stream(2 * i + 1, 8))
    assert client.goaway() is ErrorCode.ENHANCE_YOUR_CALM
    assert not client.server.streams


def test_refused_streams_are_paid_for_too() -> None:
    client = Client(Limits(fault_burst=50, fault_rate=10, max_concurrent_streams=1))
    for i in range(60):
        client.send(f.header_frames(2 * i + 1, client.block(), True))
    assert client.goaway() is ErrorCode.ENHANCE_YOUR_CALM


def test_a_client_whose_refused_calls_end_late_is_no_flood_of_control_frames() -> None:
    """Each call is answered before its end has come: what comes then is late, and nobody's fault."""
    client = Client(Limits(control_burst=50, control_rate=0))
    for number in range(1, 2_001, 2):
        client.request(number).send_headers(b"\x88", end_stream=True)
        client.send(f.frame(f.DATA, f.END_STREAM, number, b""))
    assert client.goaway() is None


def test_honest_window_updates_cost_nothing() -> None:
    client = Client(TIGHT)
    client.request(1)
    client.send((f.window_update(0, 5) + f.window_update(1, 5)) * 5_000)
    assert client.goaway() is None


@pytest.mark.parametrize("piece", [b"", b"\x00\x01a\x01b"])
def test_a_continuation_flood_ends_the_connection(piece: bytes) -> None:
    client = Client()
    client.send(f.frame(f.HEADERS, 0, 1, client.block()))
    for _ in range(Limits().max_continuations + 2):
        client.send(f.frame(f.CONTINUATION, 0, 1, piece))
    assert client.goaway() is ErrorCode.ENHANCE_YOUR_CALM


def test_a_header_block_is_bounded_while_it_comes() -> None:
    client = Client()
    client.send(f.frame(f.HEADERS, 0, 1, client.block()))
    for _ in range(5):
        client.send(f.frame(f.CONTINUATION, 0, 1, bytes(16_000)))
    assert client.goaway() is ErrorCode.ENHANCE_YOUR_CALM


def test_a_header_list_above_the_limit_is_refused_and_the_table_stays_right() -> None:
    client = Client(Limits(max_header_list_bytes=1_000))
    client.send(f.header_frames(1, client.block([*REQUEST, ("x-big", "a" * 1_000)]), False))
    assert client.reset(1) is ErrorCode.ENHANCE_YOUR_CALM
    assert client.request(3, fields=[*REQUEST, ("x-small", "b")]).headers.metadata[b"x-small"] == b"b"


def test_a_cached_block_above_the_limit_is_refused_each_time() -> None:
    client = Client(Limits(max_header_list_bytes=300))
    client.request(1)
    # repeated pseudo-header fields are malformed as well: refused either way
    block = client.block() + b"\x82" * 4
    for stream_id in (3, 5, 7):
        client.send(f.header_frames(stream_id, block, False))
        assert client.reset(stream_id) is not None
    assert len(client.opened) == 1


# -- pings, as grpc-go polices them


def test_the_third_strike_ends_the_connection_with_too_many_pings() -> None:
    client = Client()
    client.request(1)
    for _ in range(3):
        client.send(f.ping(bytes(8)))
    assert not client.server.finished, "the first is free, then two strikes"
    client.send(f.ping(bytes(8)))
    assert client.take()[-1].payload[8:] == b"too_many_pings"
    assert client.server.finished


def test_pings_at_the_interval_are_fine_while_a_call_is_open() -> None:
    client = Client(Limits(ping_min_interval_s=5.0))
    client.request(1)
    for _ in range(20):
        client.now += 5.01
        client.send(f.ping(bytes(8)))
    assert client.goaway() is None


def test_the_same_pings_without_a_call_are_too_many() -> None:
    client = Client(Limits(ping_min_interval_s=5.0))
    for _ in range(4):
        client.now += 5.01
        client.send(f.ping(bytes(8)))
    assert client.goaway() is ErrorCode.ENHANCE_YOUR_CALM


def test_without_a_call_they_are_fine_if_permitted() -> None:
    client = Client(Limits(ping_min_interval_s=5.0, ping_permit_without_stream=True))
    for _ in range(20):
        client.now += 5.01
        client.send(f.ping(bytes(8)))
    assert client.goaway() is None


def test_by_tls_they_are_control_frames_like_others() -> None:
    """As in etcd, where grpc-go's rule holds without TLS alone."""
    client = Client(TIGHT)
    client.server.owner = SECURE
    assert flood(client, f.ping(bytes(8)), 40) is None
    assert flood(client, f.ping(bytes(8)), 40) is ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("owner", [None, SECURE], ids=["plain", "tls"])
@pytest.mark.parametrize("how", ["data", "headers", "queue"])
def test_a_client_that_measures_bandwidth_by_pinging_on_data_is_not_killed(
        how: str, owner: Peer | None) -> None:
    client = Client(TIGHT)
    client.server.owner = owner
    stream = client.request(1, end=True)
    stream.send_headers(b"\x88")
    for i in range(100):
        if how == "data":
            stream.send_data(b"x" * 100)
        elif how == "headers":
            client.request(2 * i + 3, end=True).send_headers(b"\x88")
        else:
            stream.send_data(b"x" * 20_000)
            client.send(f.window_update(0, 20_000), f.window_update(1, 20_000))
        client.take()
        client.send(f.ping(bytes(8)))
    assert client.goaway() is None


# -- keep-alive of the server


def test_a_silent_client_is_pinged_and_then_given_up() -> None:
    client = Client(Limits(keepalive_interval_s=100, keepalive_timeout_s=20))
    stream = client.request(1)
    client.server.tick(99.0)
    assert client.take() == []
    client.server.tick(101.0)
    (ping,) = client.take()
    assert ping.kind == f.PING
    client.server.tick(120.0)
    assert not client.server.finished
    client.server.tick(121.5)
    assert client.server.finished
    assert stream.events[-1][0] == "cancelled"


def test_a_client_that_answers_lives_on() -> None:
    client = Client(Limits(keepalive_interval_s=100, keepalive_timeout_s=20))
    for _ in range(5):
        client.now += 101
        client.server.tick(client.now)
        (ping,) = client.take()
        client.now += 10
        client.send(f.ping(ping.payload, ack=True))
        client.server.tick(client.now + 60)
    assert client.goaway() is None


# -- a header block that does not end


def test_a_header_block_has_a_time_limit_however_its_fragments_trickle() -> None:
    client = Client(Limits(head_timeout_s=20))
    other = client.request(1)
    client.send(f.frame(f.HEADERS, 0, 3, b"\x82"))
    for second in range(1, 20):
        client.now += 1
        client.send(f.frame(f.CONTINUATION, 0, 3, b"\x82"))
        client.server.tick(client.now)
        assert not client.server.finished, second
    client.server.tick(client.now + 2)
    assert client.server.finished
    assert other.events[-1][0] == "cancelled"


def test_a_header_block_that_ends_in_time_is_a_request_like_any() -> None:
    client = Client(Limits(head_timeout_s=20))
    block = client.block(REQUEST)
    client.send(f.frame(f.HEADERS, 0, 1, block[:4]))
    client.now += 19
    client.server.tick(client.now)
    client.send(f.frame(f.CONTINUATION, f.END_HEADERS, 1, block[4:]))
    client.now += 19
    client.server.tick(client.now)
    assert not client.server.finished


# -- a client that does not begin


CUT = f.settings_frame({f.HEADER_TABLE_SIZE: 0})[:-1]


@pytest.mark.parametrize("said", [PREFACE[:14], PREFACE, PREFACE + CUT])
def test_a_client_that_does_not_send_its_settings_in_time_is_let_go(said: bytes) -> None:
    client = Client(Limits(handshake_timeout_s=20), greet=False)
    client.send(said[:3])
    for byte in said[3:]:  # however it trickles
        client.now += 0.4
        client.send(bytes((byte,)))
        client.server.tick(client.now)
        assert not client.server.finished
    client.server.tick(19.9)
    assert not client.server.finished
    client.server.tick(20.1)
    assert client.server.finished


def test_a_client_that_has_sent_its_settings_may_be_silent() -> None:
    client = Client(Limits(handshake_timeout_s=20))
    client.server.tick(60)
    assert not client.server.finished


# -- what is remembered of streams that were reset


def test_ids_of_very_many_reset_streams_count_and_go_where_memory_is_short() -> None:
    """An idle connection held 260 KB of them for ever, and a client may have thousands of connections."""
    client, limit = Client(), 1_000_000
    client.server.memory.limit_bytes = limit
    for number in range(1, 8193, 2):
        client.send(f.header_frames(number, client.block(), False), f.rst_stream(number, 8))
        client.now += 0.001
    client.server.recount()
    memory = client.server.memory
    assert 150_000 < memory.used < 300_000
    client.server.tick(client.now)
    assert client.server.remembered, "there is room"
    memory.used += limit  # others hold that
    client.server.tick(client.now)
    assert client.server.remembered, "it holds less than its share"
    memory.limit_bytes = limit >> 3
    client.server.tick(client.now)
    client.server.recount()
    assert (memory.used, client.server.remembered) == (limit, 0)
    client.send(f.frame(f.DATA, 0, 8191, b"late"))
    assert not client.server.finished, "a few are remembered"
