"""The sending half of a connection: what is to be written, and the queues that wait for windows.

Frames go to ``out`` in the order they are said. HEADERS and control frames wait for nothing.
DATA goes there at once if it fits a frame, both windows and the socket; else it waits in its
stream's queue, and ``take`` moves it over, one frame a stream in turn, a bounded amount per
socket write. ``ready`` holds exactly the streams with a queue and a window of their own, so a
WINDOW_UPDATE costs the same whatever is blocked.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.http.http2 import frames
from proxy.http.http2.frames import ConnectionFault, ErrorCode
from proxy.http.http2.guard import Limits, PingPolicy
from proxy.http.http2.holdings import Holdings
from proxy.http.http2.stream import Stream
from proxy.http.memory import Memory

_PUMP_BYTES = 262_144  # taken from queues for one socket write
_SHRINK = b"\x20"  # a dynamic table size update to zero (RFC 7541 section 6.3)


class Outbound(Holdings):
    """What a connection has to say. See the module's docstring."""

    __slots__ = (
        "_prefix_due", "_prefix_said", "limits", "notify", "out", "peer_max_frame", "peer_stream_window",
        "pings", "plain", "ready",
        "send_window", "writable",
    )  # fmt: skip

    def __init__(self, limits: Limits, notify: Callable[[], None], memory: Memory | None = None) -> None:
        super().__init__(memory)
        self.limits = limits
        self.notify = notify  # called when ``out`` is about to become non-empty
        self.out: list[bytes | bytearray | memoryview] = []
        self.writable = True  # the socket takes more
        # writable, and header blocks need no prefix: ready-made answers may be written as they are
        self.plain = True
        self.ready: dict[Stream, None] = {}
        self.send_window = frames.DEFAULT_WINDOW
        self.peer_stream_window = frames.DEFAULT_WINDOW
        self.peer_max_frame = frames.DEFAULT_MAX_FRAME
        self.pings = PingPolicy(limits)
        self._prefix_due = False
        self._prefix_said = False

    def write(self, data: bytes) -> None:
        """Queue a whole frame; control frames and headers wait for no window."""
        if not self.out:
            self.notify()
        self.out.append(data)
        self.pings.sent = self.pings.sent or data[3] <= frames.HEADERS

    def enqueued(self, stream: Stream, size: int) -> None:
        """A stream has put ``size`` bytes into its queue."""
        self.queued += size
        self.recount()
        if stream.send_window > 0:
            if not self.out and self.writable and self.send_window > 0:
                self.notify()
            self.ready[stream] = None

    def take(self) -> bytes:
        """What is to be written now, b"" if nothing; again until it is empty or ``writable`` is false."""
        self.recount()
        if self.ready and self.writable and self.send_window > 0:
            self._pump()
        out = self.out
        if not out:
            return b""
        data = b"".join(out)
        out.clear()
        return data

    def _pump(self) -> None:
        """Move queued payload into frames, one frame a stream in turn, as windows and a bound per write
        allow."""
        ready = self.ready
        budget = _PUMP_BYTES
        mark = self.limits.drain_mark_bytes
        sent = False
        while ready and budget > 0 and self.send_window > 0:
            stream = next(iter(ready))
            del ready[stream]
            before = stream.queued
            size = stream.send_some(min(self.peer_max_frame, self.send_window, stream.send_window))
            self.send_window -= size
            self.queued -= size
            budget -= size
            sent = True
            if stream.queued and stream.send_window > 0:
                ready[stream] = None
            if stream.queued <= mark < before or not stream.queued:
                stream.drained()
        if sent:
            self.pings.sent = True

    def set_initial_window(self, value: int) -> None:
        """RFC 9113 section 6.9.2: the change moves every open stream's window, below zero if need be."""
        if value > frames.MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "illegal INITIAL_WINDOW_SIZE")
        change = value - self.peer_stream_window
        self.peer_stream_window = value
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > frames.MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE overflows a window")
            if stream.queued and stream.send_window > 0:
                self.ready[stream] = None
            else:
                self.ready.pop(stream, None)

    def table_shrunk(self) -> None:
        """The peer lowered SETTINGS_HEADER_TABLE_SIZE.

        We never insert, but its decoder may insist on hearing so (RFC 7541 section 4.2). We
        shrink to zero, once: every later size is above that, so nothing needs saying again.
        """
        if not self._prefix_said:
            self._prefix_due = True
            self.plain = False

    def block_prefix(self) -> bytes:
        """What the next header block must begin with."""
        if not self._prefix_due:
            return b""
        self._prefix_due = False
        self._prefix_said = True
        self.plain = self.writable
        return _SHRINK

    def pause_writing(self) -> None:
        """The socket is full: DATA waits in the streams' queues."""
        self.writable = self.plain = False

    def resume_writing(self) -> None:
        """The socket takes more; what was queued is in the next ``take``."""
        self.writable = True
        self.plain = not self._prefix_due
        if self.ready and not self.out:
            self.notify()
