"""The cluster: its hosts as a picture, and what can be done to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from muster_client import MusterError
from nicegui import ui

from tools.console.store import cluster, shards
from tools.console.store.cluster import Member, Picture
from tools.console.store.shards import Shards
from tools.console.views.cluster import dialogs
from tools.console.views.cluster.shards import ShardsView
from tools.console.views.page import Page
from tools.console.views.parts import (
    button,
    buttons,
    chip,
    dialog,
    div,
    heading,
    more_button,
    size_text,
    sure,
    tag,
    tag_text,
)

_READ_EVERY_S = 2.0


async def build(page: Page) -> None:
    """Read the picture, and go on reading."""
    view = ClusterView(page)
    await view.read()
    view.draw()


class ClusterView:
    """The picture of one browser."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.picture = Picture(0, ())
        self.found = Shards()
        self._shards = ShardsView(page, self._done)
        self._drawn: object = None
        self._figures: dict[tuple[int, str], ui.label] = {}
        self._bars: dict[int, ui.element] = {}

    async def read(self) -> None:
        """Look again."""
        identity = self.page.identity
        self.picture = await cluster.picture(identity.client, identity.hosts)
        self.found = await shards.look(identity.client, self.picture.members, identity.tls)

    def draw(self) -> None:
        """Everything."""
        page = self.page
        with div("mc-heading-row"):
            with div(""):
                heading(page.t("view.cluster"), page.t("cluster.text"))
            div("mc-grow")
            if page.rights.everything:
                button(page.t("cluster.snapshot"), self._snapshot, icon="download")
            if page.may_change:
                button(page.t("cluster.compact"), self._compact, icon="compress")
            if page.may_manage:
                button(page.t("member.add"), lambda: dialogs.add_learner(page, self._again), icon="add")
        self.trouble = div("mc-trouble", role="alert")
        self.facts = div("mc-facts")
        self.hosts = div("mc-cards")
        self.below = div("mc-cards-column")
        self._fill()
        self._tell()
        ui.timer(_READ_EVERY_S, self._again)

    async def _again(self) -> None:
        self.trouble.clear()
        try:
            await self.read()
        except MusterError as error:
            with self.trouble:
                ui.icon("cloud_off")
                ui.label(str(error))
            return
        if self._form() != self._drawn:
            self._fill()
        self._tell()

    def _form(self) -> object:
        """What is drawn again when it changes. Figures change in place, so open menus and the focus stay."""
        hosts = [
            (one.id, one.name, one.client_urls, one.peer_urls, one.is_learner, one.is_leader, one.error)
            for one in self.picture.members
        ]
        return hosts, self.picture.cluster_id, self.picture.alarms, self._shards.form(self.found)

    def _tell(self) -> None:
        """The figures as of now."""
        self.revision.set_text(self.page.t("pulse.revision", revision=f"{self.picture.revision:,}"))
        for member in self.picture.members:
            if member.error:
                continue
            for name, text in self._told(member).items():
                self._figures[member.id, name].set_text(text)
            share = _share(member)
            bar = self._bars[member.id].style(f"width: {max(1, share)}%")
            bar.classes(add="mc-low" if share > 80 else None, remove=None if share > 80 else "mc-low")
        self._shards.tell(self.found)

    def _fill(self) -> None:
        page, picture = self.page, self.picture
        self._drawn = self._form()
        self._figures.clear()
        self._bars.clear()
        self.facts.clear()
        with self.facts:
            chip(page.t("cluster.id", id=f"{picture.cluster_id:x}"), "mc-mono")
            chip(page.t("cluster.members", count=len(picture.members)))
            with tag("span", "mc-chip"):
                self.revision = ui.label("")
            if picture.leader is None:
                chip(page.t("cluster.no_leader"), "mc-bad", "warning")
            for alarm in picture.alarms:
                chip(alarm, "mc-bad", "notification_important")
            if picture.alarms and page.may_change:
                button(page.t("cluster.disarm"), self._disarm)
        self.hosts.clear()
        with self.hosts:
            for member in picture.members:
                self._host(member)
        self.below.clear()
        with self.below:
            self._shards.draw(picture, self.found)

    def _host(self, member: Member) -> None:
        page = self.page
        with div(
            f"mc-card mc-host{' mc-leads' if member.is_leader else ''}{' mc-down' if member.error else ''}"
        ):
            with div("mc-card-head"):
                ui.icon("dns")
                tag_text("h2", member.name or f"{member.id:x}")
                div("mc-grow")
                if member.error:
                    chip(page.t("cluster.down"), "mc-bad")
                elif member.is_leader:
                    chip(page.t("cluster.leader"), "mc-good", "star")
                else:
                    chip(page.t("cluster.learner" if member.is_learner else "cluster.follower"))
                self._menu(member)
            if member.error:
                why = page.words.reason(member.error)
                ui.label(why if member.client_urls else page.t("cluster.not_started")).classes("mc-problem")
            else:
                self._state(member)
            for url in member.client_urls:
                ui.label(url).classes("mc-mono mc-sub")

    def _told(self, member: Member) -> dict[str, str]:
        """Figures of a host, by their names' texts."""
        page, lag = self.page, self.picture.revision - member.revision
        used, whole = _room(member)
        return {
            "cluster.version": member.version,
            "revision": f"{member.revision:,}",
            "cluster.lag": f"{lag:,}" if lag else page.t("cluster.none"),
            "cluster.term": f"{member.raft_term:,}",
            "cluster.index": f"{member.raft_index:,}",
            "cluster.applied": f"{member.raft_applied:,}",
            "cluster.size": page.t("cluster.size", used=size_text(used), whole=size_text(whole)),
        }

    def _state(self, member: Member) -> None:
        *cells, size = self._told(member)
        with div("mc-grid"):
            for name in cells:
                with div("mc-cell"):
                    ui.label(self.page.t(name)).classes("mc-sub")
                    self._figures[member.id, name] = ui.label("").classes("mc-figure")
        with div("mc-left"):
            with div("mc-bar"):
                self._bars[member.id] = div("mc-fill")
            self._figures[member.id, size] = ui.label("")

    def _menu(self, member: Member) -> None:
        page = self.page
        if not page.may_manage:
            return
        with more_button(page.t("more")), ui.menu():
            leader = self.picture.leader
            if leader is not None and not (member.is_leader or member.is_learner or member.error):
                self._item(
                    "cluster.move",
                    member,
                    lambda: cluster.move_leader(page.identity.hosts, leader, member.id),
                )
            if member.is_learner:
                self._item("member.promote", member, lambda: page.identity.client.members.promote(member.id))
            if not member.error:
                self._item(
                    "cluster.defragment", member, lambda: cluster.defragment(page.identity.hosts, member)
                )
            ui.menu_item(page.t("member.update"), lambda: dialogs.update(page, member, self._done))
            ui.menu_item(page.t("member.remove"), lambda: dialogs.remove(page, member, self._done)).classes(
                "mc-danger-item"
            )

    def _item(self, name: str, member: Member, step: Callable[[], Awaitable[None]]) -> None:
        """Something that a menu offers; the text of what it does is beside its name."""
        ui.menu_item(self.page.t(name), lambda: self._ask(name, f"{name}_text", member, step))

    def _ask(self, title: str, text: str, member: Member, step: Callable[[], Awaitable[None]]) -> None:
        """Say what an action does, then do it."""
        page = self.page
        with page.browser, dialog(page.t(title)) as made:
            ui.label(member.name).classes("mc-mono mc-strong")
            ui.label(page.t(text)).classes("mc-sub")

            async def do() -> None:
                made.close()
                await self._done(step())

            buttons(made, page, page.t(title), do)

    async def _done(self, step: Awaitable[None]) -> None:
        try:
            await step
        except (MusterError, ValueError) as error:  # the latter: a number beyond 64 bits
            self.page.complain(str(error))
        else:
            self.page.say("cluster.done")
        await self._again()

    def _disarm(self) -> None:
        page = self.page
        sure(
            page,
            page.t("cluster.disarm"),
            ", ".join(self.picture.alarms),
            page.t("cluster.disarm_text"),
            lambda: cluster.disarm(page.identity.client),
            self._done,
        )

    def _snapshot(self) -> None:
        with self.page.browser, dialog(self.page.t("cluster.snapshot")) as made:
            ui.label(self.page.t("cluster.snapshot_text")).classes("mc-sub")

            def do() -> None:
                made.close()
                ui.navigate.to("/snapshot")

            buttons(made, self.page, self.page.t("cluster.snapshot"), do)

    def _compact(self) -> None:
        page = self.page
        with page.browser, dialog(page.t("cluster.compact")) as made:
            ui.label(page.t("cluster.compact_text")).classes("mc-sub")
            number = ui.number(page.t("revision"), value=self.picture.revision, min=1, precision=0)
            number.props("outlined dense autofocus")

            async def do() -> None:
                made.close()
                await self._done(page.identity.client.compact(int(number.value or 0)))

            buttons(made, page, page.t("cluster.compact"), do, kind="danger")


def _room(member: Member) -> tuple[int, int]:
    """Bytes that a host uses, of how many."""
    return member.in_use_bytes or member.size_bytes, member.quota_bytes or member.size_bytes


def _share(member: Member) -> int:
    """How much of its room a host uses, in percent."""
    used, whole = _room(member)
    return min(100, round(100 * used / whole)) if whole else 0
