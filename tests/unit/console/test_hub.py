"""Changes that a watch of the console could not tell: whoever follows hears of it, and reads again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import grpc
import muster_client as m
import pytest
from muster_client import Compacted, Delete, Unavailable

from tests.unit.console.test_views import Page, bare
from tools.console.store import hub as module
from tools.console.store.hub import Hub, Told
from tools.console.views import keys
from tools.console.views.keys import KeysView


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


async def until(true: Callable[[], object]) -> None:
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


CHANGE = Delete(b"/b", 9)


class Tree:
    """Where the first reading fails, or the second lasts for ever."""

    def __init__(self, *, lasts: bool = False) -> None:
        self.lasts = lasts
        self.done: list[object] = []
        self.applied: list[m.Event] = []

    async def again(self) -> None:
        self.done.append("again")
        if self.lasts:
            await asyncio.Event().wait()
        if self.done == ["again"]:
            raise Unavailable(grpc.StatusCode.UNAVAILABLE, "no answer")

    async def reveal(self, key: bytes) -> None:
        self.done.append(key)

    async def count(self) -> bool:
        self.done.append("count")
        return False

    def apply(self, events: Iterable[m.Event]) -> bool:
        self.applied += events
        return False

    def drop_empty(self) -> bool:
        return False


def following(tree: Tree, shown: list[bytes]) -> Any:
    """A view of keys that follows changes, and the keys whose values it shows."""

    async def show(key: bytes) -> None:
        shown.append(key)

    value = SimpleNamespace(show=show, tell=lambda events: None)
    view = bare(KeysView, page=Page(), outline=tree, value=value, key=b"/a", _error="", _missed=False)
    view._early, view._dirty, view._draw, view._trouble = None, asyncio.Event(), lambda: None, MagicMock()
    return view


def test_keys_are_read_again_after_changes_were_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(keys, "_AGAIN_S", 0.001)
        tree, shown = Tree(), list[bytes]()
        view = following(tree, shown)
        drawing = asyncio.create_task(view._keep_drawn())
        view._told(Told(missed=True))
        await until(lambda: "count" in tree.done)
        drawing.cancel()
        assert tree.done == ["again", "again", b"/a", "count"]
        assert set(shown) == {b"/a"}
        assert view.page.complaints == ["no answer"]
        assert not view._missed

    asyncio.run(run())


def test_what_a_watch_tells_is_shown_while_keys_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(keys, "ui", MagicMock())
        tree = Tree(lasts=True)
        view = following(tree, [])
        drawing = asyncio.create_task(view._keep_drawn())
        view._told(Told(missed=True))
        await until(lambda: "again" in tree.done)
        view._told(Told((CHANGE,)))
        view._told(Told(error="away"))
        drawn = view._trouble.clear.call_count
        assert (drawn, tree.applied) == (1, [CHANGE])
        drawing.cancel()  # the view is left
        await asyncio.gather(drawing, return_exceptions=True)
        assert (view._trouble.clear.call_count, tree.applied) == (1, [CHANGE])

    asyncio.run(run())
