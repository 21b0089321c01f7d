"""What is asked before keys move between shards, or a shard retires."""

from __future__ import annotations

from muster_client import KeyRange
from nicegui import ui

from tools.console.names import range_text
from tools.console.store import moves
from tools.console.store.access.model import Scope
from tools.console.store.shards import Shards
from tools.console.views.access.key_fields import chosen, key_fields, last_row
from tools.console.views.page import Page
from tools.console.views.parts import FIELD, Do, dialog, sure

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
        keys_of = key_fields(page, _SCOPES, known, words)
        where = _target(page, found, target)

        async def step(keys: KeyRange) -> None:
            await moves.move(page.identity.client, keys, int(where.value))

        last_row(page, made, page.t("shard.move"), keys_of, step, do)


def split(page: Page, found: Shards, do: Do) -> None:
    """From which key on, and to which shard."""
    with page.browser, dialog(page.t("shard.split")) as made:
        ui.label(page.t("shard.split_text")).classes("mc-sub")
        text = ui.input(page.t("key")).props(FIELD + " autofocus").classes("mc-mono")
        where = _target(page, found, None)

        async def step(keys: KeyRange) -> None:
            await moves.split(page.identity.client, keys.start, int(where.value))

        last_row(page, made, page.t("shard.split"), lambda: chosen("key", text.value or ""), step, do)


def _target(page: Page, found: Shards, chosen: int | None) -> ui.select:
    names = {shard: page.t("cluster.shard", shard=shard) for shard in found.targets}
    value = chosen if chosen in names else found.targets[-1]
    return ui.select(names, label=page.t("shard.target"), value=value).props("outlined dense")


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
