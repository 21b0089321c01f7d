"""The other fronts of this host: the kernel decides which one a scraper reaches, and that one asks the
others. Each serves its figures at ``front-<index>.sock`` in the run directory (one JSON array, then the end
of the stream). Counters start again with their process: the label ``front`` keeps ``sum(rate(...))`` right. A
front that does not answer in time is left out. If an answer has another form, all others are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client.core import Metric

from cluster.faults import HANDLER_MISTAKES, faults
from proxy.metrics.scrapes import REST_S

LIMIT_S = 0.5
_MOST_BYTES = 4 << 20
Families = list[list[Any]]  # name, documentation, type, [[sample's name, labels, value], ...]


def encode(families: Iterable[Metric]) -> Families:
    return [
        [f.name, f.documentation, f.type, [[s.name, s.labels, s.value] for s in f.samples]] for f in families
    ]


def labelled(found: dict[int, Families]) -> Iterator[Metric]:
    merged: dict[str, Metric] = {}
    for index in sorted(found):
        for name, documentation, kind, samples in found[index]:
            family = merged.get(name)
            if family is None:
                family = merged[name] = Metric(name, documentation, kind)
            for sample, labels, value in samples:
                family.add_sample(sample, {**labels, "front": str(index)}, value)
    yield from merged.values()


class Siblings:
    def __init__(self, run_dir: str, index: int, count: int, own: Callable[[], Iterable[Metric]],
                 look: Callable[[], None]) -> None:
        """``own``: this front's figures, after ``look`` in a thread."""
        self._run_dir = run_dir
        self._index = index
        self._count = count
        self._own = own
        self._look = look
        self._server: asyncio.Server | None = None
        self._waiting: list[Callable[[Iterable[Metric]], None]] = []  # for the next collection
        self._gathering: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._count > 1:
            path = self._path(self._index)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # of a front that was killed
            self._server = await asyncio.start_unix_server(self._tell, path)

    def _path(self, index: int) -> str:
        return f"{self._run_dir}/front-{index}.sock"

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._look)
            writer.write(json.dumps(encode(self._own())).encode())
        except HANDLER_MISTAKES as error:
            faults.met("counting for another front", error)
        finally:
            writer.close()

    def gather(self, done: Callable[[Iterable[Metric]], None]) -> None:
        """``done`` gets the figures of all fronts, labelled; those of a single front as they are.
        One collection at a time, and a rest behind it: what asks meanwhile shares the next one."""
        if self._count <= 1:
            done(self._own())
            return
        self._waiting.append(done)
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().create_task(self._gather())

    async def _gather(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                families = await self._collected()
                for done in waiting:
                    try:
                        done(families)
                    except HANDLER_MISTAKES as error:
                        faults.met("answering with all fronts' figures", error)
                await asyncio.sleep(REST_S)
        finally:
            self._gathering = None

    async def _collected(self) -> list[Metric]:
        others = [i for i in range(self._count) if i != self._index]
        answers = await asyncio.gather(*[self._ask(i) for i in others])
        found = {i: answer for i, answer in zip(others, answers, strict=True) if answer is not None}
        own: dict[int, Families] = {}
        try:
            own = {self._index: encode(self._own())}
        except HANDLER_MISTAKES as error:
            faults.met("counting for metrics", error)
        try:
            return list(labelled(found | own))
        except HANDLER_MISTAKES as error:  # a sibling may run another program version
            faults.met("counting for metrics", error)
            return list(labelled(own))

    async def _ask(self, index: int) -> Families | None:
        writer = None
        try:
            async with asyncio.timeout(LIMIT_S):
                reader, writer = await asyncio.open_unix_connection(self._path(index))
                data = await reader.read(_MOST_BYTES)
                while more := await reader.read(_MOST_BYTES):
                    data += more
            families: Families = json.loads(data)
            return families
        except (OSError, TimeoutError, ValueError):
            return None
        finally:
            if writer is not None:
                writer.close()

    def close(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(self._index))
