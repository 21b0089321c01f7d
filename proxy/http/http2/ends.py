"""How streams and a connection end, and the windows that are due for what they held."""

from __future__ import annotations

from collections.abc import Callable

from proxy.http.http2 import frames
from proxy.http.http2.frames import ConnectionFault, ErrorCode, PartialBlock, StreamFault
from proxy.http.http2.guard import Budget, KeepAlive, Limits, ResetIds
from proxy.http.http2.outbound import Outbound
from proxy.http.http2.stream import Stream
from proxy.http.memory import HEAD_BYTES, Memory

_TOGETHER = 100  # streams that end in a turn of the loop, with their connection
_KEEPALIVE_PING = b"\0muster\0"
DRAIN_PING = b"\0goaway\0"


class Ends(Outbound):
    """The half of a connection that ends it and its streams."""

    __slots__ = (
        "_block", "_drain_ping", "_faults", "_first", "_greets_until", "_keepalive", "_last_id", "_last_read",
        "_needs_preface", "_next_id", "_receive_window", "_reset_ids", "_rest", "draining", "failed",
        "held_back", "now", "reason",
    )  # fmt: skip

    def __init__(
        self, limits: Limits, now: float, notify: Callable[[], None], memory: Memory | None = None
    ) -> None:
        super().__init__(limits, notify, memory)
        self.now = now  # of the last receive or tick
        self.held_back: Stream | None = None  # it has messages that wait for the next receive
        self.reason = ""  # why it finished
        self.failed = False  # the client broke a rule
        self.draining = False
        self._needs_preface = True
        self._first = True  # the client's SETTINGS have not come yet
        self._greets_until = now + limits.handshake_timeout_s
        self._rest = b""
        self._block: PartialBlock | None = None
        self._last_id = 0
        self._next_id = -1  # of the next stream, while ``Connection._frames`` may open it by itself; else -1
        self._last_read = now
        self._reset_ids = ResetIds()
        self._receive_window = max(limits.connection_window_bytes, frames.DEFAULT_WINDOW)
        self._drain_ping = False
        self._faults = Budget("faults of streams", limits.fault_burst, limits.fault_rate, now)
        self._keepalive = KeepAlive(limits.keepalive_interval_s, limits.keepalive_timeout_s, now)

    def local_end(self, stream: Stream) -> None:
        """Our END_STREAM is written. A client still sending is told to stop (section 8.1)."""
        if stream.remote_closed:
            self.forget(stream, reset_by_us=None)
        else:
            self.write(frames.rst_stream(stream.id, ErrorCode.NO_ERROR))
            self.forget(stream, reset_by_us=True)

    def forget(self, stream: Stream, reset_by_us: bool | None) -> None:
        """The stream is closed: by END_STREAM on both sides (None) or by a reset."""
        stream.closed = True
        if stream.held:
            self.answered(stream)
        if self.streams.pop(stream.id, None) is not None and stream.headers.size > HEAD_BYTES:
            self.heads -= stream.headers.weight
        if stream.queued:
            self.queued -= stream.queued
            stream.queued = 0
            stream.queue = None
        self.ready.pop(stream, None)
        if reset_by_us is not None:
            self._remember(stream.id, reset_by_us)
        if self.draining:
            self._finish_if_idle("drained")

    def drain(self) -> None:
        """Graceful end: GOAWAY, calls that are on their way are still taken, open ones are answered."""
        if self.draining or self.finished:
            return
        self._drain_ping = True
        self.write(frames.goaway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR, b"graceful_stop"))
        self.write(frames.ping(DRAIN_PING))

    @property
    def drained(self) -> bool:
        """Whether it ended in order: the client only reads the rest."""
        return self.finished and self.draining

    def drain_now(self) -> None:
        """After :meth:`drain`: nothing new is taken."""
        if not self._drain_ping or self.finished:
            return
        self._drain_ping, self.draining, self.exact, self._next_id = False, True, True, -1
        self.write(frames.goaway(self._last_id, ErrorCode.NO_ERROR))
        self._finish_if_idle("drained")

    def tick(self, now: float) -> None:
        """About once a second: keep-alive of a silent client, and an end of one that is slow."""
        if self.finished:
            return
        self.now = now
        if self.remembered and self.crowded:  # others need that more than late frames do
            self._reset_ids.shrink()
            self.remembered = 0
        verdict = self._keepalive.check(now, self._last_read)
        if verdict == "ping":
            self.write(frames.ping(_KEEPALIVE_PING))
        elif verdict == "dead":
            self.lost("keep-alive timeout")
        elif self._block is not None and now - self._block.began > self.limits.head_timeout_s:
            self.lost("header block not whole in time")
        elif self._first and now > self._greets_until:
            self.lost("no SETTINGS in time")

    def lost(self, reason: str = "connection lost") -> None:
        """Open streams are cancelled, of very many some: the owner calls again in later turns of the loop."""
        if not self.finished:
            self.finished = True
            self.reason = reason
        self._cancel_some()

    def _fail(self, code: ErrorCode, text: str) -> None:
        if not self._needs_preface:
            self.write(frames.goaway(self._last_id, code, text.encode()))
        self.finished = self.failed = True
        self.reason = text
        self._cancel_some()

    def _cancel_some(self) -> None:
        self._rest = b""
        self._block = self.held_back = None
        some = [self.streams.popitem() for _ in range(min(len(self.streams), _TOGETHER))]
        self.streams.update(reversed(some))  # only ``popitem`` never passes again over those that went
        for _, stream in reversed(some):
            self.forget(stream, reset_by_us=None)
            stream.cancelled(ErrorCode.CANCEL)
        if self.streams:
            self.pause_writing()  # what the others say meanwhile goes nowhere, and is counted
            self.recount()
        else:
            self.memory.count(self, 0)

    def _finish_if_idle(self, reason: str) -> None:
        if self.draining and not self.streams and not self.finished:
            if not self.out:
                self.notify()
            self.finished = True
            self.reason = reason

    def _stream_fault(self, stream_id: int, code: ErrorCode) -> None:
        """RST_STREAM for the peer's breach (section 5.4.2)."""
        self._faults.pay(self.now)
        self.write(frames.rst_stream(stream_id, code))
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.forget(stream, reset_by_us=True)
            stream.cancelled(code)
        elif stream_id <= self._last_id and stream_id & 1:
            self._remember(stream_id, True)

    def _remember(self, stream_id: int, reset_by_us: bool) -> None:
        self._reset_ids.add(stream_id, reset_by_us)
        self.remembered = self._reset_ids.size_bytes

    def _late(self, stream_id: int, paid: bool) -> None:
        """DATA or HEADERS on a stream that is closed (section 5.1, "closed"). ``paid``: by flow control."""
        by_us = self._reset_ids.by_us(stream_id)
        if by_us is None:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "frame after END_STREAM")
        if not paid:
            self._faults.pay(self.now)
        if not by_us:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "frame after RST_STREAM")

    def _check_not_idle(self, stream_id: int, kind: str) -> None:
        if not stream_id or not stream_id & 1 or stream_id > self._last_id:
            where = "stream 0" if not stream_id else "an idle stream"
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{kind} on {where}")  # sections 5.1, 6.1, 6.4

    def _credit(self, window: int) -> int:
        if window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "connection window overrun")
        full = max(self.limits.connection_window_bytes, frames.DEFAULT_WINDOW) - self.unanswered
        if window < full >> 1:
            self.write(frames.window_update(0, full - window))
            return full
        return window

    def taken_on(self, stream: Stream, size: int) -> None:
        """A request of so many bytes is complete: the client's window shrinks by it until the answer.
        Unfinished requests do not count, or large ones sent at once would wait for each other."""
        stream.held += size
        self.unanswered += size

    def waits_long(self, stream: Stream, kept: int) -> None:
        """Its request is answered at some time. The client has its window back, and so much of it counts."""
        kept = min(kept, stream.held)
        self.answered(stream)
        stream.held = -kept
        self.waiting += kept

    def answered(self, stream: Stream) -> None:
        if stream.held < 0:
            self.waiting += stream.held
            stream.held = 0
            return
        self.unanswered -= stream.held
        stream.held = 0
        if not self.finished:
            self._receive_window = self._credit(self._receive_window)
