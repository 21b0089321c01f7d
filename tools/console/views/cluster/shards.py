"""Muster's shards: their replicas, births and retirements, owners of keys, and moves of keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from cluster.features.growth import BIRTHS
from cluster.placement import Table
from cluster.placement.table import END, Piece, State
from tools.console.store import moves, shards
from tools.console.store.cluster import Picture
from tools.console.store.moves import NO_ROOM, Copy, Move
from tools.console.store.shards import Replica, Shards
from tools.console.views.cluster import shard_dialogs
from tools.console.views.page import Page
from tools.console.views.parts import Do, button, chip, div, more_button, size_text, sure, tag_text

_MOST_ROWS = 100  # of a table of placement, which has a thousand spans at most
_STATES = {State.FORMING: "mc-info", State.RETIRING: "mc-warn", State.DROPPED: "mc-bad"}


class ShardsView:
    """The shards of one browser. ``do`` does a step, reports a refusal, and looks again."""

    def __init__(self, page: Page, do: Do) -> None:
        self.page, self._do = page, do
        self._picture, self._shards = Picture(0, ()), Shards()
        self._figures: dict[tuple[int, str], tuple[ui.label, ui.label, ui.label]] = {}

    def form(self, found: Shards) -> object:
        """What is drawn again when it changes; of replicas not their figures."""
        replicas = [(one.shard, one.host, one.up, one.role) for one in found.replicas]
        return replicas, found.table, found.growth, found.moves

    def tell(self, found: Shards) -> None:
        """The figures of replicas as of now."""
        page = self.page
        for one in found.replicas:
            if (labels := self._figures.get((one.shard, one.host))) is None:
                continue
            newest = max(other.order_index for other in found.replicas if other.shard == one.shard)
            keys, cpu, behind = labels
            keys.set_text(page.t("keys.count", count=f"{one.keys:,}"))
            cpu.set_text(page.t("cluster.cpu", share=f"{one.cpu_share:.0%}"))
            lag = newest - one.order_index
            behind.set_text(page.t("cluster.behind", lag=f"{lag:,}") if lag else "")

    def draw(self, picture: Picture, found: Shards) -> None:
        """Everything, in the element that is open."""
        self._picture, self._shards = picture, found
        self._figures.clear()
        if not found.replicas:
            return
        self._head()
        self._replicas()
        for move in reversed(found.moves or ()):
            self._move(move)
        if found.moves is None and found.move is not None:  # of hosts that tell the table alone
            self._move(found.move)
        if found.table is not None:
            self._placement(found.table)

    def _head(self) -> None:
        page, found = self.page, self._shards
        growth, table = found.growth, found.table
        with div("mc-heading-row"):
            with div(""):
                tag_text("h2", page.t("cluster.shards"))
                ui.label(page.t("cluster.shards_text")).classes("mc-sub")
            div("mc-grow")
            if self._may_move:
                button(page.t("shard.split"), lambda: shard_dialogs.split(page, found, self._do))
                button(
                    page.t("shard.move"),
                    lambda: shard_dialogs.move(page, found, self._do),
                    icon="drive_file_move",
                )
            if page.may_manage and growth is not None and growth.level >= BIRTHS:
                button(page.t("shard.add"), self._add, icon="add")
            elif page.may_manage and growth is not None and growth.level < growth.known:
                button(page.t("shard.grow"), self._grow, icon="trending_up")
        with div("mc-facts"):
            if table is not None:
                chip(page.t("shard.generation", number=f"{table.generation:,}"))
            if growth is not None:
                chip(page.t("shard.level", level=growth.level, known=growth.known))
                if growth.lacking:
                    chip(page.t("shard.lacking", hosts=", ".join(growth.lacking)), "mc-warn", "warning")

    @property
    def _may_move(self) -> bool:
        return self.page.may_manage and self._shards.moves is not None and len(self._shards.targets) > 1

    def _replicas(self) -> None:
        """A line for each shard, a place in it for each host's replica."""
        page, found = self.page, self._shards
        hosts = [member.name for member in self._picture.members]
        columns = f"grid-template-columns: 130px repeat({len(hosts)}, minmax(0, 1fr)) 40px"
        with div("mc-table", role="table", aria_label=page.t("cluster.shards")):
            with div("mc-tr mc-th", role="row").style(columns):
                for name in ("", *hosts, ""):
                    ui.label(name).props("role=columnheader")
            for shard in found.running:
                here = {one.host: one for one in found.replicas if one.shard == shard}
                state = found.state(shard)
                with div("mc-tr", role="row").style(columns):
                    with div("mc-replica", role="rowheader"):
                        ui.label(page.t("cluster.shard", shard=shard)).classes("mc-strong")
                        if state is not State.SERVING:
                            chip(page.t(f"shard.{state.name.lower()}"), _STATES[state])
                    for host in hosts:
                        with div("mc-replica", role="cell"):
                            self._replica(here.get(host), state)
                    with div("", role="cell"):
                        self._menu(shard, state)

    def _replica(self, one: Replica | None, state: State) -> None:
        page = self.page
        if one is None or not one.up:
            if state is not State.FORMING:
                chip(page.t("cluster.down"), "mc-bad")
            return
        if one.is_leader:
            chip(page.t("cluster.leader"), "mc-good", "star")
        else:
            chip(page.t("cluster.follower"))
        figures = ui.label(""), ui.label(""), ui.label("")
        for figure in figures:
            figure.classes("mc-sub")
        self._figures[one.shard, one.host] = figures

    def _menu(self, shard: int, state: State) -> None:
        page, found = self.page, self._shards
        grown = found.growth is not None and found.growth.level >= BIRTHS
        if not page.may_manage or not shard or state is not State.SERVING or not grown:
            return
        with more_button(page.t("shard.more", shard=shard)), ui.menu():
            if self._may_move:
                ui.menu_item(
                    page.t("shard.move_here"),
                    lambda: shard_dialogs.move(page, found, self._do, target=shard),
                )
            ui.menu_item(
                page.t("shard.retire"), lambda: shard_dialogs.retire(page, found, shard, self._do)
            ).classes("mc-danger-item")

    def _move(self, one: Move) -> None:
        """A move of keys, with the copy of each host."""
        page = self.page
        with div(f"mc-card{' mc-leads' if one.goes_on else ''}"):
            with div("mc-card-head"):
                ui.icon("drive_file_move")
                tag_text("h2", page.t("move.title", number=one.number))
                chip(page.t(f"move.{one.step}"), "mc-info" if one.goes_on else "")
                if one.failed_switches:
                    chip(page.t("move.failed", count=one.failed_switches), "mc-warn", "warning")
                div("mc-grow")
                if one.goes_on and page.may_manage and self._shards.moves is not None:
                    button(page.t("move.cancel"), lambda: self._cancel(one.number), kind="danger")
            with div("mc-facts"):
                chip(shard_dialogs.span_text(page, one.keys), "mc-mono")
                sources = ", ".join(page.t("cluster.shard", shard=shard) for shard in one.sources)
                ui.label(f"{sources} → {page.t('cluster.shard', shard=one.target)}").classes("mc-strong")
            for copy in one.copies:
                self._copy(copy)

    def _copy(self, one: Copy) -> None:
        page = self.page
        with div("mc-replica"):
            ui.label(one.host).classes("mc-strong")
            ui.label(page.t("keys.count", count=f"{one.keys:,}")).classes("mc-sub")
            ui.label(size_text(one.size_bytes)).classes("mc-sub")
            if one.whole:
                chip(page.t("move.whole"), "mc-good", "check")
            if one.lag_ms >= 0:
                ui.label(page.t("move.lag", lag=f"{one.lag_ms:,}")).classes("mc-sub")
            elif one.lag_ms == NO_ROOM:
                chip(page.t("move.no_room"), "mc-warn", "warning")

    def _placement(self, table: Table) -> None:
        """Owners of keys now, and owners at revisions that can still be read."""
        page = self.page
        with div("mc-table", role="table", aria_label=page.t("placement")):
            with div("mc-tr mc-th", role="row"):
                ui.label(page.t("placement")).props("role=columnheader")
            pieces = table.present(END, END)
            for one in pieces[:_MOST_ROWS]:
                since = page.t("placement.since", revision=one.first) if one.first else ""
                self._piece(one, since, movable=self._may_move)
        self._further(len(pieces))
        if table.past:
            with div("mc-table", role="table", aria_label=page.t("placement.past")):
                with div("mc-tr mc-th", role="row"):
                    ui.label(page.t("placement.past")).props("role=columnheader")
                for one in table.past[:_MOST_ROWS]:
                    self._piece(one, page.t("placement.revisions", first=one.first, last=one.last))
            self._further(len(table.past))
            ui.label(page.t("placement.past_text")).classes("mc-sub")

    def _piece(self, one: Piece, when: str, *, movable: bool = False) -> None:
        page, found = self.page, self._shards
        keys = shard_dialogs.span(one.start, one.end)
        with div("mc-tr mc-span", role="row"):
            ui.label(shard_dialogs.span_text(page, keys)).classes("mc-mono mc-key").props("role=rowheader")
            with div("mc-replica", role="cell"):
                owner = shards.owner(one)
                if owner is None:
                    ui.label(self._rule()).classes("mc-sub")
                else:
                    chip(page.t("cluster.shard", shard=owner), "mc-info")
                ui.label(when).classes("mc-sub")
            with div("", role="cell"):
                if movable:
                    button(
                        "",
                        lambda: shard_dialogs.move(page, found, self._do, keys=keys),
                        icon="drive_file_move",
                        kind="quiet",
                        label=page.t("shard.move_these", keys=shard_dialogs.span_text(page, keys)),
                    )

    def _further(self, count: int) -> None:
        if count > _MOST_ROWS:
            ui.label(self.page.t("services.more", count=count - _MOST_ROWS)).classes("mc-sub")

    def _rule(self) -> str:
        """Owners of keys that never moved."""
        table = self._shards.table
        if table is None or table.base.shards == 1:
            return self.page.t("cluster.shard", shard=0)
        return self.page.t("placement.hash", last=table.base.shards - 1, depth=table.base.depth)

    def _ask(
        self, title: str, text: str, step: Callable[[], Awaitable[None]], *, name: str = "", typed: str = ""
    ) -> None:
        sure(self.page, self.page.t(title), name, self.page.t(text), step, self._do, typed=typed)

    def _add(self) -> None:
        async def step() -> None:
            await moves.add(self.page.identity.client)

        self._ask("shard.add", "shard.add_text", step)

    def _grow(self) -> None:
        async def step() -> None:
            await moves.enable_growth(self.page.identity.client)

        self._ask("shard.grow", "shard.grow_text", step, typed="growth")

    def _cancel(self, number: int) -> None:
        page = self.page
        name = page.t("move.title", number=number)
        self._ask(
            "move.cancel", "move.cancel_text", lambda: moves.cancel(page.identity.client, number), name=name
        )
