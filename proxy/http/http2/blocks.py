"""Header blocks: HPACK (RFC 7541) decoding with whole blocks cached, and ready-made encoding.

A gRPC client's header blocks are soon equal from call to call. ``HeaderDecoder`` keeps ``block bytes ->
HeaderBlock``. Decoding is a function of block and dynamic table, so a block with an insertion or a size
update is never stored and clears the cache. (An insertion too large for the table empties it.)

Where a client inserts a new value of one *volatile* field with every request (Go and Java: ``grpc-timeout``),
the other fields are kept by their content: such a block is a ``variant`` of a ``base``. Other blocks are
decoded field by field, with Huffman strings remembered.

Responses never use the dynamic table: their blocks are constants, valid on any connection.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any

from hpack.exceptions import HPACKDecodingError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable

from proxy.http.http2 import huffman
from proxy.http.http2.frames import ConnectionFault, ErrorCode
from proxy.http.memory import FIELD_BYTES

Field = tuple[bytes, bytes]

STATIC: tuple[Field, ...] = ((b"", b""), *((bytes(n), bytes(v)) for n, v in HeaderTable.STATIC_TABLE))
_SIZED = tuple((field, len(field[0]) + len(field[1]) + 32) for field in STATIC)
_STATIC_COUNT = len(STATIC)  # 62: indexes 1..61 are static
_STATIC_FIELD = {field: index for index, field in reversed(list(enumerate(STATIC))) if index}
_STATIC_NAME = {field[0]: index for index, field in reversed(list(enumerate(STATIC))) if index}

TABLE_LIMIT = 4096  # SETTINGS_HEADER_TABLE_SIZE; we leave it at its initial value
_FIELD_OVERHEAD = 32  # RFC 7541 section 4.1
_CACHED_BYTES = 32_768  # of memory, of one connection's cached blocks; as many of their bases
_BLOCK_BYTES = 300  # what a block takes beside its fields
_SHARED_BYTES = 48  # what a field takes of its list and its dict
_VOLATILE = b"grpc-timeout"
_MAX_STRINGS = 4096  # remembered Huffman strings, all connections
_MAX_INT_OCTETS = 5
_LENGTH_DIGITS = 19  # of content-length

_huffman: dict[bytes, bytes] = {}
_huffman_encoder = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)

# RFC 9113 section 8.2.1: visible ASCII without upper case; a colon only leads a pseudo-header field
_BAD_IN_NAME = bytes((*range(0x21), *range(0x41, 0x5B), *range(0x7F, 0x100)))
_NAMES_OK: dict[bytes, bool] = {}
# control characters; blanks at an end are taken, against that section, as by Go: clients' metadata has them
_BAD_VALUE = re.compile(rb"[\0-\x08\n-\x1f\x7f]")
_PSEUDO = (b":method", b":path", b":scheme", b":authority")
_HOP_BY_HOP = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))


class HeaderBlock:
    """A decoded request (or trailer) block. Cached and shared between calls: read-only, but for ``route``,
    which the layer above sets.

    ``fault`` is why the block is malformed (RFC 9113 section 8.1.1), or "".
    """

    __slots__ = (
        "_metadata", "authority", "base", "content_length", "fault", "fields", "method", "path", "route",
        "scheme", "size", "trailer_fault", "volatile",
    )

    def __init__(self, fields: list[Field], size: int) -> None:
        self.fields = fields
        self.size = size  # as SETTINGS_MAX_HEADER_LIST_SIZE counts
        self.method = b""
        self.path = b""
        self.scheme = b""
        self.authority = b""
        self.content_length = -1
        self.route: Any = None
        self.trailer_fault = ""
        self.base: HeaderBlock | None = None  # the same without its volatile field, shared by many
        self.volatile = b""  # that field's value
        self._metadata: dict[bytes, bytes] | None = None
        self.fault = self._check()

    @classmethod
    def variant(cls, base: HeaderBlock, fields: list[Field], size: int, volatile: bytes) -> HeaderBlock:
        """A block that differs from the sound ``base`` by one more field, which is sound too."""
        made = cls.__new__(cls)
        made.fields = fields
        made.size = size
        made.method = base.method
        made.path = base.path
        made.scheme = base.scheme
        made.authority = base.authority
        made.content_length = base.content_length
        made.route = None
        made.trailer_fault = base.trailer_fault
        made.fault = ""
        made.base = base
        made.volatile = volatile
        made._metadata = None
        return made

    @property
    def weight(self) -> int:
        """Bytes of memory that it takes."""
        return self.size + len(self.fields) * FIELD_BYTES

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """All but the pseudo-header fields; values of a repeated name joined by a comma."""
        found = self._metadata
        if found is None:
            found = {}
            for name, value in self.fields:
                if name[:1] == b":":
                    continue
                found[name] = found[name] + b"," + value if name in found else value
            self._metadata = found
        return found

    def field(self, name: bytes) -> bytes:
        """One of :attr:`metadata` without making it, b"" if absent."""
        base = self.base
        if base is not None and name != _VOLATILE:
            return base.metadata.get(name, b"")  # made once for the many that share it
        if self._metadata is not None:
            return self._metadata.get(name, b"")
        return b",".join([value for other, value in self.fields if other == name])

    def _check(self) -> str:
        """RFC 9113 sections 8.2 and 8.3; also notes what would be wrong with it as a trailer section."""
        pseudo: dict[bytes, bytes] = {}
        regular = False
        for name, value in self.fields:
            if name[:1] == b":":
                self.trailer_fault = "pseudo-header field in trailers"
                if regular:
                    return "pseudo-header field after a regular one"
                if name in pseudo:
                    return "repeated pseudo-header field"
                if name not in _PSEUDO:
                    return "unknown pseudo-header field"
                pseudo[name] = value
            else:
                regular = True
                if fault := self._regular_fault(name, value):
                    return self._both(fault)
            if value and _BAD_VALUE.search(value):
                return self._both("illegal field value")
        self.method, self.path, self.scheme, self.authority = (pseudo.get(name, b"") for name in _PSEUDO)
        if not self.method:
            return ":method is missing"
        if self.method == b"CONNECT":
            return ":scheme or :path with CONNECT" if b":scheme" in pseudo or b":path" in pseudo else ""
        return "" if self.scheme and self.path else ":scheme or :path is missing"

    def _regular_fault(self, name: bytes, value: bytes) -> str:
        if not _name_ok(name):
            return "illegal field name"
        if name in _HOP_BY_HOP:
            return "connection-specific field"
        if name == b"te" and value.lower() != b"trailers":
            return "te is not trailers"
        if name == b"content-length":
            # Python refuses to read numbers of thousands of digits
            if (not value.isdigit() or len(value) > _LENGTH_DIGITS
                    or self.content_length not in (-1, int(value))):
                return "illegal content-length"
            self.content_length = int(value)
        return ""

    def _both(self, fault: str) -> str:
        self.trailer_fault = self.trailer_fault or fault
        return fault


def _name_ok(name: bytes) -> bool:
    known = _NAMES_OK.get(name)
    if known is None:
        known = bool(name) and b":" not in name and len(name.translate(None, _BAD_IN_NAME)) == len(name)
        if len(_NAMES_OK) < _MAX_STRINGS and len(name) < 64:
            _NAMES_OK[name] = known
    return known


class HeaderDecoder:
    """The decoding side of one connection's HPACK state.

    ``max_list_bytes`` (as RFC 7541 section 4.1 counts): a block of more is decoded, so that the table stays
    right, and the caller refuses the stream; four times as much ends the connection.
    """

    __slots__ = ("_bases", "_bases_bytes", "_cached_bytes", "_cap", "_max", "_size", "_table", "cache")

    def __init__(self, max_list_bytes: int) -> None:
        self.cache: dict[bytes, HeaderBlock] = {}
        self._bases: dict[tuple[Field, ...], HeaderBlock] = {}
        # decoded: a short block may stand for fields of the table many times
        self._cached_bytes = self._bases_bytes = 0
        self._table: deque[tuple[Field, int]] = deque()  # newest first, each with its size
        self._size = 0
        self._max = TABLE_LIMIT
        self._cap = max_list_bytes * 4

    def decode(self, block: bytes) -> HeaderBlock:
        """The block's fields. ConnectionFault on anything that is not HPACK (RFC 9113 section 4.3)."""
        found = self.cache.get(block)
        if found is not None:
            return found
        try:
            fields, size, changed, inserted, own = self._decode(block)
        except (IndexError, ValueError, HPACKDecodingError):
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "broken header block") from None
        decoded = (self._variant(fields, size, inserted) if inserted >= 0 else None) or HeaderBlock(
            fields, size
        )
        if changed:
            self.cache.clear()
            self._cached_bytes = 0
        elif size <= _CACHED_BYTES >> 2:
            # other fields are shared with the table; values of a repeated name are joined
            own += size if len(dict(fields)) < len(fields) else 0
            weight = own + len(fields) * _SHARED_BYTES + len(block) + _BLOCK_BYTES
            self._cached_bytes += weight
            if self._cached_bytes > _CACHED_BYTES:
                self.cache.clear()
                self._cached_bytes = weight
            self.cache[block] = decoded
        return decoded

    def _variant(self, fields: list[Field], size: int, inserted: int) -> HeaderBlock | None:
        name, value = fields[inserted]
        if name != _VOLATILE or not value.isalnum():
            return None
        if fields[inserted + 1 : inserted + 2] and fields[inserted + 1][0][:1] == b":":
            return None  # a regular field among the pseudo-header ones: malformed
        rest = fields[:inserted] + fields[inserted + 1 :]
        key = tuple(rest)
        base = self._bases.get(key)
        if base is None:
            base = HeaderBlock(rest, size - len(name) - len(value) - _FIELD_OVERHEAD)
            if base.fault or _VOLATILE in base.metadata:
                return None
            if base.size > _CACHED_BYTES >> 2:
                return None
            weight = base.weight + _BLOCK_BYTES
            self._bases_bytes += weight
            if self._bases_bytes > _CACHED_BYTES:
                self._bases.clear()
                self._bases_bytes = weight
            self._bases[key] = base
        return HeaderBlock.variant(base, fields, size, value)

    def _decode(self, block: bytes) -> tuple[list[Field], int, bool, int, int]:
        """Fields, their size, whether the table changed, the last inserted field's place (-1: none), and what
        memory literals take."""
        table = self._table
        fields: list[Field] = []
        append = fields.append
        changed, inserted = False, -1
        size, own, pos, end = 0, 0, 0, len(block)
        while pos < end:
            octet = block[pos]
            if octet & 0x80:  # indexed field
                index = octet & 0x7F
                pos += 1
                if index == 0x7F:
                    index, pos = _integer(block, pos, 0x7F)
                if index < _STATIC_COUNT:
                    if not index:
                        raise ValueError
                    field, field_size = _SIZED[index]
                else:
                    field, field_size = table[index - _STATIC_COUNT]
                size += field_size
            elif octet & 0xE0 == 0x20:  # table size update: only before the first field (section 4.2)
                limit, pos = _integer(block, pos + 1, 0x1F) if octet == 0x3F else (octet & 0x1F, pos + 1)
                if fields or limit > TABLE_LIMIT:
                    raise ValueError
                self._max = limit
                self._evict(0)
                changed = True
                continue
            else:  # literal: with indexing, without, never
                insert = octet & 0x40
                mask = 0x3F if insert else 0x0F
                index = octet & mask
                pos += 1
                if index == mask:
                    index, pos = _integer(block, pos, mask)
                if index:
                    name = STATIC[index][0] if index < _STATIC_COUNT else table[index - _STATIC_COUNT][0][0]
                else:
                    name, pos = _string(block, pos, end)
                value, pos = _string(block, pos, end)
                field = (name, value)
                field_size = len(name) + len(value) + _FIELD_OVERHEAD
                size += field_size
                own += field_size + FIELD_BYTES
                if insert:
                    changed = True
                    inserted = len(fields)
                    self._evict(field_size)
                    if field_size <= self._max:
                        table.appendleft((field, field_size))
                        self._size += field_size
            if size > self._cap:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "header list too large")
            append(field)
        return fields, size, changed, inserted, own

    def _evict(self, room: int) -> None:
        """Make room for an entry of that size (section 4.4); a larger one than the table empties it."""
        while self._table and self._size + room > self._max:
            self._size -= self._table.pop()[1]


