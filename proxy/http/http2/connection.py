"""One HTTP/2 connection, server side: a pure state machine.

Contract: the owner calls ``receive(data, now)`` with what it read, and, whenever ``notify`` was
called or ``receive`` returned, writes what ``take()`` returns until that is empty or
``writable`` is false. It calls ``pause_writing`` and ``resume_writing`` as its socket fills and empties,
``tick(now)`` about once a second, and ``lost()`` when the socket is gone. It closes the socket once
``finished`` is true and everything is taken. No method raises on anything a peer can send.

Streams are made by ``open_stream(connection, id, headers)``; see ``stream`` for the callbacks.

Errors: a rule whose breach ends the connection raises ``ConnectionFault`` inside and becomes
GOAWAY; one that ends a stream becomes RST_STREAM (RFC 9113 section 5.4). Breaches of streams, and
frames that cost more than they bring, are paid from budgets. WINDOW_UPDATE is not: honest clients under
load send thousands of them a second. PING has a rule of its own (``guard``).

Hot path: ``receive`` handles HEADERS with END_HEADERS only, and DATA without padding, in its
own loop; everything else is a method. Measured on the 2-core reference machine with calls
pipelined 200 a read, ``proxy.grpc.calls`` and its answer included (``tests.unit.grpc.cost``):
1.9 us of CPU per unary call whose header block is cached, 8.6 us where each carries a new
``grpc-timeout``.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.http.http2 import frames
from proxy.http.http2.blocks import TABLE_LIMIT, HeaderBlock, HeaderDecoder
from proxy.http.http2.frames import ConnectionFault, ErrorCode, StreamFault
from proxy.http.http2.guard import Budget, KeepAlive, Limits, ResetIds
from proxy.http.http2.outbound import Outbound
from proxy.http.http2.partial import PartialBlock, unpad
from proxy.http.http2.stream import Stream
from proxy.http.memory import Memory

_KEEPALIVE_PING = b"\0muster\0"
_DRAIN_PING = b"\0goaway\0"
# units of work in a turn of the loop, some 1 ms: a frame is one, 4 octets of a new header block another
# (short fields take 0.2 us an octet)
TURN_WORK = 200
BRIEF_WORK = TURN_WORK >> 1  # of those that have had very many turns (``proxy.http.backlog``)

OpenStream = Callable[["Connection", int, HeaderBlock], Stream]


class Connection(Outbound):
    """The server's end of one HTTP/2 connection. See the module's docstring for the contract."""

    __slots__ = (
        "_block", "_control", "_decoder", "_drain_ping", "_faults", "_first", "_gaps", "_keepalive",
        "_last_id", "_last_read", "_max_frame", "_needs_preface", "_open_stream", "_receive_window",
        "_reset_ids", "_resets", "_rest", "draining", "failed", "held_back", "more", "now", "owner", "reason",
        "stream_window", "turn_work", "work",
    )  # fmt: skip

    def __init__(
        self, open_stream: OpenStream, limits: Limits, now: float, notify: Callable[[], None],
        owner: object = None, memory: Memory | None = None,
    ) -> None:
        super().__init__(limits, notify, memory)
        self.owner = owner  # free for whoever made the connection
        self.now = now  # of the last receive or tick
        self.work = 0  # done in this receive, in units of some 5 us
        self.turn_work = TURN_WORK  # at most; the owner sets it
        self.more = False  # it stopped there: there is more to do of what has been read
        self.held_back: Stream | None = None  # it has messages that wait for the next receive
        self.stream_window = limits.stream_window_bytes
        self.reason = ""  # why it finished
        self.failed = False  # by a rule that the client broke
        self.draining = False
        self._open_stream = open_stream
        self._decoder = HeaderDecoder(limits.max_header_list_bytes)
        self._max_frame = frames.DEFAULT_MAX_FRAME
        self._rest = b""
        self._needs_preface = True
        self._first = True  # the client's SETTINGS have not come yet
        self._last_id = 0
        self._gaps: list[tuple[int, int]] = []  # ids that were skipped, hence closed without ever being used
        self._reset_ids = ResetIds()
        self._receive_window = limits.connection_window_bytes
        self._block: PartialBlock | None = None
        self._drain_ping = False
        self._control = Budget("control frames", limits.control_burst, limits.control_rate, now)
        self._faults = Budget("faults of streams", limits.fault_burst, limits.fault_rate, now)
        self._resets = Budget("resets", limits.reset_burst, limits.reset_rate, now)
        self._keepalive = KeepAlive(limits.keepalive_interval_s, limits.keepalive_timeout_s, now)
        self._last_read = now
        settings = {
            frames.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
            frames.MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
        }
        if limits.max_concurrent_streams < 0xFFFF_FFFF:
            settings[frames.MAX_CONCURRENT_STREAMS] = limits.max_concurrent_streams
        self.write(frames.settings_frame(settings))
        if limits.connection_window_bytes > frames.DEFAULT_WINDOW:
            self.write(frames.window_update(0, limits.connection_window_bytes - frames.DEFAULT_WINDOW))
        else:
            self._receive_window = frames.DEFAULT_WINDOW

    # -- bytes in

    def receive(self, data: bytes, now: float) -> None:
        """Everything the socket gave. Calls back streams; what it makes us say is in ``take``. Others want a
        turn of the loop, too: with ``more`` set the owner calls again, with b"", in the next one."""
        self.more = False
        if self.finished:
            return
        self.now = self._last_read = now
        self.work = 0
        if self._rest:
            data = self._rest + data
            self._rest = b""
        try:
            if self.held_back is not None:
                held_back, self.held_back = self.held_back, None
                held_back.go_on()
            self._receive(data)
        except ConnectionFault as fault:
            self._fail(fault.code, fault.text)

    def _receive(self, data: bytes) -> None:
        pos = 0
        size = len(data)
        if self._needs_preface:
            if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "bad preface")
            if size < len(frames.PREFACE):
                self._rest = data
                return
            self._needs_preface = False
            pos = len(frames.PREFACE)
        streams = self.streams
        cached = self._decoder.cache.get
        decode = self._decoder.decode
        open_stream = self._open_stream
        unpack = frames.FRAME_HEADER.unpack_from
        max_frame = self._max_frame
        low_connection = self.limits.connection_window_bytes >> 1
        low_stream = self.stream_window >> 1
        max_queued = self.limits.max_queued_bytes
        max_list = self.limits.max_header_list_bytes
        max_streams = self.limits.max_concurrent_streams
        crowded = self.crowded
        most = self.turn_work
        while size - pos >= 9 and self.work < most:
            self.work += 1
            word, flags, stream_id = unpack(data, pos)
            length = word >> 8
            if length > max_frame:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "frame too large")  # section 4.2
            start = pos + 9
            end = start + length
            if end > size:
                break
            pos = end
            kind = word & 0xFF
            stream_id &= 0x7FFF_FFFF  # the reserved bit is ignored (section 4.1)
            if (
                kind == 0  # DATA
                and not flags & 0x08
                and length
                and (stream := streams.get(stream_id)) is not None
                and not stream.remote_closed
                and self._block is None
            ):
                window = self._receive_window - length
                if window < low_connection:
                    window = self._credit(window)
                self._receive_window = window
                window = stream.receive_window = stream.receive_window - length
                if flags & 0x01:
                    stream.remote_closed = True
                if window < low_stream or stream.headers.content_length >= 0:
                    try:
                        self._account(stream, length)
                    except StreamFault as fault:
                        self._stream_fault(stream_id, fault.code)
                        continue
                stream.received(data[start:end], stream.remote_closed)
            elif (
                kind == 1  # HEADERS
                and flags & 0x2D == 0x04
                and stream_id & 1
                and stream_id == self._last_id + 2
                and self._block is None
                and not self._first
            ):
                raw = data[start:end]
                block = cached(raw)
                if block is None:
                    self.work += length >> 2
                    block = decode(raw)
                self._last_id = stream_id
                if (block.fault or block.size > max_list or self.queued > max_queued or self.draining
                        or len(streams) >= max_streams or crowded):
                    try:
                        self._open(stream_id, block, False)
                    except StreamFault as fault:
                        self._stream_fault(stream_id, fault.code)
                    continue
                streams[stream_id] = stream = open_stream(self, stream_id, block)
                stream.opened(False)
            else:
                self._frame(kind, flags, stream_id, data[start:end])
                if self.finished:
                    return
        if pos < size:
            self._rest = data[pos:]
        self.more = self.work >= most and (size - pos >= 9 or self.held_back is not None)

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._first and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")  # section 3.4
        if self._block is not None and (kind != frames.CONTINUATION or stream_id != self._block.stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted")  # section 6.10
        if kind < len(_HANDLERS):
            try:
                _HANDLERS[kind](self, flags, stream_id, payload)
            except StreamFault as fault:
                self._stream_fault(stream_id, fault.code)
        else:
            self._control.pay(self.now)  # unknown types are ignored (section 4.1)

    # -- frames, one method each

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        length = len(payload)
        self._check_not_idle(stream_id, "DATA")
        self._receive_window = self._credit(self._receive_window - length)
        body = unpad(payload) if flags & frames.PADDED else payload
        stream = self.streams.get(stream_id)
        if stream is None:
            self._late(stream_id, paid=length > 0)
            return
        if stream.remote_closed:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA after END_STREAM")
        ended = bool(flags & frames.END_STREAM)
        if not body and not ended:
            self._control.pay(self.now)
        stream.receive_window -= length
        stream.remote_closed = ended
        self._account(stream, len(body))
        if body or ended:
            stream.received(body, ended)

    def _account(self, stream: Stream, body_bytes: int) -> None:
        """After DATA: the stream's window (topped up when half is used) and its content-length."""
        window = stream.receive_window
        if window < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "stream window overrun")  # section 6.9.1
        if window < self.stream_window >> 1 and not stream.remote_closed:
            self.write(frames.window_update(stream.id, self.stream_window - window))
            stream.receive_window = self.stream_window
        if stream.headers.content_length >= 0 and not stream.length_fits(body_bytes, stream.remote_closed):
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length and DATA differ")  # section 8.1.1

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            # section 5.1.1
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream a client cannot open")
        if flags & frames.PADDED:
            payload = unpad(payload)
        if flags & frames.PRIORITY_FLAG:
            if len(payload) < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            depends_on = frames.U32.unpack_from(payload)[0] & 0x7FFF_FFFF
            payload = payload[5:]
        else:
            depends_on = 0
        ended = bool(flags & frames.END_STREAM)
        partial = PartialBlock(stream_id, ended, depends_on == stream_id, payload, self.now)
        if flags & frames.END_HEADERS:
            self._block_complete(partial)
        else:
            self._block = partial

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        partial = self._block
        if partial is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")  # section 6.10
        partial.fragments.append(payload)
        partial.size += len(payload)
        if (partial.size > self.limits.max_header_list_bytes
                or len(partial.fragments) > self.limits.max_continuations + 1):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "header block too large")
        if flags & frames.END_HEADERS:
            self._block = None
            self._block_complete(partial)

    def _block_complete(self, partial: PartialBlock) -> None:
        """A header block is whole. It is decoded whatever becomes of it: the table must stay right
        (section 4.3)."""
        stream_id = partial.stream_id
        self.work += partial.size >> 2
        block = self._decoder.decode(b"".join(partial.fragments))
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._trailers(stream, block, partial.ended)
            return
        if stream_id <= self._last_id:
            if any(low <= stream_id <= high for low, high in self._gaps):
                # section 5.1.1
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "stream id is not above the last")
            self._late(stream_id, paid=False)
            return
        if stream_id > self._last_id + 2:
            self._gaps.append((self._last_id + 2, stream_id - 2))
            del self._gaps[:-64]
        self._last_id = stream_id
        if partial.self_dependent:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
        self._open(stream_id, block, partial.ended)

    def _open(self, stream_id: int, block: HeaderBlock, ended: bool) -> None:
        """A new stream, if nothing is wrong with its block and there is room."""
        limits = self.limits
        if block.fault:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, block.fault)
        if block.size > limits.max_header_list_bytes:
            raise StreamFault(ErrorCode.ENHANCE_YOUR_CALM, "header list too large")
        if (self.draining or len(self.streams) >= limits.max_concurrent_streams
                or self.queued > limits.max_queued_bytes):
            # Section 5.1.2. A client that gives no windows for its answers gets no further calls; reading
            # from it goes on, because its WINDOW_UPDATE would come that way. Refused calls may be sent again.
            raise StreamFault(ErrorCode.REFUSED_STREAM, "too many streams")
        if ended and block.content_length > 0:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length without DATA")  # section 8.1.1
        self.streams[stream_id] = stream = self._open_stream(self, stream_id, block)
        stream.remote_closed = ended
        if self.crowded:
            self.memory.refused += 1
            stream.turned_away()
        else:
            stream.opened(ended)

    def _trailers(self, stream: Stream, block: HeaderBlock, ended: bool) -> None:
        if stream.remote_closed:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM")  # section 5.1
        if not ended:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "trailers without END_STREAM")  # section 8.1
        if block.trailer_fault:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, block.trailer_fault)
        stream.remote_closed = True
        if stream.headers.content_length >= 0 and not stream.length_fits(0, True):
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length and DATA differ")
        stream.trailers(block)

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")  # section 6.3
        self._control.pay(self.now)
        if len(payload) != 5:
            raise StreamFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY is not 5 octets")
        if frames.U32.unpack_from(payload)[0] & 0x7FFF_FFFF == stream_id:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._check_not_idle(stream_id, "RST_STREAM")
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM is not 4 octets")  # section 6.4
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._resets.pay(self.now)
            self.forget(stream, reset_by_us=False)
            stream.cancelled(frames.U32.unpack(payload)[0])

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")  # section 6.5
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS acknowledgement with a payload")
            self._control.pay(self.now)
            return
        if len(payload) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS length is not a multiple of 6")
        self._control.pay(self.now)
        for key, value in frames.SETTING.iter_unpack(payload):
            if key == frames.INITIAL_WINDOW_SIZE:
                for _ in range(len(self.streams) >> 8):
                    self._faults.pay(self.now)  # the work is proportional
                self.set_initial_window(value)
            elif key == frames.MAX_FRAME_SIZE:
                if not frames.DEFAULT_MAX_FRAME <= value <= 0xFF_FFFF:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "illegal MAX_FRAME_SIZE")
                self.peer_max_frame = min(value, 65_536)  # larger frames would only make others wait
            elif key == frames.ENABLE_PUSH:
                if value > 1:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "illegal ENABLE_PUSH")
            elif key == frames.HEADER_TABLE_SIZE and value < TABLE_LIMIT:
                self.table_shrunk()
        self._first = False
        self.write(frames.SETTINGS_ACK)

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client cannot push")  # section 8.4

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")  # section 6.7
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING is not 8 octets")
        if flags & frames.ACK:
            self._control.pay(self.now)  # this side asks seldom
            if payload == _DRAIN_PING and self._drain_ping:
                self.drain_now()
            return
        self.write(frames.ping(payload, ack=True))
        if not self.pings.ping(self.now, len(self.streams)):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")  # section 6.8
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is too short")
        self._control.pay(self.now)
        self.draining = True  # a client that says goodbye opens nothing more; what is open is answered
        self._finish_if_idle("the client is leaving")

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE is not 4 octets")  # section 6.9
        increment = frames.U32.unpack(payload)[0] & frames.MAX_WINDOW
        if not stream_id:
            if not increment:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of zero")
            self.send_window += increment
            if self.send_window > frames.MAX_WINDOW:
                # section 6.9.1
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "connection window overflow")
            return
        self._check_not_idle(stream_id, "WINDOW_UPDATE")
        stream = self.streams.get(stream_id)
        if stream is None:
            return  # late, and allowed (section 5.1)
        if not increment:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of zero")
        stream.send_window += increment
        if stream.send_window > frames.MAX_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "stream window overflow")
        if stream.queued and stream.send_window > 0:
            self.ready[stream] = None

    # -- ends of streams and of the connection

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
        self.streams.pop(stream.id, None)
        if stream.queued:
            self.queued -= stream.queued
            stream.queued = 0
            stream.queue = None
        self.ready.pop(stream, None)
        if reset_by_us is not None:
            self._reset_ids.add(stream.id, reset_by_us)
        if self.draining:
            self._finish_if_idle("drained")

    def drain(self) -> None:
        """Graceful end: GOAWAY, calls that are on their way are still taken, open ones are answered."""
        if self.draining or self.finished:
            return
        self._drain_ping = True
        self.write(frames.goaway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR, b"graceful_stop"))
        self.write(frames.ping(_DRAIN_PING))

    @property
    def drained(self) -> bool:
        """Whether it ended in order, and the client has but to read the rest."""
        return self.finished and self.draining

    def drain_now(self) -> None:
        """After :meth:`drain`: the client has seen that, or does not say so. Nothing new is taken any
        more."""
        if not self._drain_ping or self.finished:
            return
        self._drain_ping, self.draining = False, True
        self.write(frames.goaway(self._last_id, ErrorCode.NO_ERROR))
        self._finish_if_idle("drained")

    def tick(self, now: float) -> None:
        """About once a second: keep-alive of a silent client, and an end of one that is slow."""
        if self.finished:
            return
        self.now = now
        verdict = self._keepalive.check(now, self._last_read)
        if verdict == "ping":
            self.write(frames.ping(_KEEPALIVE_PING))
        elif verdict == "dead" or (self._block is not None and self._block.late(now, self.limits)):
            self.lost("keep-alive timeout" if verdict == "dead" else "header block not whole in time")

    def lost(self, reason: str = "connection lost") -> None:
        """The socket is gone (or given up): every open stream is cancelled."""
        if not self.finished:
            self.finished = True
            self.reason = reason
        self._cancel_all()

    def statistics(self) -> dict[str, int]:
        """Sizes of everything that could grow."""
        return {
            "streams": len(self.streams), "ready": len(self.ready), "queued_bytes": self.queued,
            "buffered_bytes": self.buffered, "unanswered_bytes": self.unanswered,
            "gathered_bytes": self.gathered, "rest_bytes": len(self._rest), "reset_ids": len(self._reset_ids),
            **self._decoder.statistics(),
        }  # fmt: skip

    def _fail(self, code: ErrorCode, text: str) -> None:
        if not self._needs_preface:
            self.write(frames.goaway(self._last_id, code, text.encode()))
        self.finished = self.failed = True
        self.reason = text
        self._cancel_all()

    def _cancel_all(self) -> None:
        self.memory.count(self, 0)
        for stream in list(self.streams.values()):
            self.forget(stream, reset_by_us=None)
            stream.cancelled(ErrorCode.CANCEL)
        self._rest = b""
        self._block = self.held_back = None

    def _finish_if_idle(self, reason: str) -> None:
        if self.draining and not self.streams and not self.finished:
            if not self.out:
                self.notify()
            self.finished = True
            self.reason = reason

    # -- small rules

    def _stream_fault(self, stream_id: int, code: ErrorCode) -> None:
        """RST_STREAM for the peer's breach (section 5.4.2)."""
        self._faults.pay(self.now)
        self.write(frames.rst_stream(stream_id, code))
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.forget(stream, reset_by_us=True)
            stream.cancelled(code)
        elif stream_id <= self._last_id and stream_id & 1:
            self._reset_ids.add(stream_id, True)

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
        """The connection's receive window, topped up when half of what it may be is used."""
        if window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "connection window overrun")
        full = max(self.limits.connection_window_bytes, frames.DEFAULT_WINDOW) - self.unanswered
        if window < full >> 1:
            self.write(frames.window_update(0, full - window))
            return full
        return window

    def taken_on(self, stream: Stream, size: int) -> None:
        """A request of so many bytes is complete: until it is answered the client gets that much less window.
        What is unfinished has no part in this, or many large requests sent at once would wait for each
        other's end."""
        stream.held += size
        self.unanswered += size

    def answered(self, stream: Stream) -> None:
        """Its requests are answered, refused, or given up."""
        self.unanswered -= stream.held
        stream.held = 0
        if not self.finished:
            self._receive_window = self._credit(self._receive_window)


_HANDLERS: tuple[Callable[[Connection, int, int, bytes], None], ...] = (
    Connection._on_data, Connection._on_headers, Connection._on_priority, Connection._on_rst_stream,
    Connection._on_settings, Connection._on_push_promise, Connection._on_ping, Connection._on_goaway,
    Connection._on_window_update, Connection._on_continuation,
)  # fmt: skip
