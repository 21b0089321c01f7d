"""HTTP/1.1: keep-alive, pipelining, chunked bodies both ways. Pure but for its callbacks.

``Http1Connection`` is fed by ``receive`` and writes to its ``Output``. Requests are handed over whole, one at
a time: the next pipelined one waits for the answer. ``http1_plain`` reads plain ones, ``by_h11`` the others.
"""

from __future__ import annotations

import h11

from cluster.faults import HANDLER_MISTAKES, faults
from proxy.http.by_h11 import KB_BITS, LINE_ENDS, ByH11, FindHandler, Output
from proxy.http.http1_plain import FindPlain, Plain, PlainRequest, TakeWhole, begins_plain, take
from proxy.http.http2 import Limits
from proxy.http.memory import HEAD_BYTES, STEP_BYTES
from proxy.http.requests import TEXT, AtOnce, HttpRequest, not_found

TURN_REQUESTS = 16  # of one connection in a turn of the loop, some 2 ms; a KB of one counts as one more
_MOST_PIECES = 1000  # that wait behind an answer before they are joined
TURN_BYTES = 65_536  # of answers at once, likewise; the last one may go beyond it
FULL_BYTES = 262_144  # read behind an answer that has not begun; less is moved as often as is simple
_PLAIN_HELD = 3  # bytes that a plain request takes for each of its head: the text, and its fields
_PUT = b"P"[0]
_OVER = (h11.ERROR, h11.MUST_CLOSE, h11.CLOSED)


