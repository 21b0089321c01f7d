"""One test per rule of RFC 9113 section 6, the definitions of frames: see ``test_rfc9113``."""

from __future__ import annotations

import pytest

from proxy.http.http2 import ErrorCode, Limits
from proxy.http.http2 import frames as f
from tests.unit.http2.client import Client, Frame


@pytest.fixture
def client() -> Client:
    return Client()


# -- 6.1 DATA


def test_6_1_data_on_stream_0(client: Client) -> None:
    client.data(0, b"x")
    assert client.goaway() is ErrorCode.PROTOCOL_ERROR


def test_6_1_padding_is_removed(client: Client) -> None:
    stream = client.request(1)
    client.send(f.frame(f.DATA, f.PADDED, 1, b"\x03data\0\0\0"))
    client.send(f.frame(f.DATA, f.PADDED | f.END_STREAM, 1, b"\x02\0\0"))
    assert (stream.body, stream.ended) == (b"data", True)


@pytest.mark.parametrize("payload", [b"\x05data", b"\x01"])
def test_6_1_more_padding_than_payload(client: Client, payload: bytes) -> None:
    client.request(1)
    client.send(f.frame(f.DATA, f.PADDED, 1, payload))
    assert client.goaway() is ErrorCode.PROTOCOL_ERROR


# -- 6.2 HEADERS


def test_6_2_headers_on_stream_0(client: Client) -> None:
    client.send(f.header_frames(0, client.block(), True))
    assert client.goaway() is ErrorCode.PROTOCOL_ERROR


def test_6_2_padding_and_priority_are_removed(client: Client) -> None:
    block = client.block()
    client.send(f.frame(f.HEADERS, 0x2D, 1, b"\x04\0\0\0\0\x10" + block + bytes(4)))
    assert client.opened[0].headers.path == b"/a.B/C"


def test_6_2_more_padding_than_payload(client: Client) -> None:
    client.send(f.frame(f.HEADERS, 0x0D, 1, b"\xff\x82"))
    assert client.goaway() is ErrorCode.PROTOCOL_ERROR


# -- 6.3 PRIORITY


def test_6_3_priority_on_stream_0(client: Client) -> None:
    client.send(f.frame(f.PRIORITY, 0, 0, bytes(5)))
    assert client.goaway() is ErrorCode.PROTOCOL_ERROR


def test_6_3_priority_is_five_octets(client: Client) -> None:
    client.request(1)
    client.send(f.frame(f.PRIORITY, 0, 1, bytes(4)))
    assert client.reset(1) is ErrorCode.FRAME_SIZE_ERROR


# -- 6.4 RST_STREAM


def test_6_4_reset_on_stream_0(client: Client) -> None:
    client.send(f.rst_stream(0, 8))
    assert client.goaway() is ErrorCode.PROTOCOL_ERROR


def test_6_4_reset_is_four_octets(client: Client) -> None:
    client.request(1)
    client.send(f.frame(f.RST_STREAM, 0, 1, bytes(3)))
    assert client.goaway() is ErrorCode.FRAME_SIZE_ERROR


def test_6_4_a_reset_reaches_the_stream(client: Client) -> None:
    stream = client.request(1)
    client.send(f.rst_stream(1, 8))
    assert stream.events[-1] == ("cancelled", 8)
    assert stream.closed
    stream.send_data(b"into the void")
    assert client.take() == []


# -- 6.5 SETTINGS


