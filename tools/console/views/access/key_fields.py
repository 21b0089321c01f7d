"""Which keys, in a dialog."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from muster_client import EVERYTHING, KeyRange, prefix
from nicegui import ui

from tools.console.names import key_of, search
from tools.console.store.access.model import Scope
from tools.console.views.page import Page
from tools.console.views.parts import FIELD, Do, buttons

Chosen = Callable[[], KeyRange]


def key_fields(page: Page, scopes: tuple[Scope, ...], scope: Scope, words: str) -> Chosen:
    """A choice of one of these scopes, and a field for what is in it. What is chosen; ValueError: nothing."""
    kind = ui.select(
        {one: page.t(f"users.scope.{one}") for one in scopes}, label=page.t("users.scope"), value=scope
    ).props("outlined dense")
    text = ui.input(page.t("users.keys"), value=words).props(FIELD).classes("mc-mono")
    text.bind_visibility_from(kind, "value", backward=lambda value: value != "all")
    return lambda: chosen(kind.value, str(text.value or "").strip())


def last_row(
    page: Page, made: ui.dialog, title: str, keys: Chosen, step: Callable[[KeyRange], Awaitable[None]], do: Do
) -> None:
    """The button that does it, once the keys are some."""
    problem = ui.label("").classes("mc-problem").props("role=alert")

    async def go() -> None:
        try:
            found = keys()
        except ValueError:
            problem.set_text(page.t("search.none"))
            return
        made.close()
        await do(step(found))

    buttons(made, page, title, go)


def chosen(scope: Scope, text: str) -> KeyRange:
    """Keys as they were written. ValueError: none."""
    if scope == "all":
        return EVERYTHING
    if not text:
        raise ValueError("no key is named")
    if scope == "range":
        if ".." not in text:
            raise ValueError("a range is written from..to")
        return search(text)
    key = key_of(text)
    return prefix(key) if scope == "prefix" else KeyRange(key, b"")