class Http1Connection(ByH11):
    """The server's end of one HTTP/1.1 connection."""

    __slots__ = ("_advancing", "_at_once", "_find_plain", "_take_whole")

    def __init__(self, find: FindHandler, limits: Limits, output: Output, peer: str, now: float,
                 at_once: AtOnce | None = None, find_plain: FindPlain | None = None,
                 take_whole: TakeWhole | None = None) -> None:
        super().__init__(find, limits, output, peer, now)
        self._at_once = at_once
        self._find_plain = find_plain
        self._take_whole = take_whole
        self._advancing = False

    def receive(self, data: bytes, now: float) -> bool:
        """What the socket gave; b"" at its end. Whether all is answered and nothing held."""
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
                request.usual().respond(500, b"Internal Server Error\n", content_type=TEXT)
        return True

    def usual(self, data: bytes, closed: bool) -> PlainRequest:
        plain = take(data, len(data), len(data))
        assert plain is not None, "only plain ones are taken"
        request = PlainRequest(self, plain, self._peer)
        request.secure, request.peer_name, request.closed = self.secure, self.peer_name, closed
        if not closed:
            self.request = request
        return request

    def _answer_at_once(self, data: bytes, at_once: AtOnce) -> bytes:
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

    def _receive(self, data: bytes) -> None:
        if self._switched is not None:
            self._switched.received(data)
            return
        if data:
            if self._raw and self.request is not None and len(self._more) < _MOST_PIECES:
                self._more.append(data)  # nobody looks at it for now
            else:
                self._raw = self._left() + data if self._raw else data
        elif self._raw:
            self._ended = True
        else:
            self._ended = True
            self._give(b"")
        self._advance()

    def half_closed(self) -> bool:
        """The client has ended its side. Whether something is still to be answered."""
        self._receive(b"")
        self.end_wait()
        return self.request is not None or self.backlog > 0

    def go_on(self) -> None:
        """Another turn of the loop (``Output.again``)."""
        self._served = 0
        if self._switched is not None:
            self._switched.go_on()
        elif self._untaken and isinstance(self.request, HttpRequest):
            self._hand_on(self.request)
        elif self.request is None:
            if self._raw and not (self._given or self._ended or self.full):
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
        """Bytes of a request that has not all come, or is not answered. Of small heads none."""
        request = self.request
        body = len(request.body) if isinstance(request, HttpRequest) else len(self._body)
        return body + (0 if request is None and self._head is None else self._head_bytes)

    @property
    def idle(self) -> bool:
        return self.request is None and not (self._raw or self._given) and self._switched is None

    @property
    def backlog(self) -> int:
        """Bytes read that wait for the answer before them."""
        if self._switched is not None:
            return self._switched.held_bytes
        given = len(self._h11.trailing_data[0]) if self._h11.their_state is not h11.ERROR else 0
        return len(self._raw) - self._at + sum(map(len, self._more)) + given

    @property
    def full(self) -> bool:
        """Whether enough waits for an answer that has not begun, or for its turn. The rest is read behind
        that: until then the client's end is not seen. A head that h11 has is read on."""
        request = self.request
        waits = not request.started if request is not None else bool(self._raw)
        return waits and self._switched is None and self.backlog > FULL_BYTES

    @property
    def overrun(self) -> bool:
        """Whether too much lies behind an answer in pieces, which may never end. Unread, it would hide that
        the client has gone."""
        request = self.request
        if request is None or not request.started or self._switched is not None:
            return False
        # a client that was stopped at FULL_BYTES has up to twice as much here
        most = 4 * FULL_BYTES if self.output.crowded else self._limits.max_body_bytes
        return self.backlog > most

    def drained(self) -> None:
        if self.request is None:
            self._advance()
        elif not isinstance(self.request, HttpRequest):
            return
        elif self._untaken:
            self._hand_on(self.request)
        elif self.request.on_drain is not None:
            self.request.on_drain()

    def drain(self, behind: bool = False) -> None:
        """Close after the answer that is being written. ``behind``: what was read waits for its turn, and is
        answered first."""
        self._draining = True
        if self.request is None and not behind:
            self.output.close()

    def tick(self, now: float, behind: bool = False) -> None:
        """Close what is idle, or slow to send its request, for too long. ``behind``: what was read waits for
        its turn."""
        if self.request is not None or behind:
            self._half_since, self.last_active = 0.0, now
            return
        if now - self.last_active > self._limits.http1_idle_timeout_s:
            self.output.close()
        elif self.idle or self._head is not None or self._switched is not None or not self.backlog:
            self._half_since = 0.0
        elif not self._half_since or self.output.unsent_bytes():  # requests may wait until their client reads
            self._half_since = now
        elif now - self._half_since > self._limits.head_timeout_s:
            self.output.close()

    def _go_behind(self) -> None:
        """Go on behind an answer. It may come in another's turn, with those of many connections."""
        if self._advancing or not (self.backlog and self.output.later()):
            self._advance()

    def _advance(self) -> None:
        if not self._advancing:
            self._advancing = True
            try:
                self._events()
            finally:
                self._advancing = False

    def _events(self) -> None:
        """Until an answer is pending, the client does not read its answers, or more bytes are needed."""
        while self.output.unsent_bytes() <= self._limits.max_unsent_bytes:
            if self.request is not None:  # what is behind it waits, whatever that is
                return
            if self._served >= TURN_REQUESTS:
                if self._ended or self.backlog or self._head is not None:  # h11 may hold the body's end
                    self.output.again()
                return
            if self._h11.their_state is h11.ERROR or self._h11.our_state in _OVER:
                return
            if self._raw:
                if self._more and len(self._raw) - self._at <= FULL_BYTES:
                    self._raw = self._left()
                if (plain := self._plain()) is not None:
                    self._serve_plain(plain)
                    continue
                if self._begun():
                    return
                if not self._given:
                    self._give_some()
            if not self._by_h11():
                return

    def _plain(self) -> Plain | None:
        conn = self._h11
        if conn.their_state is not h11.IDLE or conn.our_state is not h11.IDLE or conn.trailing_data[0]:
            return None
        self._given = False
        takes, limits = not (self._ended or self.output.crowded), self._limits
        most = limits.max_http1_header_bytes, limits.max_body_bytes
        plain = take(self._raw, *most, self._at) if takes else None
        if plain is None and self._raw.startswith(LINE_ENDS, self._at):
            ends = self._raw[self._at : self._at + 4]  # as many as for Go's server: not any number in a turn
            self._at += len(ends) - len(ends.lstrip(b"\r\n"))
            plain = take(self._raw, *most, self._at) if takes else None
        return plain

    def _begun(self) -> bool:
        """Whether there is only the beginning of a plain request: its rest is waited for, since h11 would
        take all behind it too."""
        return not (self._given or self._ended) and begins_plain(self._raw, self._at)

    def _serve_plain(self, plain: Plain) -> None:
        size = plain.end - self._at
        self._served += 1 + (size >> KB_BITS)
        head_bytes = size - len(plain.body)
        self._head_bytes = _PLAIN_HELD * head_bytes if head_bytes > HEAD_BYTES else 0
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
        request.serve(handler or not_found)

    def send_end(self) -> None:
        self._let_go()
        super().send_end()

    def _let_go(self) -> None:
        """Of a request that is answered: it counts no more."""
        request, self.request = self.request, None
        head_bytes, self._head_bytes = self._head_bytes, 0
        if isinstance(request, HttpRequest) and len(request.body) + head_bytes >= STEP_BYTES:
            self.output.recount()

    # -- the answer to a plain request

    def write(self, data: bytes) -> None:
        self.output.write(data)

    def write_now(self, data: bytes) -> None:
        self.output.write_now(data)

    @property
    def closes(self) -> bool:
        return self._draining

    def answered(self) -> None:
        self._let_go()
        if self._draining:
            self.output.close()
        elif self._raw or self._ended:
            self._go_behind()
