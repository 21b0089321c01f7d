"""A crowd in several processes: each holds its share of the connections and watches.

A process may open so many files, and one CPU answers so many servers. A share's process ends with its parent.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from bench.client import Endpoint
from bench.load.traffic.holding import Crowd, allow_descriptors, parts

_PROGRESS_S = 0.25
_END_S = 10.0  # for a share's process after its last answer

Progress = Callable[[int], None]


@dataclass(slots=True, frozen=True)
class _Answer:
    """What a share says: how far a step came, or its result and what the share has by now."""

    done: bool
    result: Any
    watches: int = 0
    errors: Counter[str] | None = None
    failure: str = ""


def spread(processes: int, connections: int, watches: int, streams: int) -> int:
    """As many processes as have work: the processes asked for, or fewer. ``streams`` 0: one a connection."""
    return max(1, min(processes, connections, watches, streams or connections))


class Shares:
    """The steps of :class:`Crowd`, each taken by all processes at once."""

    def __init__(self, endpoints: Sequence[Endpoint], at_once: int, timeout_s: float, processes: int) -> None:
        self.endpoints = endpoints
        self.connections = 0  # that are open
        self.watches = 0  # that were created
        self.errors: Counter[str] = Counter()
        self._own: Counter[str] = Counter()
        self._given = (list(endpoints), max(1, at_once // processes), timeout_s)
        self._threads = ThreadPoolExecutor(processes)
        self._shares: list[_Share] = []
        self._processes = processes

    def start(self, connections: int) -> None:
        """Start the processes, for so many connections in all."""
        os.environ["PYTHONSAFEPATH"] = "1"  # as -P: they, too, run nothing of the working directory
        spawning = multiprocessing.get_context("spawn")
        for number, count in enumerate(parts(connections, self._processes)):
            self._shares.append(_Share(spawning, number, count, self._given))

    async def open(self, count: int, progress: Progress) -> list[int]:
        """Open connections to the endpoints in turn; the microseconds of each, to its settings."""
        took_us = await self._each("open", [(part,) for part in parts(count, self._processes)], progress)
        self.connections = len(took_us)
        return took_us

    async def serve(self, progress: Progress) -> list[int]:
        """A put and a get of one key on each connection; the microseconds of each."""
        return await self._each("serve", [()] * self._processes, progress)

    async def watch(self, count: int, streams: int, progress: Progress) -> None:
        """Create watches, each on a key of its own, on the first connections of each process."""
        each = zip(parts(count, self._processes), parts(streams, self._processes), strict=True)
        await self._each("watch", list(each), progress)

    async def deliver(self, count: int, progress: Progress) -> list[int]:
        """Put on the keys of so many watches; the microseconds from each put's sending to its event."""
        return await self._each("deliver", [(part,) for part in parts(count, self._processes)], progress)

    async def end_watches(self) -> None:
        await self._each("end_watches", [()] * self._processes, None)

    async def close(self) -> None:
        """Close all connections at once, and end the processes. A process within a step is ended as it is."""
        shares, self._shares = self._shares, []
        if not shares:
            return
        try:
            if any(share.busy for share in shares):
                for share in shares:
                    share.stop()  # else the threads wait for its answer, and none is left that could end it
            else:
                await self._steps(shares, "close", [()] * len(shares), None)
        finally:
            self._own = sum((share.errors for share in shares), self._own)
            self._sum()
            await asyncio.gather(*(self._in_thread(share.end) for share in shares))
            self._threads.shutdown()

    def count(self, what: str, times: int = 1) -> None:
        self._own[what] += times
        self._sum()

    async def _each(self, step: str, given: Sequence[tuple[Any, ...]],
                    progress: Progress | None) -> list[int]:
        return await self._steps(self._shares, step, given, progress)

    async def _steps(self, shares: Sequence[_Share], step: str, given: Sequence[tuple[Any, ...]],
                     progress: Progress | None) -> list[int]:
        """Take a step in all processes. RuntimeError if one fails."""
        reached = [0] * len(shares)

        async def one(number: int, share: _Share) -> list[int]:
            share.ask(step, given[number])
            while True:
                answer: _Answer = await self._in_thread(share.answer)
                if answer.done:
                    return list(answer.result or ())
                reached[number] = answer.result
                if progress is not None:
                    progress(sum(reached))

        took_us = await asyncio.gather(*(one(number, share) for number, share in enumerate(shares)))
        self.watches = sum(share.watches for share in shares)
        self._sum()
        return list(itertools.chain.from_iterable(took_us))

    def _sum(self) -> None:
        self.errors = sum((share.errors for share in self._shares), self._own.copy())

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class _Share:
    """One process, seen from its parent."""

    def __init__(self, spawning: Any, number: int, connections: int, given: tuple[Any, ...]) -> None:
        self.busy = False
        self.watches = 0
        self.errors: Counter[str] = Counter()
        self._pipe, other = spawning.Pipe()
        self._process = spawning.Process(target=_held, args=(other, number, connections, *given), daemon=True)
        self._process.start()
        other.close()

    def ask(self, step: str, given: tuple[Any, ...]) -> None:
        self.busy = True
        self._pipe.send((step, given))

    def answer(self) -> _Answer:
        """The next answer, waited for."""
        try:
            answer: _Answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError("a process of the crowd ended before its work") from None
        if answer.done:
            self.busy = False
            self.watches, self.errors = answer.watches, answer.errors or Counter()
            if answer.failure:
                raise RuntimeError(answer.failure)
        return answer

    def stop(self) -> None:
        self._process.terminate()

    def end(self) -> None:
        self._pipe.close()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _held(pipe: Connection, number: int, connections: int, endpoints: list[Endpoint], at_once: int,
          timeout_s: float) -> None:
    """A share's process."""
    allow_descriptors(connections)
    uvloop.run(_hold(pipe, Crowd(endpoints, at_once, timeout_s, number)))


async def _hold(pipe: Connection, crowd: Crowd) -> None:
    said_at = [0.0]

    def progress(done: int) -> None:
        if time.monotonic() - said_at[0] > _PROGRESS_S:
            said_at[0] = time.monotonic()
            pipe.send(_Answer(False, done))

    while True:
        try:
            step, given = await asyncio.to_thread(pipe.recv)
        except EOFError:
            return
        result, failure = None, ""
        try:
            result = await _step(crowd, step, given, progress)
        except (OSError, ValueError, RuntimeError) as failed:
            failure = str(failed) or type(failed).__name__
        pipe.send(_Answer(True, result, crowd.watches, crowd.errors, failure))


async def _step(crowd: Crowd, step: str, given: tuple[Any, ...], progress: Progress) -> Any:
    if step == "close":
        return await crowd.close()
    if step == "end_watches":
        return crowd.end_watches()
    if step == "deliver":
        (count,) = given
        every = max(1, crowd.watches // max(1, count))
        return await crowd.deliver(list(range(0, crowd.watches, every))[:count], progress)
    return await getattr(crowd, step)(*given, progress)
