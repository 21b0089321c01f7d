"""Long checks of requests, and long answers put together of several shards': a few steps of one in each turn
of the loop, then of the next. To check a transaction of 18,432 operations takes 60 ms in all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.steps import Steps, finish
from cluster.faults import MISTAKES, faults
from proxy.http.http2.connection import TURN_WORK
from proxy.routing.waiting import Loop

_STEPS = 4  # in a turn, of some tenths of a millisecond at most
_AT_ONCE = 16  # as a request comes: most need none, and nested transactions some 10 us each
_MANY_OPS = 64  # compares and operations: with more, nothing is done as the request comes
_SHORT_BYTES = 16 << 10  # of answers: put together in 1 ms
_STEP_WORK = 3  # units of work of a step (``proxy.http.http2.connection``)
_Steps = Generator[None, None, None]
_Work = tuple[Any, _Steps, Callable[[EtcdError], None]]  # call, steps, what refuses it


class Stepped:
    """The checks under way of one front; a closed call's is refused, which counts it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._work: deque[_Work] = deque()

    def __len__(self) -> int:
        return len(self._work)

    def start(self, call: Any, steps: _Steps, refuse: Callable[[EtcdError], None]) -> None:
        self._work.append((call, steps, refuse))
        if len(self._work) == 1:
            self._loop.call_soon(self._turn)

    def begin(self, call: Any, ops: int, steps: _Steps, refuse: Callable[[EtcdError], None]) -> None:
        """Check a request of so many operations at once, as far as that is short. It counts as work of its
        connection, which gives way to others behind a long one."""
        if ops <= _MANY_OPS:
            for done in range(_AT_ONCE):
                if not self._goes_on(call, steps, refuse, 1):
                    call.costs((ops >> 1) + _STEP_WORK * done)
                    return
        call.costs(TURN_WORK)
        self.start(call, steps, refuse)

    def put_together(
        self, call: Any, size: int, steps: Steps[list[bytes]], then: Callable[[list[bytes]], None],
        refuse: Callable[[EtcdError], None],
    ) -> None:
        """Call ``then`` with what the steps make of shards' answers, of ``size`` bytes: at once if that is
        short."""
        def work() -> Steps[None]:
            then((yield from steps))

        if size > _SHORT_BYTES:
            self.start(call, work(), refuse)
        else:
            finish(work())

    def _turn(self) -> None:
        work = self._work[0]
        goes_on = self._goes_on(*work, _STEPS)
        self._work.popleft()
        if goes_on:
            self._work.append(work)
        if self._work:
            self._loop.call_soon(self._turn)

    @staticmethod
    def _goes_on(call: Any, steps: _Steps, refuse: Callable[[EtcdError], None], most: int) -> bool:
        try:
            for _ in range(most):
                if call.closed:
                    raise EtcdError(errors.CONTEXT_CANCELED)
                next(steps)
        except StopIteration:
            return False
        except EtcdError as e:
            refuse(e)
            return False
        except MISTAKES as error:
            faults.met("checking a request", error)
            if not call.closed:
                refuse(EtcdError(errors.INTERNAL_FAULT))
            return False
        return True
