"""One exchange: its windows, its send queue, and the callbacks that the layer above overrides.

Hot path: a ``Stream`` (as a rule ``proxy.grpc.calls.Call``) is made per request: slots, one constructor, no
helper objects, and a queue only once something has to wait.

Callbacks come from inside ``Connection.receive`` or ``Connection.take``. After ``cancelled``, or when both
ends are done, ``closed`` is true and what is sent is dropped.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from proxy.http.http2.blocks import HeaderBlock
from proxy.http.http2.frames import DATA, END_STREAM, FRAME_HEADER, ErrorCode, header_frames, rst_stream
from proxy.http.http2.guard import PingPolicy

_JOINED_BYTES = 4096  # pieces smaller than this are joined in a queue
DIRECT_BYTES = 16_384  # what fits one frame that any peer takes; larger payloads go through the queue


class StreamConnection(Protocol):
    """What a stream needs of its connection."""

    out: list[bytes | bytearray | memoryview]  # what leaves next
    writable: bool  # the socket takes more
    send_window: int
    peer_stream_window: int
    stream_window: int
    peer_max_frame: int
    pings: PingPolicy

    def write(self, data: bytes) -> None: ...
    def notify(self) -> None: ...
    def block_prefix(self) -> bytes: ...
    def enqueued(self, stream: Stream, size: int) -> None: ...
    def local_end(self, stream: Stream) -> None: ...
    def forget(self, stream: Stream, reset_by_us: bool | None) -> None: ...


class Stream:
    """The server's end of one HTTP/2 stream."""

    __slots__ = (
        "closed", "connection", "ending", "headers", "held", "id", "queue", "queued", "receive_window",
        "received_bytes", "remote_closed", "send_window", "trailer",
    )

    paused = False  # its client is not asked for more: what it has sent waits

    def __init__(self, connection: StreamConnection, stream_id: int, headers: HeaderBlock) -> None:
        self.connection = connection
        self.id = stream_id
        self.headers = headers
        self.send_window = connection.peer_stream_window
        self.receive_window = connection.stream_window
        self.received_bytes = 0  # of DATA; counted only where content-length says how many
        # bytes of its requests that are being answered (``Connection.taken_on``); negative: of one that waits
        # long, as another flag would cost each call
        self.held = 0
        self.queue: deque[bytes | bytearray | memoryview] | None = None
        self.queued = 0  # bytes of payload that wait for a window or for the socket
        self.ending = False  # nothing more is sent once the queue is empty and the end is written
        self.trailer = b""  # the block that ends the stream after the queue; b"": an empty DATA frame
        self.remote_closed = False
        self.closed = False

    # -- overridden above

    def opened(self, ended: bool) -> None:
        """The request's header block is complete; ``ended``: there is no body."""

    def received(self, data: bytes, ended: bool) -> None:
        """Payload of one DATA frame, padding removed; ``ended``: the request is complete."""

    def go_on(self) -> None:
        """The turn of messages that were held back (``Connection.held_back``)."""

    def turned_away(self) -> None:
        """Called instead of ``opened`` where there is no room (``proxy.http.memory``)."""
        self.reset(ErrorCode.REFUSED_STREAM)

    def trailers(self, block: HeaderBlock) -> None:
        self.received(b"", True)

    def cancelled(self, code: int) -> None:
        """The stream ended before its time: the peer reset it, broke a rule, or the connection is gone."""

    def drained(self) -> None:
        """The queue fell to the drain mark."""

    # -- receiving (connection's use)

    def length_fits(self, size: int, ended: bool) -> bool:
        """Section 8.1.1: DATA adds up to content-length."""
        self.received_bytes += size
        expected = self.headers.content_length
        return self.received_bytes == expected if ended else self.received_bytes <= expected

    # -- sending

    def send_headers(self, block: bytes, end_stream: bool = False) -> None:
        """Response headers (or, after data, trailers that need no waiting): not flow-controlled."""
        if self.closed:
            return
        connection = self.connection
        connection.write(
            header_frames(self.id, connection.block_prefix() + block, end_stream, connection.peer_max_frame)
        )
        if end_stream:
            connection.local_end(self)

    def send_data(self, payload: bytes | memoryview) -> None:
        """Payload, at once if windows and socket allow, else queued in order."""
        size = len(payload)
        if self.closed or not size:
            return
        connection = self.connection
        if (
            size <= DIRECT_BYTES
            and not self.queued
            and size <= self.send_window
            and size <= connection.send_window
            and connection.writable
        ):
            self.send_window -= size
            connection.send_window -= size
            out = connection.out
            if not out:
                connection.notify()
            out.append(FRAME_HEADER.pack(size << 8 | DATA, 0, self.id))
            out.append(payload)
            connection.pings.sent = True
            return
        if self.queue is None:
            self.queue = deque()
        queue = self.queue
        if size < _JOINED_BYTES and queue and len(queue[-1]) < _JOINED_BYTES:
            # objects of a few bytes each would take ten times the memory that is counted for them
            tail = queue[-1]
            if type(tail) is not bytearray:
                tail = queue[-1] = bytearray(tail)
            tail += payload
        else:
            queue.append(payload)
        self.queued += size
        connection.enqueued(self, size)

    def end(self, trailer: bytes = b"") -> None:
        """Ends our side after everything queued: with this trailer block, or an empty DATA frame."""
        if self.closed or self.ending:
            return
        self.ending = True
        self.trailer = trailer
        if not self.queued:
            self._write_end()

    def reset(self, code: int = ErrorCode.CANCEL) -> None:
        """Ends both sides at once and drops what is queued. ``cancelled`` is not called for it."""
        if not self.closed:
            self.connection.write(rst_stream(self.id, code))
            self.connection.forget(self, reset_by_us=True)

    def send_some(self, quota: int) -> int:
        """Write one DATA frame of at most ``quota`` bytes from the queue (connection's use); its size."""
        queue = self.queue
        assert queue, "only a stream with a queue and a window is ready"
        connection = self.connection
        out = connection.out
        head = queue[0]
        size = len(head)
        if size <= quota:
            queue.popleft()
            piece: bytes | bytearray | memoryview = head
            if size < quota and queue:  # fill the frame with what follows
                pieces = [head]
                while queue and size + len(queue[0]) <= quota:
                    size += len(queue[0])
                    pieces.append(queue.popleft())
                piece = b"".join(pieces)
        else:
            view = memoryview(head)
            piece = view[:quota]
            queue[0] = view[quota:]
            size = quota
        self.queued -= size
        self.send_window -= size
        out.append(FRAME_HEADER.pack(size << 8 | DATA, 0, self.id))
        out.append(piece)
        if not self.queued and self.ending:
            self._write_end()
        return size

    def _write_end(self) -> None:
        connection = self.connection
        if self.trailer:
            connection.write(
                header_frames(
                    self.id, connection.block_prefix() + self.trailer, True, connection.peer_max_frame
                )
            )
        else:
            connection.write(FRAME_HEADER.pack(DATA, END_STREAM, self.id))
        connection.local_end(self)
