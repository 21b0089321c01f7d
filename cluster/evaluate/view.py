"""What evaluation reads and what it gives: the view of a shard's state, and the outcome of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

from cluster.evaluate.spans import Span
from cluster.evaluate.steps import Steps


class Current(NamedTuple):
    """A live key without its value."""

    create: int
    mod: int
    version: int
    lease: int


class Version(NamedTuple):
    """A live key; ``kv`` is its KeyValue in wire form. Begins like :class:`Current`."""

    create: int
    mod: int
    version: int
    lease: int
    kv: bytes


# at the cost of a tuple
version_of: Callable[[tuple[int, int, int, int, bytes]], Version] = partial(tuple.__new__, Version)


class View(Protocol):
    """A shard's state: a leader's speculative one, or a replica's applied one. ``end`` follows etcd's
    convention: empty = the one key, a zero byte = to the end of the keys. No range is inverted."""

    @property
    def revision(self) -> int:
        """The next change gets ``revision + 1``."""

    @property
    def compact_revision(self) -> int:
        """Reads below it are refused; 0 = never compacted."""

    def current(self, key: bytes) -> Current | Version | None:
        """The live key, None if absent. Callers use ``[0:4]`` only: create, mod, version, lease."""

    def get(self, key: bytes) -> bytes | None:
        """KeyValue in wire form of the live key, None if absent."""

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """Live ``(key, KeyValue)`` in key order at ``revision``; 0 = the view's own. A view that is read in
        steps gives a PAUSE (no key) where it passes over many deleted rows."""

    def count(self, start: bytes, end: bytes) -> int:
        """How many keys :meth:`scan` would give, without walking a long range."""

    def lease_exists(self, lease: int) -> bool:
        """Whether the lease is granted and not revoked."""

    def lease_keys(self, lease: int) -> list[bytes]:
        """The keys that hang on the lease, in key order."""


class Late:
    """The answer of a request that shows many rows: made beside the loop, out of the state before the
    request. What the request did is logged and does not depend on these rows."""

    __slots__ = ("_run", "fetch")

    def __init__(self, run: Callable[[View], Steps[list[bytes]]]) -> None:
        self._run = run
        # brings the rows that lie elsewhere, and says then whether they are there; None: all are here
        self.fetch: Callable[[Callable[[bool], None]], None] | None = None

    def pieces(self, view: View) -> Steps[list[bytes]]:
        """The response after its header. ``view``: the applied state at the revision before the request."""
        return self._run(view)


@dataclass(slots=True)
class Outcome:
    """What a request did: its effect to log, its answer, and what later requests must see."""

    items: bytes  # a ``cluster.effects.records`` item; empty if there is nothing to log
    changed: bool  # takes the revision view.revision + 1
    tail: bytes  # the response in wire form after its header field
    writes: list[tuple[bytes, Version | None]]  # for the leader's overlay, in order; None = deleted
    revision: int  # for the response's header
    ranges: Sequence[Span] = ()  # deleted whole, before the writes; for the leader's overlay
    late: Late | None = None  # makes what follows the header once the request is applied, instead of ``tail``
    revoked: Sequence[int] = ()  # leases that a transaction over several shards ends, as ``items`` log it
    part: bool = False  # of the end of a lease: more of its keys are to go before it does
