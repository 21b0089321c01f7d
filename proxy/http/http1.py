"""HTTP/1.1: keep-alive, pipelining, chunked bodies both ways. Pure but for its callbacks.

``Http1Connection`` is fed by ``receive`` and calls ``write(bytes)`` and ``close()`` of its
owner. Requests are handed over whole, one at a time: the next pipelined one waits for the
answer. What is plain is ``http1_plain``'s; all else, about 100 us a request, is ``h11``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from typing import Protocol

import h11

from cluster.faults import HANDLER_MISTAKES, faults
from proxy.http.http1_heads import Old, by_old, expects_less, old, reason, size_of
from proxy.http.http1_plain import (
    FindPlain,
    Plain,
    PlainRequest,
    TakenRequest,
    TakeWhole,
    begins_plain,
    spelt,
    take,
)
from proxy.http.http2 import Limits
from proxy.http.memory import TOO_MANY
from proxy.http.requests import AtOnce, Headers, HttpHandler, HttpRequest, Switched

_MIGHT_SWITCH = h11.MIGHT_SWITCH_PROTOCOL  # type: ignore[attr-defined]  # documented, and not in __all__
TURN_REQUESTS = 16  # of one connection in a turn of the loop, some 2 ms
_PUT = b"P"[0]
TURN_BYTES = 65_536  # of answers at once, likewise; the last one may go beyond it
_TEXT = "text/plain; charset=utf-8"
_FIRST_COUNTS = ("authorization", "content-type", "origin")  # of fields that repeat, as in Go
FindHandler = Callable[[str], "HttpHandler | None"]


class Output(Protocol):
    """Where a connection writes."""

    def write(self, data: bytes) -> None:
        """Send; buffered without bound, see ``unsent_bytes``."""

    def write_now(self, data: bytes) -> None:
        """The same, before the turn of the loop ends."""

    def close(self) -> None:
        """Close once everything written is sent."""

    def unsent_bytes(self) -> int:
        """Written and not yet taken by the socket."""

    @property
    def crowded(self) -> bool:
        """There is no room for what this client sends."""

    def again(self) -> None:
        """Call ``go_on`` in another turn of the loop: others want theirs."""

    def later(self) -> bool:
        """Whether others have had this turn of the loop; ``go_on`` is called in another one, then."""


class Http1Request(HttpRequest):
    """A request that came over HTTP/1.1."""

    __slots__ = ("_connection",)

    def __init__(
        self,
        connection: Http1Connection,
        method: str,
        path: str,
        query: str,
        headers: dict[str, str],
        body: bytes,
        peer: str,
    ) -> None:
        super().__init__(method, path, query, headers, body, peer)
        self._connection = connection

    def start(self, status: int, headers: Headers = ()) -> None:
        if not self.closed and not self.started:
            self.started = True
            self._connection.send_start(status, headers)

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

    def pending_bytes(self) -> int:
        return 0 if self.closed else self._connection.output.unsent_bytes()


class Http1Connection:
    """The server's end of one HTTP/1.1 connection."""

    __slots__ = ("_advancing", "_at", "_at_once", "_body", "_body_bytes", "_draining", "_ended", "_find",
                 "_find_plain", "_given", "_h11", "_half_since", "_head", "_held", "_limits", "_old", "_peer",
                 "_raw", "_served", "_switched", "_take_whole", "last_active", "now",
                 "output", "peer_name", "request", "secure")

    def __init__(self, find: FindHandler, limits: Limits, output: Output, peer: str, now: float,
                 at_once: AtOnce | None = None, find_plain: FindPlain | None = None,
                 take_whole: TakeWhole | None = None) -> None:
        self._find = find
        self._at_once = at_once
        self._find_plain = find_plain
        self._take_whole = take_whole
        self._limits = limits
        self.output = output
        self._peer = peer
        self.secure = False
        self.peer_name: str | None = None
        self._h11 = self._fresh()
        self._old: Old | None = None  # of the request that is answered
        self._head: h11.Request | None = None
        self._held = b""  # a head whose body follows at once, and goes with it
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._draining = False
        self._advancing = False
        self.request: HttpRequest | TakenRequest | None = None  # being answered
        self._raw = b""  # read, and neither looked at nor given to h11, but for what lies before ``_at``
        self._at = 0
        self._given = False  # h11 may be in the middle of a request: it has been given something
        self._ended = False  # behind that the client has ended its side
        self._served = 0  # requests since the last turn of the loop began
        self._switched: Switched | None = None  # what is spoken since a request changed that
        self.now = now
        self.last_active = now
        self._half_since = 0.0  # when a head was found that is not whole; 0: none is

    def _fresh(self) -> h11.Connection:
        return h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.max_http1_header_bytes)

    def receive(self, data: bytes, now: float) -> bool:
        """What the socket gave; b"" at its end. Whether all of it has been answered, and nothing is held."""
        if now != self.now:  # time passes between turns of the loop
            self._served = 0
        self.now = self.last_active = now
        taking = False
        if data and not (self._given or self._raw or self.request is not None):
            if data[0] == _PUT:  # none is answered at once
                taking = self._take_whole is not None
            elif self._at_once is not None:
                data = self._answer_at_once(data, self._at_once)
                if not data:
                    return True
        if data and self.request is None and self._switched is None and self.output.later():
            self._raw = self._left() + data
        elif taking and self._taken(data):
            return True
        else:
            self._receive(data)
        return False

    def _taken(self, data: bytes) -> bool:
        """Whether this is one request that needs no look at its parts; it is on its way."""
        output, limits = self.output, self._limits
        if (
            self._draining
            or self._served >= TURN_REQUESTS
            or self.peer_name is not None
            or len(data) > min(limits.max_http1_header_bytes, limits.max_body_bytes)
            or output.crowded
            or output.unsent_bytes() > limits.max_unsent_bytes
        ):
            return False
        assert self._take_whole is not None
        try:
            request = self._take_whole(self, data)
        except HANDLER_MISTAKES as error:  # of this program: nothing was done yet
            faults.met("taking a request", error)
            return False
        if request is None:
            return False
        self._served += 1
        self._half_since = 0.0
        self.request = request
        try:
            request.go()
        except HANDLER_MISTAKES as error:
            faults.met("serving a request that was taken", error)
            if not request.started:
                request.usual().respond(500, b"Internal Server Error\n", content_type=_TEXT)
        return True

    def usual(self, data: bytes, closed: bool) -> PlainRequest:
        """A request that was taken, as others are (``Taker``)."""
        plain = take(data, len(data), len(data))
        assert plain is not None, "only plain ones are taken"
        request = PlainRequest(self, plain, self._peer)
        request.secure, request.peer_name, request.closed = self.secure, self.peer_name, closed
        if not closed:
            self.request = request
        return request

    def _answer_at_once(self, data: bytes, at_once: AtOnce) -> bytes:
        """Answer what needs no request, as far as this turn of the loop allows; what is left."""
        output = self.output
        if self._draining or output.crowded or output.unsent_bytes() > self._limits.max_unsent_bytes:
            return data
        answers: list[bytes] = []
        at = said = 0
        while at < len(data) and self._served < TURN_REQUESTS and said < TURN_BYTES:
            if answers and output.later():  # the first of each connection alone does not wait for others
                break
            try:
                found = at_once(data, at)
            except HANDLER_MISTAKES as error:  # of this program: the request goes the usual way
                faults.met("answering at once", error)
                break
            if found is None:
                break
            answer, at = found
            answers.append(answer)
            said += len(answer)
            self._served += 1
        if answers:
            output.write_now(answers[0] if len(answers) == 1 else b"".join(answers))
        return data[at:] if at else data

    def _left(self) -> bytes:
        """What is not looked at of ``_raw``. The caller sees to it that this is all of it from now on."""
        at, self._at = self._at, 0
        return self._raw[at:] if at else self._raw

    def _receive(self, data: bytes) -> None:
        if self._switched is not None:
            self._switched.received(data)
            return
        if data:
            self._raw = self._left() + data if self._raw else data
        elif self._raw:
            self._ended = True
        else:
            self._ended = True
            self._give(b"")
        self._advance()

    def _give(self, data: bytes) -> None:
        """To h11."""
        self._given = True
        conn = self._h11
        if not data.isascii() and conn.their_state is h11.IDLE and b"\n" not in conn.trailing_data[0]:
            data = spelt(conn.trailing_data[0], data)
        with suppress(RuntimeError):  # data after EOF was given: the socket layer is closing
            self._h11.receive_data(data)

    def go_on(self) -> None:
        """Another turn of the loop, for what has been read (``Output.again``)."""
        self._served = 0
        if self._switched is not None:
            self._switched.go_on()
        elif self.request is None:
            if self._raw and not (self._given or self._ended):
                raw, self._raw = self._left(), b""
                if raw[0] == _PUT:
                    if self._take_whole is not None and self._taken(raw):
                        return
                elif self._at_once is not None:
                    raw = self._answer_at_once(raw, self._at_once)
                self._raw = raw
            self._advance()

    @property
    def unfinished(self) -> int:
        """Bytes of a request's body, of which there is more to come."""
        return self._body_bytes

    @property
    def idle(self) -> bool:
        """No request is being answered, and nothing of one has been read."""
        return self.request is None and not (self._raw or self._given) and self._switched is None

    @property
    def backlog(self) -> int:
        """Bytes read and not yet looked at, because an answer is still being written."""
        if self._switched is not None:
            return self._switched.held_bytes
        given = len(self._h11.trailing_data[0]) if self._h11.their_state is not h11.ERROR else 0
        return len(self._raw) - self._at + given

    @property
    def overrun(self) -> bool:
        """Whether more lies behind an answer in pieces, which may never end, than is held. Not read any
        further, nobody would see that its client has gone."""
        request = self.request
        return (request is not None and request.started and self._switched is None
                and self.backlog > self._limits.max_body_bytes)

    def lost(self) -> None:
        """The socket is gone."""
        request, self.request = self.request, None
        if request is not None and not request.closed:
            request.closed = True
            if isinstance(request, HttpRequest) and request.on_close is not None:
                request.on_close(request)

    def drained(self) -> None:
        """The socket took what was written."""
        if self.request is None:
            self._advance()
        elif isinstance(self.request, HttpRequest) and self.request.on_drain is not None:
            self.request.on_drain()

    def drain(self, behind: bool = False) -> None:
        """Graceful end: close after the answer that is being written. ``behind``: what has been read waits
        for its turn, and is answered before that."""
        self._draining = True
        if self.request is None and not behind:
            self.output.close()

    def tick(self, now: float, behind: bool = False) -> None:
        """Closes what has been idle, or slow to send its request, for too long. ``behind``: what has been
        read waits for its turn."""
        if self.request is not None or behind:
            self._half_since = 0.0
            return
        if now - self.last_active > self._limits.http1_idle_timeout_s:
            self.output.close()
        elif self.idle or self._head is not None or self._switched is not None or not self.backlog:
            self._half_since = 0.0
        elif not self._half_since or self.output.unsent_bytes():  # requests may wait until their client reads
            self._half_since = now
        elif now - self._half_since > self._limits.head_timeout_s:
            self.output.close()

    def _advance(self) -> None:
        """Take requests off what has been read, unless an answer to one of them is what called us."""
        if not self._advancing:
            self._advancing = True
            try:
                self._events()
            finally:
                self._advancing = False

    def _events(self) -> None:
        """Take events until an answer is pending, the client does not read its answers, or more bytes are
        needed."""
        while self.output.unsent_bytes() <= self._limits.max_unsent_bytes:
            if self.request is not None:  # what is behind it waits, whatever that is
                return
            if self._served >= TURN_REQUESTS:
                self.output.again()
                return
            if self._h11.their_state is h11.ERROR or self._h11.our_state in (
                h11.ERROR,
                h11.MUST_CLOSE,
                h11.CLOSED,
            ):
                return
            if self._raw:
                if isinstance(self.request, PlainRequest):
                    return
                if (plain := self._plain()) is not None:
                    self._serve_plain(plain)
                    continue
                if self._begun():
                    return
                raw, self._raw = self._left(), b""
                self._give(raw)
                if self._ended:
                    self._give(b"")
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                self._reject(error.error_status_hint, str(error))
                return
            if isinstance(event, h11.Request):
                if size_of(event) > self._limits.max_http1_header_bytes:  # h11 bounds what comes in pieces
                    self._reject(431, "request head too large")
                    return
                if self.output.crowded:
                    self._reject(429, TOO_MANY)
                    return
                if event.method == b"CONNECT":  # a yes to it has no body: handlers know nothing of that
                    self._reject(405, "this is no proxy")
                    return
                self._head, self._old = event, old(event)
                if not expects_less(event):
                    self._reject(417, "")
                    return
                if self._h11.they_are_waiting_for_100_continue:
                    self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
            elif isinstance(event, h11.Data):
                self._body.append(bytes(event.data))
                self._body_bytes += len(event.data)
                if self._body_bytes > self._limits.max_body_bytes:
                    self._reject(413, "request body too large")
                    return
                if self.output.crowded:
                    self._reject(429, TOO_MANY)
                    return
            elif isinstance(event, h11.EndOfMessage):
                self._dispatch()
            elif isinstance(event, h11.ConnectionClosed):
                self.lost()
                self.output.close()
                return
            else:  # NEED_DATA, PAUSED
                return

    def _plain(self) -> Plain | None:
        """A request that h11 need not see: it is in the middle of none."""
        conn = self._h11
        if conn.their_state is not h11.IDLE or conn.our_state is not h11.IDLE or conn.trailing_data[0]:
            return None
        self._given = False
        if self._ended or self.output.crowded:
            return None
        return take(self._raw, self._limits.max_http1_header_bytes, self._limits.max_body_bytes,
                    self._at)

    def _begun(self) -> bool:
        """Whether all that is there is the beginning of a plain request, whose rest is waited for: once h11
        has that, it has what comes behind it, too."""
        return not (self._given or self._ended) and begins_plain(self._raw, self._at)

    def _serve_plain(self, plain: Plain) -> None:
        self._served += 1
        self._half_since = 0.0
        self._at = plain.end
        if 2 * plain.end >= len(self._raw):  # many small requests are not moved for each of them
            self._raw = self._left()
        request = PlainRequest(self, plain, self._peer)
        request.secure, request.peer_name = self.secure, self.peer_name
        self.request = request
        find_plain = self._find_plain
        handler = find_plain(plain) if find_plain is not None and self.peer_name is None else None
        if handler is None:
            handler = self._find(request.path)
        if handler is None:
            request.respond(404, b"404 page not found\n", [("x-content-type-options", "nosniff")], _TEXT)
        else:
            request.serve(handler)

    def _dispatch(self) -> None:
        self._served += 1
        self._half_since = 0.0
        head = self._head
        assert head is not None, "h11 gives EndOfMessage only after Request"
        body = b"".join(self._body)
        self._head = None
        self._body = []
        self._body_bytes = 0
        headers: dict[str, str] = {}
        for raw_name, raw_value in head.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            if name not in headers:
                headers[name] = value
            elif name not in _FIRST_COUNTS:
                headers[name] += f", {value}"
        target = head.target.decode("latin-1")
        if target.startswith(("http://", "https://")):  # absolute form (RFC 9112 section 3.2.2)
            rest = target.split("://", 1)[1]
            target = rest[rest.find("/") :] if "/" in rest else "/"
        path, _, query = target.partition("?")
        request = Http1Request(self, head.method.decode("latin-1"), path, query, headers, body, self._peer)
        request.secure, request.peer_name = self.secure, self.peer_name
        self.request = request
        handler = self._find(path)
        if handler is None:
            request.respond(404, b"404 page not found\n", [("x-content-type-options", "nosniff")], _TEXT)
        else:
            request.serve(handler)
        if self._switched is not None and (early := self._h11.trailing_data[0]):
            self._switched.received(early)

    # -- the answer to a plain request

    def write(self, data: bytes) -> None:
        """Send."""
        self.output.write(data)

    def write_now(self, data: bytes) -> None:
        """The same, before the turn of the loop ends."""
        self.output.write_now(data)

    def unsent_bytes(self) -> int:
        """Written and not yet taken by the socket."""
        return self.output.unsent_bytes()

    @property
    def closes(self) -> bool:
        """This answer is the last."""
        return self._draining

    def answered(self) -> None:
        """It is complete."""
        self.request = None
        self.last_active = self.now
        if self._draining:
            self.output.close()
        elif self._raw or self._ended:
            self._advance()

    # -- the answer to another one

    def switch(self, headers: Headers, to: Switched) -> bool:
        """From here on another protocol, which its client has asked for. False: it has not."""
        if self._h11.their_state is not _MIGHT_SWITCH:
            return False
        fields = [(field.encode("latin-1"), value.encode("latin-1")) for field, value in headers]
        self._send(h11.InformationalResponse(status_code=101, headers=fields, reason=reason(101)))
        self._switched = to
        to.begin(self.output, self._limits.max_body_bytes, self._limits.max_unsent_bytes)
        return True

    def send_start(self, status: int, headers: Headers) -> None:
        """Status line and fields; ``date`` added, ``connection: close`` where it must be."""
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        fields.append((b"date", formatdate(usegmt=True).encode()))
        if self._draining:
            fields.append((b"connection", b"close"))
        # its body is written before anybody else's turn
        whole = any(name == b"content-length" for name, _ in fields)
        if self._old is Old.STAYS and (self._draining or not whole):
            self._old = Old.ENDS
        self._send(h11.Response(status_code=status, headers=fields, reason=reason(status)), held=whole)

    def send_chunk(self, chunk: bytes) -> None:
        """A piece of the body."""
        self._send(h11.Data(data=chunk))

    def send_end(self) -> None:
        """The end of the body; then the next pipelined request, or the end of the connection."""
        self._send(h11.EndOfMessage())
        self.request = None
        self.last_active = self.now
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE and not self._draining:
            self._h11.start_next_cycle()
            self._advance()
        elif self._old is Old.STAYS and self._h11.our_state is h11.MUST_CLOSE and not self._draining:
            self._raw, self._given = self._h11.trailing_data[0] + self._left(), False
            self._h11, self._old = self._fresh(), None
            if self._ended and not self._raw:
                self._give(b"")
            self._advance()
        else:
            self.output.close()

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

    def _reject(self, status: int, text: str) -> None:
        """The request cannot be read: say so and close."""
        self._body, self._body_bytes = [], 0
        self._old = self._old and Old.ENDS
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = f"{status} {reason(status).decode()}: {text}\n".encode() if text else b""
            self._send(
                h11.Response(
                    status_code=status,
                    headers=[
                        (b"content-type", b"text/plain; charset=utf-8"),
                        (b"connection", b"close"),
                        (b"content-length", b"%d" % len(body)),
                    ],
                    reason=reason(status),
                ),
                held=True,
            )
            if self._head is None or self._head.method != b"HEAD":
                self._send(h11.Data(data=body))
            self._send(h11.EndOfMessage())
        self.output.close()
