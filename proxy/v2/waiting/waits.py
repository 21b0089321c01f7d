"""Long polls and streams of ``/v2/keys``: an event of ``feed`` becomes the next line of an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cluster.features.v2.requests import Answer, Who
from proxy.http.requests import HttpRequest
from proxy.v2.waiting.feed import Feed, Fired, Waiter

Begin = Callable[[Answer | None], bool]  # sends the head of an answer; False: a refusal


@dataclass(slots=True, eq=False)
class Wait:
    request: HttpRequest
    stream: bool
    begin: Begin
    begun: bool = False  # the head of its answer has been sent
    owed: bool = False  # an event that its look back found is to come
    waiter: Waiter | None = None
    on_close: Callable[[HttpRequest], bool | None] | None = None  # of the request, unless it waits again


class Waits:
    """``most``: so many at once; ``most_unsent_bytes``: a client that leaves more untaken is cut off."""

    def __init__(self, feed: Feed, most: int, most_unsent_bytes: int) -> None:
        self._feed = feed
        self._most = most
        self._most_unsent_bytes = most_unsent_bytes
        self._open: dict[Wait, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def full(self) -> bool:
        return len(self._open) >= self._most

    def add(self, request: HttpRequest, path: bytes, recursive: bool, stream: bool, since: int, begin: Begin,
            who: Who | None, slash: bool) -> None:
        """``since`` 0: wait for the next event. Permissions are judged by ``who`` and ``slash``."""
        wait = Wait(request, stream, begin)
        self._open[wait] = None
        request.on_close = wait.on_close = lambda request: self._left(wait)
        wait.waiter = self._feed.wait(
            path, recursive, since, stream,
            lambda answer: self._started(wait, answer),
            lambda fired: self._happened(wait, fired), who, slash)  # fmt: skip
        if request.half_closed:
            self._left(wait)

    def _started(self, wait: Wait, answer: Answer | None) -> None:
        if wait in self._open:
            wait.begun = wait.begin(answer)
            wait.owed = answer is not None and bool(answer.body)
            if not wait.begun:
                self._drop(wait)
            elif wait.request.half_closed:
                self._left(wait)

    def _happened(self, wait: Wait, fired: Fired | None) -> None:
        """None: events may be lost, so the client has to look for itself."""
        if wait not in self._open:
            return
        wait.owed = False
        line = b"" if fired is None else fired.json
        last = fired is None or not wait.stream or wait.request.half_closed
        if last:
            self._drop(wait)
        wait.request.hand(line, last)
        if not last and wait.request.pending_bytes() > self._most_unsent_bytes:
            self._drop(wait)
            wait.request.hand(b"", True)

    def _drop(self, wait: Wait) -> None:
        if self._open.pop(wait, wait) is not None:
            return
        # they would refer to each other until the garbage collector comes
        if wait.request.on_close is wait.on_close:
            wait.request.on_close = None
        waiter, wait.waiter, wait.on_close = wait.waiter, None, None
        if waiter is not None:
            self._feed.cancel(waiter)

    def end(self) -> None:
        """The front shuts down, or guests may see nothing any more. Clients take an answer without an event
        as "try again": from their own index, which an event that was found may be of, else from behind the
        answer's. Where a wait that has not begun would begin is unknown: 0."""
        for wait in tuple(self._open):
            self._drop(wait)
            if wait.begun or wait.begin(Answer(0, b"")):
                wait.request.hand(b"", True)

    def _left(self, wait: Wait) -> bool:
        """The client has gone, or has ended its side alone: that one gets what has happened already. Whether
        its answer is to come."""
        request = wait.request
        if request.closed:
            self._drop(wait)
            return False
        if wait.waiter is not None and not wait.begun:
            self._feed.hurry(wait.waiter)
        elif not wait.owed:
            self._drop(wait)
            request.hand(b"", True)
        return not request.closed