def test_6_5_settings_are_acknowledged(client: Client) -> None:
    client.send(f.settings_frame({f.MAX_FRAME_SIZE: 20_000, 0x99: 5}))
    assert client.take() == [Frame(f.SETTINGS, f.ACK, 0, b"")]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (f.frame(f.SETTINGS, f.ACK, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR),
        (f.frame(f.SETTINGS, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (f.frame(f.SETTINGS, 0, 0, b"xxx"), ErrorCode.FRAME_SIZE_ERROR),
        (f.settings_frame({f.ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR),  # 6.5.2 from here on
        (f.settings_frame({f.INITIAL_WINDOW_SIZE: 0x8000_0000}), ErrorCode.FLOW_CONTROL_ERROR),
        (f.settings_frame({f.MAX_FRAME_SIZE: 16_383}), ErrorCode.PROTOCOL_ERROR),
        (f.settings_frame({f.MAX_FRAME_SIZE: 0x100_0000}), ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_6_5_illegal_settings(client: Client, frame: bytes, code: ErrorCode) -> None:
    client.send(frame)
    assert client.goaway() is code


def test_6_5_2_a_smaller_header_table_is_said_in_the_next_block_once(client: Client) -> None:
    client.decoder.max_allowed_table_size = 0  # this decoder insists on hearing so
    client.send(f.settings_frame({f.HEADER_TABLE_SIZE: 0}))
    for stream_id in (1, 3):
        client.request(stream_id, end=True).send_headers(b"\x88", end_stream=True)
    blocks = [frame.payload for frame in client.take() if frame.kind == f.HEADERS]
    assert blocks == [b"\x20\x88", b"\x88"]
    assert client.decoder.decode(blocks[0]) == client.decoder.decode(blocks[1])


# -- 6.6 PUSH_PROMISE


def test_6_6_a_client_does_not_push(client: Client) -> None:
    client.request(1)
    client.send(f.frame(f.PUSH_PROMISE, 4, 1, b"\0\0\0\2"))
    assert client.goaway() is ErrorCode.PROTOCOL_ERROR


# -- 6.7 PING


def test_6_7_a_ping_is_answered_with_its_octets(client: Client) -> None:
    client.send(f.ping(b"abcdefgh"))
    assert client.take() == [Frame(f.PING, f.ACK, 0, b"abcdefgh")]


def test_6_7_an_acknowledgement_is_not_answered(client: Client) -> None:
    client.send(f.ping(b"abcdefgh", ack=True))
    assert client.take() == []


def test_6_7_ping_on_a_stream(client: Client) -> None:
    client.send(f.frame(f.PING, 0, 1, bytes(8)))
    assert client.goaway() is ErrorCode.PROTOCOL_ERROR


def test_6_7_ping_is_eight_octets(client: Client) -> None:
    client.send(f.frame(f.PING, 0, 0, bytes(7)))
    assert client.goaway() is ErrorCode.FRAME_SIZE_ERROR


# -- 6.8 GOAWAY


def test_6_8_goaway_on_a_stream(client: Client) -> None:
    client.send(f.frame(f.GOAWAY, 0, 1, bytes(8)))
    assert client.goaway() is ErrorCode.PROTOCOL_ERROR


def test_6_8_a_client_that_leaves_gets_its_open_answers(client: Client) -> None:
    stream = client.request(1, end=True)
    client.send(f.goaway(0, 0))
    assert not client.server.finished
    stream.send_headers(b"\x88", end_stream=True)
    assert [frame.kind for frame in client.take()] == [f.HEADERS]
    assert client.server.finished


def test_6_8_drain_takes_calls_that_were_on_their_way_then_refuses(client: Client) -> None:
    client.server.drain()
    first, ping = client.take()
    assert (first.kind, f.U32.unpack_from(first.payload)[0]) == (f.GOAWAY, f.MAX_STREAM_ID)
    stream = client.request(1, end=True)
    client.send(f.ping(ping.payload, ack=True))
    (last,) = client.take()
    assert (last.kind, f.U32.unpack_from(last.payload)[0]) == (f.GOAWAY, 1)
    client.send(f.header_frames(3, client.block(), True))
    assert client.take()[0] == Frame(f.RST_STREAM, 0, 3, f.U32.pack(ErrorCode.REFUSED_STREAM))
    assert not client.server.finished
    stream.send_headers(b"\x88", end_stream=True)
    assert client.server.finished


# -- 6.9 WINDOW_UPDATE


@pytest.mark.parametrize("stream_id", [0, 1])
def test_6_9_an_update_of_zero(client: Client, stream_id: int) -> None:
    client.request(1)
    client.send(f.window_update(stream_id, 0))
    if stream_id:
        assert client.reset(1) is ErrorCode.PROTOCOL_ERROR
    else:
        assert client.goaway() is ErrorCode.PROTOCOL_ERROR


def test_6_9_an_update_is_four_octets(client: Client) -> None:
    client.send(f.frame(f.WINDOW_UPDATE, 0, 0, bytes(3)))
    assert client.goaway() is ErrorCode.FRAME_SIZE_ERROR


@pytest.mark.parametrize("stream_id", [0, 1])
def test_6_9_1_a_window_above_the_largest(client: Client, stream_id: int) -> None:
    client.request(1)
    client.send(f.window_update(stream_id, 0x7FFF_FFFF))
    if stream_id:
        assert client.reset(1) is ErrorCode.FLOW_CONTROL_ERROR
    else:
        assert client.goaway() is ErrorCode.FLOW_CONTROL_ERROR


def test_6_9_1_a_client_that_overruns_a_streams_window() -> None:
    client = Client(Limits(stream_window_bytes=65_535))
    stream = client.request(1)
    # the server tops the window up at every half, so only one burst that ignores it can overrun
    stream.receive_window = 10
    client.data(1, b"x" * 11)
    assert client.reset(1) is ErrorCode.FLOW_CONTROL_ERROR
    assert stream.body == b""


@pytest.mark.parametrize("end", [False, True])
def test_6_9_1_also_with_the_frame_that_ends_it(end: bool) -> None:
    client = Client()
    stream = client.request(1)
    stream.receive_window = 10
    client.data(1, b"x" * 11, end=end)
    assert client.reset(1) is ErrorCode.FLOW_CONTROL_ERROR


def test_6_9_2_initial_window_size_moves_open_streams_below_zero_and_back(client: Client) -> None:
    stream = client.request(1, end=True)
    stream.send_data(b"x" * 10_000)
    client.take()
    client.send(f.settings_frame({f.INITIAL_WINDOW_SIZE: 4_000}))
    assert stream.send_window == -6_000
    stream.send_data(b"y" * 100)
    assert [frame.kind for frame in client.take()] == [f.SETTINGS]
    client.send(f.window_update(1, 6_000))
    assert client.take() == [], "exactly at zero nothing may go"
    client.send(f.window_update(1, 60))
    assert client.take() == [Frame(f.DATA, 0, 1, b"y" * 60)]
    client.send(f.settings_frame({f.INITIAL_WINDOW_SIZE: 4_040}))
    assert [len(frame.payload) for frame in client.take() if frame.kind == f.DATA] == [40]


def test_6_9_2_a_change_that_overflows_a_window(client: Client) -> None:
    client.request(1)
    client.send(f.window_update(1, 0x7000_0000), f.settings_frame({f.INITIAL_WINDOW_SIZE: 0x7000_0000}))
    assert client.goaway() is ErrorCode.FLOW_CONTROL_ERROR


# -- 6.10 CONTINUATION


def test_6_10_a_block_in_many_pieces(client: Client) -> None:
    block = client.block()
    parts = [block[i : i + 4] for i in range(0, len(block), 4)]
    client.send(f.frame(f.HEADERS, f.END_STREAM, 1, parts[0]))
    for part in parts[1:-1]:
        client.send(f.frame(f.CONTINUATION, 0, 1, part))
    client.send(f.frame(f.CONTINUATION, f.END_HEADERS, 1, parts[-1]))
    assert client.opened[0].headers.path == b"/a.B/C"
    assert client.opened[0].ended


@pytest.mark.parametrize("stream_id", [0, 1, 3])
def test_6_10_continuation_only_where_a_block_is_open(client: Client, stream_id: int) -> None:
    block = client.block()
    client.send(f.frame(f.HEADERS, 0, 1, block[:3]))
    if stream_id == 1:
        client.send(f.frame(f.CONTINUATION, 4, 1, block[3:]))
    client.send(f.frame(f.CONTINUATION, 4, stream_id, b"\x82"))
    assert client.goaway() is ErrorCode.PROTOCOL_ERROR
