"""The value of a key: shown in several forms, edited with a look at the difference, and as it was before."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from muster_client import Compacted, Delete, Event, KeyValue, MusterError, PermissionDenied, Put, prefix
from nicegui import ui

from tools.console.names import shown
from tools.console.store import leases
from tools.console.store.keys import commands, edits, history, tree, values
from tools.console.store.keys.values import Form, NotSo
from tools.console.views import key_dialogs
from tools.console.views.page import Page
from tools.console.views.parts import (
    button,
    chip,
    div,
    empty,
    more_button,
    size_text,
    span_text,
    tag,
    tag_text,
    text_of,
)
from tools.console.views.style import CODE

_LANGUAGE: dict[str, Any] = {"json": "JSON", "yaml": "YAML"}
_LARGEST_EDITED = values.SHOWN_BYTES
_AGAIN_S = 2.0  # until what could not be read is read again
_HISTORY_S = 2.0  # between two reads of a history: each asks for all changes that the store keeps
_HEAD = 1024  # bytes of each value of a history, which a row shows a part of
_LEASE_S = 5.0  # so old may be how long a lease lasts


class ValuePane:
    """One pane, for one key at a time."""

    def __init__(self, page: Page, revision: int, choose: Callable[[bytes], None]) -> None:
        self.page, self.revision, self._choose = page, revision, choose
        self.key = b""
        self.kv: KeyValue | None = None
        self.form: Form = "text"
        self.editing = False
        self._overtaken = False
        self._history_due = False
        self._history: asyncio.Task[None] | None = None
        self.past: ui.element | None = None
        self._asked = self._told = 0  # reads, by number: the last one, and the one that is shown
        self._forms_asked = 0
        self.box = div("mc-pane")

    async def show(self, key: bytes) -> None:
        """Show a key as it is now; none: say what can be done. An edit of the same key stays."""
        if key != self.key:
            self.editing = False
            self.kv = None
            self._close_history()
        self.key = key
        self._asked += 1
        asked = self._asked
        if not key:
            self._draw(self._nothing)
            return
        try:
            kv = await self.page.identity.client.get(key, revision=self.revision)
        except MusterError as error:
            if key == self.key and asked > self._told:
                self._failed(error, asked)
            return
        if key != self.key or asked < self._told:  # what is shown was asked for later
            return
        self._told = asked
        if self.editing:
            if kv is not None and self.kv is not None and kv.mod_revision > self.kv.mod_revision:
                self._behind(kv.mod_revision)
            return
        if kv is not None and (self.kv is None or self.kv.mod_revision != kv.mod_revision):
            self.form = values.guessed(kv.value)
        self.kv = kv
        self._draw(self._whole if kv is not None else self._missing)
        if self.past is not None:
            self._open_history()

    def _failed(self, error: MusterError, asked: int) -> None:
        """Say why there is no value, and read it again where that may do better."""
        denied = isinstance(error, PermissionDenied)
        if denied:
            self._close_history()
        if not self.editing:
            self._draw(lambda: empty("lock" if denied else "cloud_off", shown(self.key), str(error)))
        if not denied and not isinstance(error, Compacted):
            self.page.run(self._again(asked))

    async def _again(self, asked: int) -> None:
        await asyncio.sleep(_AGAIN_S)
        if asked == self._asked and not self.box.is_deleted:
            await self.show(self.key)

    def tell(self, changes: Iterable[Event]) -> None:
        """Follow the cluster: what is shown changes, what is being edited says that it is behind."""
        told = [one.revision for one in changes if isinstance(one, Put | Delete) and one.key == self.key]
        if not told or (self.kv is not None and told[-1] <= self.kv.mod_revision):
            return
        if self.editing:
            self._behind(told[-1])
        else:
            self.page.run(self.show(self.key))

    def _draw(self, what: Callable[[], None]) -> None:
        """Draw all but the history anew: that has hundreds of rows, and a key may change all the time."""
        if self.box.is_deleted:  # the view may have been left
            return
        for one in list(self.box):
            if one is not self.past:
                self.box.remove(one)
        with self.box:
            what()
        if self.past is not None:
            self.past.move(self.box)

    def _nothing(self) -> None:
        empty("touch_app", self.page.t("value.none"), self.page.t("value.none_text"))

    def _missing(self) -> None:
        self._title()
        empty(
            "delete_outline",
            self.page.t("value.missing"),
            self.page.t(
                "value.missing_at" if self.revision else "value.missing_text", revision=self.revision
            ),
        )
        button(self.page.t("history"), self._open_history, icon="history")

    def _whole(self) -> None:
        """A key that is there."""
        kv, page = self.kv, self.page
        assert kv is not None
        self._title()
        with div("mc-facts"):
            chip(page.t("fact.mod", revision=f"{kv.mod_revision:,}"), tip=page.t("fact.mod_tip"))
            chip(page.t("fact.version", version=f"{kv.version:,}"), tip=page.t("fact.version_tip"))
            chip(page.t("fact.create", revision=f"{kv.create_revision:,}"), tip=page.t("fact.create_tip"))
            chip(size_text(len(kv.value)))
            if kv.lease:
                place = tag("span")
                ui.timer(_LEASE_S, lambda: self._show_lease(kv.lease, place))
        with div("mc-tools"):
            self._forms()
            div("mc-grow")
            self._actions()
        self.banner = div("mc-banner mc-hidden", role="alert")
        self.editor = ui.codemirror(theme=CODE[page.dark], line_wrapping=True).classes("mc-code")
        self.editor.props["aria-label"] = page.t("value")
        self._fill()

    def _title(self) -> None:
        page = self.page
        with div("mc-title"):
            button(
                "", lambda: self._choose(b""), icon="arrow_back", kind="quiet", label=page.t("back")
            ).classes("mc-back")
            with tag("h1", "mc-path", aria_label=shown(self.key)):
                before = b""
                for parent in tree.parents(self.key):
                    part = shown(parent[len(before) :])
                    tag_text("span", part, "mc-part")
                    before = parent
                tag_text("span", shown(self.key[len(before) :]) if self.key[len(before) :] else "", "mc-leaf")
            button(
                "",
                lambda: self._copy(shown(self.key)),
                icon="content_copy",
                kind="quiet",
                label=page.t("copy.key"),
            )

    def _forms(self) -> None:
        with div("mc-forms", role="group", aria_label=self.page.t("form")):
            for form in values.FORMS:
                made = button(self.page.t(f"form.{form}"), lambda form=form: self._as(form), kind="tab")
                made.classes("on" if form == self.form else "")
                made.props["aria-pressed"] = "true" if form == self.form else "false"

    def _actions(self) -> None:
        page = self.page
        if self.editing:
            button(page.t("cancel"), self._stop_editing)
            button(page.t("edit.review"), self._review, icon="difference", kind="primary")
            return
        may_write = page.may_write(self.key) and not self.revision
        if may_write:
            button(page.t("edit"), self._edit, icon="edit", kind="primary")
        button(page.t("history"), self._open_history, icon="history")
        with more_button(page.t("more")), ui.menu():
            for name in ("etcdctl", "curl", "Python"):
                ui.menu_item(page.t("copy.as", what=name), lambda name=name: self._copy_command(name))
            ui.menu_item(page.t("copy.value"), self._copy_value)
            if page.may_write_some and not self.revision:
                ui.separator()
                ui.menu_item(page.t("copy_to"), lambda: key_dialogs.copy_dialog(page, self.key, self._choose))
            if may_write:
                ui.menu_item(
                    page.t("rename"),
                    lambda: key_dialogs.copy_dialog(page, self.key, self._choose, move=True),
                )
                ui.menu_item(page.t("delete"), self._delete).classes("mc-danger-item")
            for parent in () if self.revision else reversed(tree.parents(self.key)):
                if page.may_write(prefix(parent)):
                    ui.menu_item(
                        page.t("delete_below", prefix=shown(parent)),
                        lambda parent=parent: page.run(key_dialogs.remove_prefix(page, parent)),
                    ).classes("mc-danger-item")

    async def _as(self, form: Form) -> None:
        if self.editing:
            self.page.complain(self.page.t("form.editing"))
            return
        assert self.kv is not None
        key, kv = self.key, self.kv
        self._forms_asked += 1
        asked = self._forms_asked
        try:
            await asyncio.to_thread(values.show, kv.value, form)  # YAML may take seconds
        except NotSo as error:
            self._not(form, error)
            return
        if asked == self._forms_asked and key == self.key and kv is self.kv and not self.editing:
            self.form = form
            self._draw(self._whole)

    def _not(self, form: Form, error: NotSo) -> None:
        page = self.page
        page.complain(page.t("form.not", form=page.t(f"form.{form}"), reason=page.why(error)))

    def _fill(self) -> None:
        assert self.kv is not None
        shown_value = values.readable(self.kv.value, self.form)
        self.text = shown_value.text
        self.editor.value = self.text
        self.editor.language = _LANGUAGE.get(self.form)
        self.editor.set_enabled(self.editing)
        if shown_value.kind or not shown_value.whole:
            self.banner.classes(remove="mc-hidden")
            with self.banner:
                ui.icon("info")
                ui.label(shown_value.kind or self.page.t("value.cut", size=size_text(len(self.kv.value))))

    async def _show_lease(self, lease: int, place: ui.element) -> None:
        """How long the lease lasts, as of now."""
        page = self.page
        try:
            found = await leases.life(page.identity.client, lease)
        except MusterError:  # the value is shown all the same
            return
        place.clear()
        if found is not None:
            with place:
                chip(
                    page.t("fact.lease", lease=f"{lease:x}", left=span_text(found.left_s)), "mc-info", "timer"
                )

    # Edit

    def _edit(self) -> None:
        assert self.kv is not None
        shown_value = values.readable(self.kv.value, self.form)
        if len(self.kv.value) > _LARGEST_EDITED or not shown_value.whole:
            self.page.complain(self.page.t("edit.large"))
            return
        if not shown_value.editable:
            self.page.complain(self.page.t("edit.returns" if "\r" in shown_value.text else "edit.form"))
            return
        self.editing, self._overtaken = True, False
        self._draw(self._whole)

    async def _stop_editing(self) -> None:
        self.editing = False
        await self.show(self.key)

    def _behind(self, revision: int) -> None:
        """Another client has changed the key that is being edited here."""
        if self._overtaken:
            return
        self._overtaken = True
        self.banner.classes(add="mc-warn", remove="mc-hidden")
        self.banner.clear()
        with self.banner:
            ui.icon("warning")
            ui.label(self.page.t("edit.behind", revision=f"{revision:,}"))

    async def _review(self) -> None:
        """The difference, before anything is sent."""
        assert self.kv is not None
        seen, form, old = self.kv, self.form, self.text
        try:
            text = await text_of(self.editor)
            new = await asyncio.to_thread(values.read, text, form, seen.value)
        except NotSo as error:
            self._not(form, error)
            return
        except ValueError as error:
            self.page.complain(str(error))
            return
        key_dialogs.review(self.page, old, text, lambda: self._save(new, seen))

    async def _save(self, value: bytes, seen: KeyValue) -> None:
        page = self.page
        try:
            revision = await edits.save(page.identity.client, seen.key, value, seen=seen.mod_revision)
        except edits.Overtaken as error:
            self._quicker(seen.key, error.kv, value)
            return
        except MusterError as error:
            page.complain(str(error))
            return
        page.say("edit.saved", revision=f"{revision:,}")
        if seen.key == self.key:  # no other one was chosen meanwhile
            await self._stop_editing()

    def _quicker(self, key: bytes, now: KeyValue | None, mine: bytes) -> None:
        """Another client was quicker: show its value beside ours, and let the user decide."""
        page = self.page
        with page.browser, ui.dialog() as made, div("mc-dialog mc-wide"):
            tag_text("h2", page.t("edit.quicker"))
            if now is None:
                ui.label(page.t("edit.quicker_gone")).classes("mc-sub")
                seen = 0
            else:
                seen = now.mod_revision
                ui.label(page.t("edit.quicker_text", revision=f"{seen:,}")).classes("mc-sub")
                key_dialogs.draw_diff(page, self._text_of(now.value), self._text_of(mine))

            async def overwrite() -> None:
                made.close()
                await self._save(mine, KeyValue(key, b"", 0, seen, 0))

            async def theirs() -> None:
                made.close()
                await self._stop_editing()

            with div("mc-dialog-buttons"):
                button(page.t("cancel"), made.close)
                button(page.t("edit.theirs"), theirs)
                button(page.t("edit.mine"), overwrite, kind="danger")
        made.open()

    def _text_of(self, value: bytes) -> str:
        return values.readable(value, self.form).text

    def _delete(self) -> None:
        assert self.kv is not None
        key_dialogs.remove_key(self.page, self.kv, lambda: self.page.run(self.show(self.key)))

    # Copy

    def _copy(self, text: str) -> None:
        with self.page.browser:
            ui.clipboard.write(text)
        self.page.say("copied")

    def _copy_value(self) -> None:
        assert self.kv is not None
        self._copy(values.whole(self.kv.value, self.form))

    def _copy_command(self, name: str) -> None:
        assert self.kv is not None
        make = {"etcdctl": commands.etcdctl, "curl": commands.curl, "Python": commands.python}[name]
        value = self.kv.value if len(self.kv.value) <= 64 * 1024 else None
        endpoint = self.page.target.endpoints[0]
        self._copy(
            f"{make(endpoint, self.key)}\n" + (make(endpoint, self.key, value) if value is not None else "")
        )

    # History

    def _open_history(self) -> None:
        """Show all that the key was, and show it anew when the key changes: by one read at a time."""
        if self.past is None:
            with self.box:
                self.past = div("mc-history")
        self._history_due = True
        if self._history is None or self._history.done():
            self._history = self.page.run(self._read_history(self.key, self.past))

    def _close_history(self) -> None:
        self.past = None
        if self._history is not None:
            self._history.cancel()
            self._history = None

    async def _read_history(self, key: bytes, past: ui.element) -> None:
        while self._history_due and not past.is_deleted:
            self._history_due = False
            try:
                found = await history.of_key(self.page.identity.client, key)
            except MusterError as error:
                self.page.complain(str(error))
            else:
                if not past.is_deleted:
                    past.clear()
                    with past:
                        self._draw_history(found)
                del found  # no value of it is kept
            await asyncio.sleep(_HISTORY_S)

    def _draw_history(self, found: history.History) -> None:
        """The latest first."""
        page = self.page
        with div("mc-past-head"):
            tag_text("h2", page.t("history"))
            ui.label(page.t("history.since", revision=f"{found.oldest:,}")).classes("mc-sub")
        if not found.revisions:
            ui.label(page.t("history.none")).classes("mc-sub")
        kept = [one.kv and replace(one.kv, value=one.kv.value[:_HEAD]) for one in found.revisions]
        for at, one in enumerate(found.revisions):
            self._past_row(one.revision, kept[at], kept[at + 1] if at + 1 < len(kept) else None, found.oldest)
        if not found.whole:
            ui.label(page.t("history.more", count=len(found.revisions))).classes("mc-sub")

    def _past_row(self, revision: int, kv: KeyValue | None, before: KeyValue | None, oldest: int) -> None:
        """A change. Of ``kv`` and ``before`` the beginning is known."""
        page = self.page
        with div("mc-past"):
            chip(f"{revision:,}", "mc-mono")
            if kv is None:
                ui.label(page.t("history.deleted")).classes("mc-preview mc-gone")
                return
            ui.label(preview(kv.value)).classes("mc-preview mc-mono")

            async def whole(one: KeyValue) -> bytes:
                found = await page.identity.client.get(one.key, revision=max(one.mod_revision, oldest))
                return found.value if found is not None else b""

            async def compare() -> None:
                old = self._text_of(await whole(before)) if before is not None else ""
                key_dialogs.compare(page, revision, old, self._text_of(await whole(kv)))

            async def restore() -> None:
                await self._restore(replace(kv, value=await whole(kv)))

            button(page.t("history.compare"), lambda: page.told(compare()), kind="quiet")
            if page.may_write(self.key) and (self.kv is None or kv.mod_revision != self.kv.mod_revision):
                button(page.t("history.restore"), lambda: page.told(restore()), kind="quiet")

    async def _restore(self, old: KeyValue) -> None:
        """Write what the key was, once its difference from what the key is now was seen."""
        page, now = self.page, self.kv
        if self.revision:
            try:
                now = await page.identity.client.get(old.key)
            except MusterError as error:
                page.complain(str(error))
                return
        if old.key != self.key:  # another one was chosen while the old value, or the present one, was read
            return
        seen = now or KeyValue(old.key, b"", 0, 0, 0)
        key_dialogs.review(
            page, self._text_of(seen.value), self._text_of(old.value), lambda: self._save(old.value, seen)
        )


def preview(value: bytes, most: int = 120) -> str:
    """The beginning of a value in one line. Nothing behind it is looked at, however large the value is."""
    head = value[: 4 * most]
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # it may end within a character
    except UnicodeDecodeError:
        text = "\0"
    if value.startswith(values.KUBERNETES) or any(not (one.isprintable() or one in "\n\r\t") for one in text):
        return f"0x{value[: most // 2].hex()}{'…' if len(value) > most // 2 else ''}"
    text = " ".join(text.split())
    return text if len(text) <= most and len(value) <= 4 * most else f"{text[:most]}…"
