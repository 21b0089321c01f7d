"""Which instance of a service takes the next request."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from muster_client import ranges
from muster_client.errors import NoInstance
from muster_client.mirror import Mirror
from muster_client.ranges import Text
from muster_client.services.registry import Instance, instance_of

if TYPE_CHECKING:
    from muster_client.client import Client

Balance = Literal["round_robin", "least_used"]
_Known = tuple[int, tuple[Instance, ...], tuple[Instance, ...], frozenset[str]]


class Discovery:
    """The instances of a service, kept in step; in ``async with``.

    ``balance``: in turn, or that with the fewest requests under way (:meth:`using` counts them). With
    ``zone``, instances of that zone come first, and others only where it has none. From any thread.
    """

    def __init__(self, client: Client, service: Text, balance: Balance, zone: str) -> None:
        if balance not in ("round_robin", "least_used"):
            raise ValueError(f"no balance is called {balance!r}")
        self.service = ranges.data(service).rstrip(b"/")
        self._mirror = Mirror(client, ranges.prefix(self.service + b"/"), None)
        self._balance, self._zone = balance, zone
        self._known: _Known = (-1, (), (), frozenset())
        self._seen = 0  # the revision that instances() last showed
        self._turns = itertools.count()
        self._used: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def instances(self) -> tuple[Instance, ...]:
        """All of them, by key."""
        self._seen, found, *_ = self._current()
        return found

    def addresses(self) -> frozenset[str]:
        """Of all of them: the same object until they change. :meth:`changed` waits for what :meth:`instances`
        has not shown, whatever this did."""
        return self._current()[3]

    def pick(self) -> Instance:
        """The one for the next request. NoInstance."""
        near = self._current()[2]
        if not near:
            raise NoInstance(f"no instance of {self.service!r} is there")
        turn = next(self._turns)
        if self._balance == "round_robin":
            return near[turn % len(near)]
        with self._lock:
            turned = range(len(near))
            return min((near[(turn + i) % len(near)] for i in turned), key=lambda one: self._used[one.key])

    @contextlib.contextmanager
    def using(self) -> Iterator[Instance]:
        """The one for a request, which is under way until the block ends. NoInstance."""
        one = self.pick()
        with self._lock:
            self._used[one.key] += 1
        try:
            yield one
        finally:
            with self._lock:
                self._used[one.key] -= 1
                if not self._used[one.key]:
                    del self._used[one.key]

    async def changed(self) -> None:
        """Wait until the instances have changed since :meth:`instances` last showed them."""
        await self._mirror.wait_for(self._seen + 1)

    async def wait_for(self, count: int) -> tuple[Instance, ...]:
        """Wait until so many instances are there; all of them."""
        while True:
            revision = self._mirror.revision
            if len(found := self.instances()) >= count:
                return found
            await self._mirror.wait_for(revision + 1)

    def _current(self) -> _Known:
        """A revision, all, those that are picked from, and all addresses. They may be newer than the
        revision."""
        revision = self._mirror.revision
        if self._known[0] != revision:
            held = self._mirror.copy()
            found = tuple(one for key in sorted(held) if (one := instance_of(held[key])) is not None)
            near = tuple(one for one in found if one.zone == self._zone) if self._zone else found
            self._known = (revision, found, near or found, frozenset(one.address for one in found))
        return self._known

    async def __aenter__(self) -> Self:
        await self._mirror.__aenter__()
        self._seen = self._mirror.revision
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._mirror.__aexit__(kind, error, trace)
