"""Clients that do not read: what the port holds for them is bounded."""

from __future__ import annotations

import threading

import grpc
import hpack

from proxy.grpc.calls import Call
from proxy.grpc.registry import Registry
from proxy.http.http2 import PREFACE
from proxy.http.http2 import frames as f
from proxy.listener.server import Limits
from tests.unit.grpc.harness import Echo, Service, connected, same, serving


def test_a_client_that_never_reads_is_no_longer_read_and_gets_all_answers_in_the_end(
    service: Service,
) -> None:
    limits = Limits(write_high_bytes=100_000, max_unsent_bytes=2_000_000)
    with serving(service.registry, limits) as running, connected(running) as sock:
        encoder = hpack.Encoder()
        sock.sendall(PREFACE + f.settings_frame({f.INITIAL_WINDOW_SIZE: 2**31 - 1})
                     + f.window_update(0, 2**31 - 1 - 65_535))
        stream_id = 1
        sent = 0
        sock.settimeout(0.5)
        fields = [(":method", "POST"), (":scheme", "http"), (":path", "/t.S/Big"),
                  ("content-type", "application/grpc")]
        unsent = b""
        blocked = False
        while not blocked:
            while len(unsent) < 100_000:
                unsent += f.header_frames(stream_id, encoder.encode(fields), False)
                unsent += f.frame(f.DATA, 1, stream_id, b"\0\0\0\0\0")
                stream_id += 2
                sent += 1
            try:
                unsent = unsent[sock.send(unsent) :]
            except TimeoutError:
                blocked = True
            assert sent < 1_000_000, "the server reads on and on"
        statistics = running.call(running.server.statistics)
        assert statistics["paused_reading"] == 1
        assert statistics["queued_bytes"] <= limits.max_unsent_bytes + 12_000  # and the answer that passes it
        # what left is bounded by our limit and the kernel's socket buffers
        assert service.answered * 10_000 < 40_000_000
        # Now read everything, writing the rest.
        sock.settimeout(20)
        writer = threading.Thread(target=sock.sendall, args=(unsent,))
        writer.start()
        data = b""
        done = 0
        while done < sent:
            piece = sock.recv(1 << 20)
            assert piece
            data += piece
            pos = 0
            while len(data) - pos >= 9:
                word, flags, _ = f.FRAME_HEADER.unpack_from(data, pos)
                end = pos + 9 + (word >> 8)
                if end > len(data):
                    break
                assert word & 0xFF not in (f.RST_STREAM, f.GOAWAY)
                done += word & 0xFF == f.HEADERS and flags & 1
                pos = end
            data = data[pos:]
        writer.join()


def test_a_stream_writer_that_heeds_pending_bytes_stays_bounded() -> None:
    highest = 0

    class Firehose(Echo):
        def opened(self, call: Call) -> None:
            call.context = 0
            call.on_drain = lambda: self.more(call)
            self.more(call)

        def half_closed(self, call: Call) -> None:
            """Goes on sending."""

        def more(self, call: Call) -> None:
            nonlocal highest
            while call.context < 3000 and call.pending_bytes() < 200_000:
                call.context += 1
                call.send(b"y" * 10_000)
                highest = max(highest, call.pending_bytes())
            if call.context == 3000:
                call.finish()

    registry = Registry()
    registry.stream("/t.S/Hose", Firehose())
    with serving(registry) as running, grpc.insecure_channel(running.address) as channel:
        got = 0
        for data in channel.stream_stream("/t.S/Hose", same, same)(iter(())):
            got += len(data)
        assert got == 30_000_000
    assert highest <= 210_010
