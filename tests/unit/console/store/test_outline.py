"""An open tree keeps in step with the store, whatever changes while it is read (tools.console.store.keys)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import muster_client as m
import pytest
from muster_client import Delete, KeyRange, KeyValue, Put

from tools.console.store.keys import outline as module
from tools.console.store.keys import tree
from tools.console.store.keys.outline import Outline

TOP, A = b"/a/", b"/a/b/"


class Pages:
    """What a store had when it was asked; it answers when it may."""

    def __init__(self, kvs: list[KeyValue], page: int, revision: int, answers: asyncio.Event) -> None:
        self.revision, self.count, self._answers = revision, len(kvs), answers
        self._page = kvs[:page][::-1]

    async def next(self) -> KeyValue | None:
        await self._answers.wait()
        return self.waiting()

    def waiting(self) -> KeyValue | None:
        return self._page.pop() if self._page else None


class Store:
    """Keys without values, as a client reads them."""

    def __init__(self, *names: bytes) -> None:
        self.revision = 1
        self.kvs: dict[bytes, KeyValue] = {}
        self._past: dict[int, dict[bytes, KeyValue]] = {}
        self.answers = asyncio.Event()
        self.answers.set()
        for name in names:
            self.put(name)

    def _next(self) -> None:
        self._past[self.revision] = dict(self.kvs)
        self.revision += 1

    def put(self, name: bytes) -> Put:
        self._next()
        version = self.kvs[name].version + 1 if name in self.kvs else 1
        self.kvs[name] = KeyValue(name, b"", self.revision, self.revision, version)
        return Put(self.kvs[name])

    def delete(self, name: bytes) -> Delete:
        self._next()
        del self.kvs[name]
        return Delete(name, self.revision)

    def range(self, keys: KeyRange, *, revision: int, page: int, keys_only: bool) -> Pages:
        assert keys_only
        kvs = self._past.get(revision, self.kvs)
        found = [kv for name, kv in sorted(kvs.items())
                 if keys.start <= name and (keys.end == b"\0" or name < keys.end)]  # fmt: skip
        return Pages(found, page, revision or self.revision, self.answers)

    async def meanwhile(self, step: Awaitable[object], change: Callable[[], object]) -> None:
        """Begin a step; make a change once the store was asked, and before it answers."""
        self.answers.clear()
        doing = asyncio.ensure_future(step)
        await asyncio.sleep(0.001)
        change()
        self.answers.set()
        await doing


async def opened(store: Store, *paths: bytes, **how: Any) -> Outline:
    """A tree with open directories."""
    made = Outline(cast(m.Client, store), **how)
    await made.start()
    for path in paths:
        await made.open(path)
    return made


def names(shown: Outline) -> list[str]:
    """The rows, by kind and path."""
    return [f"{row.kind[0]} {row.path.decode()}" for row in shown.rows()]


def many(count: int, first: int = 0) -> list[bytes]:
    return [b"/a/%04d" % n for n in range(first, first + count)]


@pytest.mark.parametrize("how", ["open", "first", "more", "reveal", "again", "flat"])
def test_a_change_wins_over_a_page_that_is_read_meanwhile(how: str) -> None:
    async def run() -> None:
        store = Store(*many(300))
        flat = m.EVERYTHING if how == "flat" else None
        shown = await opened(store, *([] if how in ("open", "flat") else [TOP]), flat=flat)
        if how == "first":
            await shown.more(TOP)
        steps: dict[str, Callable[[], Awaitable[None]]] = {
            "open": lambda: shown.open(TOP),
            "first": lambda: shown.first(TOP),
            "more": lambda: shown.more(TOP),
            "reveal": lambda: shown.reveal(b"/a/0210"),
            "again": shown.again,
            "flat": lambda: shown.more(b""),
        }
        near = 5 if how in ("open", "first", "again") else 250

        def change() -> None:
            new, gone = store.put(b"/a/%04d+" % near), store.delete(b"/a/%04d" % near)
            again = store.put(b"/a/%04d" % (near + 1))
            shown.apply([new, gone, again])

        await store.meanwhile(steps[how](), change)
        kvs = {row.path: row.kv for row in shown.rows()}
        assert b"/a/%04d+" % near in kvs
        assert b"/a/%04d" % near not in kvs
        assert kvs[b"/a/%04d" % (near + 1)] == store.kvs[b"/a/%04d" % (near + 1)]

    asyncio.run(run())


def test_a_count_has_what_changes_meanwhile() -> None:
    async def run() -> None:
        store = Store(b"/a/1")
        shown = await opened(store)

        def change() -> None:
            changes = store.put(b"/a/2"), store.put(b"/a/3"), store.put(b"/a/3"), store.delete(b"/a/1")
            shown.apply(changes)

        await store.meanwhile(shown.count(), change)
        assert not shown.drop_empty()
        assert [row.count for row in shown.rows()] == [2]

    asyncio.run(run())


def test_what_changes_in_a_closed_directory_is_counted_once_it_is_open() -> None:
    async def run() -> None:
        store = Store(b"/a/b/1")
        shown = await opened(store, TOP)
        await shown.count()
        shown.close(TOP)
        shown.apply([store.put(b"/a/b/2")])
        await shown.open(TOP)
        await shown.count()
        assert [(row.path, row.count) for row in shown.rows()] == [(TOP, 2), (A, 2)]

    asyncio.run(run())


def test_two_clicks_read_a_page_once() -> None:
    async def run() -> None:
        store = Store(*many(500))
        shown = await opened(store, TOP)
        await store.meanwhile(asyncio.gather(shown.more(TOP), shown.more(TOP)), lambda: None)
        found = [row.path for row in shown.rows() if row.kind == "key"]
        assert found == many(400)

    asyncio.run(run())


def test_the_last_key_of_a_page_comes_back_where_it_was() -> None:
    """A lock that was given up and taken again was neither on this page nor on the next one."""
    async def run() -> None:
        store = Store(*many(300))
        shown = await opened(store, TOP)
        shown.apply([store.delete(b"/a/0199"), store.put(b"/a/0199")])
        assert "k /a/0199" in names(shown)
        await shown.more(TOP)
        assert names(shown).count("k /a/0199") == 1
        assert "k /a/0200" in names(shown)

    asyncio.run(run())


def test_a_key_made_between_two_pages_is_on_the_second() -> None:
    async def run() -> None:
        store = Store(*many(300))
        shown = await opened(store, TOP)
        shown.apply([store.put(b"/a/0199+")])
        await shown.more(TOP)
        assert "k /a/0199+" in names(shown)

    asyncio.run(run())


def test_a_directory_that_begins_the_second_page_is_revealed() -> None:
    async def run() -> None:
        shown = await opened(Store(*many(200), b"/a/z/key"), TOP)
        assert "d /a/z/" not in names(shown)
        await shown.reveal(b"/a/z/key")
        assert "k /a/z/key" in names(shown)

    asyncio.run(run())


def test_a_key_before_the_window_is_revealed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(module, "WINDOW", 300)
        shown = await opened(Store(*many(700)), TOP)
        for _ in range(3):
            await shown.more(TOP)
        assert names(shown)[1:3] == ["f /a/", "k /a/0400"]
        await shown.reveal(b"/a/0005")
        assert "k /a/0005" in names(shown)

    asyncio.run(run())


def test_what_no_longer_fits_into_a_window_is_on_the_next_page(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(module, "WINDOW", 50)
        store = Store(*many(150))
        shown = await opened(store, TOP)
        assert not any(name.startswith("m") for name in names(shown))
        shown.apply([store.put(b"/a/-%03d" % n) for n in range(200)])
        assert len(names(shown)) == 1 + 50 + tree.PAGE + 1
        assert names(shown)[-1] == "m /a/"
        await shown.more(TOP)
        assert names(shown)[-1] == "k /a/0149"

    asyncio.run(run())


def test_a_key_below_more_directories_than_may_be_open_opens_those() -> None:
    async def run() -> None:
        key = b"/" + b"a/" * 2 * module.OPEN + b"key"
        shown = await opened(Store(key))
        await shown.reveal(key)
        assert len(list(shown.rows())) == module.OPEN

    asyncio.run(run())


def test_what_is_open_stays_open_as_it_is_read_again() -> None:
    async def run() -> None:
        store = Store(*many(350), b"/a/b/c/1", b"/a/b/2", b"/a/x/1", b"/z")
        shown = await opened(store, TOP, A, b"/a/b/c/", b"/a/x/")
        await shown.more(TOP)
        await shown.count()
        before = names(shown)
        for name in (b"/a/b/3", b"/a/0199+", b"/a/0000-"):  # nobody is told of these
            store.put(name)
        for name in (b"/a/x/1", b"/a/b/2", b"/z"):
            store.delete(name)
        await shown.again()
        gone = {"d /a/x/", "k /a/x/1", "k /a/b/2", "k /z"}
        assert set(before) - gone <= set(names(shown)) - gone
        assert not gone & set(names(shown))
        assert {"k /a/b/3", "k /a/0000-", "k /a/b/c/1"} <= set(names(shown))
        assert all(row.count is None for row in shown.rows())
        assert not shown.is_open(b"/a/x/")

    asyncio.run(run())


def test_a_window_that_is_read_again_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(module, "WINDOW", 300)
        shown = await opened(Store(*many(900)), TOP)
        await shown.more(TOP)
        await shown.more(TOP)
        before = names(shown)
        assert before[1] == "f /a/"
        await shown.again()
        assert names(shown)[: len(before) - 1] == before[:-1]

    asyncio.run(run())


def test_a_directory_s_own_key_that_is_gone_closes_nothing() -> None:
    async def run() -> None:
        store = Store(TOP, b"/a/1")
        shown = await opened(store, TOP)
        store.delete(TOP)
        await shown.again()
        assert names(shown) == ["d /a/", "k /a/1"]

    asyncio.run(run())
