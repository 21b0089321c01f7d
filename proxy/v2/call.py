"""One request of the v2 API on its way: what the router sees of it, and its answer in the end."""

from __future__ import annotations

import orjson

from cluster import errors
from cluster.errors import EtcdError
from proxy.http.requests import Headers, HttpRequest

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
MADE = 1  # the term in which an etcd is made, before anybody leads; transcripts of fresh ones show 2
_NOSNIFF = ("X-Content-Type-Options", "nosniff")
_NEVER_LOGGED = frozenset((errors.CONTEXT_DEADLINE_EXCEEDED.number, errors.DEADLINE_EXCEEDED.number))


class HttpCall:
    """What ``proxy.routing`` asks of whoever waits for an answer. No user of version 3 stands behind it."""

    __slots__ = ("deadline", "principal", "request")

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        self.deadline: float | None = None
        self.principal = None

    @property
    def closed(self) -> bool:
        """Nobody waits any more."""
        return self.request.closed

    def finish(self, code: int, text: str) -> None:
        """A fault of this program has ended it."""
        if not self.request.started:
            said(self.request, 500, "Internal Server Error")


def allowed(request: HttpRequest, *methods: str) -> bool:
    """Whether the method is one of these; else it is answered 405."""
    if request.method in methods:
        return True
    request.respond(405, b"Method Not Allowed\n", [("Allow", ",".join(methods)), _NOSNIFF], TEXT)
    return False


def said(request: HttpRequest, status: int, message: str, headers: Headers = ()) -> None:
    """The body of an error that is none of a key's: ``{"message": ...}``."""
    if not request.closed:
        request.respond(status, b'{"message":' + orjson.dumps(message) + b"}", headers, JSON)


def told(error: EtcdError) -> str:
    """What a failure of the cluster is called here: version 2 knows no deadlines of its clients'."""
    return errors.TIMEOUT.text if error.kind.number in _NEVER_LOGGED else error.text
