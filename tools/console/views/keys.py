"""Keys: the tree or a flat list at one side, the value of the chosen key at the other."""

from __future__ import annotations

import asyncio
from typing import Any

from muster_client import EVERYTHING, Compacted, FutureRevision, KeyRange, MusterError, PermissionDenied
from nicegui import events, ui

from tools.console.names import address, parse_address, range_text, revision_of, search, shown
from tools.console.store.hub import Told
from tools.console.store.keys import tree
from tools.console.store.keys.history import oldest_revision
from tools.console.store.keys.outline import Outline, Row
from tools.console.views import key_dialogs
from tools.console.views.page import Page
from tools.console.views.parts import button, chip, div, empty, tag_text
from tools.console.views.value import ValuePane

_ROW = """
<div class="mc-row" :class="[props.item.k, props.item.s ? 'on' : '']" role="treeitem"
  :id="'mc-row-' + props.item.i"
  :aria-level="props.item.d + 1" :aria-expanded="props.item.k == 'directory' ? !!props.item.o : undefined"
  :aria-selected="!!props.item.s" :style="{paddingLeft: 10 + 16 * props.item.d + 'px'}"
  @click="() => $parent.$emit('pick', props.item.i)">
  <i class="material-icons mc-caret" aria-hidden="true">{{props.item.k == 'directory' ?
    (props.item.o ? 'expand_more' : 'chevron_right') : ''}}</i>
  <i class="material-icons mc-kind" aria-hidden="true">{{props.item.m}}</i>
  <span class="mc-name">{{props.item.n}}</span>
  <span class="mc-count">{{props.item.c}}</span>
</div>
"""
_ICONS = {"directory": "folder", "key": "notes", "more": "more_horiz", "first": "first_page"}
_MOVES = """(e) => { if (/^(Arrow(Up|Down|Left|Right)|Enter|Home|End)$/.test(e.key)) {
  e.preventDefault(); emit(e.key); } }"""
_SETTLED_S = 0.3  # changes of so long are drawn together
_AGAIN_S = 2.0  # until what the cluster did not count is counted again


async def build(page: Page) -> None:
    """The view of an address."""
    await KeysView(page).open()


