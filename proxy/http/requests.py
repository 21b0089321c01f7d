"""What an HTTP handler (not gRPC) sees of a request, whichever HTTP version brought it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import parse_qs

from cluster.faults import HANDLER_MISTAKES, faults

Headers = Iterable[tuple[str, str]]
TEXT, JSON, FORM = "text/plain; charset=utf-8", "application/json", "application/x-www-form-urlencoded"
_MOST_PARAMETERS = 1000
_FIRST_COUNTS = ("authorization", "content-type", "origin")  # of fields that repeat, as in Go


@lru_cache(256)
def canonical(field: str) -> str:
    """A field's name as Go writes it over HTTP/1.1, Content-Length for one: scripts look for it so."""
    return "-".join(part.capitalize() for part in field.split("-"))


def by_name(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header fields as :class:`HttpRequest` has them. Pseudo-header fields of HTTP/2 are left out."""
    found: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name not in found:
            if name[:1] != ":":
                found[name] = value
        elif name not in _FIRST_COUNTS:
            found[name] += f", {value}"
    return found


def cut(target: bytes) -> bool:
    """Whether a body that is too long is cut off there, and the request served: etcd reads no more of a form
    than 10 MiB, refuses it in words of version 2, and reads nothing of other bodies."""
    return target.startswith(b"/v2/keys")


class BrokenBody(bytes):
    """An empty body for one that ``cut`` requests have and nobody can read: they are refused in words of
    version 2."""

    mistake = ""  # in Go's words


class Below(Protocol):
    """The connection, once it speaks HTTP no more."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        """Close once everything written is sent."""

    def unsent_bytes(self) -> int:
        """Written and not yet taken by the socket."""

    def again(self) -> None:
        """Call ``go_on`` in another turn of the loop; read nothing until then."""

    @property
    def crowded(self) -> bool:
        """There is no room for what this client sends."""

    def turned_away(self) -> None:
        """A request is refused for lack of room."""


class Switched(Protocol):
    """What a connection speaks instead of HTTP."""

    held_bytes: int  # that have come and are not dealt with

    def begin(self, below: Below, limit_bytes: int, max_unsent_bytes: int) -> None:
        """The connection is this one's. ``limit_bytes``: of a message. Nothing more is looked at while
        ``max_unsent_bytes`` of answers wait."""

    def received(self, data: bytes) -> None: ...
    def go_on(self) -> None: ...


class HttpRequest:
    """One request with its whole body, or before it (``unfinished``). Answer with ``respond``, or ``start``,
    ``write``..., ``end``, now or later.

    After ``closed`` everything written is dropped. ``headers`` has lower-case names; values of a repeated one
    are joined by ", ", or the first counts. ``context`` is free for the handler.
    """

    __slots__ = ("added", "body", "closed", "context", "half_closed", "headers", "method", "on_close",
                 "on_drain", "on_start", "path", "peer", "peer_name", "query", "secure", "started")

    def __init__(
        self, method: str, path: str, query: str, headers: dict[str, str], body: bytes, peer: str
    ) -> None:
        self.method = method
        self.path = path  # percent-encoding as it came
        self.query = query  # without "?"
        self.headers = headers
        self.body = body
        self.peer = peer
        self.secure = False  # it came by TLS
        self.peer_name: str | None = None  # in the client's certificate, with --client-cert-auth
        self.closed = False
        self.half_closed = False  # its client has ended its side, and may read yet
        self.started = False
        self.context: Any = None
        # the client went away before the end, or ended its side alone; True: that one is to be answered yet
        self.on_close: Callable[[HttpRequest], bool | None] | None = None
        self.added: Sequence[tuple[str, str]] = ()  # fields before the answer's own
        self.on_start: Callable[[int], None] | None = None  # the answer begins, with this status
        self.on_drain: Callable[[], None] | None = None  # pending_bytes fell below the mark

    def respond(self, status: int, body: bytes = b"", headers: Headers = (), content_type: str = "") -> None:
        fields = list(headers)
        if content_type:
            fields.append(("content-type", content_type))
        fields.append(("content-length", str(len(body))))
        self.start(status, fields)
        if body:
            self.write(body)
        self.end()

    def error(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """As Go's ``http.Error`` answers."""
        self.respond(status, body, [*headers, ("X-Content-Type-Options", "nosniff")], TEXT)

    def allowed(self, *methods: str) -> bool:
        """Whether the method is one of these; else it is answered 405."""
        if self.method in methods:
            return True
        self.error(405, b"Method Not Allowed\n", [("Allow", ",".join(methods))])
        return False

    def start(self, status: int, headers: Headers = ()) -> None:
        """Begins an answer of unknown length (chunked on HTTP/1.1)."""
        raise NotImplementedError

    def write(self, chunk: bytes) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def finish(self, chunk: bytes) -> None:
        """The last piece of the body."""
        self.write(chunk)
        self.end()

    def hand(self, chunk: bytes, last: bool) -> None:
        """Write what many clients get, and end if it is the ``last`` piece of the body. No copy is kept of
        what the client has not taken yet. All later pieces go this way too."""
        if last:
            self.finish(chunk)
        else:
            self.write(chunk)

    def pending_bytes(self) -> int:
        """Bytes written that the client has not taken yet."""
        raise NotImplementedError

    @property
    def unfinished(self) -> bool:
        """The request is of a path whose requests are handed over early (``Registry.early``), and ``body``
        has not come yet: :meth:`follow` reports it."""
        return False

    def follow(self, take: Callable[[bytes, bool], int]) -> None:
        """Have each piece of such a body, and whether it is the last one. ``take`` says how many bytes it
        keeps until the rest comes."""

    def switch(self, headers: Headers, to: Switched) -> bool:
        """Answer with 101 and speak another protocol from now on. False: it cannot. ``on_close`` tells the
        end."""
        return False

    def serve(self, handler: HttpHandler) -> None:
        """Have it answered. A fault of this program ends this request alone, with 500."""
        try:
            handler(self)
        except HANDLER_MISTAKES as error:
            faults.met(f"serving {self.path}", error)
            if not self.started:
                self.respond(500, b"Internal Server Error\n", content_type=TEXT)
            elif not self.closed:
                self.end()


HttpHandler = Callable[[HttpRequest], None]
# (what was read, where a request of HTTP/1.1 begins) -> its answer, and its end; None: it goes the usual way
AtOnce = Callable[[bytes, int], "tuple[bytes, int] | None"]


def not_found(request: HttpRequest) -> None:
    request.error(404, b"404 page not found\n")


def parameters(request: HttpRequest) -> dict[str, list[str]]:
    """What the query has; none of too many, as in Go: a name costs 2 us."""
    try:
        return parse_qs(request.query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        return {}
