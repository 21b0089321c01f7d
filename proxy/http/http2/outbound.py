"""The sending half of a connection: what is to be written, and the queues that wait for windows.

HEADERS and control frames go to ``out`` at once. DATA does if it fits a frame, both windows and the socket;
else it waits in its stream's queue. ``take`` moves it on, one frame a stream in turn, a bounded amount per
socket write. ``ready`` holds exactly the streams with a queue and an open window.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from proxy.http.http2 import frames
from proxy.http.http2.frames import ConnectionFault, ErrorCode
from proxy.http.http2.guard import Limits, PingPolicy
from proxy.http.http2.stream import Stream
from proxy.http.memory import PATIENT_BYTES, PATIENT_IN_ALL, STEP_BYTES, STREAM_BYTES, Memory

PUMP_BYTES = 262_144  # taken from queues for one socket write
_FRAME_BYTES = 1024  # what a frame takes as long as, beside its bytes: windows may be of one octet
_SHRINK = b"\x20"  # a dynamic table size update to zero (RFC 7541 section 6.3)


class Outbound:
    """What a connection has to say, and what it holds of its front's memory (``proxy.http.memory``)."""

    __slots__ = (
        "_prefix_due", "_prefix_said", "buffered", "counted", "exact", "finished", "gathered", "heads",
        "limits", "memory", "notify", "out", "peer_max_frame", "peer_stream_window", "pings", "plain",
        "queued", "ready", "remembered", "send_window", "shares", "streams", "unanswered", "unsent",
        "waiting", "writable",
    )  # fmt: skip

    def __init__(self, limits: Limits, notify: Callable[[], None], memory: Memory | None = None) -> None:
        self.memory = memory or Memory()
        self.streams: dict[int, Stream] = {}
        # ids of streams, by scarce resource (``proxy.services.shares``)
        self.shares: dict[object, list[int]] = {}
        self.buffered = 0  # bytes of unfinished requests, counted by the layer above
        self.unanswered = 0  # bytes of requests that are being answered, but for small ones
        self.waiting = 0  # of those that wait long, what is kept: the client has its window back
        self.gathered = 0  # bytes of answers that have not all come from the nodes
        self.heads = 0  # bytes of open streams' header blocks, but for small ones
        self.remembered = 0  # bytes of ids of streams that were reset, but for a few
        self.exact = False  # it has large ones, or drains: each stream that ends is told to ``forget``
        self.queued = 0  # bytes of answers in all streams' queues
        self.unsent = 0  # bytes that the socket has not taken, as of the last write
        self.counted = 0
        self.finished = False
        self.limits = limits
        self.notify = notify  # called when ``out`` is about to become non-empty
        self.out: list[bytes | bytearray | memoryview] = []
        self.writable = True  # the socket takes more
        # writable, and header blocks need no prefix: ready-made answers may be written as they are
        self.plain = True
        self.ready: OrderedDict[Stream, None] = OrderedDict()  # a ``dict`` passes over all that have left it
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
        ready = self.ready
        budget = PUMP_BYTES
        mark = self.limits.drain_mark_bytes
        sent = False
        while ready and budget > 0 and self.send_window > 0:
            stream, _ = ready.popitem(last=False)
            before = stream.queued
            size = stream.send_some(min(self.peer_max_frame, self.send_window, stream.send_window))
            self.send_window -= size
            self.queued -= size
            budget -= size + _FRAME_BYTES
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
        """The peer lowered SETTINGS_HEADER_TABLE_SIZE: its decoder may insist on hearing of it (RFC 7541
        section 4.2). The table shrinks to zero, once: every later size is above that."""
        if not self._prefix_said:
            self._prefix_due = True
            self.plain = False

    def block_prefix(self) -> bytes:
        """What the next header block begins with."""
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

    def recount(self) -> None:
        size = (self.buffered + self.unanswered + self.waiting + self.gathered + self.queued + self.unsent
                + self.heads + self.remembered + len(self.streams) * STREAM_BYTES)
        if not -STEP_BYTES < size - self.counted < STEP_BYTES and (self.streams or not self.finished):
            self.memory.count(self, size)

    @property
    def crowded(self) -> bool:
        """Whether it gets nothing more in."""
        return self.memory.crowded(self)

    def refuses(self, size: int) -> bool:
        """Whether a request that is not whole, of so many bytes so far, is refused for lack of room."""
        much = size > PATIENT_BYTES or (size > 0 and self.buffered > PATIENT_IN_ALL)
        refused = much and self.crowded
        self.memory.refused += refused
        return refused
