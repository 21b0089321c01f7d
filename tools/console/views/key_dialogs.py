"""Dialogs that change keys. Each shows what it will do, and sends nothing before it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from muster_client import KeyRange, KeyValue, MusterError
from nicegui import events, ui

from tools.console.names import key_of, range_text, search, shown
from tools.console.store.keys import copies, edits
from tools.console.views.page import Page
from tools.console.views.parts import button, buttons, dialog, div, tag, tag_text, text_of

Choose = Callable[[bytes], None]
_MOST_LINES = 1000  # of a difference: each costs a browser some elements


def draw_diff(page: Page, old: str, new: str) -> bool:
    """The lines that differ; false: none do."""
    lines = edits.diff(old, new)
    if not lines:
        ui.label(page.t("diff.none")).classes("mc-sub")
        return False
    with div("mc-diff", role="region", aria_label=page.t("diff"), tabindex="0"):
        for sign, text in lines[:_MOST_LINES]:
            kind = {"+": "mc-plus", "-": "mc-minus", "@": "mc-gap", "\\": "mc-gap"}.get(sign, "")
            with div(f"mc-line {kind}"):
                ui.label({"@": "⋯"}.get(sign, sign)).classes("mc-sign")
                ui.label(page.t("diff.no_end") if sign == "\\" else text.replace("\r", "␍"))
        if len(lines) > _MOST_LINES:
            ui.label(page.t("services.more", count=f"{len(lines) - _MOST_LINES:,}")).classes("mc-sub")
    return True


def review(page: Page, old: str, new: str, save: Callable[[], Awaitable[None]]) -> None:
    """The difference, and the button that writes it."""
    with page.browser, dialog(page.t("edit.review"), wide=True) as made:
        differs = draw_diff(page, old, new)

        async def do() -> None:
            made.close()
            await save()

        buttons(made, page, page.t("save"), do).set_enabled(differs)


def compare(page: Page, revision: int, old: str, new: str) -> None:
    """What a revision changed."""
    with page.browser, dialog(page.t("history.changed", revision=f"{revision:,}"), wide=True) as made:
        draw_diff(page, old, new)
        with div("mc-dialog-buttons"):
            button(page.t("close"), made.close)


def new_key(page: Page, near: bytes, choose: Choose) -> None:
    """A key that is not there yet."""
    with page.browser, dialog(page.t("keys.new")) as made:
        name = ui.input(page.t("key"), value=shown(near)).props("outlined dense autofocus spellcheck=false")
        value = ui.textarea(page.t("value")).props("outlined autogrow spellcheck=false").classes("mc-mono")
        problem = ui.label("").classes("mc-problem").props("role=alert")

        async def do() -> None:
            key = key_of(name.value or "")
            try:
                await edits.save(page.identity.client, key, (await text_of(value)).encode(), seen=0)
            except edits.Overtaken:
                problem.set_text(page.t("new.exists"))
            except (MusterError, ValueError) as error:
                problem.set_text(page.why(error))
            else:
                made.close()
                choose(key)

        buttons(made, page, page.t("create"), do)


def remove_key(page: Page, seen: KeyValue, done: Callable[[], object]) -> None:
    """Delete one key, as it was seen."""
    with page.browser, dialog(page.t("delete.title")) as made:
        ui.label(shown(seen.key)).classes("mc-mono mc-strong")
        ui.label(page.t("delete.text")).classes("mc-sub")

        async def do() -> None:
            made.close()
            try:
                await edits.remove(page.identity.client, seen.key, seen=seen.mod_revision)
            except edits.Overtaken:
                page.complain(page.t("edit.quicker"))
            except MusterError as error:
                page.complain(str(error))
            done()

        buttons(made, page, page.t("delete"), do, kind="danger")


async def remove_prefix(page: Page, prefix: bytes) -> None:
    """Delete a directory: how many keys, the first of them, and its name typed by hand."""
    found = await edits.removal(page.identity.client, prefix)
    with page.browser, dialog(page.t("delete.below", prefix=shown(prefix))) as made:
        ui.label(page.t("delete.count", count=f"{found.count:,}")).classes("mc-strong")
        with tag("ul", "mc-first mc-mono"):
            for key in found.first:
                tag_text("li", shown(key))
            if found.count > len(found.first):
                tag_text("li", "…")
        ui.label(page.t("delete.type", prefix=shown(prefix))).classes("mc-sub")
        typed = ui.input(page.t("delete.typed")).props("outlined dense spellcheck=false autocomplete=off")

        async def do() -> None:
            made.close()
            try:
                count = await edits.remove_prefix(page.identity.client, prefix)
            except MusterError as error:
                page.complain(str(error))
            else:
                page.say("delete.done", count=f"{count:,}")

        sure = buttons(made, page, page.t("delete"), do, kind="danger")
        sure.bind_enabled_from(typed, "value", lambda value: value == shown(prefix))


def copy_dialog(page: Page, source: bytes, choose: Choose, *, move: bool = False) -> None:
    """Copy or rename a key, in one transaction."""
    with page.browser, dialog(page.t("rename" if move else "copy_to")) as made:
        ui.label(shown(source)).classes("mc-mono mc-strong")
        ui.label(page.t("rename.text" if move else "copy_to.text")).classes("mc-sub")
        name = ui.input(page.t("new_name"), value=shown(source)).props(
            "outlined dense autofocus spellcheck=false"
        )
        problem = ui.label("").classes("mc-problem").props("role=alert")

        async def do() -> None:
            target = key_of(name.value or "")
            try:
                await edits.duplicate(page.identity.client, source, target, move=move)
            except edits.Overtaken as error:
                problem.set_text(page.t("new.exists" if error.kv is not None else "edit.quicker"))
            except (MusterError, ValueError) as error:
                problem.set_text(page.why(error))
            else:
                made.close()
                choose(target)

        buttons(made, page, page.t("rename" if move else "copy"), do)


def export_dialog(page: Page, keys: KeyRange, revision: int) -> None:
    """A range as a file."""
    with page.browser, dialog(page.t("export")) as made:
        where = ui.input(page.t("export.what"), value=range_text(keys)).props(
            "outlined dense spellcheck=false"
        )
        ui.label(page.t("export.text")).classes("mc-sub")

        async def do(form: copies.FileForm) -> None:
            made.close()
            try:
                file = await copies.export(page.identity.client, search(where.value or ""), form, revision)
            except copies.TooLarge:
                page.complain(page.t("export.large"))
            except (MusterError, ValueError) as error:
                page.complain(str(error))
            else:
                with page.browser:
                    ui.download.content(file, f"keys.{form}")

        with div("mc-dialog-buttons"):
            button(page.t("cancel"), made.close)
            button("YAML", lambda: do("yaml"), icon="download")
            button("JSON", lambda: do("json"), icon="download", kind="primary")


def import_dialog(page: Page) -> None:
    """A file of keys, looked at before it is written."""
    pairs: list[copies.Pair] = []
    newest: object = None  # file: a large one may be read after it

    async def taken(event: events.UploadEventArguments) -> None:
        nonlocal newest
        newest = event
        pairs.clear()
        sure.set_enabled(False)
        try:
            found = await asyncio.to_thread(copies.parsed, await event.file.read())
            said = page.t("import.found", count=f"{len(found):,}", first=shown(found[0][0]) if found else "")
        except copies.Malformed as error:
            found, said = [], page.why(error)
        if newest is event:
            pairs[:] = found
            told.set_text(said)
            sure.set_enabled(bool(pairs))

    async def do() -> None:
        made.close()
        try:
            count = await copies.load(page.identity.client, pairs)
        except MusterError as error:
            page.complain(str(error))
        else:
            page.say("import.done", count=f"{count:,}")

    with page.browser, dialog(page.t("import")) as made:
        ui.label(page.t("import.text")).classes("mc-sub")
        upload: Any = ui.upload(on_upload=taken, auto_upload=True, max_file_size=copies.MOST_BYTES)
        upload.props("flat bordered accept=.json,.yaml,.yml").classes("mc-upload")
        told = ui.label("").classes("mc-strong").props("role=status")
        sure = buttons(made, page, page.t("import"), do)
        sure.set_enabled(False)