class KeysView:
    """The two panes of one browser."""

    def __init__(self, page: Page) -> None:
        self.page = page
        _, self.key, query = page.where
        self.revision = revision_of(query.get("rev", ""))
        self.search = query.get("search", "")
        self.flat = query.get("flat") == "1"
        self._rows: list[Row] = []
        self._at = ""
        """The row where the keyboard stands, by its ID; empty: at the key that is shown."""
        self._dirty = asyncio.Event()
        self._error = ""
        self._missed = False  # changes: everything is to be read again
        self._early: list[Told] | None = []  # what came before there was anything to show it

    async def open(self) -> None:
        """Draw everything, and follow changes from then on."""
        page = self.page
        try:
            where = search(self.search)
        except ValueError:
            empty("search_off", page.t("search.none"), self.search)
            return
        as_list = self.flat or bool(self.search)
        self.outline = Outline(page.identity.client, revision=self.revision, flat=where if as_list else None)
        followed = where if as_list else EVERYTHING
        if not self.revision:
            page.on_leave(page.identity.hub.follow(followed, self._told))
            await page.identity.hub.begun(followed)  # no change is missed between the list and what follows
        if not await self._listed():
            page.leave()
            return
        self.frame = div("mc-keysview" + (" has-key" if self.key else ""))
        with self.frame:
            with div("mc-side"):
                self._toolbar(where, as_list)
                self._tree()
            with div("mc-value"):
                self.value = ValuePane(page, self.revision, self.choose)
        page.stays = self.stays
        self._keep_up()
        await self.value.show(self.key)
        if self.key:
            page.run(self._reveal())

    async def _listed(self) -> bool:
        """Read the first page; False: it is said why there is none."""
        page = self.page
        try:
            await self.outline.start()
        except PermissionDenied as error:
            if not page.identity.user and "user name is empty" in str(error):
                page.browser.open(page.path)  # users were enabled meanwhile: ask for a name
            elif not self.search and (name := _searched(self.key)):
                page.instead(address("keys", self.key, search=name, rev=self.revision))
            else:
                self.denied(str(error))
        except (Compacted, FutureRevision) as error:
            empty("history_toggle_off", page.t("rev.gone", revision=self.revision), str(error))
            button(page.t("rev.now"), lambda: page.go(address("keys", self.key)), icon="update")
        else:
            return True
        return False

    async def _reveal(self) -> None:
        """Open the tree at the key of the address: the value is shown by then."""
        await self.outline.reveal(self.key)
        if self.list.is_deleted:  # the view was left
            return
        self._draw()
        self._scroll()
        self._dirty.set()

    def denied(self, reason: str) -> None:
        """A user that may not list everything opens what it may by name."""
        empty("lock", self.page.t("keys.denied"), reason)
        ui.label(self.page.t("keys.denied_text")).classes("mc-sub mc-center")

    def stays(self, path: str) -> bool:
        """Whether another address of this view needs nothing but another key."""
        _, key, query = parse_address(path)
        if revision_of(query.get("rev", "")) != self.revision:
            return False
        if query.get("search", "") != self.search or (query.get("flat") == "1") != self.flat:
            return False
        self.page.run(self._choose(key))
        return True

    def choose(self, key: bytes) -> None:
        """Show a key, and write its address."""
        self.page.mark(self.address(key))
        self.page.run(self._choose(key))

    def address(self, key: bytes = b"", **changed: str | int) -> str:
        """The address of this view with a key, or otherwise changed."""
        query: dict[str, str | int] = {"search": self.search, "flat": int(self.flat), "rev": self.revision}
        return address("keys", key, **(query | changed))

    async def _choose(self, key: bytes) -> None:
        self.key = key
        if self._at != f"k{key.hex()}":
            self._at = ""
        self.frame.classes(add="has-key" if key else None, remove=None if key else "has-key")
        if key:
            await self.page.told(self.outline.reveal(key))
            if key != self.key:  # another one was chosen meanwhile
                return
        self._draw()
        await self.value.show(key)

    def _toolbar(self, where: KeyRange, as_list: bool) -> None:
        page = self.page
        with div("mc-tools"):
            if self.search:
                chip(range_text(where) or "*", "mc-mono", "filter_alt")
                button(
                    "",
                    lambda: page.go(address("keys", rev=self.revision)),
                    icon="close",
                    kind="quiet",
                    label=page.t("search.clear"),
                )
            else:
                flat = int(not self.flat)
                button(
                    "",
                    lambda: page.go(self.address(self.key, flat=flat)),
                    kind="quiet",
                    icon="account_tree" if self.flat else "format_list_bulleted",
                    label=page.t("keys.tree" if self.flat else "keys.flat"),
                )
            if as_list and self.outline.total is not None:
                chip(page.t("keys.count", count=f"{self.outline.total:,}"))
            div("mc-grow")
            button(
                "",
                lambda: page.run(self._travel(where.start)),
                icon="history",
                kind="quiet",
                label=page.t("rev.travel"),
            )
            button(
                "",
                lambda: key_dialogs.export_dialog(page, where, self.revision),
                icon="download",
                kind="quiet",
                label=page.t("export"),
            )
            if page.may_write_some and not self.revision:
                button(
                    "",
                    lambda: key_dialogs.import_dialog(page),
                    icon="upload",
                    kind="quiet",
                    label=page.t("import"),
                )
                button(page.t("keys.new"), self._new, icon="add", kind="primary")
        if self.revision:
            with div("mc-banner", role="status"):
                ui.icon("history")
                ui.label(page.t("rev.banner", revision=f"{self.revision:,}"))
                button(page.t("rev.now"), lambda: page.go(self.address(self.key, rev=0)))
        self._trouble = div("mc-trouble", role="alert")

    def _new(self) -> None:
        near = tree.parents(self.key)
        key_dialogs.new_key(self.page, near[-1] if near else b"/", self.choose)

    def _tree(self) -> None:
        self.list = ui.element("q-virtual-scroll").classes("mc-tree scroll")
        self.list.props["virtual-scroll-item-size"] = 30
        self.list.props["items"] = []
        self.list.props["role"] = "tree"
        self.list.props["tabindex"] = 0
        self.list.props["aria-label"] = self.page.t("view.keys")
        self.list.add_slot("default", _ROW)
        self.list.on("pick", self._pick)
        self.list.on("keydown", self._move, js_handler=_MOVES)
        self.nothing = div("mc-none")
        with self.nothing:
            empty("inbox", self.page.t("keys.none"), self.page.t("keys.none_text"))
        self._draw()

    def _draw(self) -> None:
        if self.list.is_deleted:  # the view was left
            return
        self._rows = list(self.outline.rows())
        if all(row.id != self._at for row in self._rows):
            self._at = ""
        self.list.props["items"] = [self._item(at, row) for at, row in enumerate(self._rows)]
        self._point()
        self.list.set_visibility(bool(self._rows))
        self.nothing.set_visibility(not self._rows)

    def _stands(self, row: Row) -> bool:
        """Whether a row is the one that is chosen."""
        return row.id == self._at if self._at else row.kind == "key" and row.path == self.key

    def _chosen(self) -> int:
        return next((at for at, row in enumerate(self._rows) if self._stands(row)), -1)

    def _point(self) -> None:
        """Tell the browser what is chosen; screen readers by the list's property."""
        at = self._chosen()
        self.list.props["aria-activedescendant"] = f"mc-row-{at}" if at >= 0 else ""
        self.list.update()

    def _scroll(self) -> None:
        """Have the chosen key in sight."""
        at = next((at for at, row in enumerate(self._rows) if row.kind == "key" and row.path == self.key), -1)
        if at >= 0:
            self.list.run_method("scrollTo", at, "center")

    def _item(self, at: int, row: Row) -> dict[str, Any]:
        icon = _ICONS[row.kind]
        if row.kind == "directory":
            icon = "folder_open" if row.is_open else "folder"
        elif row.kv is not None and row.kv.lease:
            icon = "timer"
        name = shown(row.name) if row.name else self.page.t(f"keys.{row.kind}")
        count = f"{row.count:,}" if row.count is not None else ""
        return {
            "i": at,
            "k": row.kind,
            "d": row.depth,
            "o": row.is_open,
            "m": icon,
            "n": name,
            "c": count,
            "s": self._stands(row),
        }

    def _pick(self, event: events.GenericEventArguments) -> None:
        if isinstance(event.args, int) and 0 <= event.args < len(self._rows):
            self._at = self._rows[event.args].id
            self._act(self._rows[event.args])

    def _act(self, row: Row) -> None:
        if row.kind == "key":
            self.choose(row.path)
        else:
            self.page.run(self._turn(row))

    async def _turn(self, row: Row) -> None:
        if row.kind == "more":
            await self.outline.more(row.path)
        elif row.kind == "first":
            await self.outline.first(row.path)
        elif row.is_open:
            self.outline.close(row.path)
        else:
            await self.outline.open(row.path)
        self._draw()
        self._dirty.set()

    def _move(self, event: events.GenericEventArguments) -> None:
        """The keys of the keyboard, as trees have them: rows are walked through, the value follows."""
        at = self._chosen()
        last = len(self._rows) - 1
        match str(event.args):
            case "ArrowDown":
                self._stand(min(at + 1, last))
            case "ArrowUp":
                self._stand(max(at - 1, 0))
            case "Home":
                self._stand(0)
            case "End":
                self._stand(last)
            case "ArrowRight" | "ArrowLeft" | "Enter" if 0 <= at <= last:
                row = self._rows[at]
                if event.args == "Enter" or (
                    row.kind == "directory" and row.is_open == (event.args == "ArrowLeft")
                ):
                    self._act(row)
                elif event.args == "ArrowLeft":
                    self._stand(self._above(row))

    def _above(self, row: Row) -> int:
        """The place of the directory that a row lies in; -1: none."""
        above = [one for one in tree.parents(row.path) if row.kind != "directory" or one != row.path][-1:]
        lines = enumerate(self._rows)
        return next((at for at, one in lines if one.kind == "directory" and [one.path] == above), -1)

    def _stand(self, at: int) -> None:
        if not 0 <= at < len(self._rows):
            return
        self._at = self._rows[at].id
        items = self.list.props["items"]
        for n, item in enumerate(items):
            item["s"] = n == at
        self._point()
        self.list.run_method("scrollTo", at, "center")
        if self._rows[at].kind == "key":
            self.choose(self._rows[at].path)

    def _told(self, told: Told) -> None:
        if self._early is not None:
            self._early.append(told)
            return
        if told.error != self._error:
            self._error = told.error
            self._trouble.clear()
            if told.error:
                with self._trouble:
                    ui.icon("sync_problem")
                    ui.label(self.page.t("not_live", reason=told.error))
        self._missed |= told.missed
        if self.outline.apply(told.events) or told.missed:
            self._dirty.set()
        self.value.tell(told.events)

    def _keep_up(self) -> None:
        """Show what came meanwhile, and what comes from now on."""
        early, self._early = self._early or [], None
        for told in early:
            self._told(told)
        drawing = self.page.run(self._keep_drawn())
        self.page.on_leave(lambda: _cancel(drawing))
        self._dirty.set()

    async def _keep_drawn(self) -> None:
        """Draw what changed, and count what is not counted, at most a few times a second."""
        refused = False
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            self._draw()
            try:
                if self._missed:
                    await self._read_again()
                counted = await self.outline.count()
            except MusterError as error:
                if not refused:
                    self.page.complain(str(error))
                refused = True
                self._dirty.set()
                await asyncio.sleep(_AGAIN_S)
                continue
            refused = False
            if self.outline.drop_empty() or counted:
                self._draw()
            await asyncio.sleep(_SETTLED_S)

    async def _read_again(self) -> None:
        """Show what is there after changes were missed. MusterError."""
        self._missed = False
        self.page.run(self.value.show(self.key))
        try:
            await self.outline.again()
            await self.outline.reveal(self.key)
        except MusterError:
            self._missed = True
            raise
        self._draw()

    async def _travel(self, listed: bytes) -> None:
        """Choose a revision by a slider, from the compaction to now. ``listed``: a key that may be read."""
        page = self.page
        pages = page.identity.client.range(listed, keys_only=True, page=1)
        await pages.next()
        oldest = await oldest_revision(page.identity.client, listed)
        with page.browser, ui.dialog() as made, div("mc-dialog"):
            tag_text("h2", page.t("rev.travel"))
            ui.label(page.t("rev.text")).classes("mc-sub")
            number = ui.number(
                value=self.revision or pages.revision, min=oldest, max=pages.revision, precision=0
            ).props("outlined dense")
            number.props["aria-label"] = page.t("revision")
            ui.slider(min=oldest, max=pages.revision, value=self.revision or pages.revision).bind_value(
                number
            )
            with div("mc-ends"):
                ui.label(f"{oldest:,}")
                ui.label(f"{pages.revision:,}")

            def show(revision: int) -> None:
                made.close()
                page.go(self.address(self.key, rev=revision))

            with div("mc-dialog-buttons"):
                button(page.t("rev.now"), lambda: show(0))
                button(page.t("rev.show"), lambda: show(int(number.value or 0)), kind="primary")
        made.open()


def _searched(key: bytes) -> str:
    """A search that lists a key, and what begins with its name; empty: there is none."""
    text = shown(key)
    return "" if ".." in text or text != text.strip() else text


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
