"""TLS between a connection's socket and what speaks HTTP on it.

To its socket it is a protocol, to the connection a transport. Bytes go through OpenSSL's memory buffers: all
that is read at once is one read of the connection, and a small answer is encrypted and written in one go. The
connection exists from its first byte: it counts among the clients', and its limit to the first request holds
for the handshake.

A step of a handshake takes up to a millisecond of CPU. Handshakes take turns with busy connections
(``Backlog``), so a crowd that dials at once delays other requests by no more than such a turn.
Many records of one connection take turns, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable
from typing import Any, Protocol, cast

from cluster import gotext
from proxy.tls.addresses import by_name, by_number
from proxy.tls.certified import shown
from proxy.tls.contexts import Credentials
from proxy.tls.records import RECORD, Records

_AT_ONCE_BYTES = 16_384
_MOST_AHEAD_BYTES = 65_536  # read of a client that has not finished its handshake
_FEW_RECORDS = 16  # handled as they come: a read of full ones has no more
_TURN_RECORDS = 64  # handled in one go, 1 ms of KeyUpdates
MOST_EMPTY = 64  # records in a row without data
MOST_ANSWERS = 65_536  # bytes, while some are unread: what 2,400 KeyUpdates are answered
_HANDSHAKE = 0x16  # the first byte of a client that begins with TLS
_NO_TLS = "tls: first record does not look like a TLS handshake"
TLS_IN_CLEAR = "the client speaks TLS, and this port does not"
# what an operator may look at, by why a client was turned away
HINTS = {
    _NO_TLS: "the client says http, and this port is https",
    TLS_IN_CLEAR: "the client says https, and this port is http",
    "tls: client didn't provide a certificate": "the client needs --cert and --key",
    "remote error: tls: unknown certificate authority":
        "the client knows another authority: see its --cacert",
    "remote error: tls: bad certificate":
        "the client knows another authority, or dialled what the certificate does not name",
}


class Connection(Protocol):
    """What speaks HTTP above."""

    peer_name: str | None
    secure: bool

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def close(self, *, half: bool = False) -> None: ...


class Backlog(Protocol):
    """Who has the loop next: ``proxy.http.backlog``."""

    heard: bool
    at_once: bool

    def add(self, go_on: Callable[[], None], turns: int = 0) -> int: ...
    def again(self, go_on: Callable[[], None], turns: int) -> int: ...
    def spent(self, turns: int = 0) -> bool: ...


class TlsLayer(asyncio.Protocol, asyncio.Transport):
    __slots__ = (
        "_above", "_answers", "_backlog", "_credentials", "_encrypted", "_fd", "_in", "_looked_up", "_out",
        "_plain_too", "_queued", "_raw", "_records", "_refused", "_shut", "_tls", "_turned_away", "_turns",
        "_wants_reading", "written",
    )

    def __init__(
        self, above: Connection, credentials: Credentials, backlog: Backlog,
        refused: Callable[[str, str], None], *, plain_too: bool = False
    ) -> None:
        """``refused(address, reason)`` hears of failed handshakes. ``plain_too``: a client that does not
        begin with TLS speaks HTTP in clear."""
        self._above = above
        self._credentials = credentials
        self._backlog = backlog
        self._refused = refused
        self._plain_too = plain_too
        self._raw: asyncio.Transport = cast(asyncio.Transport, None)
        self._fd = -1
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject = cast(ssl.SSLObject, None)
        self._encrypted = False  # the handshake is done
        self._records: Records = cast(Records, None)  # from then on
        self._queued = False  # its next step, or more records
        self._turns = 0  # had in succession, about
        self._answers = 0  # bytes said to records since the client had read all that was said
        self.written = 0  # bytes given to the socket
        self._looked_up: asyncio.Future[str] | None = None  # where the client comes from
        self._turned_away = False
        self._shut = False  # this side has said that it ends
        self._wants_reading = True  # the connection above does

    # -- the socket's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        socket = transport.get_extra_info("socket")
        self._fd = socket.fileno() if socket is not None else -1
        self._above.connection_made(self)

    def data_received(self, data: bytes) -> None:
        if self._encrypted:
            self._read(data)
        elif self._turned_away:
            pass  # what it sent before it heard of that
        elif self._tls is None and self._plain_too and data[0] != _HANDSHAKE:
            self._step_aside(data)
        else:
            self._in.write(data)
            if self._in.pending > _MOST_AHEAD_BYTES:
                self._raw.pause_reading()
            if not self._queued:
                self._queued = True
                self._backlog.add(self._shake_hands)

    def eof_received(self) -> bool | None:
        return self._above.eof_received() if self._encrypted else False

    def connection_lost(self, exc: Exception | None) -> None:
        self._shut = True
        if self._looked_up is not None:
            self._looked_up.cancel()
        # it refers to this: all of it is freed at once
        above, self._above = self._above, cast(Connection, None)
        above.connection_lost(exc)

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    # -- the handshake

    def _step_aside(self, data: bytes) -> None:
        raw, above = self._raw, cast(Any, self._above)
        raw.set_protocol(above)
        above.in_clear(raw)
        above.data_received(data)

    def _shake_hands(self) -> None:
        self._queued = False
        if self._raw.is_closing() or self._turned_away or self._looked_up is not None:
            return
        try:
            if self._tls is None:
                self._tls = self._credentials.context().wrap_bio(self._in, self._out, server_side=True)
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            if self._wants_reading:
                self._raw.resume_reading()
            return
        except ssl.SSLError as error:
            self._refuse(words(error))
            return
        try:
            reason = self._admit()
        except ValueError as error:
            reason = f"the client's certificate cannot be read: {error}"
        if reason is not None:
            self._decide(reason)

    def _decide(self, reason: str) -> None:
        if reason:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._refuse(reason)
            return
        self._encrypted = True
        self._records = Records(self._tls, self._in, MOST_EMPTY)
        self._flush()
        if self._wants_reading:
            self._raw.resume_reading()
        self._read(b"")  # what came with its end

    def _admit(self) -> str | None:
        """Why a client that has shaken hands is refused; "" if it is not; None: its address is looked up
        first."""
        self._above.secure = True
        certificates = shown(self._tls)
        reason = self._credentials.refusal(certificates)
        if certificates and self._credentials.names_clients and not reason:
            self._above.peer_name = certificates[0].common_name
        name = self._raw.get_extra_info("peername")
        names = self._credentials.by_address
        if names is None or reason or not certificates or not isinstance(name, tuple):
            return reason
        found = by_number(certificates[0], name[0])
        if found is None:
            self._flush()
            self._raw.pause_reading()
            self._looked_up = asyncio.ensure_future(by_name(certificates[0], name[0], names))
            self._looked_up.add_done_callback(self._told)
        return found

    def _told(self, found: asyncio.Future[str]) -> None:
        if not self._raw.is_closing() and not found.cancelled():
            self._decide(found.result())

    def _refuse(self, reason: str) -> None:
        name = self._raw.get_extra_info("peername")
        self._refused(str(name[0]) if isinstance(name, tuple) else str(name or ""), reason)
        self._flush()  # the alert that tells the client why
        self._turned_away = True
        self._raw.resume_reading()
        self._above.close(half=True)

    # -- reading

    def _read(self, data: bytes, in_turn: bool = False) -> None:
        records = self._records
        had_ended, left = records.ended, _TURN_RECORDS if in_turn else _FEW_RECORDS
        if records.behind and not in_turn:
            left = 0  # their turn comes
        try:
            pieces = records.read(data, left)
            if records.behind and left == _FEW_RECORDS and not self._backlog.spent(self._turns):
                pieces += records.read(b"", _TURN_RECORDS - _FEW_RECORDS)
        except ssl.SSLError:
            if not self._shut:
                self._flush()
            self._raw.abort()
            return
        if records.behind:
            self._raw.pause_reading()
        if self._out.pending and not self._answer():
            return
        if pieces:
            self._hand_over(pieces, little=not (in_turn or records.behind))
        if records.ended > had_ended and not self._raw.is_closing() and not self._above.eof_received():
            self.close()
        if records.behind and self._wants_reading:
            self._later()

    def _hand_over(self, pieces: list[bytes], *, little: bool) -> None:
        """``little``: they are all that has come. Some of many records look like that, too, to the connection
        above; but who sends many asks for no haste, and is nobody else's company."""
        backlog = self._backlog
        heard, at_once = backlog.heard, backlog.at_once
        self._above.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if not little:
            backlog.heard, backlog.at_once = heard, at_once

    def _answer(self) -> bool:
        """Say what TLS answers, unless this side has ended; False if the client reads none of it."""
        if self._shut:
            self._out.read()
            return True
        if not self._raw.get_write_buffer_size():
            self._answers = 0
        self._answers += self._out.pending
        if self._answers > MOST_ANSWERS:
            self._raw.abort()
            return False
        self._flush()
        return True

    def _later(self) -> None:
        if not self._queued:
            self._queued = True
            self._turns = self._backlog.again(self._go_on, self._turns)

    def _go_on(self) -> None:
        self._queued = False
        if self._raw.is_closing() or not self._wants_reading:
            return
        self._read(b"", in_turn=True)
        if not (self._records.behind or self._raw.is_closing()):
            self._turns >>= 1
            if self._wants_reading:
                self._raw.resume_reading()

    # -- the connection's transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._shut or not self._encrypted:
            return
        tls, size = self._tls, len(data)
        try:
            if size <= RECORD:
                if size:
                    tls.write(data)
            else:
                view, sent = memoryview(data), 0
                while sent < size:
                    sent += tls.write(view[sent:])
        except ssl.SSLError:
            self._raw.abort()
            return
        self._flush()

    def _flush(self) -> None:
        data, raw = self._out.read(), self._raw
        if not data:
            return
        self.written += len(data)
        sent = 0
        if (
            len(data) <= _AT_ONCE_BYTES
            and self._fd >= 0
            and not (raw.get_write_buffer_size() or raw.is_closing())
        ):
            try:
                sent = os.write(self._fd, data)
            except OSError:
                sent = 0
        if sent < len(data):
            raw.write(data[sent:] if sent else data)

    def close(self) -> None:
        self._say_end()
        self._raw.close()

    def abort(self) -> None:
        self._shut = True
        self._raw.abort()

    def can_write_eof(self) -> bool:
        return (self._encrypted or self._turned_away) and self._raw.can_write_eof()

    def write_eof(self) -> None:
        self._say_end()
        self._raw.write_eof()

    def _say_end(self) -> None:
        """TLS' close_notify: without it the client cannot tell an end from a cut."""
        if self._encrypted and not self._shut and not self._raw.is_closing():
            self._shut = True
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        self._wants_reading = False
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._wants_reading = True
        if self._encrypted and self._records.behind:
            self._later()
        else:
            self._raw.resume_reading()

    def is_reading(self) -> bool:
        return self._raw.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the socket knows; ``tls_layer`` is this."""
        return self if name == "tls_layer" else self._raw.get_extra_info(name, default)


def words(error: ssl.SSLError) -> str:
    """A failed handshake, for an operator."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "EOF"
    if alert := gotext.tls_alert(error.reason or ""):
        return f"remote error: tls: {alert}"
    reason = (error.reason or "handshake failure").lower().replace("_", " ")
    if reason in ("http request", "wrong version number", "https proxy request"):
        return _NO_TLS
    if reason == "peer did not return a certificate":
        return "tls: client didn't provide a certificate"
    return f"tls: {reason}"