def _integer(block: bytes, pos: int, prefix: int) -> tuple[int, int]:
    """The rest of a prefixed integer (RFC 7541 section 5.1), bounded."""
    value = prefix
    for shift in range(0, 7 * _MAX_INT_OCTETS, 7):
        octet = block[pos]
        pos += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, pos
    raise ValueError


def _string(block: bytes, pos: int, end: int) -> tuple[bytes, int]:
    octet = block[pos]
    length = octet & 0x7F
    pos += 1
    if length == 0x7F:
        length, pos = _integer(block, pos, 0x7F)
    stop = pos + length
    if stop > end:
        raise ValueError
    raw = block[pos:stop]
    if octet < 0x80:
        return raw, stop
    text = _huffman.get(raw)
    if text is None:
        text = huffman.decode(raw)
        if len(raw) <= 64:
            if len(_huffman) >= _MAX_STRINGS:
                _huffman.clear()
            _huffman[raw] = text
    return text, stop


def encode_block(fields: list[Field]) -> bytes:
    """A block that does not touch the dynamic table, so it may be kept as a constant."""
    out = []
    for name, value in fields:
        index = _STATIC_FIELD.get((name, value), 0)
        if index and value:
            out.append(bytes((0x80 | index,)))
            continue
        index = _STATIC_NAME.get(name, 0)
        out.append(_encode_integer(index, 0x0F, 0x00))
        if not index:
            out.append(_encode_string(name))
        out.append(_encode_string(value))
    return b"".join(out)


def _encode_integer(value: int, mask: int, pattern: int) -> bytes:
    if value < mask:
        return bytes((pattern | value,))
    out = bytearray((pattern | mask,))
    value -= mask
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _encode_string(text: bytes) -> bytes:
    packed = _huffman_encoder.encode(text)
    if len(packed) < len(text):
        return _encode_integer(len(packed), 0x7F, 0x80) + packed
    return _encode_integer(len(text), 0x7F, 0x00) + text
