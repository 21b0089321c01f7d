"""Long work of a move, a step now and then, so that it takes a fifth of a CPU at most."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from cluster.pacing.easing import SHARE


class Steps:
    """One work at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, perf_counter: Callable[[], float]) -> None:
        self._loop = loop
        self._perf_counter = perf_counter
        self._work: Iterator[None] | None = None
        self._done: Callable[[], None] = lambda: None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        return self._work is not None

    def run(self, work: Iterator[None], done: Callable[[], None]) -> None:
        """``done`` is called once it is whole, within this call or later; never, if it is abandoned."""
        assert self._work is None, "one work after the other"
        self._work, self._done = work, done
        self._step()

    def _step(self) -> None:
        work = self._work
        if work is None:
            return
        began = self._perf_counter()
        try:
            next(work)
        except StopIteration:
            self._work = self._timer = None
            self._done()
        except BaseException:
            self._work = self._timer = None  # other work may begin
            raise
        else:
            self._timer = self._loop.call_later((SHARE - 1) * (self._perf_counter() - began), self._step)

    def abandon(self) -> None:
        """Another state has taken the place of this one, or the node closes."""
        self._work = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
