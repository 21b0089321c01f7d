"""Texts that are too large for an event of a browser: what is written is what the browser shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from nicegui import ui
from nicegui.testing import User, user_simulation

from tests.interop.console.visitor import TEXT, piece_of
from tests.unit.console.test_views import Page as Told
from tools.console.store.v2 import nodes
from tools.console.store.v2.nodes import Node
from tools.console.views import key_dialogs, parts
from tools.console.views.v2 import dialogs
from tools.console.views.v2.tree import TreeView

BEGIN = "seen by the console"
TEXTS = ["", "short", "x" * parts._PIECE, "ä😀" * 150_000, "a" + "😀" * 60_000, '"\n' * 700_000]


class Page(Told):
    """A page that draws in the browser of the test."""

    def __init__(self) -> None:
        super().__init__()
        self.browser = ui.context.client  # type: ignore[assignment]
        self.version2 = object()

    def why(self, error: Exception) -> str:
        return str(error)


def visit(shown: str, draw: Callable[[], object], step: Callable[[User], Coroutine[Any, Any, None]]) -> None:
    """Open a page whose browser shows a text in each field, whatever it has sent of it."""

    async def main() -> None:
        async with user_simulation(draw) as user, asyncio.timeout(60):
            user.javascript_rules[TEXT] = partial(piece_of, shown)
            await user.open("/")
            await step(user)

    asyncio.run(main())


@pytest.mark.parametrize("text", TEXTS, ids=map(str, range(len(TEXTS))))
def test_a_text_comes_whole(text: str) -> None:
    told = []

    async def step(user: User) -> None:
        assert user.client is not None
        (field,) = user.find(ui.textarea).elements
        told.append(await parts.text_of(field))

    visit(text, lambda: ui.textarea(value=BEGIN), step)
    assert told == [text]


def test_a_browser_that_is_gone_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(code: str, timeout: float) -> None:
        return None

    async def silent(code: str, timeout: float) -> str:
        raise TimeoutError

    async def endless(code: str, timeout: float) -> str:
        return "x" * parts._PIECE

    monkeypatch.setattr(parts, "_PIECES", 3)
    for one in (gone, silent, endless):
        field: Any = SimpleNamespace(id=1, client=SimpleNamespace(run_javascript=one))
        with pytest.raises(ValueError, match="does not tell the whole text"):
            asyncio.run(parts.text_of(field))


def test_a_new_key_gets_what_the_browser_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    text, written = "x" * 250_000, asyncio.Queue[bytes]()

    async def save(_: object, __: bytes, value: bytes, *, seen: int) -> int:
        written.put_nowait(value)
        return 1

    monkeypatch.setattr(key_dialogs.edits, "save", save)

    async def step(user: User) -> None:
        user.find("create").click()
        assert await written.get() == text.encode()

    visit(text, lambda: key_dialogs.new_key(Page(), b"/a", lambda _: None), step)  # type: ignore[arg-type]


def test_a_new_key_of_version_2_gets_what_the_browser_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    text, written = "x" * 250_000, asyncio.Queue[str]()

    async def append(_: object, __: str, value: str, ttl_s: int | None) -> None:
        written.put_nowait(value)

    async def do(step: Any) -> None:
        await step

    monkeypatch.setattr(nodes, "append", append)

    async def step(user: User) -> None:
        button = user.find("create")
        button.click()
        await asyncio.sleep(0.01)
        button.click()
        assert await written.get() == text
        await asyncio.sleep(0.05)
        assert written.empty(), "two clicks append one key"

    visit(text, lambda: dialogs.create(Page(), "/", "order", do), step)  # type: ignore[arg-type]


@pytest.mark.parametrize("by_review", [False, True])
def test_an_edit_of_version_2_writes_what_the_browser_shows(
    monkeypatch: pytest.MonkeyPatch, *, by_review: bool
) -> None:
    text, written = "x" * 250_000, asyncio.Queue[str]()

    async def save(_: object, __: Node, value: str, ttl_s: int | None) -> None:
        written.put_nowait(value)

    async def again() -> None:
        return

    monkeypatch.setattr(nodes, "save", save)

    def draw() -> None:
        view = TreeView.__new__(TreeView)
        view.page = Page()  # type: ignore[assignment]
        view.page.may_change = True  # type: ignore[misc]
        view.again = again  # type: ignore[method-assign]
        view._lives = []
        view.editing, view.draft = Node("/a", False, BEGIN), BEGIN
        view._file(view.editing)

    async def step(user: User) -> None:
        if by_review:
            user.find("edit.review").click()
            await user.should_see(kind=ui.dialog)
        found = user.find("save")
        found.elements = {max(found.elements, key=lambda one: one.id)}
        found.click()
        assert await written.get() == text

    visit(text, draw, step)
