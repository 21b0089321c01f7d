"""Calls of clients, who go on, stop reading, leave, or set a time limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from cluster import errors
from cluster.features.auth.principal import Kind, Principal
from proxy.auth.shown import Shown
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.random.requests import ENDLESS, STREAMS, Asked, Requests

_LIMITS_S = (None, None, None, 0.05, 0.5, 3.0, 30.0)


class Call(FakeCall):
    """As one of a connection: what is said to a client that has gone is dropped."""

    refused: int | None = None
    on_cancel: Any = None

    def __init__(
        self, asked: Asked, handler: Any, metadata: dict[bytes, bytes], deadline: float | None
    ) -> None:
        super().__init__(metadata, deadline)
        self.asked = asked
        self.handler = handler
        self.left = False  # by its client, or by its time limit: not ended by a handler
        self.half_closed = False

    def start(self) -> None: ...

    def reply(self, *parts: bytes) -> None:
        if not self.left:
            super().reply(*parts)
            self.gathered = 0

    def finish(self, status: int = 0, message: str = "") -> None:
        if not self.left:
            super().finish(status, message)
            self.gathered = 0

    def gather(self, size: int) -> None:
        if not self.closed:
            super().gather(size)
            assert self.gathered >= 0, "more is given back than was gathered"

    def leave(self) -> None:
        """The client goes, or its time limit is over."""
        if self.closed:
            return
        self.closed = self.left = True
        self.gathered = 0
        if self.on_cancel is not None:
            self.on_cancel(self)
        if not callable(self.handler):
            self.handler.cancelled(self)

    def expire(self) -> None:
        """The connection ends a call whose time limit is over."""
        if not self.closed:
            self.finish(errors.CONTEXT_DEADLINE_EXCEEDED.code, errors.CONTEXT_DEADLINE_EXCEEDED.text)
            self.closed = False
            self.leave()


class Calls:
    """All calls of a run. ``users``: whether some clients have names."""

    def __init__(self, random: Random, net: Net, handler: Callable[[str], Any], users: bool) -> None:
        self._random = random
        self._net = net
        self._handler = handler
        self._users = users
        self._requests = Requests(random)
        self.every: list[Call] = []

    def begin(self) -> None:
        random, asked = self._random, self._requests.any()
        limit_s = random.choice(_LIMITS_S)
        call = Call(asked, self._handler(asked.method),
                    {b"hasleader": b"true"} if random.random() < 0.1 else {},
                    None if limit_s is None else self._net.loop.now + limit_s)
        call.peer = random.choice(("1.1.1.1:1", "2.2.2.2:2"))
        if self._users and random.random() < 0.7:
            who = Principal(Kind.CERTIFICATE, random.choice("ab"))
            call.principal = Shown(self._net.router.principals, "", who)
        self.every.append(call)
        if asked.method in STREAMS:
            call.handler.opened(call)
            for _ in range(random.randint(1, 4)):
                self.say(call)
        else:
            self._hand_in(call, asked.message.SerializeToString())

    def _hand_in(self, call: Call, data: bytes) -> None:
        """The only request of a call, which may be refused before it comes."""
        if callable(call.handler):
            call.handler(call, data)
            return
        call.handler.opened(call)
        if not call.closed:
            call.handler.message(call, data)
        if not call.closed:
            call.handler.half_closed(call)

    def say(self, call: Call) -> None:
        """One more request of a stream, or the last one."""
        if call.half_closed or call.closed or call.asked.method not in STREAMS:
            return
        if call.asked.method == "LeaseKeepAlive" and self._random.random() < 0.05:
            call.half_closed = True
            call.handler.half_closed(call)
        else:
            call.handler.message(call, self._requests.of_stream(call.asked.method).SerializeToString())

    def any_open(self) -> Call | None:
        calls = [call for call in self.every if not call.closed]
        return self._random.choice(calls) if calls else None

    def read_or_not(self, call: Call) -> None:
        """The client stops reading, or reads on."""
        call.reads = not call.reads
        if call.reads and not call.closed:
            call.read_all()

    def expire(self) -> None:
        for call in self.every:
            if call.deadline is not None and call.deadline <= self._net.loop.now:
                call.expire()

    def leave(self, calls: Iterable[Call]) -> None:
        for call in calls:
            call.leave()

    def endless(self) -> list[Call]:
        return [call for call in self.every if call.asked.method in ENDLESS]
