"""HTTP/1.1 requests as nearly every client sends them, read and answered without ``h11``.

Hot path: clients of the v2 API and the JSON gateway send the same few header fields again and again. Such a
request costs 6 us here, with ``h11`` 100.

A request is plain if it has come whole, names each field once, and has no transfer coding, expectation or
upgrade. All else goes to ``h11``, faults among it: nothing is taken here that it would refuse.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple, Protocol

from proxy.http.requests import Headers, HttpHandler, HttpRequest, canonical

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(
    rb"(GET|HEAD|PUT|POST|DELETE|OPTIONS) (/[!-~\x80-\xff]*) HTTP/1\.1\r\n"
    rb"((?:" + _TOKEN + rb":[\t -~\x80-\xff]*\r\n)+)\r\n"
)
_STARTS = (b"GET /", b"HEAD /", b"PUT /", b"POST /", b"DELETE /", b"OPTIONS /")
_LONGEST = max(map(len, _STARTS))
_BEGUN_BYTES = 2048  # a longer beginning is h11's, which knows when it is too long
HEAD_END = re.compile(rb"\n\r?\n")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_LENGTH = re.compile(r"[0-9]{1,9}")
_OTHERS = frozenset(
    ("transfer-encoding", "expect", "upgrade", "te", "trailer", "http2-settings", "proxy-connection")
)
_KEPT, _KEPT_BYTES = 512, 1024  # blocks of header fields, and the largest
_BODILESS = frozenset((204, 304))


class Fields(NamedTuple):
    values: dict[str, str]  # shared between requests: read-only
    length: int  # of the body


class Plain(NamedTuple):
    """A request, and where it ends."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    end: int  # in what was read
    block: bytes  # of the header fields


_kept: dict[bytes, Fields | None] = {}
_lines: dict[int, str] = {}
_date = (0, "")


def take(data: bytes, most_head_bytes: int, most_body_bytes: int, at: int = 0) -> Plain | None:
    """The plain request that begins there; None: there is none."""
    found = _HEAD.match(data, at)
    if found is None or found.end() - at > most_head_bytes:
        return None
    block = found[3]
    fields = _kept[block] if block in _kept else _fields(block)
    if fields is None or fields.length > most_body_bytes:
        return None
    begin = found.end()
    end = begin + fields.length
    if end > len(data) or (fields.length and found[1] == b"HEAD"):
        return None
    target = found[2].decode("latin-1")  # clients spell keys as they are, too: curl does
    return Plain(found[1].decode(), target, fields.values, data[begin:end], end, block)


def begins_plain(data: bytes, at: int) -> bool:
    """Whether this may be a plain request whose head has not all come."""
    if len(data) - at > _BEGUN_BYTES:
        return False
    head = data[at : at + _LONGEST]
    known = any(head.startswith(start) or start.startswith(head) for start in _STARTS)
    return known and HEAD_END.search(data, at) is None


def spelt(before: bytes, data: bytes) -> bytes:
    """The rest of a request line that began with ``before``, its target percent-encoded: ``h11`` takes only
    ASCII, Go all that curl sends."""
    line, end, rest = data.partition(b"\n")
    method, blank, target = (b"", b"", line) if b" " in before else line.partition(b" ")
    return method + blank + _NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], target) + end + rest


def _fields(block: bytes) -> Fields | None:
    fields = _read(block)
    if len(block) <= _KEPT_BYTES:
        if len(_kept) >= _KEPT:
            _kept.clear()
        _kept[block] = fields
    return fields


def _read(block: bytes) -> Fields | None:
    values: dict[str, str] = {}
    for line in block.decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name in values or name in _OTHERS:
            return None
        values[name] = value
    length = values.get("content-length", "0")
    if "host" not in values or values.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    return Fields(values, int(length)) if _LENGTH.fullmatch(length) else None


class Owner(Protocol):
    """The connection of a request."""

    def write(self, data: bytes) -> None: ...

    def write_now(self, data: bytes) -> None:
        """Send before the turn of the loop ends."""

    def hand(self, request: HttpRequest, chunk: bytes, last: bool) -> None:
        """``HttpRequest.hand`` of a request whose answer is in chunks."""

    def unsent_bytes(self) -> int: ...
    def answered(self) -> None: ...
    def drain(self) -> None: ...

    @property
    def closes(self) -> bool:
        """This answer is the last."""


