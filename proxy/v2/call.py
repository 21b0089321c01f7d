"""A request of the v2 API as the router sees it, and common answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cluster import errors
from cluster.errors import EtcdError
from proxy.gateway.encode import text
from proxy.http.requests import Headers, HttpRequest

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
_NOSNIFF = ("X-Content-Type-Options", "nosniff")
_NEVER_LOGGED = frozenset((errors.CONTEXT_DEADLINE_EXCEEDED.number, errors.DEADLINE_EXCEEDED.number))


class HttpCall:
    """What ``proxy.routing`` needs of a call. It has no user of version 3."""

    __slots__ = ("request",)
    deadline = None
    principal = None

    def __init__(self, request: HttpRequest) -> None:
        self.request = request

    @property
    def closed(self) -> bool:
        return self.request.closed

    @property
    def peer(self) -> str:
        return self.request.peer

    def finish(self, code: int, text: str) -> None:
        if not self.request.started:
            said(self.request, 500, "Internal Server Error")


def allowed(request: HttpRequest, *methods: str) -> bool:
    """Whether the method is one of these; else it is answered 405."""
    if request.method in methods:
        return True
    request.respond(405, b"Method Not Allowed\n", [("Allow", ",".join(methods)), _NOSNIFF], TEXT)
    return False


def said(request: HttpRequest, status: int, message: str, headers: Headers = ()) -> None:
    """An error outside of keys: ``{"message": ...}``."""
    if not request.closed:
        request.respond(status, f'{{"message":{text(message)}}}'.encode(), headers, JSON)


def in_turns(soon: Callable[[Callable[[], None]], object], request: HttpRequest, steps: Iterator[bytes],
             then: Callable[[bytes], None]) -> None:
    """Make an answer a step a turn, while its client waits for it."""
    parts: list[bytes] = []

    def go_on() -> None:
        if request.closed:
            return
        part = next(steps, None)
        if part is None:
            then(b"".join(parts))
        else:
            parts.append(part)
            soon(go_on)

    go_on()


def told(error: EtcdError) -> str:
    """The text of a cluster's error; version 2 has no clients' deadlines."""
    return errors.TIMEOUT.text if error.kind.number in _NEVER_LOGGED else error.text
