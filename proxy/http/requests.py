"""What an HTTP handler (not gRPC) sees of a request, whichever HTTP version brought it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from cluster.faults import HANDLER_MISTAKES, faults

Headers = Iterable[tuple[str, str]]


class Below(Protocol):
    """The connection, once it speaks HTTP no more."""

    def write(self, data: bytes) -> None:
        """Send."""

    def close(self) -> None:
        """Close once everything written is sent."""

    def unsent_bytes(self) -> int:
        """Written and not yet taken by the socket."""

    def again(self) -> None:
        """Call ``go_on`` in another turn of the loop; read nothing until then."""


class Switched(Protocol):
    """What a connection speaks instead of HTTP."""

    held_bytes: int  # that have come and are not dealt with

    def begin(self, below: Below, limit_bytes: int, max_unsent_bytes: int) -> None:
        """The connection is this one's. ``limit_bytes``: of a message. ``max_unsent_bytes``: when a client
        has so many answers to take, nothing more of it is looked at."""

    def received(self, data: bytes) -> None:
        """What the socket gave; b"" at its end."""

    def go_on(self) -> None:
        """Look at what has been read, as far as this turn of the loop allows."""


class HttpRequest:
    """One request with its whole body; answer with ``respond``, or ``start``, ``write``..., ``end``.

    Handlers may answer later, from any callback of the loop. After ``closed`` everything
    written is dropped. ``headers`` has lower-case names; of one that repeats, the values joined
    by ", ". ``context`` is free for the handler.
    """

    __slots__ = ("body", "closed", "context", "headers", "method", "on_close", "on_drain", "path", "peer",
                 "peer_name", "query", "secure", "started")

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
        # who the client is by its certificate, where --client-cert-auth asks for one
        self.peer_name: str | None = None
        self.closed = False
        self.started = False
        self.context: Any = None
        self.on_close: Callable[[HttpRequest], None] | None = None  # the client went away before the end
        self.on_drain: Callable[[], None] | None = None  # pending_bytes fell below the mark

    def respond(self, status: int, body: bytes = b"", headers: Headers = (), content_type: str = "") -> None:
        """The whole answer at once."""
        fields = list(headers)
        if content_type:
            fields.append(("content-type", content_type))
        fields.append(("content-length", str(len(body))))
        self.start(status, fields)
        if body:
            self.write(body)
        self.end()

    def start(self, status: int, headers: Headers = ()) -> None:
        """Begins an answer of unknown length (chunked on HTTP/1.1)."""
        raise NotImplementedError

    def write(self, chunk: bytes) -> None:
        """A piece of the body."""
        raise NotImplementedError

    def end(self) -> None:
        """The body is complete."""
        raise NotImplementedError

    def finish(self, chunk: bytes) -> None:
        """The last piece of the body."""
        self.write(chunk)
        self.end()

    def pending_bytes(self) -> int:
        """Bytes written that the client has not taken yet."""
        raise NotImplementedError

    def switch(self, headers: Headers, to: Switched) -> bool:
        """Answer with 101, and have the connection speak another protocol from now on. False: it cannot, and
        nothing is answered. The end of the connection is still told by ``on_close``."""
        return False

    def serve(self, handler: HttpHandler) -> None:
        """Have it answered. A fault of this program in the handler ends this request alone, with 500."""
        try:
            handler(self)
        except HANDLER_MISTAKES as error:
            faults.met(f"serving {self.path}", error)
            if not self.started:
                self.respond(500, b"Internal Server Error\n", content_type="text/plain; charset=utf-8")
            elif not self.closed:
                self.end()


HttpHandler = Callable[[HttpRequest], None]
# What a request of HTTP/1.1 that begins at a place of what was read is answered, and where it ends. None: it
# goes the usual way, which would answer the same.
AtOnce = Callable[[bytes, int], "tuple[bytes, int] | None"]