class Taker(Owner, Protocol):
    """A connection that has read a request, and not looked at it."""

    def usual(self, data: bytes, closed: bool) -> PlainRequest:
        """The same request as others are. ``closed``: its client has gone."""


class TakenRequest:
    """A plain request that was taken unparsed."""

    __slots__ = ("closed", "started")

    closed: bool
    started: bool

    def go(self) -> None:
        raise NotImplementedError

    def usual(self) -> HttpRequest:
        """The same request as others are; this one has ended."""
        raise NotImplementedError


# Takes the plain request that these bytes are and nothing else; None: it goes the usual way
TakeWhole = Callable[[Taker, bytes], "TakenRequest | None"]
# The handler that answers a plain request by ``PlainRequest.whole``; None: it goes the usual way
FindPlain = Callable[[Plain], HttpHandler | None]


class PlainRequest(HttpRequest):
    """A plain request. An answer with a length leaves whole, another one in chunks."""

    __slots__ = ("_chunked", "_out", "_owner")

    def __init__(self, owner: Owner, plain: Plain, peer: str) -> None:
        path, _, query = plain.target.partition("?")
        super().__init__(plain.method, path, query, plain.headers, plain.body, peer)
        self._owner = owner
        self._out: list[bytes] = []
        self._chunked = False

    def start(self, status: int, headers: Headers = ()) -> None:
        if self.closed or self.started:
            return
        line = _lines.get(status) or _line(status)
        fields, told = [line], status in _BODILESS
        for field, value in (*self.added, *headers):
            name = canonical(field)
            if name == "Connection":  # close, which is said below
                self._owner.drain()
                continue
            fields.append(f"{name}: {value}\r\n")
            told = told or name == "Content-Length"
        fields.append(f"Date: {date(int(time.time()))}\r\n")
        if not told:
            fields.append("Transfer-Encoding: chunked\r\n")
        if self._owner.closes:
            fields.append("Connection: close\r\n")
        head = "".join(fields)
        if not head.count("\r") == head.count("\n") == len(fields):
            raise ValueError("a header field with a line end in it")
        self._out.append(f"{head}\r\n".encode("latin-1"))
        self.started = True
        if self.on_start is not None:
            self.on_start(status)
        if not told:
            self._chunked = self.method != "HEAD"
            self._flush()

    def write(self, chunk: bytes) -> None:
        if self.closed or not chunk or self.method == "HEAD":
            return
        if self._chunked:
            self._owner.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        else:
            self._out.append(chunk)

    def end(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self._flush()
        self._owner.answered()

    def finish(self, chunk: bytes) -> None:
        if self._chunked and chunk and not self.closed:
            self._out.append(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        else:
            self.write(chunk)
        self.end()

    def hand(self, chunk: bytes, last: bool) -> None:
        if self._chunked and not self.closed:
            self._owner.hand(self, chunk, last)
        else:
            super().hand(chunk, last)

    def whole(self, data: bytes) -> None:
        """The answer, head and body, as it is sent. It is not the last: see ``closes``."""
        if not self.closed:
            self.closed = self.started = True
            self._owner.write_now(data)
            self._owner.answered()

    @property
    def closes(self) -> bool:
        """The connection ends with this answer, which must say so."""
        return self._owner.closes

    def pending_bytes(self) -> int:
        return 0 if self.closed else self._owner.unsent_bytes()

    def _flush(self) -> None:
        if self._out:
            data, self._out = b"".join(self._out), []
            self._owner.write(data)


def _line(status: int) -> str:
    line = _lines[status] = f"HTTP/1.1 {status} {phrase(status)}\r\n"
    return line


def phrase(status: int) -> str:
    """What stands behind a status; nothing behind one that nobody named."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def date(second: int) -> str:
    """The date of this second since 1970, which is now."""
    global _date
    if second != _date[0]:
        _date = (second, formatdate(second, usegmt=True))
    return _date[1]
