"""Writes at a leader, in the order in which they came, until they are evaluated. Their number is bounded
(I23), and ``cluster.pacing.pace`` says when they become an entry."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from cluster.pacing.pace import Pace

MOST = 50_000  # requests that are not evaluated yet; beyond it TooManyRequests

R = TypeVar("R", bound="tuple[Any, ...]")


class Intake(Generic[R]):
    """Of one leader. ``R``: a request, whose last item is its body. A loop that takes from ``queue`` itself
    takes the bodies' sizes from ``bytes``."""

    def __init__(self, pace: Pace, most: int = MOST) -> None:
        self._pace = pace
        self.most = most
        self.queue: deque[R] = deque()
        self.bytes = 0  # bodies of what is queued

    def __len__(self) -> int:
        return len(self.queue)

    def take(self, request: R, elsewhere: int) -> bool:
        """``elsewhere``: requests that wait outside of the queue. False: too many wait."""
        queue = self.queue
        if len(queue) + elsewhere >= self.most:
            return False
        queue.append(request)
        self.bytes += len(request[-1])
        return True

    def take_all(self, requests: Sequence[R], elsewhere: int) -> bool:
        """As :meth:`take`, of several: all of them or, where one would be too many, none."""
        queue = self.queue
        if len(queue) + elsewhere + len(requests) > self.most:
            return False
        queue.extend(requests)
        self.bytes += sum([len(request[-1]) for request in requests])
        return True

    def first(self, requests: Sequence[R]) -> None:
        """They waited elsewhere: in their order, before all others."""
        self.queue.extendleft(reversed(requests))
        self.bytes += sum([len(request[-1]) for request in requests])

    def due(self, under_way: int) -> bool:
        return self._pace.due(under_way, len(self.queue), self.bytes)

    def forget(self, gone: Callable[[R], bool]) -> None:
        self.queue = deque([request for request in self.queue if not gone(request)])
        self.bytes = sum([len(request[-1]) for request in self.queue])

    def drain(self) -> list[R]:
        requests = list(self.queue)
        self.queue.clear()
        self.bytes = 0
        return requests
