"""The tree of version 2, a directory or a key at a time: ``/v2/a/b``."""

from __future__ import annotations

import time
from collections.abc import Awaitable

from muster_client import MusterError
from muster_client.v2 import KeyNotFound, NotServed, Unauthorized, V2Error
from nicegui import ui

from tools.console.names import address
from tools.console.store.v2 import nodes
from tools.console.store.v2.nodes import Node, Overtaken
from tools.console.views import key_dialogs
from tools.console.views.access.users import log_in2
from tools.console.views.page import Page
from tools.console.views.parts import (
    PLAIN_CLICK,
    button,
    chip,
    div,
    empty,
    heading,
    span_text,
    tag,
    tag_text,
    text_of,
)
from tools.console.views.v2 import dialogs

_READ_EVERY_S = 2.0
_PREVIEW = 200  # characters


async def build(page: Page) -> None:
    """The node of the address."""
    view = TreeView(page)
    view.draw()
    await view.read()
    view.fill()
    ui.timer(_READ_EVERY_S, view.follow)
    ui.timer(1.0, view.tick)


class TreeView:
    """A node of one browser. Times to live run down by the clock between two looks."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.key = nodes.joined("/", page.where[1].decode(errors="replace"))
        self.node: Node | None = None
        self.read_at_s = 0.0
        self.trouble: tuple[str, str, str] | None = None
        self._shown: object = None
        self._lives: list[tuple[Node, ui.label]] = []
        self.editing: Node | None = None
        self.draft = ""

    def draw(self) -> None:
        """What does not change."""
        page = self.page
        with div("mc-heading-row"):
            with div(""):
                heading(page.t("view.v2"), page.t("v2.text"))
            div("mc-grow")
            go_to = ui.input(placeholder=page.t("v2.open")).props("dense outlined spellcheck=false")
            go_to.classes("mc-filter mc-mono").props["aria-label"] = page.t("v2.open")
            go_to.on("keydown.enter", lambda: self.open(nodes.joined(self.key, str(go_to.value or ""))))
            button("", lambda: log_in2(page), icon="login", kind="quiet", label=page.t("v2.log_in"))
        self.box = div("mc-cards-column")

    def open(self, key: str) -> None:
        """Show another node."""
        self.page.go(address("v2", key.encode() if key != "/" else b""))

    async def read(self, *, shared: bool = False) -> None:
        """Look again, or share what another browser saw a moment ago. MusterError: no host answers."""
        page, self.trouble = self.page, None
        try:
            read = nodes.recent if shared else nodes.read
            self.node = await read(page.version2, self.key)
        except NotServed as error:
            self.trouble = "layers_clear", page.t("v2.none"), page.why(error)
        except Unauthorized as error:
            self.trouble = "lock", page.t("v2.denied"), str(error)
        except KeyNotFound as error:
            self.trouble = "search_off", page.t("value.missing"), str(error)
        except V2Error as error:
            self.trouble = "search_off", str(error), str(error)
        self.read_at_s = time.monotonic()

    async def follow(self) -> None:
        """Other clients' changes come into sight."""
        await self.again(shared=True)

    async def again(self, *, shared: bool = False) -> None:
        """Show what is there now; an edit that has begun stays."""
        try:
            await self.read(shared=shared)
        except MusterError as error:
            self.page.complain(str(error))
            return
        if self.editing is None and self._state() != self._shown:
            self.fill()

    def _state(self) -> object:
        """What is drawn; times that run down are not."""
        if self.trouble or self.node is None:
            return self.trouble
        return [(one.key, one.modified, one.ttl_s is None) for one in (self.node, *self.node.nodes)]

    async def done(self, step: Awaitable[Node | None]) -> None:
        """Do a step, tell what the store refuses, and look again."""
        try:
            await step
        except Overtaken as error:
            self.page.complain(f"{self.page.t('edit.quicker')}: {error}")
        except MusterError as error:
            self.page.complain(str(error))
        self.editing = None
        await self.again()

    def fill(self) -> None:
        """Everything, as it was read."""
        self._shown, self._lives = self._state(), []
        self.box.clear()
        with self.box:
            self._path()
            if self.editing is not None:
                self._file(self.editing)
            elif self.trouble or self.node is None:
                empty(*(self.trouble or ("search_off", "", "")))
            elif self.node.is_directory:
                self._directory(self.node)
            else:
                self._file(self.node)
        self.tick()

    def _path(self) -> None:
        with tag("nav", "mc-facts", aria_label=self.page.t("v2.path")):
            for key in nodes.parents(self.key) if self.key != "/" else ():
                self._link(key, "/" if key == "/" else key.rpartition("/")[2], "mc-chip mc-mono mc-keylink")
            ui.label(self.key.rpartition("/")[2] or "/").classes("mc-mono mc-strong")

    def _link(self, key: str, text: str, classes: str) -> None:
        where = address("v2", key.encode() if key != "/" else b"")
        with tag("a", classes, href=where).on("click", lambda: self.page.go(where), js_handler=PLAIN_CLICK):
            ui.label(text)

    def _directory(self, node: Node) -> None:
        page = self.page
        shown = node.nodes[: nodes.MOST_SHOWN]
        with div("mc-tools"):
            chip(page.t("v2.count", count=f"{len(node.nodes):,}"))
            self._life(node)
            div("mc-grow")
            if page.may_change:
                button(page.t("v2.new_key"), lambda: self._create("key"), icon="add", kind="primary")
                button(
                    page.t("v2.new_directory"), lambda: self._create("directory"), icon="create_new_folder"
                )
                button(page.t("v2.new_order"), lambda: self._create("order"), icon="playlist_add")
                if node.key != "/":
                    self._remove(node)
        if not shown:
            empty("folder_open", page.t("v2.empty"), page.t("v2.hidden_text"))
            return
        with div("mc-table", role="table", aria_label=self.key):
            with div("mc-tr mc-th mc-node", role="row"):
                for name in ("v2.name", "value", "leases.left", "v2.index"):
                    ui.label(page.t(name)).props("role=columnheader")
            for child in shown:
                self._row(child)
        if len(shown) < len(node.nodes):
            ui.label(page.t("v2.more", count=len(shown))).classes("mc-sub")
        ui.label(page.t("v2.hidden_text")).classes("mc-sub")

    def _row(self, node: Node) -> None:
        with div("mc-tr mc-node", role="row"):
            with div("mc-facts", role="rowheader"):
                ui.icon("folder" if node.is_directory else "tag" if node.is_in_order else "notes").classes(
                    "mc-folder" if node.is_directory else ""
                )
                self._link(node.key, node.name, "mc-mono mc-keylink")
            ui.label(node.value[:_PREVIEW]).classes("mc-mono mc-preview").props("role=cell")
            with div("", role="cell"):
                self._life(node)
            ui.label(f"{node.modified:,}").classes("mc-rev").props("role=cell")

    def _life(self, node: Node) -> None:
        if node.ttl_s is not None:
            with tag("span", "mc-chip mc-warn"):
                ui.icon("timer")
                self._lives.append((node, ui.label("")))

    def tick(self) -> None:
        """Times to live run down; a look tells what ended."""
        fresh = {one.key: one for one in (self.node, *self.node.nodes)} if self.node is not None else {}
        gone_s = time.monotonic() - self.read_at_s
        for node, text in self._lives:
            ttl_s = fresh.get(node.key, node).ttl_s
            text.set_text(span_text(max(0, round((ttl_s or 0) - gone_s))))

    def _file(self, node: Node) -> None:
        page = self.page
        with div("mc-facts"):
            chip(page.t("v2.modified", index=f"{node.modified:,}"))
            chip(page.t("v2.created", index=f"{node.created:,}"))
            if node.is_hidden:
                chip(page.t("v2.hidden"), "mc-info", "visibility_off")
            if node.is_in_order:
                chip(page.t("v2.in_order"), "mc-info", "tag")
            self._life(node)
            div("mc-grow")
            if page.may_change:
                if self.editing is None:
                    button(page.t("edit"), lambda: self._edit(node), icon="edit", kind="primary")
                self._remove(node)
        if self.editing is None:
            tag_text("pre", node.value, "mc-code mc-pre").props["tabindex"] = "0"
            return
        value = ui.textarea(page.t("value"), value=self.draft).classes("mc-mono")
        value.props("outlined autogrow autofocus spellcheck=false")
        ttl = dialogs.seconds(page, node.ttl_s)

        async def is_told() -> bool:
            """Whether the draft is now what the browser shows."""
            try:
                self.draft = await text_of(value)
            except ValueError as error:
                page.complain(str(error))
                return False
            return True

        async def write() -> None:
            await self._save(node, dialogs.ttl_of(ttl))

        async def save() -> None:
            if await is_told():
                await write()

        async def review() -> None:
            if await is_told():
                key_dialogs.review(page, node.value, self.draft, write)

        with div("mc-dialog-buttons"):
            button(page.t("cancel"), self._stop)
            button(page.t("save"), save)
            button(page.t("edit.review"), review, kind="primary")

    async def _save(self, seen: Node, ttl_s: int | None) -> None:
        """Write the draft; where another client was quicker, it stays, beside what is there now."""
        page = self.page
        try:
            await nodes.save(page.version2, seen, self.draft, ttl_s)
        except Overtaken as error:
            page.complain(f"{page.t('edit.quicker')}: {error}")
            await self.again()
            if self.node is not None and not self.trouble:
                self.editing = self.node
                self.fill()
        except MusterError as error:
            page.complain(str(error))
        else:
            self.editing = None
            await self.again()

    def _edit(self, node: Node) -> None:
        for char, why in (("\r", "v2.returns"), ("\ufffd", "v2.bytes")):
            if char in node.value:
                self.page.complain(self.page.t(why))
                return
        self.editing, self.draft = node, node.value
        self.fill()

    def _stop(self) -> None:
        self.editing = None
        self.fill()

    def _create(self, what: dialogs.What) -> None:
        dialogs.create(self.page, self.key, what, self.done)

    def _remove(self, node: Node) -> None:
        button(
            "",
            lambda: dialogs.remove(self.page, node, self.done),
            icon="delete",
            kind="quiet",
            label=self.page.t("delete"),
        )
