"""Requests in JSON as protobuf, translated step by step, and only as they are taken: a megabyte of small
values takes two seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter

from proxy.gateway.decode import fill
from proxy.gateway.go_json import ELEMENTS, Mistake, Values
from proxy.gateway.paths import BOTH, Target

STEP_S = 0.002  # of a translation, and somewhat more:
_UNTIMED = 8  # requests and stops between two looks at the clock
_STOP_BYTES = 128 * ELEMENTS  # that a value takes between two stops


def requests_of(target: Target, text: bytes, end: bytes = b"") -> Iterator[bytes | None]:
    """The requests in JSON as protobuf; None: a stop within one. Of a call with one request the rest is
    ignored."""
    values = Values(text + end)
    del text  # ``values`` has what it needs
    while True:
        message = target.request()
        try:
            value = yield from values.next()
        except EOFError:
            return
        yield from fill(message, value)
        yield message.SerializeToString()
        if target.kind != BOTH:
            return


@dataclass(slots=True)
class Asked:
    """What is asked for in a text."""

    _requests: Iterator[bytes | None]
    found: deque[bytes] = field(default_factory=deque)  # not taken yet
    mistake: str | None = None  # behind these
    ended: bool = False  # there are no others
    slow: bool = False  # there is more than one step: the others are a thread's
    value_bytes: int = 0  # of memory, of the value that is being translated

    def step(self) -> None:
        until = perf_counter() + STEP_S
        try:
            for done, request in enumerate(self._requests, 1):
                if request is None:
                    self.value_bytes += _STOP_BYTES
                else:
                    self.found.append(request)
                    self.value_bytes = 0
                if not done % _UNTIMED and perf_counter() >= until:
                    self.slow = True
                    return
        except Mistake as mistake:
            self.mistake = str(mistake)  # the exception itself holds all that was read, and this object
        self.ended, self.value_bytes = True, 0
