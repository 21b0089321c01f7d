"""What is asked before the tree of version 2 changes."""

from __future__ import annotations

from typing import Literal

from nicegui import ui

from tools.console.store.v2 import nodes
from tools.console.store.v2.nodes import Node
from tools.console.views.page import Page
from tools.console.views.parts import FIELD, Do, buttons, dialog, sure, text_of

What = Literal["key", "directory", "order"]


def seconds(page: Page, ttl_s: int | None = None) -> ui.number:
    """A field for a time to live; empty: it stays."""
    field = ui.number(page.t("v2.ttl"), value=ttl_s, min=1, precision=0)
    field.props("outlined dense clearable")
    field.props["hint"] = page.t("v2.ttl_hint")
    return field


def ttl_of(field: ui.number) -> int | None:
    """What was written there."""
    return int(field.value) if field.value else None


def create(page: Page, directory: str, what: What, do: Do) -> None:
    """A key, a directory, or a key that the store names."""
    with page.browser, dialog(page.t(f"v2.new_{what}")) as made:
        ui.label(directory).classes("mc-mono mc-strong")
        if what == "order":
            ui.label(page.t("v2.order_text")).classes("mc-sub")
        else:
            name = ui.input(page.t("v2.name")).props(FIELD + " autofocus").classes("mc-mono")
        if what != "directory":
            value = (
                ui.textarea(page.t("value")).props("outlined autogrow spellcheck=false").classes("mc-mono")
            )
        ttl = seconds(page)
        problem = ui.label("").classes("mc-problem").props("role=alert")

        async def step(text: str) -> None:
            v2, ttl_s = page.version2, ttl_of(ttl)
            if what == "order":
                await nodes.append(v2, directory, text, ttl_s)
                return
            key = nodes.joined(directory, str(name.value or ""))
            if what == "directory":
                await nodes.make_directory(v2, key, ttl_s)
            else:
                await nodes.create(v2, key, text, ttl_s)

        async def go() -> None:
            if what != "order" and not str(name.value or "").strip("/"):
                problem.set_text(page.t("v2.no_name"))
                return
            last.disable()  # a second click appends nothing
            try:
                text = "" if what == "directory" else await text_of(value)
            except ValueError as error:
                last.enable()
                problem.set_text(page.why(error))
                return
            made.close()
            await do(step(text))

        last = buttons(made, page, page.t("create"), go)


def remove(page: Page, node: Node, do: Do) -> None:
    """Delete a key as it was seen; a directory after its name was typed."""
    title, text = "v2.delete_directory", "v2.delete_text"
    if not node.is_directory:
        title, text = "delete.title", "v2.delete_key_text"
    sure(
        page,
        page.t(title),
        node.key,
        page.t(text),
        lambda: nodes.remove(page.version2, node),
        do,
        sign=page.t("delete"),
        typed=node.key if node.is_directory else "",
    )
