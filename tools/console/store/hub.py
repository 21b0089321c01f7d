"""Shared watches: whatever the number of browsers that show a range, the cluster serves one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from muster_client import Client, Event, KeyRange, MusterError, Progress, Watch

_AGAIN_S = 2.0  # until a watch that failed is tried again
_AFTER_WORD_S = 0.3
_READ_S = 3.0  # for changes that were before
_MOST_GATHERED = 10_000
_GATHERED_S = 0.1  # events of so long are told together: browsers need no more


@dataclass(frozen=True, slots=True)
class Told:
    """What a follower gets: events in their order, or, with ``error``, why none come. ``missed``: the watch
    begins again, behind changes that nobody was told: they were compacted, or it failed."""

    events: tuple[Event, ...] = ()
    error: str = ""
    missed: bool = False


Listener = Callable[[Told], None]


class Hub:
    """The watches of one user."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._followers: dict[KeyRange, dict[int, Listener]] = {}
        self._watches: dict[KeyRange, asyncio.Task[None]] = {}
        self._errors: dict[KeyRange, str] = {}
        self._begun: dict[KeyRange, asyncio.Event] = {}
        self._next = 0

    @property
    def watches(self) -> int:
        """How many the cluster serves for this user."""
        return len(self._watches)

    def follow(self, keys: KeyRange, listener: Listener) -> Callable[[], None]:
        """Tell a listener the changes of a range from about now on; call what is given back to end it."""
        self._next += 1
        number = self._next
        self._followers.setdefault(keys, {})[number] = listener
        if keys not in self._watches:
            self._begun[keys] = asyncio.Event()
            self._watches[keys] = asyncio.create_task(self._run(keys))
        elif error := self._errors.get(keys):
            listener(Told(error=error))

        def leave() -> None:
            followers = self._followers.get(keys, {})
            if followers.pop(number, None) is not None and not followers:
                del self._followers[keys]
                self._errors.pop(keys, None)
                self._begun.pop(keys).set()
                self._watches.pop(keys).cancel()

        return leave

    async def begun(self, keys: KeyRange) -> None:
        """Wait until a range that is followed is watched, or cannot be: no later change is missed."""
        if keys in self._begun:
            await self._begun[keys].wait()

    async def close(self) -> None:
        """End all watches."""
        tasks = list(self._watches.values())
        self._followers.clear()
        self._watches.clear()
        for begun in self._begun.values():
            begun.set()
        self._begun.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, keys: KeyRange) -> None:
        while True:
            try:
                async with self._client.watch(keys) as watch:
                    missed = self._errors.pop(keys, None) is not None
                    self._begun[keys].set()
                    self._tell(keys, Told(missed=missed))
                    while events := await _gathered(watch):
                        self._tell(keys, Told(events))
            except MusterError as error:
                self._errors[keys] = str(error)
                self._begun[keys].set()
                self._tell(keys, Told(error=str(error)))
            await asyncio.sleep(_AGAIN_S)

    def _tell(self, keys: KeyRange, told: Told) -> None:
        for listener in list(self._followers.get(keys, {}).values()):
            listener(told)


async def _gathered(watch: Watch) -> tuple[Event, ...]:
    """The next events, all that come within a moment; none: it is closed."""
    await watch.ready()
    found = list(watch.waiting())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GATHERED_S):
            while found and len(found) < _MOST_GATHERED:
                await watch.ready()
                if not (more := list(watch.waiting())):
                    break
                found += more
    return tuple(found)


async def events_since(
    client: Client, keys: KeyRange, revision: int, *, until: int | None, most: int
) -> tuple[Sequence[Event], bool]:
    """The changes of a range from a revision on, the last ``most``; whether all were read.

    ``until``: the last change, where it is known. Else the cluster's word ends it that nothing more comes,
    and a moment after: etcd before 3.4.25 and 3.5.8 may give that word too early.
    """
    found: list[Event] = []
    whole = False
    with contextlib.suppress(TimeoutError):
        async with (
            asyncio.timeout(_READ_S) as limit,
            client.watch(keys, revision=revision, progress=True) as watch,
        ):
            if until is None:
                await watch.request_progress()
            while (event := await watch.next()) is not None:
                found += [event, *watch.waiting()]
                if until is not None and watch.revision > until:
                    whole = True
                    break
                if until is None and any(isinstance(one, Progress) for one in found) and not whole:
                    whole = True
                    limit.reschedule(asyncio.get_running_loop().time() + _AFTER_WORD_S)
                del found[: max(0, len(found) - 2 * most)]
    return [event for event in found if not isinstance(event, Progress)][-most:], whole
