"""The prefixes that change most, by a watch of ten seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from muster_client import EVERYTHING, Delete, Put
from nicegui import ui

from tools.console.names import address, shown
from tools.console.store.charts.hot import Hot
from tools.console.store.hub import Told
from tools.console.views.page import Page
from tools.console.views.parts import PLAIN_CLICK, button, div, tag, tag_text

SAMPLE_S = 10.0


class HotPrefixes:
    """A sample on request: the watch costs the cluster what any watch of all keys does."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.hot = Hot()
        self.since_s = 0.0
        self._leave: Callable[[], None] | None = None
        self._error = ""

    def draw(self) -> None:
        """The card; nothing is watched before it is asked for."""
        page = self.page
        with div("mc-card"):
            with div("mc-card-head"):
                ui.icon("local_fire_department")
                tag_text("h2", page.t("hot"))
                div("mc-grow")
                self.go = button(page.t("hot.sample"), self._start, icon="play_arrow")
            ui.label(page.t("hot.text")).classes("mc-sub")
            self.box = div("mc-hot", role="status")
        self.timer = ui.timer(1.0, self._tick, active=False)
        page.on_leave(self._stop)

    def _start(self) -> None:
        self._stop()
        self.hot, self.since_s, self._error = Hot(), time.monotonic(), ""
        self.go.disable()
        self._leave = self.page.identity.hub.follow(EVERYTHING, self._hear)
        self.timer.activate()
        self._show(running=True)

    def _hear(self, told: Told) -> None:
        if told.error:
            self._error = told.error
            return
        self.hot.add(one.key for one in told.events if isinstance(one, Put | Delete))

    def _stop(self) -> None:
        if self._leave is not None:
            self._leave()
            self._leave = None

    def _tick(self) -> None:
        running = time.monotonic() - self.since_s < SAMPLE_S and not self._error
        if not running:
            self._stop()
            self.timer.deactivate()
            self.go.enable()
        self._show(running=running)

    def _show(self, *, running: bool) -> None:
        page = self.page
        self.box.clear()
        with self.box:
            if self._error:
                ui.label(self._error).classes("mc-problem")
                return
            passed_s = max(1.0, min(SAMPLE_S, time.monotonic() - self.since_s))
            top = self.hot.top()
            for name, count in top:
                self._row(name, count, top[0][1], passed_s)
            key = "hot.running" if running else "hot.done" if top else "hot.none"
            ui.label(page.t(key, count=f"{self.hot.total:,}")).classes("mc-sub")

    def _row(self, name: bytes, count: int, most: int, passed_s: float) -> None:
        where = address("keys", search=shown(name))
        with div("mc-hot-row"):
            with tag("a", "mc-mono mc-keylink", href=where).on(
                "click", lambda: self.page.go(where), js_handler=PLAIN_CLICK
            ):
                ui.label(shown(name))
            with div("mc-bar"):
                div("mc-fill").style(f"width: {max(1, round(100 * count / most))}%")
            ui.label(self.page.t("live.rate", rate=f"{count / passed_s:,.1f}")).classes("mc-rev")
