"""Changes that a watch of the console could not tell: whoever follows hears of it, and reads again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import grpc
import muster_client as m
import pytest
from muster_client import Compacted, Delete, Unavailable

from tests.unit.console.test_views import Page, bare
from tools.console.store import hub as module
from tools.console.store.hub import Hub, Told
from tools.console.store.keys import tree
from tools.console.store.keys.outline import Outline
from tools.console.views import keys
from tools.console.views.keys import KeysView


def test_a_tree_that_is_read_again_keeps_nothing_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async def listing(*_: object, **__: object) -> tree.Listing:
        return tree.Listing((tree.Entry(b"/", b"/"),), None, 7)

    monkeypatch.setattr(tree, "listing", listing)

    async def run() -> None:
        outline = Outline(cast(m.Client, None))
        await outline.start()
        await outline.open(b"/")
        outline._counts[b"/"] = 3, 7
        await outline.start()
        assert [(row.path, row.is_open, row.count) for row in outline.rows()] == [(b"/", False, None)]

    asyncio.run(run())


class Client:
    """Its first watch is overtaken by a compaction; the second tells a change, and then nothing."""

    def __init__(self) -> None:
        self.begun = 0

    @asynccontextmanager
    async def watch(self, keys: m.KeyRange, **options: object) -> AsyncIterator[object]:
        assert not options, "nobody reads a snapshot"
        self.begun += 1
        changes = [Delete(b"/a", 9)] if self.begun == 2 else []

        async def ready() -> None:
            if self.begun == 1:
                raise Compacted("compacted", 7)
            if not changes:
                await asyncio.Event().wait()

        def waiting() -> list[m.Event]:
            found = list(changes)
            changes.clear()
            return cast(list[m.Event], found)

        yield SimpleNamespace(ready=ready, waiting=waiting)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.001)


def test_a_watch_that_begins_again_says_that_changes_were_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(module, "_AGAIN_S", 0.001)
        told: list[Told] = []
        hub = Hub(cast(m.Client, Client()))
        hub.follow(m.EVERYTHING, told.append)
        await until(lambda: len(told) == 4)
        await hub.close()
        change = Told((Delete(b"/a", 9),))
        assert told == [Told(), Told(error="compacted"), Told(missed=True), change]

    asyncio.run(run())


@pytest.mark.parametrize("editing", [False, True])
def test_keys_are_read_again_after_changes_were_missed(
    monkeypatch: pytest.MonkeyPatch, editing: bool
) -> None:
    async def run() -> None:
        monkeypatch.setattr(keys, "_AGAIN_S", 0.001)
        done: list[object] = []
        applied: list[object] = []
        change = Delete(b"/b", 9)

        class Tree:
            base = b""

            async def start(self, base: bytes) -> None:
                done.append("start")
                if done == ["start"]:
                    raise Unavailable(grpc.StatusCode.UNAVAILABLE, "no answer")
                applied.clear()
                view._told(Told((change,)))
                assert not applied, "the listing that comes may be older"

            async def reveal(self, key: bytes) -> None:
                done.append(key)

            async def count(self) -> bool:
                done.append("count")
                return False

            def apply(self, events: object) -> bool:
                applied.append(events)
                return False

            def drop_empty(self) -> bool:
                return False

        async def show(key: bytes) -> None:
            done.append(("value", key))
            if done.count(("value", key)) == 1:
                raise Unavailable(grpc.StatusCode.UNAVAILABLE, "no answer")

        value: Any = SimpleNamespace(show=show, editing=editing, tell=lambda events: None)
        view = bare(KeysView, page=Page(), outline=Tree(), value=value, key=b"/a", _error="", _missed=False)
        view._early, view._dirty, view._draw = None, asyncio.Event(), lambda: None
        drawing = asyncio.create_task(view._keep_drawn())
        view._told(Told(missed=True))
        await until(lambda: "count" in done)
        drawing.cancel()
        read = ["start", b"/a", *([] if editing else [("value", b"/a")])]
        assert done == ["start", *read, *([] if editing else read), "count"]
        assert not view._missed
        assert applied[-1] == (change,)

    asyncio.run(run())
