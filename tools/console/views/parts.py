"""Pieces that several views are made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement
from nicegui.elements.mixins.value_element import ValueElement

from tools.console.names import address
from tools.console.views.page import Page

# what a click without other keys does: others open a new tab, as everywhere
PLAIN_CLICK = """(e) => { if (e.metaKey || e.ctrlKey || e.shiftKey || e.button) return;
  e.preventDefault(); emit(); }"""
Handler = Callable[[], Any] | Callable[[], Awaitable[Any]]
Do = Callable[[Awaitable[None]], Awaitable[None]]
"""Does a step, tells what the cluster refuses, and shows what is there then."""
FIELD = "outlined dense spellcheck=false autocomplete=off"
_PIECE = 100_000  # of a text, in UTF-16's units: JSON makes six times as much of some
_PIECES = 640  # more than any store takes
_PIECE_S = 30.0
_TEXT = """const field = getElement(%d), begin = %d, most = %d;
  const text = field.editor ? field.editor.state.doc.toString() : field.inputValue ?? "";
  const end = begin + most;
  return text.slice(begin, /[\\uD800-\\uDBFF]/.test(text[end - 1] ?? "") ? end + 1 : end);"""


def div(classes: str, **attributes: str) -> ui.element:
    """A plain element with classes, and attributes such as ``role``."""
    return tag("div", classes, **attributes)


def tag(name: str, classes: str = "", **attributes: str) -> ui.element:
    """An HTML element; ``aria_label`` becomes ``aria-label``."""
    made = ui.element(name).classes(classes)
    for attribute, value in attributes.items():
        made.props[attribute.replace("_", "-")] = value
    return made


def button(
    text: str, on_click: Handler, *, icon: str = "", kind: str = "plain", label: str = ""
) -> ui.button:
    """A button: ``kind`` primary, plain, danger, or quiet. ``label``: for screen readers, and as a tooltip,
    where there is an icon alone."""
    made = ui.button(text, on_click=on_click, icon=icon or None, color=None).props("no-caps unelevated")
    made.classes(f"mc-button mc-{kind}")
    if not text:
        made.props("round dense flat").classes("mc-icon")
    if label:
        made.props["aria-label"] = label
        made.tooltip(label)
    return made


def chip(text: str, kind: str = "", icon: str = "", tip: str = "") -> ui.element:
    """A small fact."""
    with tag("span", f"mc-chip {kind}") as made:
        if icon:
            ui.icon(icon)
        tag_text("span", text)
    if tip:
        made.tooltip(tip)
    return made


def empty(icon: str, title: str, text: str = "") -> None:
    """What stands where nothing is."""
    with div("mc-empty"):
        ui.icon(icon).classes("mc-empty-icon")
        ui.label(title).classes("mc-empty-title")
        if text:
            ui.label(text).classes("mc-empty-text")


def heading(title: str, text: str = "") -> None:
    """A view's title and what it is for."""
    with div("mc-heading"):
        tag_text("h1", title)
        if text:
            ui.label(text).classes("mc-sub")


class Text(TextElement):
    """An HTML element with a text of its own."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(tag=name, text=text)


def tag_text(name: str, text: str, classes: str = "") -> Text:
    """An HTML element with a text."""
    made = Text(name, text)
    made.classes(classes)
    return made


def more_button(label: str) -> ui.button:
    """The button that opens a menu of further actions."""
    made = ui.button(icon="more_vert", color=None).props("round dense flat").classes("mc-button mc-icon")
    made.props["aria-label"] = label
    return made


def key_link(page: Page, key: bytes, text: str) -> None:
    """A key that leads to its value."""
    with tag("a", "mc-chip mc-mono mc-keylink", href=address("keys", key)).on(
        "click", lambda: page.go(address("keys", key)), js_handler=PLAIN_CLICK
    ):
        tag_text("span", text)


async def text_of(field: ValueElement[Any]) -> str:
    """The text that a browser shows in a field. ``value`` is another one where an event was too large to be
    sent: a megabyte, as JSON in JSON. ValueError: the browser does not tell it."""
    text, begin = "", 0
    with suppress(TimeoutError):
        for _ in range(_PIECES):
            code = _TEXT % (field.id, begin, _PIECE)
            piece: str | None = await field.client.run_javascript(code, timeout=_PIECE_S)
            if piece is None:  # it is gone
                break
            text += piece
            units = len(piece.encode("utf-16-le", "surrogatepass")) // 2
            if units < _PIECE:
                return text
            begin += units
    raise ValueError("the browser does not tell the whole text")


@contextmanager
def dialog(title: str, wide: bool = False) -> Iterator[ui.dialog]:
    """A dialog that is open once the block ends."""
    with ui.dialog() as made, div(f"mc-dialog{' mc-wide' if wide else ''}", role="document"):
        tag_text("h2", title)
        yield made
    made.open()


def buttons(made: ui.dialog, page: Page, text: str, do: Handler, kind: str = "primary") -> ui.button:
    """The last row of a dialog; the button that does it."""
    with div("mc-dialog-buttons"):
        button(page.t("cancel"), made.close)
        return button(text, do, kind=kind)


def sure(
    page: Page,
    title: str,
    name: str,
    text: str,
    step: Callable[[], Awaitable[None]],
    do: Do,
    *,
    sign: str = "",
    typed: str = "",
) -> None:
    """Say what a change does, then do it. ``sign``: of the button, if not the title. ``typed``: a word to be
    typed before."""
    with page.browser, dialog(title) as made:
        if name:
            ui.label(name).classes("mc-mono mc-strong")
        ui.label(text).classes("mc-sub")
        word = None
        if typed:
            ui.label(page.t("delete.type", prefix=typed)).classes("mc-sub")
            word = ui.input(page.t("sure.typed")).props(FIELD)

        async def go() -> None:
            made.close()
            await do(step())

        last = buttons(made, page, sign or title, go, kind="danger")
        if word is not None:
            last.bind_enabled_from(word, "value", backward=lambda value: value == typed)


def size_text(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def span_text(seconds: int) -> str:
    """A time span for people."""
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172_800 else f"{seconds // 86_400} d"
