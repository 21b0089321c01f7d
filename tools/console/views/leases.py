"""Leases, and what is held by them: locks and elections."""

from __future__ import annotations

import time

from muster_client import LeaseNotFound, MusterError
from nicegui import ui

from tools.console.names import shown
from tools.console.store import leases
from tools.console.store.leases import Contest, LeaseRow, Leases
from tools.console.views.page import Page
from tools.console.views.parts import (
    button,
    buttons,
    chip,
    dialog,
    div,
    empty,
    heading,
    key_link,
    span_text,
    tag_text,
)

_READ_EVERY_S = 5.0
_KEYS_SHOWN = 3


async def build(page: Page) -> None:
    """Read them, and go on reading."""
    view = LeasesView(page)
    await view.read()
    view.draw()


class LeasesView:
    """The list of one browser. Times run down by the clock between two looks."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.found = Leases((), 0)
        self.contests: list[Contest] = []
        self.read_at_s = 0.0
        self.left: list[tuple[LeaseRow, ui.label, ui.element]] = []
        self._ages: list[tuple[int, ui.label]] = []
        self._drawn: object = None

    async def read(self) -> None:
        """Look again."""
        client = self.page.identity.client
        self.found = await leases.every(client)
        self.contests = await leases.contests(client, self.found.rows)
        self.read_at_s = time.monotonic()

    def draw(self) -> None:
        """Everything."""
        page = self.page
        with div("mc-heading-row"):
            with div(""):
                heading(page.t("view.leases"), page.t("leases.text"))
            div("mc-grow")
            if page.may_change:
                button(page.t("leases.grant"), self._grant, icon="add", kind="primary")
        self.box = div("mc-cards-column")
        self._fill()
        ui.timer(_READ_EVERY_S, self._again)
        ui.timer(1.0, self._tick)

    async def _again(self) -> None:
        try:
            await self.read()
        except MusterError as error:
            self.page.complain(str(error))
            return
        if self._form() != self._drawn:
            self._fill()
            return
        fresh = {row.id: row for row in self.found.rows}
        self.left = [(fresh[row.id], text, bar) for row, text, bar in self.left]
        self._tick()

    def _form(self) -> object:
        """What is drawn again when it changes; times are told in their places, so that what has the focus of
        the keyboard stays."""
        rows = [(row.id, row.granted_s, row.keys) for row in self.found.rows]
        return rows, self.found.count, self.contests

    def _fill(self) -> None:
        page = self.page
        self._drawn = self._form()
        self.left, self._ages = [], []
        self.box.clear()
        with self.box:
            if self.contests:
                tag_text("h2", page.t("contests"))
                with div("mc-cards"):
                    for contest in self.contests:
                        self._contest(contest)
            tag_text("h2", page.t("leases.count", count=f"{self.found.count:,}"))
            if not self.found.rows:
                empty("timer_off", page.t("leases.none"), page.t("leases.none_text"))
                return
            with div("mc-table", role="table", aria_label=page.t("view.leases")):
                with div("mc-tr mc-th mc-lease", role="row"):
                    for name in ("lease", "leases.left", "leases.keys", ""):
                        ui.label(page.t(name) if name else "").props("role=columnheader")
                for lease in self.found.rows:
                    self._row(lease)
            if self.found.count > len(self.found.rows):
                ui.label(page.t("leases.more", count=len(self.found.rows))).classes("mc-sub")
        self._tick()

    def _row(self, lease: LeaseRow) -> None:
        page = self.page
        with div("mc-tr mc-lease", role="row"):
            ui.label(f"{lease.id:x}").classes("mc-mono").props("role=cell")
            with div("mc-left", role="cell"):
                with div("mc-bar"):
                    bar = div("mc-fill")
                text = ui.label("")
            with div("mc-lease-keys", role="cell"):
                for key in lease.keys[:_KEYS_SHOWN]:
                    key_link(page, key, shown(key))
                if len(lease.keys) > _KEYS_SHOWN:
                    chip(f"+{len(lease.keys) - _KEYS_SHOWN}")
            with div("mc-row-buttons", role="cell"):
                if page.may_change:
                    button(
                        "",
                        lambda: self._keep(lease),
                        icon="restart_alt",
                        kind="quiet",
                        label=page.t("leases.keep"),
                    )
                    button(
                        "",
                        lambda: self._revoke(lease),
                        icon="delete",
                        kind="quiet",
                        label=page.t("leases.revoke"),
                    )
        self.left.append((lease, text, bar))

    def _tick(self) -> None:
        for lease, text, bar in self.left:
            self._tell(lease, text, bar)
        for revision, age in self._ages:
            age_s, older = self.page.identity.recorder.age_s(revision, time.time())
            words = "contests.longer" if older else "contests.about"
            age.set_text(self.page.t(words, span=span_text(round(age_s))))

    def _tell(self, lease: LeaseRow, text: ui.label, bar: ui.element) -> None:
        left_s = max(0, round(lease.left_s - (time.monotonic() - self.read_at_s)))
        told = self.page.t("leases.of", left=span_text(left_s), granted=span_text(lease.granted_s))
        if text.text == told:
            return
        text.set_text(told)
        share = left_s / lease.granted_s if lease.granted_s else 0
        bar.style(f"width: {min(100, round(100 * share))}%")
        bar.classes(add="mc-low" if share < 0.25 else None, remove=None if share < 0.25 else "mc-low")

    def _contest(self, contest: Contest) -> None:
        page = self.page
        with div("mc-card"):
            with div("mc-card-head"):
                ui.icon("how_to_vote" if any(one.value for one in contest.contenders) else "lock")
                ui.label(shown(contest.name)).classes("mc-mono mc-strong")
            for at, one in enumerate(contest.contenders[:6]):
                with div("mc-contender"):
                    chip(
                        page.t("contests.holds" if not at else "contests.waits"), "mc-good" if not at else ""
                    )
                    ui.label(f"{one.lease:x}").classes("mc-mono")
                    if one.value:
                        ui.label(shown(one.value)).classes("mc-preview")
                    ui.label(page.t("contests.since", revision=f"{one.since:,}")).classes("mc-sub")
                    self._ages.append((one.since, ui.label("").classes("mc-sub")))
            if len(contest.contenders) > 6:
                ui.label(page.t("contests.more", count=len(contest.contenders) - 6)).classes("mc-sub")

    def _grant(self) -> None:
        page = self.page
        with page.browser, dialog(page.t("leases.grant")) as made:
            ui.label(page.t("leases.grant_text")).classes("mc-sub")
            ttl = ui.number(page.t("leases.ttl"), value=60, min=1, precision=0).props(
                "outlined dense autofocus"
            )

            async def do() -> None:
                made.close()
                try:
                    lease = await leases.grant(page.identity.client, int(ttl.value or 0))
                except (MusterError, ValueError) as error:  # the latter: a number beyond 64 bits
                    page.complain(str(error))
                    return
                page.say("leases.granted", lease=f"{lease:x}")
                await self._again()

            buttons(made, page, page.t("leases.grant"), do)

    async def _keep(self, lease: LeaseRow) -> None:
        page = self.page
        try:
            await page.identity.client.renew(lease.id)
        except MusterError as error:
            page.complain(str(error))
        else:
            page.say("leases.kept", lease=f"{lease.id:x}")
        await self._again()

    def _revoke(self, lease: LeaseRow) -> None:
        page = self.page
        with page.browser, dialog(page.t("leases.revoke")) as made:
            ui.label(f"{lease.id:x}").classes("mc-mono mc-strong")
            ui.label(page.t("leases.revoke_text", count=len(lease.keys))).classes("mc-sub")

            async def do() -> None:
                made.close()
                try:
                    await leases.revoke(page.identity.client, lease.id)
                except LeaseNotFound:
                    pass  # it has ended by itself
                except MusterError as error:
                    page.complain(str(error))
                await self._again()

            buttons(made, page, page.t("leases.revoke"), do, kind="danger")
