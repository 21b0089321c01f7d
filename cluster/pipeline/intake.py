"""Writes at a leader, in the order in which they came, until they are evaluated.

Their number is bounded (I23), and ``cluster.pacing.pace`` says when they become an entry. A request that must
wait for something else leaves the queue; it comes back before all others, or is evaluated where it waited.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from cluster.pacing.pace import Pace

MOST = 50_000  # requests that are not evaluated yet; beyond it TooManyRequests

R = TypeVar("R", bound="tuple[Any, ...]")


class Intake(Generic[R]):
    """Of one leader. ``R``: a request, whose last item is its body. A loop that evaluates may take from
    ``queue`` by itself, if it takes the bodies' sizes from ``bytes``."""

    __slots__ = ("_pace", "bytes", "most", "queue")

    def __init__(self, pace: Pace, most: int = MOST) -> None:
        self._pace = pace
        self.most = most
        self.queue: deque[R] = deque()
        self.bytes = 0  # bodies of what is queued

    def __len__(self) -> int:
        return len(self.queue)

    def take(self, request: R, elsewhere: int) -> bool:
        """One has come; ``elsewhere``: so many wait outside of the queue. False: too many wait."""
        queue = self.queue
        if len(queue) + elsewhere >= self.most:
            return False
        queue.append(request)
        self.bytes += len(request[-1])
        return True

    def first(self, requests: Sequence[R]) -> None:
        """They waited elsewhere: in their order, before all others."""
        self.queue.extendleft(reversed(requests))
        self.bytes += sum([len(request[-1]) for request in requests])

    def due(self, under_way: int) -> bool:
        """Whether what is queued may become an entry, while so many are under way."""
        return self._pace.due(under_way, len(self.queue), self.bytes)

    def forget(self, gone: Callable[[R], bool]) -> None:
        """Drop those whom nobody waits for."""
        self.queue = deque([request for request in self.queue if not gone(request)])
        self.bytes = sum([len(request[-1]) for request in self.queue])

    def drain(self) -> list[R]:
        """All of them: the term is lost, and nothing of them is logged."""
        requests = list(self.queue)
        self.queue.clear()
        self.bytes = 0
        return requests
