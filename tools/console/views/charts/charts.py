"""Charts of the last hour, of all hosts or of one: ``/charts?host=a``."""

from __future__ import annotations

import time
from typing import Any

from nicegui import ui

from tools.console.names import address
from tools.console.store.charts import series
from tools.console.store.charts.recorder import KEPT_S, Line, Recorder
from tools.console.store.charts.series import CHARTS, Chart
from tools.console.views.charts.hot import HotPrefixes
from tools.console.views.page import Page
from tools.console.views.parts import button, chip, div, heading, tag_text

_LOOK_EVERY_S = 2.0
_SHORTEST_S = 300.0  # of a time axis, before there is an hour
_GREY = "#7c849a"  # readable on light and dark
_COLOURS = ["#6366f1", "#0ea5e9", "#10b981", "#f59e0b", "#ef4444", "#a855f7", "#14b8a6", "#ec4899", "#94a3b8"]


async def build(page: Page) -> None:
    """Draw what was recorded, and go on."""
    Charts(page).draw()


class Charts:
    """The charts of one browser."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.host = page.where[2].get("host", "")
        self.cards: list[tuple[Chart, ui.label, ui.echart, ui.label]] = []
        self.drawn = -1
        self.hosts: list[str] = []

    @property
    def recorder(self) -> Recorder:
        return self.page.identity.recorder

    def draw(self) -> None:
        """Everything; then follow."""
        page = self.page
        self.recorder.start()
        with div("mc-heading-row"):
            with div(""):
                heading(page.t("view.charts"), page.t("charts.text"))
            div("mc-grow")
            self.choice = div("mc-forms", role="group", aria_label=page.t("charts.host"))
        self.trouble = div("mc-facts", role="status")
        with div("mc-cards mc-charts"):
            for chart in CHARTS:
                self._card(chart)
        HotPrefixes(page).draw()
        self._again()
        ui.timer(_LOOK_EVERY_S, self._again)

    def _card(self, chart: Chart) -> None:
        page = self.page
        title = page.t(f"charts.{chart.name}")
        with div("mc-card", role="figure", aria_label=title):
            with div("mc-card-head"):
                tag_text("h2", title)
                div("mc-grow")
                now = ui.label("").classes("mc-figure")
            drawn = ui.echart(_options(chart), renderer="svg").classes("mc-chart")
            nothing = ui.label("").classes("mc-sub mc-center")
        self.cards.append((chart, now, drawn, nothing))

    def _again(self) -> None:
        recorder = self.recorder
        if recorder.count == self.drawn:
            return
        self.drawn = recorder.count
        looks = list(recorder.looks)
        hosts = sorted({host for look in looks for host in look.hosts} | set(recorder.down))
        if hosts != self.hosts:
            self.hosts = hosts
            self._choose()
        self.trouble.clear()
        with self.trouble:
            for host, reason in sorted(recorder.down.items()):
                chip(f"{host}: {reason}", "mc-bad", "cloud_off")
        now_s = time.time()
        first_s = looks[0].at_s if looks else now_s
        since_s = max(now_s - KEPT_S, min(first_s, now_s - _SHORTEST_S))
        for chart, now, drawn, nothing in self.cards:
            found = series.shared(recorder, chart, self.host)
            drawn.options["series"] = [_line(chart, name, line) for name, line in found.items()]
            drawn.options["xAxis"] |= {"min": since_s * 1000, "max": now_s * 1000}
            drawn.options["legend"]["data"] = list(found)
            drawn.update()
            drawn.set_visibility(bool(found))
            now.set_text(self._now(chart, found))
            nothing.set_visibility(not found)
            nothing.set_text(self._why(chart))

    def _why(self, chart: Chart) -> str:
        if self.recorder.count < 2:
            return self.page.t("charts.soon")
        return self.page.t("charts.extensive" if chart.name == "handling" else "charts.none")

    def _now(self, chart: Chart, found: dict[str, Line]) -> str:
        """The last value: the sum of a stack, else the highest."""
        if not found:
            return ""
        values = [series.latest(line) for line in found.values()]
        value = sum(values) if chart.stacked else max(values)
        return f"{value:,.1f} {chart.unit}" if chart.unit else f"{value:,.0f}"

    def _choose(self) -> None:
        page = self.page
        self.choice.clear()
        with self.choice:
            for host in ("", *self.hosts):
                made = button(
                    host or page.t("charts.all"),
                    lambda host=host: page.go(address("charts", host=host)),
                    kind="tab",
                )
                made.classes("on" if host == self.host else "")
                made.props["aria-pressed"] = "true" if host == self.host else "false"


def _options(chart: Chart) -> dict[str, Any]:
    """A chart without lines."""
    axis = {"axisLabel": {"color": _GREY, "hideOverlap": True}, "splitLine": {"lineStyle": {"opacity": 0.15}}}
    return {
        "animation": False,
        "color": _COLOURS,
        "grid": {"left": 8, "right": 12, "top": 12, "bottom": 30, "containLabel": True},
        "legend": {"type": "scroll", "bottom": 0, "data": [], "itemHeight": 8, "itemWidth": 14,
                   "textStyle": {"color": _GREY}, "pageIconColor": _GREY,
                   "pageTextStyle": {"color": _GREY}},
        "tooltip": {"trigger": "axis", "confine": True},
        "xAxis": {"type": "time", **axis, "splitLine": {"show": False}},
        "yAxis": {"type": "value", "min": 0, "minInterval": 1 if chart.unit == "" else 0, **axis},
        "series": [],
    }  # fmt: skip


def _line(chart: Chart, name: str, line: Line) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "line", "name": name, "data": line, "showSymbol": len(line) < 3,
                            "lineStyle": {"width": 1.5}}  # fmt: skip
    if chart.stacked:
        made |= {"stack": "all", "areaStyle": {"opacity": 0.25}}
    return made
