"""One HTTP/2 connection, server side: a pure state machine.

The owner calls ``receive(data, now)`` with what it read. Whenever ``notify`` was called or ``receive``
returned, it writes what ``take()`` returns until that is empty or ``writable`` is false. It calls
``pause_writing`` and ``resume_writing`` as its socket fills and empties, and ``tick(now)`` about once a
second. It closes the socket once ``finished`` is true and everything is taken. Then, or when the socket is
gone, it calls ``lost()``: again in later turns of the loop while ``streams`` has some. No method raises on
anything a peer can send.

Streams are made by ``open_stream(connection, id, headers)``; see ``stream`` for the callbacks.

Errors (RFC 9113 section 5.4): ``ConnectionFault`` becomes GOAWAY, ``StreamFault`` RST_STREAM. Budgets bound
stream faults, and frames that cost more than they bring. WINDOW_UPDATE has none: honest clients under load
send thousands of them a second. PING without TLS has a rule of its own (``guard``).

Hot path: ``_frames`` handles HEADERS with END_HEADERS only, and DATA without padding, in its own loop. With
calls pipelined 200 a read on the 2-core reference machine, ``proxy.grpc.calls`` and its answer included
(``tests.unit.grpc.cost``): 1.9 us of CPU per unary call whose header block is cached, 8.6 us where each has a
new ``grpc-timeout``.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.http.http2 import frames
from proxy.http.http2.blocks import TABLE_LIMIT, HeaderBlock, HeaderDecoder
from proxy.http.http2.ends import DRAIN_PING, Ends
from proxy.http.http2.frames import ConnectionFault, ErrorCode, PartialBlock, StreamFault, unpad
from proxy.http.http2.guard import Budget, Limits
from proxy.http.http2.stream import Stream
from proxy.http.memory import HEAD_BYTES, Memory

# units of work in a turn of the loop, some 1 ms: a frame is one, 4 octets of a new header block another
# (short fields take 0.2 us an octet)
TURN_WORK = 200
BRIEF_WORK = TURN_WORK >> 1  # of those that have had very many turns (``proxy.http.backlog``)

OpenStream = Callable[["Connection", int, HeaderBlock], Stream]


class Connection(Ends):
    """The server's end of one HTTP/2 connection."""

    __slots__ = (
        "_control", "_decoder", "_gaps", "_max_frame", "_open_stream",
        "_resets", "more", "owner", "stream_window", "turn_work", "work",
    )  # fmt: skip

    def __init__(
        self, open_stream: OpenStream, limits: Limits, now: float, notify: Callable[[], None],
        owner: object = None, memory: Memory | None = None,
    ) -> None:
        super().__init__(limits, now, notify, memory)
        self.owner = owner  # free for the layer that made the connection
        self.work = 0  # done in this receive, in units of some 5 us
        self.turn_work = TURN_WORK  # at most; the owner sets it
        self.more = False  # it stopped there: there is more to do of what has been read
        self.stream_window = limits.stream_window_bytes
        self._open_stream = open_stream
        self._decoder = HeaderDecoder(limits.max_header_list_bytes)
        self._max_frame = frames.DEFAULT_MAX_FRAME
        self._gaps: list[tuple[int, int]] = []  # ids that were skipped, and so closed without use
        self._control = Budget("control frames", limits.control_burst, limits.control_rate, now)
        self._resets = Budget("resets", limits.reset_burst, limits.reset_rate, now)
        settings = {
            frames.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
            frames.MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
        }
        if limits.max_concurrent_streams < 0xFFFF_FFFF:
            settings[frames.MAX_CONCURRENT_STREAMS] = limits.max_concurrent_streams
        self.write(frames.settings_frame(settings))
        if limits.connection_window_bytes > frames.DEFAULT_WINDOW:
            self.write(frames.window_update(0, limits.connection_window_bytes - frames.DEFAULT_WINDOW))

    # -- bytes in

    def receive(self, data: bytes, now: float) -> None:
        """Everything the socket gave. With ``more`` set the owner calls again, with b"", in the next turn of
        the loop: other connections want this one."""
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
            if self._needs_preface:
                data = self._preface(data)
            pos = self._frames(data)
        except ConnectionFault as fault:
            self._fail(fault.code, fault.text)
            return
        left = len(data) - pos
        if left and not self.finished:
            self._rest = data[pos:]
        self.more = self.work >= self.turn_work and (left >= 9 or self.held_back is not None)

    def _preface(self, data: bytes) -> bytes:
        """What follows the preface; b"" while that is not whole."""
        if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "bad preface")
        if len(data) < len(frames.PREFACE):
            self._rest = data
            return b""
        self._needs_preface = False
        return data[len(frames.PREFACE) :]

    def _frames(self, data: bytes) -> int:
        """Handle frames, as far as this turn allows. Returns where the first one begins that is left."""
        pos, size = 0, len(data)
        streams = self.streams
        open_stream = self._open_stream
        cached = self._decoder.cache.get
        unpack = frames.FRAME_HEADER.unpack_from
        max_frame = self._max_frame
        low_connection = self.limits.connection_window_bytes >> 1
        low_stream = self.stream_window >> 1
        max_queued = self.limits.max_queued_bytes
        max_list = min(self.limits.max_header_list_bytes, HEAD_BYTES)
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
            try:
                if (kind == 0 and not flags & 0x08 and length | flags & 0x01 and self._block is None  # DATA
                        and (stream := streams.get(stream_id)) is not None and not stream.remote_closed):
                    window = self._receive_window - length
                    if window < low_connection:
                        window = self._credit(window)
                    self._receive_window = window
                    window = stream.receive_window = stream.receive_window - length
                    stream.remote_closed = flags & 0x01 != 0
                    if window < low_stream or stream.headers.content_length >= 0:
                        self._account(stream, length)
                    stream.received(data[start:end], stream.remote_closed)
                elif kind == 1 and flags & 0x2D == 0x04 and stream_id == self._next_id:  # HEADERS
                    raw = data[start:end]
                    block = cached(raw)
                    if block is None:
                        self.work += length >> 2
                        block = self._decoder.decode(raw)
                    self._last_id, self._next_id = stream_id, stream_id + 2
                    if (block.fault or block.size > max_list or self.queued > max_queued
                            or len(streams) >= max_streams or crowded):
                        self._open(stream_id, block, False)
                        continue
                    streams[stream_id] = stream = open_stream(self, stream_id, block)
                    stream.opened(False)
                else:
                    self._frame(kind, flags, stream_id, data[start:end])
                    if self.finished:
                        break
            except StreamFault as fault:
                self._stream_fault(stream_id, fault.code)
        return pos

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
        window = stream.receive_window
        if window < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "stream window overrun")  # section 6.9.1
        self.open_window(stream)
        if stream.headers.content_length >= 0 and not stream.length_fits(body_bytes, stream.remote_closed):
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length and DATA differ")  # section 8.1.1

    def open_window(self, stream: Stream) -> None:
        """Ask the client for more of a stream, where its handler takes more."""
        window = stream.receive_window
        if window < self.stream_window >> 1 and not (stream.remote_closed or stream.paused):
            self.write(frames.window_update(stream.id, self.stream_window - window))
            stream.receive_window = self.stream_window

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
        partial = PartialBlock(stream_id, ended, depends_on == stream_id, [payload], len(payload), self.now)
        if flags & frames.END_HEADERS:
            self._block_complete(partial)
        else:
            self._block, self._next_id = partial, -1

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
        """Decode a whole header block, whatever becomes of it: the table must stay right (section 4.3)."""
        stream_id = partial.stream_id
        self.work += partial.size >> 2
        block = self._decoder.decode(b"".join(partial.fragments))
        self._next_id = -1 if self.draining else max(self._last_id, stream_id) + 2
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
        limits = self.limits
        if block.fault:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, block.fault)
        if block.size > limits.max_header_list_bytes:
            raise StreamFault(ErrorCode.ENHANCE_YOUR_CALM, "header list too large")
        if (self.draining or len(self.streams) >= limits.max_concurrent_streams
                or self.queued > limits.max_queued_bytes):
            # Section 5.1.2. A client that opens no windows gets no further calls, but is read on: its
            # WINDOW_UPDATE comes that way. Refused calls may be sent again.
            raise StreamFault(ErrorCode.REFUSED_STREAM, "too many streams")
        if ended and block.content_length > 0:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length without DATA")  # section 8.1.1
        self.streams[stream_id] = stream = self._open_stream(self, stream_id, block)
        stream.remote_closed = ended
        if block.size > HEAD_BYTES:  # of a cached one, too: the cache may lose it before the stream ends
            self.heads += block.weight
            self.exact = True
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
        window = -1
        for key, value in frames.SETTING.iter_unpack(payload):
            if key == frames.INITIAL_WINDOW_SIZE:
                window = value if window <= frames.MAX_WINDOW else window  # a mistake stays one
            elif key == frames.MAX_FRAME_SIZE:
                if not frames.DEFAULT_MAX_FRAME <= value <= 0xFF_FFFF:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "illegal MAX_FRAME_SIZE")
                self.peer_max_frame = min(value, 65_536)  # larger frames would only make others wait
            elif key == frames.ENABLE_PUSH:
                if value > 1:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "illegal ENABLE_PUSH")
            elif key == frames.HEADER_TABLE_SIZE and value < TABLE_LIMIT:
                self.table_shrunk()
        if window >= 0:  # the last one counts: each of a frame's thousands would walk all streams
            for _ in range(len(self.streams) >> 8):
                self._faults.pay(self.now)  # the work is proportional
            self.set_initial_window(window)
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
            if payload == DRAIN_PING and self._drain_ping:
                self.drain_now()
            return
        self.write(frames.ping(payload, ack=True))
        if getattr(self.owner, "secure", False):  # etcd serves TLS by Go's net/http, which lets clients ping
            if not self.pings.is_free():
                self._control.pay(self.now)
        elif not self.pings.ping(self.now, len(self.streams)):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")  # section 6.8
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is too short")
        self._control.pay(self.now)
        # the client opens nothing more; what is open is answered
        self.draining, self.exact, self._next_id = True, True, -1
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


_HANDLERS: tuple[Callable[[Connection, int, int, bytes], None], ...] = (
    Connection._on_data, Connection._on_headers, Connection._on_priority, Connection._on_rst_stream,
    Connection._on_settings, Connection._on_push_promise, Connection._on_ping, Connection._on_goaway,
    Connection._on_window_update, Connection._on_continuation,
)  # fmt: skip
