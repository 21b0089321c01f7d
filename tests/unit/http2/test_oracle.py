"""The connection against ``h2``: as its client, and as a server that reads the same octets."""

from __future__ import annotations

import random

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.http.http2 import Connection, HeaderBlock, Limits
from tests.unit.http2.client import REQUEST, Recorder, parse

TRAILER = b"\x00\x05x-end\x01t"  # a literal without indexing
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.booleans(), st.integers(0, 3)),
        st.tuples(st.just("data"), st.integers(0, 5), st.integers(0, 40_000), st.booleans(), st.integers(0, 255) | st.none()),
        st.tuples(st.just("trailers"), st.integers(0, 5)),
        st.tuples(st.just("reset"), st.integers(0, 5)),
        st.tuples(st.just("ping")),
        st.tuples(st.just("window"), st.integers(100, 100_000)),
        st.tuples(st.just("settings"), st.integers(0, 70_000), st.integers(0, 4_096)),
        st.tuples(st.just("answer"), st.integers(0, 5), st.integers(0, 120_000), st.booleans()),
        st.tuples(st.just("cut"), st.integers(0, 5)),
        st.tuples(st.just("sync")),
    ),
    max_size=30,
)


class Pair:
    """An h2 client, our server, and an h2 server that only listens to the same octets."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.oracle = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.limits = Limits(stream_window_bytes=100_000, connection_window_bytes=200_000, ping_min_interval_s=0, ping_permit_without_stream=True)
        self.opened: dict[int, Recorder] = {}
        self.server = Connection(self._open, self.limits, 0.0, lambda: None)
        self.seen: dict[int, list] = {}  # what the oracle saw
        self.got: dict[int, bytearray] = {}  # what the client got
        self.ended: set[int] = set()
        self.said: dict[int, bytearray] = {}
        self.client.initiate_connection()
        # The oracle's windows are opened wide. It tops its own up at other moments than the server does, and the client
        # goes by the server's.
        self.oracle.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
        self.oracle.initiate_connection()
        self.oracle.increment_flow_control_window(2**31 - 1 - 65_535)
        self.sync()

    def _open(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> Recorder:
        stream = Recorder(connection, stream_id, headers)
        self.opened[stream_id] = stream
        return stream

    def sync(self) -> None:
        """Carry octets until both ends have nothing more to say; the server reads them in random pieces."""
        for _ in range(200):
            data = self.client.data_to_send()
            pos = 0
            while pos < len(data):
                step = self.random.choice((1, 7, 100, 5_000, len(data)))
                self.server.receive(data[pos : pos + step], 0.0)
                pos += step
            for event in self.oracle.receive_data(data) if data else []:
                self._oracle_event(event)
            self.oracle.data_to_send()
            back = b""
            while piece := self.server.take():
                back += piece
            parse(back)
            if not back and not data:
                return
            for event in self.client.receive_data(back) if back else []:
                self._client_event(event)
        pytest.fail("the two ends do not come to rest")

    def _oracle_event(self, event: h2.events.Event) -> None:
        stream_id = getattr(event, "stream_id", 0)
        seen = self.seen.setdefault(stream_id, [])
        if isinstance(event, h2.events.RequestReceived):
            seen.append(("opened", [(bytes(n), bytes(v)) for n, v in event.headers]))
        elif isinstance(event, h2.events.DataReceived):
            seen.append(("data", event.data))
            if event.flow_controlled_length:
                self.oracle.acknowledge_received_data(event.flow_controlled_length, stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            seen.append(("trailers", [(bytes(n), bytes(v)) for n, v in event.headers]))
        elif isinstance(event, h2.events.StreamReset):
            seen.append(("cancelled", event.error_code))

    def _client_event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            self.got.setdefault(event.stream_id, bytearray()).extend(event.data)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.add(event.stream_id)
        assert not isinstance(event, h2.events.ConnectionTerminated), "the server hung up on a correct client"

    def end(self, stream: Recorder) -> None:
        """End an answer. An empty DATA frame needs no window (RFC 9113 section 6.9.1), but h2 4.4 takes it for an overrun
        where a SETTINGS frame made the window negative: trailers end such a stream."""
        stream.end(TRAILER if stream.send_window < 0 else b"")

    def compare(self) -> None:
        for stream_id, stream in self.opened.items():
            expected = self.seen[stream_id]
            assert stream.headers.fields == expected[0][1]
            assert stream.body == b"".join(e[1] for e in expected if e[0] == "data")
            assert [e for e in stream.events if e[0] == "trailers"] == [e for e in expected if e[0] == "trailers"]
            cancelled = [e for e in expected if e[0] == "cancelled"]
            assert [e for e in stream.events if e[0] == "cancelled"] in (cancelled, []), "only a closed stream may not hear of it"
        assert set(self.seen) - {0} == set(self.opened)
        for stream_id, data in self.got.items():
            assert self.said[stream_id][: len(data)] == data


UPLOAD = ("data", 0, 16_384, False, None)


@given(STEPS, st.integers(0, 2**32))
@example([("open", True, 0), ("sync",), ("answer", 0, 60_000, False), ("sync",), ("settings", 100, 4_096), ("sync",),
          ("cut", 0)], 0).via("h2 4.4 takes an empty DATA frame for an overrun of a negative window")
@example([("open", False, 0), *[UPLOAD] * 7, ("sync",), UPLOAD, ("sync",), *[UPLOAD] * 7], 0).via(
    "the oracle's stream window was topped up later than the server's")
@settings(max_examples=150, deadline=None)
def test_any_dialogue_is_understood_as_h2_does_and_answered_to_its_satisfaction(steps: list, seed: int) -> None:
    pair = Pair(seed)
    client = pair.client
    open_ids: list[int] = []  # the client still sends on these
    for step in steps:
        kind = step[0]
        pick = open_ids[step[1] % len(open_ids)] if open_ids and kind in ("data", "trailers", "reset") else 0
        if kind == "open":
            stream_id = client.get_next_available_stream_id()
            fields = REQUEST + [("x-common", "yes"), ("x-new", str(stream_id)), ("grpc-timeout", f"{stream_id}m")][: step[2]]
            client.send_headers(stream_id, fields, end_stream=step[1], priority_weight=7 if step[2] == 1 else None)
            if not step[1]:
                open_ids.append(stream_id)
        elif kind == "data" and pick:
            padding = step[4]
            room = min(client.local_flow_control_window(pick), 16_384) - (padding + 1 if padding is not None else 0)
            if room > 0:
                client.send_data(pick, bytes((pick % 256,)) * min(step[2], room), end_stream=step[3], pad_length=padding)
                if step[3]:
                    open_ids.remove(pick)
        elif kind == "trailers" and pick:
            client.send_headers(pick, [("x-trailer", "t")], end_stream=True)
            open_ids.remove(pick)
        elif kind == "reset" and pick:
            client.reset_stream(pick, 8)
            open_ids.remove(pick)
        elif kind == "ping":
            client.ping(b"12345678")
        elif kind == "window":
            if client.inbound_flow_control_window < 2**30:
                client.increment_flow_control_window(step[1])
        elif kind == "settings":
            client.update_settings({4: step[1], 1: step[2]})
        elif kind == "sync":
            pair.sync()
        elif kind in ("answer", "cut"):
            alive = [s for s in pair.opened.values() if not s.closed and not s.ending]
            if not alive:
                continue
            stream = alive[step[1] % len(alive)]
            if kind == "cut":
                if stream.remote_closed:  # else the client object, rightly, complains about our NO_ERROR reset
                    stream.send_headers(b"\x88", end_stream=True) if stream.id not in pair.said else pair.end(stream)
                continue
            if stream.id not in pair.said:
                pair.said[stream.id] = bytearray()
                stream.send_headers(b"\x88")
            data = pair.random.randbytes(step[2])
            pair.said[stream.id] += data
            stream.send_data(data)
            if step[3] and stream.remote_closed:
                pair.end(stream)
    pair.sync()
    pair.compare()
    # Open every window: then all that was said must arrive.
    client.update_settings({4: 2**31 - 1 - 2_000_000})
    if client.inbound_flow_control_window < 2**30:
        client.increment_flow_control_window(2**30)
    pair.sync()
    for stream in pair.opened.values():
        assert not stream.queued
    for stream_id, data in pair.said.items():
        if ("cancelled", 8) not in pair.opened[stream_id].events:
            assert pair.got.get(stream_id, b"") == data
