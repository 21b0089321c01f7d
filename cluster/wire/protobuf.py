"""Protobuf wire form, written by hand where the hot path needs it.

Hot path: every put builds one KeyValue and one response header here (about 0.5 us each); message objects take
three times that. Everything else uses ``cluster.pb``.

Wire form: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

_SMALL = [bytes((i,)) for i in range(0x80)]  # the last byte of a varint
# any other: joined from tables they take a third less than made again
_MORE = [bytes((i | 0x80,)) for i in range(0x80)]


def varint(value: int) -> bytes:
    """``value`` as a base-128 varint; a negative int64 becomes ten bytes, as protobuf does."""
    if value < 0:
        value += 1 << 64
    if value < 0x80:
        return _SMALL[value]
    if value < 0x4000:
        return _MORE[value & 0x7F] + _SMALL[value >> 7]
    if value < 0x200000:
        return _MORE[value & 0x7F] + _MORE[value >> 7 & 0x7F] + _SMALL[value >> 14]
    if value < 0x10000000:
        return (
            _MORE[value & 0x7F] + _MORE[value >> 7 & 0x7F] + _MORE[value >> 14 & 0x7F] + _SMALL[value >> 21]
        )
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varints(first: int, count: int) -> list[bytes]:
    """:func:`varint` of ``count`` successive numbers: 0.05 us each instead of 0.15."""
    out: list[bytes] = []
    last = first + count
    while first < last:
        if first < 0x80:
            out.append(_SMALL[first])
            first += 1
            continue
        more = varint(first >> 7)
        low = first & 0x7F
        part = _MORE[low : low + last - first]
        out += [byte + more for byte in part]
        first += len(part)
    return out


def read_varint(buf: bytes, pos: int) -> tuple[int, int]:
    """The varint at ``pos``: ``(value, next position)``. Unsigned; IndexError if cut short, or longer than
    ten bytes: a client may send a million that never end, and each is added to a longer number."""
    byte = buf[pos]
    pos += 1
    if byte < 0x80:
        return byte, pos
    value = byte & 0x7F
    for shift in range(7, 70, 7):
        byte = buf[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, pos
    raise IndexError("a varint of more than ten bytes")


def key_value(
    key: bytes, create_revision: int, mod_revision: int, version: int, value: bytes, lease: int
) -> bytes:
    """An ``mvccpb.KeyValue`` in wire form, zero fields left out, as Go's marshaller writes it."""
    tail = b"\x2a" + varint(len(value)) + value if value else b""
    if lease:
        tail += b"\x30" + varint(lease)
    return b"".join(
        (b"\x0a", varint(len(key)), key, b"\x10", varint(create_revision), b"\x18", varint(mod_revision),
         b"\x20", varint(version), tail)
    )


def tombstone(key: bytes, mod_revision: int) -> bytes:
    """The ``mvccpb.KeyValue`` of a DELETE event: only key and the revision of the deletion."""
    return b"".join((b"\x0a", varint(len(key)), key, b"\x18", varint(mod_revision)))


def response_header(prefix: bytes, revision: int, term: int) -> bytes:
    """Field 1 of every response. ``prefix``: see :func:`header_prefix`."""
    body = b"".join((prefix, b"\x18", varint(revision), b"\x20", varint(term))) if revision else b"".join(
        (prefix, b"\x20", varint(term)))
    return b"\x0a" + varint(len(body)) + body


class ResponseHeaders:
    """Makes a host's response headers, mostly of one term: 0.25 us instead of 0.5."""

    __slots__ = ("_before", "_prefix", "_tail", "_term")

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._term = -1
        self._tail = b""
        self._before: list[bytes] = []  # what stands before a revision, by the bytes that it takes

    def make(self, revision: int, term: int) -> bytes:
        if not revision:
            return response_header(self._prefix, 0, term)
        if term != self._term:
            self._term = term
            self._tail = b"\x20" + varint(term)
            rest = len(self._prefix) + 1 + len(self._tail)
            self._before = [b"\x0a%b%b\x18" % (varint(rest + size), self._prefix) for size in range(11)]
        number = varint(revision)
        return b"%b%b%b" % (self._before[len(number)], number, self._tail)


def header_prefix(cluster_id: int, member_id: int) -> bytes:
    """The constant fields of a host's ``ResponseHeader``: cluster and member ID."""
    return b"".join((b"\x08", varint(cluster_id), b"\x10", varint(member_id)))
