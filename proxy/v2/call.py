"""A request of the v2 API as the router sees it, and common answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from cluster import errors
from cluster.errors import EtcdError
from cluster.faults import HANDLER_MISTAKES, faults
from proxy.gateway.encode import text
from proxy.http.requests import JSON, Headers, HttpRequest


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


def said(request: HttpRequest, status: int, message: str, headers: Headers = ()) -> None:
    """An error outside of keys: ``{"message": ...}``."""
    if not request.closed:
        request.respond(status, f'{{"message":{text(message)}}}'.encode(), headers, JSON)


class InTurns:
    """Answers that are made step by step while their clients wait for them: a step in each turn of the loop,
    of one answer after the other. None refers to itself: such answers are megabytes, and are gone before the
    garbage collector looks for them."""

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self._soon = soon
        self._left: deque[_Made] = deque()

    def begin(self, request: HttpRequest, steps: Iterator[bytes], then: Callable[[bytes], None]) -> None:
        self._left.append(_Made(request, steps, then))
        if len(self._left) == 1:
            self._turn()

    def _turn(self) -> None:
        made = self._left[0]
        try:
            goes_on = made.step()
        except HANDLER_MISTAKES as error:
            faults.met("making an answer of version 2", error)
            made.fail()
            goes_on = False
        if not goes_on:
            self._left.popleft()
        if self._left:
            self._soon(self._turn)


class _Made:
    __slots__ = ("_parts", "_request", "_steps", "_then")

    def __init__(self, request: HttpRequest, steps: Iterator[bytes], then: Callable[[bytes], None]) -> None:
        self._request, self._steps, self._then = request, steps, then
        self._parts: list[bytes] = []

    def step(self) -> bool:
        """Whether there is more to do."""
        if self._request.closed:
            return False
        part = next(self._steps, None)
        if part is None:
            self._then(b"".join(self._parts))
            return False
        self._parts.append(part)
        return True

    def fail(self) -> None:
        if not (self._request.closed or self._request.started):
            said(self._request, 500, "Internal Server Error")


def told(error: EtcdError) -> str:
    """The text of a cluster's error; version 2 has no clients' deadlines."""
    return errors.TIMEOUT.text if error.kind is errors.CONTEXT_DEADLINE_EXCEEDED else error.text
