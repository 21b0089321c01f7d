"""Faults of this program that a request met: the request is answered INTERNAL, the process goes on and logs
the first fault of each place. A broken invariant (AssertionError) or a failing disk ends the process."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from google.protobuf.message import DecodeError

from cluster import errors
from cluster.errors import EtcdError

_MAX_PLACES = 256  # places remembered; a program has not that many faults
_MAX_KEPT = 16  # faults that wait to be logged

# What a mistake in evaluating raises. Signals between modules (EtcdError, NotYet, ...) and failing disks are
# others.
MISTAKES = (
    ArithmeticError, AttributeError, DecodeError, LookupError, NameError, RuntimeError, TypeError, ValueError,
    struct.error)
# In a handler of a front, besides: no descriptor left, say, or an unanswered refusal
HANDLER_MISTAKES = (*MISTAKES, OSError, EtcdError)

P = ParamSpec("P")
R = TypeVar("R")
Line = tuple[str, int]  # a file, and a line of it


class Faults:
    def __init__(self) -> None:
        self.count = 0
        self._places: set[tuple[str, type[BaseException], tuple[Line, ...]]] = set()
        self._kept: list[tuple[str, BaseException]] = []
        self.heard: Callable[[str, BaseException], None] = _nobody  # called at once, too

    def met(self, where: str, error: BaseException) -> None:
        """``error`` ended a request. ``where``: what was being done."""
        self.count += 1
        self.heard(where, error)
        lines = _lines(error)
        # ``where`` may name a client's path: the same fault by many paths would leave no room for others
        place = (where.partition(" ")[0] if lines else where, type(error), lines)
        if place not in self._places and len(self._places) < _MAX_PLACES and len(self._kept) < _MAX_KEPT:
            self._places.add(place)
            self._kept.append((where, error))

    def take(self) -> list[tuple[str, BaseException]]:
        kept, self._kept = self._kept, []
        return kept

    def log(self, log: Any) -> None:
        for where, error in self.take():
            log.error("internal error in a request", where=where, exc_info=error)


def _nobody(where: str, error: BaseException) -> None: ...


faults = Faults()


def answered(evaluate: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function that evaluates a request and changes nothing before it returns: a mistake in it
    becomes the EtcdError of an internal fault."""

    @wraps(evaluate)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return evaluate(*args, **kwargs)
        except MISTAKES as error:
            faults.met(f"evaluating: {evaluate.__name__}", error)
            raise EtcdError(errors.INTERNAL_FAULT) from error

    return guarded


class Torn(AssertionError):
    """A mistake in the middle of a change to what all requests share: what is left undone is unknown."""


def whole(change: Callable[P, R]) -> Callable[P, R]:
    """Decorates a change of a leader's state that a request may bring about: a mistake in it breaks an
    invariant (Torn), which ends the process."""

    @wraps(change)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return change(*args, **kwargs)
        except MISTAKES as error:
            raise Torn(f"{change.__qualname__} met {error!r} and may be half done") from error

    return guarded


def _lines(error: BaseException) -> tuple[Line, ...]:
    """The handler's, below the frame that caught ``error``, and the one that raised it: several handlers may
    share that."""
    trace = error.__traceback__
    if trace is None:
        return ()
    handler = trace = trace.tb_next or trace
    while trace.tb_next is not None:
        trace = trace.tb_next
    return tuple((one.tb_frame.f_code.co_filename, one.tb_lineno) for one in (handler, trace))
