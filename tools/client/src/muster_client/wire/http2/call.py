"""One call with a stream of messages each way."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from muster_client.wire.http2.answers import CallError
from muster_client.wire.http2.frames import PREFIX
from muster_client.wire.http2.sending import Outbound

if TYPE_CHECKING:
    from muster_client.wire.http2.connection import Connection

CREDIT = 1 << 20  # bytes that the server may send ahead of the reader: the window of each stream


class Call:
    """Made by :meth:`Connection.stream`; in the engine's loop. What is not read waits at the server, but for
    the window's bytes. A reader that is cancelled loses nothing."""

    def __init__(self, connection: Connection, stream: int, window: int, answer: Any) -> None:
        self.stream, self.outbound = stream, Outbound(window)
        self._connection, self._answer = connection, answer
        self._messages: deque[bytes] = deque()
        self._partial = bytearray()
        self._received = 0  # bytes of frames
        self._queued = 0  # of them in messages that wait for the reader
        self._lent = 0  # of them for which the server has new credit
        self._ended = False
        self._error: CallError | None = None
        self._reader: asyncio.Future[None] | None = None

    def send(self, message: Any) -> None:
        """Send a message, as flow control allows. CallError: the call has ended."""
        if self._ended:
            raise self._error or CallError(grpc.StatusCode.OK, "the call has ended")
        data: bytes = message.SerializeToString()
        self._connection.send_on(self, PREFIX.pack(0, len(data)) + data, end=False)

    def close_send(self) -> None:
        """No more messages; answers still come."""
        if not self._ended:
            self._connection.send_on(self, b"", end=True)

    async def read(self) -> Any:
        """The next answer; None: the call has ended well. CallError."""
        while not self._messages:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            self._reader = self._connection.loop.create_future()
            self._lend()
            try:
                await self._reader
            finally:
                self._reader = None
        message = self._messages.popleft()
        self._queued -= PREFIX.size + len(message)
        self._lend()
        try:
            return self._answer.FromString(message)
        except DecodeError:
            raise CallError(grpc.StatusCode.INTERNAL, "the answer is malformed") from None

    def cancel(self) -> None:
        """End it, whatever comes."""
        if not self._ended:
            self._connection.cancel(self.stream)
            self.end(CallError(grpc.StatusCode.CANCELLED, "the call was cancelled here"))

    def take(self, payload: bytes, size: int) -> None:
        """A DATA frame, which took ``size`` bytes of the window."""
        self._received += size
        partial = self._partial
        partial += payload
        at = 0
        while len(partial) - at >= PREFIX.size:
            compressed, length = PREFIX.unpack_from(partial, at)
            if compressed:
                self._connection.cancel(self.stream)
                self.end(CallError(grpc.StatusCode.INTERNAL, "a compressed message, which was not asked for"))
                return
            end = at + PREFIX.size + length
            if end > len(partial):
                break
            self._messages.append(bytes(partial[at + PREFIX.size : end]))
            self._queued += end - at
            at = end
        del partial[:at]
        if self._messages:
            self._wake()
        self._lend()

    def end(self, error: CallError | None) -> None:
        """It has ended; messages that came before are still read."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _lend(self) -> None:
        """Give the server credit for what was read, and where the reader waits for the rest of a message that
        may be larger than the window, for all that came."""
        waits = self._reader is not None and not self._messages
        held = 0 if waits else self._queued + len(self._partial)
        owed = self._received - held - self._lent
        if owed > CREDIT // 4 and not self._ended:
            self._connection.lend(self.stream, owed)
            self._lent += owed
