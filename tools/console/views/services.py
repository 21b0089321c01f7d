"""Services, and their instances that are alive."""

from __future__ import annotations

from muster_client import MusterError
from nicegui import ui

from tools.console.names import address, key_of, shown
from tools.console.store import services
from tools.console.store.services import Registry, Service
from tools.console.views.page import Page
from tools.console.views.parts import chip, div, empty, heading, key_link, span_text, tag_text
from tools.console.views.value import preview

_READ_EVERY_S = 3.0
_SHOWN = 12  # instances of a service


async def build(page: Page) -> None:
    """Read them, and go on reading."""
    view = ServicesView(page)
    await view.read()
    view.draw()


class ServicesView:
    """The services of one browser."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.root = key_of(page.where[2].get("root", ""))
        self.found = Registry(b"", (), True)
        self._left: dict[bytes, ui.label] = {}
        self._drawn: object = None

    async def read(self) -> None:
        """Look again."""
        self.found = await services.registry(self.page.identity.client, self.root)

    def draw(self) -> None:
        """Everything."""
        page = self.page
        heading(page.t("view.services"), page.t("services.text"))
        with div("mc-tools"):
            root = ui.input(value=shown(self.found.root)).props("outlined dense spellcheck=false")
            root.classes("mc-filter mc-mono").props["aria-label"] = page.t("services.root")
            root.on("keydown.enter", lambda: page.go(address("services", root=str(root.value or ""))))
            self.facts = div("mc-facts")
        self.cards = div("mc-cards")
        self._fill()
        self._tell()
        ui.timer(_READ_EVERY_S, self._again)

    async def _again(self) -> None:
        try:
            await self.read()
        except MusterError as error:
            self.page.complain(str(error))
            return
        if self._form() != self._drawn:
            self._fill()
        self._tell()

    def _form(self) -> object:
        """What is drawn again when it changes; times are told in their places, so that what has the focus of
        the keyboard stays."""
        rows = [
            (service.name, [(one.key, one.value, one.is_alive) for one in service.instances])
            for service in self.found.services
        ]
        return rows, self.found.root, self.found.whole

    def _tell(self) -> None:
        """How long the leases last."""
        for service in self.found.services:
            for one in service.instances:
                if (label := self._left.get(one.key)) is not None:
                    label.set_text(span_text(one.left_s) if one.left_s is not None else "")

    def _fill(self) -> None:
        page, found = self.page, self.found
        self._drawn = self._form()
        self._left.clear()
        self.facts.clear()
        with self.facts:
            chip(page.t("services.count", count=len(found.services)))
            if not found.whole:
                chip(page.t("services.cut", count=services.MOST_INSTANCES), "mc-warn")
        self.cards.clear()
        with self.cards:
            for service in found.services:
                self._card(service)
            if not found.services:
                empty("lan", page.t("services.none"), page.t("services.none_text", root=shown(found.root)))

    def _card(self, service: Service) -> None:
        page = self.page
        count = len(service.instances)
        with div("mc-card"):
            with div("mc-card-head"):
                ui.icon("lan")
                tag_text("h2", shown(service.name))
                div("mc-grow")
                kind = "mc-good" if service.alive == count else "mc-warn" if service.alive else ""
                chip(page.t("services.alive", alive=service.alive, count=count), kind)
            for one in service.instances[:_SHOWN]:
                with div("mc-instance"):
                    div("mc-dot" + (" mc-on" if one.is_alive else ""))
                    key_link(page, one.key, shown(one.name))
                    ui.label(preview(one.value, 60)).classes("mc-preview mc-mono")
                    if one.is_alive:
                        self._left[one.key] = ui.label("").classes("mc-sub")
                    else:
                        ui.label(page.t("services.no_lease")).classes("mc-sub")
            if count > _SHOWN:
                ui.label(page.t("services.more", count=count - _SHOWN)).classes("mc-sub")
