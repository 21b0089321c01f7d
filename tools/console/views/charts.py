"""Charts: the last hour of each host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui

from tools.console.store.metrics import EVERY_S, Metrics, Point
from tools.console.views.page import Page
from tools.console.views.parts import div, heading, tag_text

Lines = Callable[[Metrics], dict[str, list[Point]]]
CHARTS: dict[str, Lines] = {
    "charts.methods": lambda metrics: metrics.methods(),
    "charts.errors": lambda metrics: metrics.errors(),
    "charts.fsync": lambda metrics: metrics.quantiles("fsync", 0.99),
    "charts.apply": lambda metrics: metrics.quantiles("apply", 0.99),
    "charts.events": lambda metrics: metrics.rates("events"),
    "charts.watchers": lambda metrics: metrics.levels("watchers"),
    "charts.cpu": lambda metrics: metrics.rates("cpu"),
    "charts.memory": lambda metrics: _scaled(metrics.levels("memory"), 1 / 1024 / 1024),
    "charts.elections": lambda metrics: metrics.rates("elections"),
}
_COLORS = ["#6366f1", "#0ea5e9", "#10b981", "#f59e0b", "#ec4899", "#8b5cf6"]
_MUTED = "#808aa0"  # to be read on light and on dark
_FINE = "rgba(128, 138, 160, 0.18)"


async def build(page: Page) -> None:
    """Draw what is kept, and go on. Looking begins with the first browser that opens this."""
    metrics = page.identity.metrics
    metrics.start()
    heading(page.t("view.charts"), page.t("charts.text"))
    drawn: dict[str, ui.echart] = {}
    with div("mc-cards"):
        for name in CHARTS:
            with div("mc-card mc-chart", role="img", aria_label=page.t(name)):
                tag_text("h2", page.t(name))
                drawn[name] = ui.echart(_options({})).classes("mc-lines")
    seen = 0

    def show() -> None:
        nonlocal seen
        if metrics.looks == seen:
            return
        seen = metrics.looks
        for name, chart in drawn.items():
            chart.options.clear()
            chart.options.update(_options(CHARTS[name](metrics)))
            chart.update()

    show()
    ui.timer(EVERY_S / 5, show)


def _scaled(lines: dict[str, list[Point]], by: float) -> dict[str, list[Point]]:
    return {name: [(at_s, None if value is None else value * by) for at_s, value in points]
            for name, points in lines.items()}  # fmt: skip


def _options(lines: dict[str, list[Point]]) -> dict[str, Any]:
    """A chart in ECharts' form."""
    text = {"color": _MUTED, "fontSize": 11}
    axis = {"axisLabel": text, "splitLine": {"lineStyle": {"color": _FINE}}}
    fine = {"splitLine": {"show": False}, "axisLine": {"lineStyle": {"color": _FINE}}, "splitNumber": 3}
    label = {"axisLabel": {**text, "hideOverlap": True}}
    legend = {"bottom": 0, "icon": "circle", "itemWidth": 8, "type": "scroll", "textStyle": text}
    return {
        "animation": False,
        "color": _COLORS,
        "grid": {"left": 46, "right": 10, "top": 10, "bottom": 46},
        "legend": legend,
        "tooltip": {"trigger": "axis", "confine": True},
        "xAxis": {"type": "time", **fine, **label},
        "yAxis": {"type": "value", "min": 0, **axis},
        "series": [_line(name, points) for name, points in lines.items()],
    }


def _line(name: str, points: list[Point]) -> dict[str, Any]:
    return {
        "name": name,
        "type": "line",
        "showSymbol": len(points) < 3,
        "symbolSize": 5,
        "lineStyle": {"width": 2},
        "areaStyle": {"opacity": 0.06},
        "data": [[round(at_s * 1000), None if at is None else round(at, 3)] for at_s, at in points],
    }
