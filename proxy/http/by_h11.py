"""The half of an HTTP/1.1 connection that ``h11`` reads and writes: all that is not plain."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from typing import Protocol

import h11

from cluster.faults import faults
from proxy.http.http1_old import Old, by_old, old
from proxy.http.http1_plain import HEAD_END, TakenRequest, phrase, spelt
from proxy.http.http2 import Limits
from proxy.http.memory import FIELD_BYTES, HEAD_BYTES, TOO_MANY
from proxy.http.requests import (
    Below,
    BrokenBody,
    Headers,
    HttpHandler,
    HttpRequest,
    Switched,
    by_name,
    canonical,
    cut,
    not_found,
)

_MIGHT_SWITCH = h11.MIGHT_SWITCH_PROTOCOL  # type: ignore[attr-defined]  # documented, and not in __all__
_AS_PYTHON = re.compile(r"bytearray\(b(.*)\)")  # how h11 quotes what it refuses
_PIECES = 16  # of a body that h11 reads in the time of a request
# to h11 at a time, the second of bodies with a length; a trailer has the first, as in Go: 6 us for each field
_GIVEN_BYTES, _GIVEN_BODY_BYTES = 4096, 262_144
KB_BITS = 10
_PIECE_BYTES = 65_536  # of what many clients get, for one of them
_HANDED_BYTES = 524_288  # of it in a turn of the loop, 0.3 ms
_FIELDS_BITS = 4  # so many fields take as long as a request
_MOST_FIELDS = 1000  # of a head; h11 takes 10 us for each
LINE_ENDS = (b"\r", b"\n")  # behind a body, where they do not count (RFC 9112 section 2.2)
_ABSOLUTE = re.compile(rb"(?i)https?://([^/?]*)(.*)")  # RFC 9112 section 3.2.2
_CONTROL = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")
# Go's words for what h11 says of a body
_TRAILER = "http: suspiciously long trailer after chunked body"
_MISTAKES = {"closed connection": "unexpected EOF", "chunk header": "invalid byte in chunk length",
             _TRAILER: _TRAILER}
_MALFORMED = "malformed chunked encoding"
FindHandler = Callable[[str], "HttpHandler | None"]


class Output(Below, Protocol):
    """Where a connection writes, without bound: see ``unsent_bytes``."""

    def close(self, *, half: bool = False) -> None:
        """Close once everything written is sent. ``half``: the client does, which may be sending yet."""

    def write_now(self, data: bytes) -> None:
        """Send before the turn of the loop ends."""

    def later(self) -> bool:
        """Whether the turn's time is spent: then ``go_on`` is called in another one."""

    def recount(self) -> None:
        """Its connection holds less."""


class Http1Request(HttpRequest):
    __slots__ = ("_connection",)

    def __init__(
        self, connection: ByH11, method: str, path: str, query: str, headers: dict[str, str],
        body: bytes, peer: str
    ) -> None:
        super().__init__(method, path, query, headers, body, peer)
        self._connection = connection

    def start(self, status: int, headers: Headers = ()) -> None:
        if not self.closed and not self.started:
            self.started = True
            if self.on_start is not None:
                self.on_start(status)
            self._connection.send_start(status, (*self.added, *headers))

    def write(self, chunk: bytes) -> None:
        if not self.closed and chunk and self.method != "HEAD":
            self._connection.send_chunk(chunk)

    def end(self) -> None:
        if not self.closed:
            self.closed = True
            self._connection.send_end()

    def switch(self, headers: Headers, to: Switched) -> bool:
        if self.closed or self.started or not self._connection.switch(headers, to):
            return False
        self.started = True
        return True

    def hand(self, chunk: bytes, last: bool) -> None:
        if not self.closed:
            self._connection.hand(self, chunk, last)

    def pending_bytes(self) -> int:
        return 0 if self.closed else self._connection.unsent_bytes()


