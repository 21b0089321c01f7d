"""Windows and queues, both ways."""

from __future__ import annotations

from unittest.mock import patch

from proxy.http.http2 import Connection, Limits
from proxy.http.http2 import frames as f
from tests.unit.http2.client import Client, Frame, Recorder


def body(frames: list[Frame], stream_id: int) -> bytes:
    return b"".join(
        frame.payload for frame in frames if frame.kind == f.DATA and frame.stream_id == stream_id
    )


def test_nothing_exceeds_the_streams_window_and_the_rest_follows_an_update() -> None:
    client = Client(settings={f.INITIAL_WINDOW_SIZE: 100})
    stream = client.request(1, end=True)
    stream.send_data(b"x" * 250)
    stream.end(b"\x88")
    assert body(client.take(), 1) == b"x" * 100
    assert stream.queued == 150
    client.send(f.window_update(1, 149))
    assert body(client.take(), 1) == b"x" * 149
    client.send(f.window_update(1, 100))
    frames = client.take()
    assert body(frames, 1) == b"x"
    assert frames[-1] == Frame(f.HEADERS, 5, 1, b"\x88")
    assert stream.closed


def test_an_answer_ends_though_settings_made_its_window_negative() -> None:
    client = Client()
    stream = client.request(1, end=True)
    stream.send_data(b"x" * 60_000)
    client.take()
    client.send(f.settings_frame({f.INITIAL_WINDOW_SIZE: 100}))
    assert stream.send_window == 100 - 60_000
    stream.end()
    assert Frame(f.DATA, f.END_STREAM, 1, b"") in client.take(), "RFC 9113 section 6.9.1: it needs no window"
    assert stream.closed


def test_of_a_frames_windows_the_last_one_counts_and_streams_are_looked_at_once() -> None:
    """2730 of them walked all streams each: 0.5 MB of such frames held the loop for seconds."""
    client = Client()
    streams = [client.request(i, end=True) for i in range(1, 21, 2)]
    entries = [f.SETTING.pack(f.INITIAL_WINDOW_SIZE, value) for value in [*range(2000), 77]]
    with patch.object(type(client.server), "set_initial_window", autospec=True,
                      side_effect=Connection.set_initial_window) as change:
        client.send(f.frame(f.SETTINGS, 0, 0, b"".join(entries)))
    change.assert_called_once_with(client.server, 77)
    assert {stream.send_window for stream in streams} == {77}
    client.send(f.frame(
        f.SETTINGS, 0, 0, f.SETTING.pack(f.INITIAL_WINDOW_SIZE, 1 << 31) + entries[-1]))
    assert f.GOAWAY in {frame.kind for frame in client.take()}, "a mistake stays one, whatever follows"


def test_nothing_exceeds_the_connections_window_and_streams_take_turns() -> None:
    client = Client(settings={f.INITIAL_WINDOW_SIZE: 1_000_000})
    streams = [client.request(i, end=True) for i in (1, 3, 5)]
    for stream in streams:
        stream.send_data(b"x" * 60_000)
    assert sum(len(frame.payload) for frame in client.take()) == 65_535
    sent = {s.id: 60_000 - s.queued for s in streams}
    assert min(sent.values()) >= 16_384, sent
    for _ in range(12):
        client.send(f.window_update(0, 10_000))
        assert sum(len(frame.payload) for frame in client.take() if frame.kind == f.DATA) <= 10_000
    client.send(f.window_update(0, 10_000))
    client.take()
    assert client.server.queued == 0


def test_small_messages_are_counted_against_both_windows() -> None:
    client = Client(settings={f.INITIAL_WINDOW_SIZE: 40_000})
    for stream_id in (1, 3):
        stream = client.request(stream_id, end=True)
        for _ in range(500):
            stream.send_data(b"x" * 100)
    frames = client.take()
    assert len(body(frames, 1)) == 40_000
    assert len(body(frames, 3)) == 25_535


def test_order_is_kept_when_a_small_message_follows_a_queued_one() -> None:
    client = Client(settings={f.INITIAL_WINDOW_SIZE: 10})
    stream = client.request(1, end=True)
    stream.send_data(b"a" * 15)
    stream.send_data(b"b" * 5)
    frames = client.take()
    client.send(f.window_update(1, 4))
    stream.send_data(b"c")
    frames += client.take()
    client.send(f.window_update(1, 100))
    frames += client.take()
    assert body(frames, 1) == b"a" * 15 + b"b" * 5 + b"c"


