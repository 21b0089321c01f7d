"""Header blocks: RFC 7541. What is sent has static entries and literals alone, so it holds at any time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

TABLE_BYTES = 4096  # of the dynamic table: HTTP/2's default, which we leave
_MOST_BYTES = 1 << 18  # of the headers of one block: more is no answer of gRPC
_ENTRY_BYTES = 32  # what an entry counts besides its texts (section 4.1)
Header = tuple[bytes, bytes]

# Appendix A
_NAMED = (
    ":authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|"
    ":status=200|:status=204|:status=206|:status=304|:status=400|:status=404|:status=500|accept-charset|"
    "accept-encoding=gzip, deflate|accept-language|accept-ranges|accept|access-control-allow-origin|age|"
    "allow|authorization|cache-control|content-disposition|content-encoding|content-language|"
    "content-length|content-location|content-range|content-type|cookie|date|etag|expect|expires|from|"
    "host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|"
    "location|max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|"
    "server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
)
_STATIC: tuple[Header, ...] = tuple(
    (name.encode(), value.encode())
    for name, _, value in (entry.partition("=") for entry in _NAMED.split("|")))

# Appendix B: bits of each symbol's code, 256 is the end. The code is canonical, so they say all of it
_BITS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b08060606"
    "0505050606060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817"
    "181816171817171717151617161717181615141616171715171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a17"
    "1a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)


class HeaderError(Exception):
    """It is no header block; the connection is lost, since later blocks build on it."""


def _codes() -> dict[int, int]:
    """Symbols by their codes, each with a one before its first bit."""
    found, code, bits = {}, 0, 0
    for symbol in sorted(range(len(_BITS)), key=lambda symbol: (_BITS[symbol], symbol)):
        code <<= _BITS[symbol] - bits
        bits = _BITS[symbol]
        found[1 << bits | code] = symbol
        code += 1
    return found


_SYMBOLS = _codes()
_END = 256


def unhuffman(data: bytes) -> bytes:
    """A text from its Huffman code. HeaderError."""
    found, code = bytearray(), 1
    for byte in data:
        for shift in range(7, -1, -1):
            code = code << 1 | byte >> shift & 1
            symbol = _SYMBOLS.get(code)
            if symbol is not None:
                if symbol == _END:
                    raise HeaderError("a Huffman code with an end inside")
                found.append(symbol)
                code = 1
    if code >> 8 or code & code + 1:  # padding: at most seven ones
        raise HeaderError("a Huffman code with other padding than ones")
    return bytes(found)


class Decoder:
    """Of one connection, block after block. ``changes`` counts those of its dynamic table."""

    def __init__(self) -> None:
        self._entries: deque[Header] = deque()  # the newest first
        self._bytes, self._limit = 0, TABLE_BYTES
        self.changes = 0

    def decode(self, block: bytes) -> list[Header]:
        """The headers of one block. HeaderError."""
        try:
            return self._decoded(block)
        except IndexError:
            raise HeaderError("a header block that ends too early") from None

    def _decoded(self, block: bytes) -> list[Header]:
        found: list[Header] = []
        at, size = 0, 0
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _integer(block, at, 7)
                header = self._entry(index)
            elif first & 0xE0 == 0x20:
                limit, at = _integer(block, at, 5)
                if limit > TABLE_BYTES or found:
                    raise HeaderError("a change of the table's size that is not allowed")
                self._limit = limit
                self._fit(0)
                continue
            else:
                indexed = first & 0xC0 == 0x40
                index, at = _integer(block, at, 6 if indexed else 4)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, at = _text(block, at)
                value, at = _text(block, at)
                header = name, value
                if indexed:
                    self._add(header)
            size += len(header[0]) + len(header[1]) + _ENTRY_BYTES
            if size > _MOST_BYTES:
                raise HeaderError("too many headers")
            found.append(header)
        return found

    def _entry(self, index: int) -> Header:
        if not index or index > len(_STATIC) + len(self._entries):
            raise HeaderError(f"no header has the index {index}")
        return _STATIC[index - 1] if index <= len(_STATIC) else self._entries[index - len(_STATIC) - 1]

    def _add(self, header: Header) -> None:
        size = len(header[0]) + len(header[1]) + _ENTRY_BYTES
        self._fit(size)
        if size <= self._limit:
            self._entries.appendleft(header)
            self._bytes += size
        self.changes += 1

    def _fit(self, size: int) -> None:
        """Drop the oldest entries until so many bytes more fit."""
        while self._entries and self._bytes + size > self._limit:
            name, value = self._entries.pop()
            self._bytes -= len(name) + len(value) + _ENTRY_BYTES
        self.changes += 1


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """An integer with a prefix of so many bits, and where it ends (section 5.1)."""
    most = (1 << bits) - 1
    number = block[at] & most
    at += 1
    if number < most:
        return number, at
    for shift in range(0, 28, 7):
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise HeaderError("an integer that is too long")


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    huffman = block[at] & 0x80
    length, at = _integer(block, at, 7)
    if at + length > len(block):
        raise HeaderError("a text that ends behind its block")
    text = block[at : at + length]
    return unhuffman(text) if huffman else text, at + length


def _encoded(number: int, bits: int) -> bytes:
    most = (1 << bits) - 1
    if number < most:
        return bytes((number,))
    rest, left = bytearray((most,)), number - most
    while left > 0x7F:
        rest.append(left & 0x7F | 0x80)
        left >>= 7
    rest.append(left)
    return bytes(rest)


def _literal(text: bytes) -> bytes:
    return _encoded(len(text), 7) + text


def request(
    path: str, authority: str, metadata: Iterable[tuple[str, str]] = (), *, secure: bool = False,
    agent: str = "muster-client",
) -> bytes:
    """The header block of a call. Secrets are marked as such: no proxy keeps them (section 6.2.3)."""
    parts = [b"\x83\x87" if secure else b"\x83\x86"]  # POST, and https or http
    for index, text in ((4, path), (1, authority), (31, "application/grpc")):
        parts += (_encoded(index, 4), _literal(text.encode()))
    for name, text in (("te", "trailers"), ("user-agent", agent), *metadata):
        secret = name in ("token", "authorization")
        parts += (b"\x10" if secret else b"\x00", _literal(name.lower().encode()), _literal(text.encode()))
    return b"".join(parts)