class ByH11:
    """What a connection has read and not looked at, and its requests that are not plain."""

    __slots__ = (
        "_at", "_body", "_chunked", "_draining", "_ended", "_find", "_given", "_h11", "_half_since",
        "_handed", "_head", "_head_bytes", "_held", "_last", "_limits", "_more", "_old", "_peer", "_pieces",
        "_raw", "_served", "_switched", "_untaken", "last_active", "now", "output", "peer_name", "request",
        "secure", "untaken",
    )  # fmt: skip

    def __init__(self, find: FindHandler, limits: Limits, output: Output, peer: str, now: float) -> None:
        self._find = find
        self._limits = limits
        self.output = output
        self._peer = peer
        self.secure = False
        self.peer_name: str | None = None
        self._h11 = self._fresh()
        self._old: Old | None = None  # of the request that is answered
        self._head: h11.Request | None = None
        self._chunked = False  # its body is
        self._head_bytes = 0  # what a large head takes, until its request is answered
        self._held = b""  # a head whose body follows at once, and goes with it
        self._body = bytearray()  # one object, however small the chunks
        self._pieces = 0  # of bodies
        self._draining = False
        self.request: HttpRequest | TakenRequest | None = None  # being answered
        self._raw = b""  # read, and from ``_at`` on neither looked at nor given to h11
        self._at = 0
        self._more: list[bytes] = []  # behind ``_raw`` that is not empty: read while a request is answered
        self._given = False  # h11 may be in the middle of a request: it has been given something
        self._ended = False  # behind that the client has ended its side
        # of an answer that is handed over as the client takes it; few connections ever have such a one
        self._untaken: deque[bytes] | None = None
        self._handed = 0  # bytes of the first of these
        self._last = False  # the answer ends behind them
        self.untaken = 0  # bytes of them that are left
        self._served = 0  # requests since the last turn of the loop began
        self._switched: Switched | None = None  # what is spoken since a request changed that
        self.now = now
        self.last_active = now
        self._half_since = 0.0  # when the beginning of a head was found; 0: there is none

    def _go_behind(self) -> None:
        raise NotImplementedError

    def lost(self) -> None:
        """The socket is gone."""
        request, self.request = self.request, None
        self._untaken = None
        if request is not None and not request.closed:
            request.closed = True
            if isinstance(request, HttpRequest) and request.on_close is not None:
                request.on_close(request)

    def end_wait(self) -> None:
        """The client has ended its side: Go's servers cancel what it asked for. End the request if it is a
        wait, a stream or a call; others are answered."""
        request = self.request
        if isinstance(request, HttpRequest):
            request.half_closed = True
            if request.on_close is not None and not request.on_close(request) and self.request is request:
                self.output.close()

    def _fresh(self) -> h11.Connection:
        return h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.max_http1_header_bytes)

    def _left(self) -> bytes:
        """What is not looked at of ``_raw``; the caller sets ``_raw``."""
        at, self._at = self._at, 0
        raw = self._raw[at:] if at else self._raw
        if self._more:
            more, self._more = self._more, []
            raw = b"".join((raw, *more))
        return raw

    def _bears(self) -> bool:
        """Whether h11 may look at the head that it was given, else the client is told: h11 bounds what comes
        in pieces alone, and reads a whole read's fields in one go."""
        head, most = self._h11.trailing_data[0], self._limits.max_http1_header_bytes
        found = HEAD_END.search(head, 0, most + 4)
        end = found.start() if found is not None else len(head)
        if end > most or head.count(b"\n", 0, end) > _MOST_FIELDS:
            return self._reject(431, "request head too large")
        if found is not None and any(map(_is_odd_length, head[:end].split(b"\n"))):
            return self._reject(400, "bad Content-Length")
        return True

    def _give_some(self) -> bool:
        """Give h11 the next of what was read. Whether there was any."""
        raw, at = self._raw, self._at
        if not raw:
            return False
        most = _GIVEN_BYTES if self._head is None or self._chunked else _GIVEN_BODY_BYTES
        data = raw[at : at + most]
        self._at += len(data)
        if 2 * self._at >= len(raw):  # as in ``Http1Connection._serve_plain``
            self._raw = self._left()
        self._give(data)
        if self._ended and not self._raw:
            self._give(b"")
        return True

    def _take_back(self, held: bytes) -> None:
        """What h11 has not looked at waits in ``_raw`` again."""
        if self._raw.endswith(held, 0, self._at):  # much may lie behind it, and stays where it is
            self._at -= len(held)
        else:
            self._raw = held + self._left()
        self._h11, self._old, self._given = self._fresh(), None, False
        if self._ended and not self._raw:
            self._give(b"")

    def _give(self, data: bytes) -> None:
        self._given = True
        conn = self._h11
        if not data.isascii() and conn.their_state is h11.IDLE and b"\n" not in conn.trailing_data[0]:
            data = spelt(conn.trailing_data[0], data)
        with suppress(RuntimeError):  # data after EOF was given: the socket layer is closing
            self._h11.receive_data(data)

    def _by_h11(self) -> bool:
        """Take h11's next event. Whether another one may be taken now."""
        if self._h11.their_state is h11.IDLE and not self._bears():
            return False
        try:
            event = self._h11.next_event()
            if (event is h11.NEED_DATA and self._h11.their_state is h11.SEND_BODY
                    and len(self._h11.trailing_data[0]) > _GIVEN_BYTES):
                raise h11.RemoteProtocolError(_TRAILER)
        except h11.RemoteProtocolError as error:
            if self._head is not None and cut(self._head.target):
                self._draining = True
                self._dispatch(_broken(str(error)))
                return False
            return self._reject(error.error_status_hint, _AS_PYTHON.sub(r"\1", str(error)))
        if isinstance(event, h11.Request):
            return self._begun_by(event)
        if isinstance(event, h11.Data):
            self._body += event.data
            self._pieces += 1
            if self._pieces % _PIECES == 0:
                self._served += 1  # small chunks take as long as a request
            if len(self._body) > (most := self._limits.max_body_bytes):
                if self._head is None or not cut(self._head.target):
                    return self._reject(413, "request body too large")
                del self._body[most:]
            return self._turn_away() if self.output.crowded else True
        if isinstance(event, h11.EndOfMessage):
            self._served += len(event.headers) >> _FIELDS_BITS
            self._dispatch()
            return True
        if isinstance(event, h11.ConnectionClosed):
            self.lost()
            self.output.close()
        return event is h11.NEED_DATA and self._give_some()  # or PAUSED

    def _begun_by(self, head: h11.Request) -> bool:
        self._head, self._old = head, old(head)  # what is refused is answered by them, too
        size = _size_of(head)
        self._head_bytes = size + len(head.headers) * FIELD_BYTES if size > HEAD_BYTES else 0
        if size > self._limits.max_http1_header_bytes:  # h11 bounds what comes in pieces
            return self._reject(431, "request head too large")
        self._chunked = any(name == b"transfer-encoding" for name, _ in head.headers)
        if self.output.crowded:
            return self._turn_away()
        if not head.http_version.startswith(b"1."):
            return self._reject(505, "unsupported protocol version")
        if mistake := _mistake(head):
            return self._reject(400, mistake)
        if head.method == b"CONNECT":  # a yes to it has no body: handlers know nothing of that
            return self._reject(405, "this is no proxy")
        whole_server = head.method == b"OPTIONS" and head.target == b"*"
        if not whole_server and not head.target.startswith(b"/") and not _ABSOLUTE.match(head.target):
            return self._reject(400, "the target is no path")
        if not _expects_less(head):
            return self._reject(417, "")
        if self._h11.they_are_waiting_for_100_continue and (self._chunked or _announces_bytes(head)):
            self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        return True

    def _dispatch(self, broken: bytes | None = None) -> None:
        head = self._head
        assert head is not None, "h11 gives EndOfMessage only after Request"
        size, fields = _size_of(head) + len(self._body), len(head.headers)
        self._served += 1 + (size >> KB_BITS) + (fields >> _FIELDS_BITS)
        self._half_since = 0.0
        body, self._body = bytes(self._body) if broken is None else broken, bytearray()
        self._head = None
        headers = by_name(head.headers)
        target = head.target
        if (absolute := _ABSOLUTE.match(target)) is not None:
            if host := absolute[1].rpartition(b"@")[2]:
                headers["host"] = host.decode("latin-1")
            target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
        path, _, query = target.decode("latin-1").partition("?")
        request = Http1Request(self, head.method.decode("latin-1"), path, query, headers, body, self._peer)
        request.secure, request.peer_name = self.secure, self.peer_name
        self.request = request
        handler = self._find(path)
        request.serve(handler or not_found)
        if self._ended:
            self.end_wait()
        if self._switched is not None and (early := self._h11.trailing_data[0] + self._left()):
            self._raw = b""
            self._switched.received(early)

    # -- answers

    def hand(self, request: HttpRequest, chunk: bytes, last: bool) -> None:
        if len(chunk) <= _PIECE_BYTES and not self._untaken:
            (request.finish if last else request.write)(chunk)
            return
        self._untaken = untaken = self._untaken or deque()
        untaken.append(chunk)
        self._last = last
        self.untaken += len(chunk)
        if len(untaken) == 1:
            self._hand_on(request)

    def _hand_on(self, request: HttpRequest) -> None:
        """Until the socket takes no more, or this turn of the loop has had its part."""
        untaken, turn = self._untaken, 0
        while untaken:
            if self.output.unsent_bytes() > self._limits.drain_mark_bytes:
                return  # ``drained`` goes on
            if turn >= _HANDED_BYTES:
                self.output.again()
                return
            chunk, at = untaken[0], self._handed
            self._handed = end = min(at + _PIECE_BYTES, len(chunk))
            self.untaken -= end - at
            turn += end - at
            if end == len(chunk):
                untaken.popleft()
                self._handed = 0
            piece = chunk if end - at == len(chunk) else chunk[at:end]
            if self._last and not untaken:
                request.finish(piece)
            else:
                request.write(piece)

    @property
    def ends(self) -> bool:
        """Whether an answer is over but for pieces that its client has to take before they are written."""
        return self._last and bool(self._untaken)

    @property
    def ended(self) -> bool:
        """Whether the client has ended its side."""
        return self._ended

    def unsent_bytes(self) -> int:
        return self.output.unsent_bytes() + self.untaken

    def switch(self, headers: Headers, to: Switched) -> bool:
        """Another protocol from here on. False: the client has not asked for one."""
        if self._h11.their_state is not _MIGHT_SWITCH:
            return False
        fields = [(field.encode("latin-1"), value.encode("latin-1")) for field, value in headers]
        self._send(h11.InformationalResponse(status_code=101, headers=fields, reason=phrase(101)))
        self._switched = to
        to.begin(self.output, self._limits.max_body_bytes, self._limits.max_unsent_bytes)
        return True

    def send_start(self, status: int, headers: Headers) -> None:
        """Status line and fields; ``date`` added, ``connection: close`` where it must be."""
        fields = [(canonical(name).encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        fields.append((b"Date", formatdate(usegmt=True).encode()))
        if self._draining:
            fields.append((b"Connection", b"close"))
        whole = any(name == b"Content-Length" for name, _ in fields)
        if self._old is Old.STAYS and (self._draining or not whole):
            self._old = Old.ENDS
        self._send(h11.Response(status_code=status, headers=fields, reason=phrase(status)), held=whole)

    def send_chunk(self, chunk: bytes) -> None:
        self._send(h11.Data(data=chunk))

    def send_end(self) -> None:
        """The end of the body; then the next pipelined request, or the end of the connection."""
        self._send(h11.EndOfMessage())
        self.request = None
        done = self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
        stays = self._old is Old.STAYS and self._h11.our_state is h11.MUST_CLOSE
        if (done or stays) and not self._draining:
            held = self._h11.trailing_data[0]
            if done and not held:
                self._h11.start_next_cycle()
            else:
                self._take_back(held)
            self._go_behind()
        else:
            self.output.close(half=self._h11.their_state in (h11.ERROR, h11.SEND_BODY))

    def _send(self, event: h11.Event, held: bool = False) -> None:
        try:
            data = self._h11.send(event) or b""
            if self._old is not None and isinstance(event, h11.Response):
                data = by_old(data, self._old)
            data = self._held + data
        except h11.LocalProtocolError as error:  # of this program: it ends a connection
            faults.met("answering over HTTP/1.1", RuntimeError(f"HTTP/1.1 has no place for this: {error}"))
            self.output.close()
            return
        self._held = data if held else b""
        if data and not held:
            self.output.write(data)

    def _turn_away(self) -> bool:
        self.output.turned_away()
        return self._reject(429, TOO_MANY)

    def _reject(self, status: int, text: str) -> bool:
        """The request cannot be read: say so and close. False."""
        self._body = bytearray()
        self._old = self._old and Old.ENDS
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = f"{status} {phrase(status)}: {text}\n".encode() if text else b""
            self._send(
                h11.Response(
                    status_code=status,
                    headers=[
                        (b"Content-Type", b"text/plain; charset=utf-8"), (b"Connection", b"close"),
                        (b"Content-Length", b"%d" % len(body))],
                    reason=phrase(status),
                ), held=True)
            if self._head is None or self._head.method != b"HEAD":
                self._send(h11.Data(data=body))
            self._send(h11.EndOfMessage())
        self.output.close(half=True)
        return False


def _expects_less(head: h11.Request) -> bool:
    """Whether a request expects "100 Continue" at most."""
    expected = next((value for name, value in head.headers if name == b"expect"), b"")
    return not expected or b"100-continue" in (word.strip() for word in expected.lower().split(b","))


def _announces_bytes(head: h11.Request) -> bool:
    return any(name == b"content-length" and int(value) > 0 for name, value in head.headers)


def _mistake(head: h11.Request) -> str:
    """What Go refuses of a head, and ``h11`` does not."""
    for name, value in head.headers:
        if _CONTROL.search(value):
            return "invalid header value"
        if name == b"content-length" and head.method == b"HEAD" and value != b"0":
            return "bad Content-Length"
    return ""


def _is_odd_length(line: bytes) -> bool:
    """Whether it is a Content-Length that Go refuses, and h11 takes: a list, or 2^63 and more."""
    name, _, value = line.partition(b":")
    return name.lower() == b"content-length" and (b"," in value or len(value.strip()) > 18)


def _broken(text: str) -> BrokenBody:
    body = BrokenBody()
    body.mistake = next((mistake for word, mistake in _MISTAKES.items() if word in text), _MALFORMED)
    return body


def _size_of(head: h11.Request) -> int:
    """Bytes of a request's head, but for white space."""
    fields = sum(len(name) + len(value) + 4 for name, value in head.headers)
    return len(head.method) + len(head.target) + len(b"  HTTP/1.1\r\n\r\n") + fields