def test_small_queued_messages_share_a_frame() -> None:
    client = Client(settings={f.INITIAL_WINDOW_SIZE: 0})
    stream = client.request(1, end=True)
    for i in range(50):
        stream.send_data(b"%02d" % i)
    client.send(f.window_update(1, 1_000))
    frames = client.take()
    assert body(frames, 1) == b"".join(b"%02d" % i for i in range(50))
    assert len(frames) == 1


def test_a_large_frame_is_used_only_where_the_peer_allows_it() -> None:
    for allowed, largest in ((None, 16_384), (32_768, 32_768)):
        settings = {f.INITIAL_WINDOW_SIZE: 1_000_000}
        if allowed:
            settings[f.MAX_FRAME_SIZE] = allowed
        client = Client(settings=settings)
        client.send(f.window_update(0, 1_000_000))
        client.request(1, end=True).send_data(b"x" * 200_000)
        assert max(len(frame.payload) for frame in client.take()) == largest


def test_while_the_socket_is_full_data_waits_but_control_frames_go() -> None:
    client = Client()
    stream = client.request(1, end=True)
    client.server.pause_writing()
    stream.send_data(b"x" * 100)
    client.send(f.ping(b"\3" * 8))
    assert [frame.kind for frame in client.take()] == [f.PING]
    before = client.notified
    client.server.resume_writing()
    assert client.notified == before + 1
    assert body(client.take(), 1) == b"x" * 100


def test_a_long_answer_leaves_in_bounded_writes() -> None:
    client = Client(settings={f.INITIAL_WINDOW_SIZE: 2**31 - 1})
    client.send(f.window_update(0, 2**31 - 1 - 65_535))
    client.request(1, end=True).send_data(b"x" * 5_000_000)
    sizes = []
    while data := client.server.take():
        sizes.append(len(data))
    assert sum(sizes) > 5_000_000
    assert max(sizes) < 400_000


def test_the_owner_is_told_once_per_burst() -> None:
    client = Client()
    stream = client.request(1, end=True)
    client.take()
    before = client.notified
    stream.send_data(b"1")
    stream.send_data(b"2")
    assert client.notified == before + 1
    client.take()
    stream.send_data(b"3")
    assert client.notified == before + 2


def test_the_owner_is_told_of_data_that_goes_by_the_queue() -> None:
    client = Client()
    stream = client.request(1, end=True)
    client.take()
    before = client.notified
    stream.send_data(b"x" * 30_000)
    assert client.notified == before + 1
    assert body(client.take(), 1) == b"x" * 30_000


def test_a_stream_hears_when_its_queue_has_drained() -> None:
    client = Client(Limits(drain_mark_bytes=100))
    stream = client.request(1, end=True)
    stream.send_data(b"x" * 66_000)
    client.take()
    assert stream.queued == 66_000 - 65_535
    assert ("drained", 0) not in stream.events
    client.send(f.window_update(0, 400), f.window_update(1, 400))
    client.take()
    assert stream.events[-1] == ("drained", 65)


def test_a_reset_drops_what_was_queued() -> None:
    client = Client(settings={f.INITIAL_WINDOW_SIZE: 0})
    stream = client.request(1, end=True)
    stream.send_data(b"x" * 66_000)
    client.send(f.rst_stream(1, 8))
    assert client.server.queued == 0
    assert not client.server.streams
    assert stream.closed


def upload(client: Client, stream: Recorder, total: int) -> None:
    """A client that obeys both windows; fails if it is ever left without."""
    connection = Limits().connection_window_bytes
    window = Limits().stream_window_bytes
    sent = 0
    while sent < total:
        size = min(16_384, connection, window, total - sent)
        assert size > 0, "the client starves"
        client.data(stream.id, b"x" * size, end=sent + size == total)
        sent += size
        connection -= size
        window -= size
        for frame in client.take():
            assert frame.kind == f.WINDOW_UPDATE
            if frame.stream_id:
                window += f.U32.unpack(frame.payload)[0]
            else:
                connection += f.U32.unpack(frame.payload)[0]
            assert connection <= Limits().connection_window_bytes
            assert window <= Limits().stream_window_bytes


def test_a_long_upload_never_starves_and_never_gets_more_than_the_full_window() -> None:
    client = Client()
    stream = client.request(1)
    upload(client, stream, 20_000_000)
    assert len(stream.body) == 20_000_000


def test_data_on_streams_we_reset_still_counts_and_is_given_back() -> None:
    client = Client()
    client.request(1).reset(8)
    given = 0
    for _ in range(3_000):
        client.data(1, b"x" * 16_384)
        given += sum(
            f.U32.unpack(frame.payload)[0] for frame in client.take() if frame.kind == f.WINDOW_UPDATE
        )
    assert 3_000 * 16_384 - Limits().connection_window_bytes <= given <= 3_000 * 16_384
