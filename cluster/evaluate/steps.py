"""Long work in steps: a generator that pauses now and then and returns the result."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]  # a step takes some tenths of a millisecond

STEP_OPS = 64  # operations of a transaction in a step
STEP_BYTES = 256 << 10  # of rows or values that are read in a step


class Stepped(Protocol):
    """Work that is done step by step beside the loop, before its turn."""

    def steps(self) -> Steps[None]:
        """EtcdError: a refusal."""

_STEP_ROWS = 64  # of a range that are read in a step
_ROW_BYTES = 4096  # larger ones count as several: reading them takes as long


class Effort:
    """What is read in the step under way."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows = 0

    def takes(self, rows: int, size: int = 0) -> range:
        """So many more are read, of so many bytes; a pause is due for each element."""
        over, self._rows = divmod(self._rows + rows + size // _ROW_BYTES, _STEP_ROWS)
        return range(over)


def finish(steps: Steps[T]) -> T:
    """Run all steps at once."""
    try:
        while True:
            next(steps)
    except StopIteration as e:
        result: T = e.value
        return result


def parts(request: Any) -> Iterator[tuple[str, Any]]:
    """Compares ("compare") and operations of a TxnRequest, both branches, nested ones in their places; with
    "" for a pause."""
    for compare in request.compare:
        yield "compare", compare
    for ops in (request.success, request.failure):
        for place, op in enumerate(ops, 1):
            if not place % STEP_OPS:
                yield "", None
            kind = op.WhichOneof("request")
            if kind == "request_txn":
                yield "", None
                yield from parts(op.request_txn)
            elif kind is not None:
                yield kind, getattr(op, kind)


def compares(request: Any) -> Iterator[Any]:
    """Compares of a TxnRequest, nested ones included, with None for a pause: in a third of the time of
    ``parts``."""
    yield from request.compare
    for ops in (request.success, request.failure):
        for place, op in enumerate(ops, 1):
            if not place % STEP_OPS:
                yield None
            if op.HasField("request_txn"):
                yield None
                yield from compares(op.request_txn)
