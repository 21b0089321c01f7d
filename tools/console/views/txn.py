"""Transactions: conditions, what is done then, and what else; shown as a request before it is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from muster_client import MusterError
from nicegui import ui

from tools.console.names import shown
from tools.console.store import txn
from tools.console.store.txn import Compare, Form, Step
from tools.console.views.page import Page
from tools.console.views.parts import button, buttons, chip, dialog, div, heading, tag_text

Row = TypeVar("Row")


async def build(page: Page) -> None:
    """An empty form."""
    TxnView(page).draw()


class TxnView:
    """The form of one browser."""

    def __init__(self, page: Page) -> None:
        self.page = page
        key = shown(page.where[1])
        self.form = Form([Compare(key=key)], [Step(key=key)])

    def draw(self) -> None:
        """Everything."""
        page = self.page
        heading(page.t("view.txn"), page.t("txn.text"))
        self.box = div("mc-cards-column")
        self._fill()
        with div("mc-dialog-buttons mc-left-buttons"):
            button(page.t("txn.show"), self._review, icon="visibility", kind="primary")
        self.result = div("mc-cards-column", role="status")

    def _fill(self) -> None:
        form = self.form
        self.box.clear()
        with self.box:
            self._part("txn.if", form.tests, self._test, lambda: form.tests.append(Compare()))
            self._part("txn.then", form.success, self._step, lambda: form.success.append(Step()))
            self._part("txn.else", form.failure, self._step, lambda: form.failure.append(Step(kind="get")))

    def _part(self, name: str, rows: list[Row], draw: Callable[[Row], None], add: Callable[[], None]) -> None:
        page = self.page
        with div("mc-card"):
            with div("mc-card-head"):
                tag_text("h2", page.t(name))
                div("mc-grow")

                def another() -> None:
                    add()
                    self._fill()

                button("", another, icon="add", kind="quiet", label=page.t("txn.add"))
            for row in rows:
                with div("mc-form-row"):
                    draw(row)

                    def drop(row: Row = row) -> None:
                        rows.remove(row)
                        self._fill()

                    button("", drop, icon="close", kind="quiet", label=page.t("txn.remove"))

    def _test(self, row: Compare) -> None:
        page = self.page
        self._choice(txn.TARGETS, row, "target", "txn.target")
        self._field(page.t("key"), row, "key")
        self._choice(txn.SIGNS, row, "sign", "txn.sign")
        self._field(page.t("txn.compared"), row, "value")

    def _step(self, row: Step) -> None:
        page = self.page
        kind = self._choice(txn.KINDS, row, "kind", "txn.kind")
        self._field(page.t("key"), row, "key")
        value = self._field(page.t("value"), row, "value")
        value.bind_visibility_from(kind, "value", value="put")

    def _field(self, label: str, row: Compare | Step, name: str) -> ui.input:
        made = ui.input(label).props("outlined dense spellcheck=false").classes("mc-mono mc-wide-field")
        return made.bind_value(row, name)

    def _choice(self, choices: tuple[str, ...], row: Compare | Step, name: str, label: str) -> ui.select:
        made = ui.select(list(choices)).props("outlined dense options-dense").classes("mc-mono mc-choice")
        made.props["aria-label"] = self.page.t(label)
        return made.bind_value(row, name)

    def _review(self) -> None:
        """The request as it will be sent."""
        page = self.page
        try:
            self.form.txn()
        except ValueError as error:
            page.complain(str(error))
            return
        with page.browser, dialog(page.t("txn.show"), wide=True) as made:
            ui.label(page.t("txn.request")).classes("mc-sub")
            with div("mc-diff mc-request", tabindex="0"):
                ui.label(self.form.text())

            async def do() -> None:
                made.close()
                await self._send()

            if page.may_change:
                buttons(made, page, page.t("txn.send"), do)

    async def _send(self) -> None:
        page = self.page
        try:
            result, lines = await txn.send(page.identity.client, self.form)
        except (MusterError, ValueError) as error:
            page.complain(str(error))
            return
        self.result.clear()
        with self.result, div("mc-card"):
            with div("mc-card-head"):
                tag_text("h2", page.t("txn.result"))
                chip(
                    page.t("txn.held" if result else "txn.failed"), "mc-good" if result else "mc-chip mc-warn"
                )
                chip(page.t("pulse.revision", revision=f"{result.revision:,}"))
            for line in lines:
                ui.label(line).classes("mc-mono mc-strong")
