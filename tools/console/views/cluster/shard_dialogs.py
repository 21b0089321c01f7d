"""What is asked before keys move between shards, or a shard retires."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from muster_client import KeyRange
from nicegui import ui

from tools.console.names import key_of, range_text
from tools.console.store import moves
from tools.console.store.access.model import Scope
from tools.console.store.shards import Shards
from tools.console.views.access.dialogs import chosen
from tools.console.views.page import Page
from tools.console.views.parts import FIELD, Do, buttons, dialog, sure

_SCOPES: tuple[Scope, ...] = ("prefix", "range", "key", "all")


def span(start: bytes, end: bytes) -> KeyRange:
    """Keys from ``start``, before ``end``."""
    return KeyRange(start, b"" if end == start + b"\0" else end)


def span_text(page: Page, keys: KeyRange) -> str:
    """Keys in words."""
    return range_text(keys) or page.t("users.scope.all")


def _written(keys: KeyRange | None) -> tuple[Scope, str]:
    """Keys as a form has them."""
    if keys is None:
        return "prefix", "/"
    text = range_text(keys)
    if not text:
        return "all", ""
    return ("range" if ".." in text and keys.end else "prefix" if keys.end else "key"), text


def move(
    page: Page, found: Shards, do: Do, *, target: int | None = None, keys: KeyRange | None = None
) -> None:
    """Which keys, and to which shard."""
    known, words = _written(keys)
    with page.browser, dialog(page.t("shard.move")) as made:
        ui.label(page.t("shard.move_text")).classes("mc-sub")
        scope = ui.select(
            {one: page.t(f"users.scope.{one}") for one in _SCOPES},
            label=page.t("users.scope"),
            value=known,
        ).props("outlined dense")
        text = ui.input(page.t("users.keys"), value=words).props(FIELD).classes("mc-mono")
        text.bind_visibility_from(scope, "value", backward=lambda value: value != "all")
        where = _target(page, found, target)

        async def step() -> None:
            keys = chosen(scope.value, str(text.value or "").strip())
            await moves.move(page.identity.client, keys, int(where.value))

        _last_row(page, made, page.t("shard.move"), step, lambda: chosen(scope.value, text.value or ""), do)


def split(page: Page, found: Shards, do: Do) -> None:
    """From which key on, and to which shard."""
    with page.browser, dialog(page.t("shard.split")) as made:
        ui.label(page.t("shard.split_text")).classes("mc-sub")
        text = ui.input(page.t("key")).props(FIELD + " autofocus").classes("mc-mono")
        where = _target(page, found, None)

        async def step() -> None:
            await moves.split(page.identity.client, key_of(text.value), int(where.value))

        _last_row(page, made, page.t("shard.split"), step, lambda: chosen("key", text.value or ""), do)


def _target(page: Page, found: Shards, chosen: int | None) -> ui.select:
    names = {shard: page.t("cluster.shard", shard=shard) for shard in found.targets}
    value = chosen if chosen in names else found.targets[-1]
    return ui.select(names, label=page.t("shard.target"), value=value).props("outlined dense")


def _last_row(
    page: Page,
    made: ui.dialog,
    title: str,
    step: Callable[[], Awaitable[None]],
    keys: Callable[[], KeyRange],
    do: Do,
) -> None:
    """The button that does it, once the keys are some."""
    problem = ui.label("").classes("mc-problem").props("role=alert")

    async def go() -> None:
        try:
            keys()
        except ValueError:
            problem.set_text(page.t("search.none"))
            return
        made.close()
        await do(step())

    buttons(made, page, title, go)


def retire(page: Page, found: Shards, shard: int, do: Do) -> None:
    """A shard ends, once its name is typed. With keys it has, these are to be moved away."""
    owns = found.table is not None and found.table.owns_anything(shard)
    name = page.t("cluster.shard", shard=shard)
    sure(
        page,
        page.t("shard.retire"),
        name,
        page.t("shard.retire_keys_text" if owns else "shard.retire_text"),
        lambda: moves.retire(page.identity.client, shard, with_keys=owns),
        do,
        typed=name,
    )
