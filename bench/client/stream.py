"""One streaming call of a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from muster_client.wire.http2.frames import HEAD, PREFIX
from muster_client.wire.http2.sending import Outbound

from bench.client.errors import RpcError, Status

if TYPE_CHECKING:
    from bench.client.connection import Connection


OnRun = Callable[[bytes, int, int, int], int]


class Stream:
    """A call of many messages each way; made by :meth:`Connection.stream`.

    ``on_message(body)`` for each message, then exactly one ``on_end(error)``; None is status OK. An
    ``on_run(data, at, limit, lead)`` is offered messages first, as bytes: from ``at`` on, each with ``lead``
    bytes in front (the gRPC prefix; or a DATA frame's header and the prefix, where each message is a frame of
    one size). It returns where the last message that it took ends.
    """

    __slots__ = (
        "_cancelled", "_connection", "_partial", "id", "on_end", "on_message", "on_run", "outbound",
        "unacknowledged",
    )

    def __init__(
        self, connection: Connection, stream_id: int, window: int, on_message: Callable[[bytes], None],
        on_end: Callable[[RpcError | None], None], on_run: OnRun | None = None,
    ) -> None:
        self.id = stream_id
        self.on_message = on_message
        self.on_end = on_end
        self.on_run = on_run
        self._connection = connection
        self.outbound = Outbound(window)
        self._cancelled = False
        self._partial = b""
        self.unacknowledged = 0

    def send(self, body: bytes) -> None:
        """Send one message as flow control allows; none on a stream that ended."""
        self._connection.send_on(self, PREFIX.pack(0, len(body)) + body, end=False)

    def close_send(self) -> None:
        """End this side; the server's messages may still come."""
        self._connection.send_on(self, b"", end=True)

    def cancel(self) -> None:
        """End the call; no callback runs any more."""
        self._cancelled = True
        self._connection.cancel(self.id)

    def take_runs(self, data: bytes, at: int, end: int) -> int:
        """Offer the frame from ``at`` to ``end``, and what follows, to ``on_run``.

        Returns the end of the last frame that was taken whole, ``at`` if none. The rest of a frame that was
        taken in part is received at once."""
        begin = at + HEAD.size
        if self.on_run is None or self._partial or self._cancelled or end - begin < PREFIX.size:
            return at
        length = PREFIX.unpack_from(data, begin)[1]
        if begin + PREFIX.size + length == end:
            return self.on_run(data, at, len(data), HEAD.size + PREFIX.size)
        while end - begin >= PREFIX.size and not self._cancelled:
            after = self.on_run(data, begin, end, PREFIX.size)
            if after == begin:
                break
            begin = after
        if begin < end:
            self.receive(data[begin:end])
        return end

    def receive(self, payload: bytes) -> None:
        """Cut DATA payloads into messages; a message may span many frames, a frame many messages."""
        if self._partial:
            payload = self._partial + payload
        pos, size = 0, len(payload)
        while size - pos >= 5 and not self._cancelled:
            compressed, length = PREFIX.unpack_from(payload, pos)
            if size - pos - 5 < length:
                break
            if compressed:
                self._connection.fail_stream(self.id, RpcError(Status.INTERNAL, "compressed message"))
                return
            self.on_message(payload[pos + 5 : pos + 5 + length])
            pos += 5 + length
        self._partial = payload[pos:]
