"""What comes by TLS, given to OpenSSL a record at a time.

OpenSSL handles all records that it has, until one brings data. A KeyUpdate costs it 15 us, has 27 bytes, and
is answered: 256 KB of them took 0.15 s.

Honest programs send hardly any. OpenSSL and Go update keys only where their program says so, others after
gigabytes. Go, and so etcd, ends a connection after 16 records in a row that bring no data.
"""

from __future__ import annotations

import ssl

RECORD = 16_384  # plain bytes in one, at most
_HEAD = 5  # bytes before a record's body: its kind, a version, and the body's length
_MOST_BODY = RECORD + 2_048  # OpenSSL refuses a longer one as soon as it has the head


class Ignored(ssl.SSLError):
    """Too many records that brought no data, in Go's words."""

    reason = "too many ignored records"


class Records:
    """``behind``: the last :meth:`read` has left whole records. ``ended``: the other side has said that it
    ends."""

    __slots__ = ("_data_bytes", "_empty", "_in", "_kept", "_most_empty", "_tls", "_worth", "behind", "ended")

    def __init__(self, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, most_empty: int, worth: int = 1) -> None:
        """After a handshake, with what has come behind it. ``most_empty``: records that may bring no data,
        for each ``worth`` bytes of it."""
        self._tls = tls
        self._in = incoming
        self._most_empty = most_empty
        self._worth = worth
        self._empty = 0  # records without data, and data, since they were last forgotten
        self._data_bytes = 0
        self._kept = incoming.read()  # a part of a record, or records that wait
        self.behind = False
        self.ended = False

    def read(self, data: bytes, most: int) -> list[bytes]:
        """The data of at most so many of the records that have come. ssl.SSLError."""
        if self.ended:
            return []
        if self._kept:
            data = self._kept + data
        tls, incoming, pieces, at, size = self._tls, self._in, list[bytes](), 0, len(data)
        self.behind = False
        while size - at >= _HEAD:
            body = data[at + 3] << 8 | data[at + 4]
            end = at + _HEAD + body if body <= _MOST_BODY else size
            if end > size:
                break
            if most <= 0:
                self.behind = True
                break
            most -= 1
            incoming.write(data[at:end])
            at = end
            try:
                piece = tls.read(RECORD)
            except ssl.SSLWantReadError:
                self._empty += 1
                if self._empty > self._most_empty:
                    raise Ignored(Ignored.reason) from None
                continue
            except ssl.SSLZeroReturnError:
                piece = b""
            if not piece:
                self.ended = True
                at = size
                break
            pieces.append(piece)
            self._data_bytes += len(piece)
            if self._data_bytes >= self._worth:
                self._empty = self._data_bytes = 0
        self._kept = data[at:]
        return pieces
