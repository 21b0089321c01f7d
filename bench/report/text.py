"""A result in words and bars, for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

_BAR_WIDTH = 40


def render(result: dict[str, Any], *, sample: bool = False, precise: bool = False) -> RenderableType:
    """One run's result, as ``bench.load.run.run`` returns it."""
    parts: list[RenderableType] = [
        Text(f"{result['operations']} operations in {result['duration_s']:.2f} s: "
             f"{result['throughput_per_s']:,.1f} per second", style="bold"),
        _latency(result, "{:.3f}".format if precise else number),
    ]
    if result["histogram_us"]:
        parts.append(_histogram(result["histogram_us"]))
    if sample:
        parts.append(
            Text("operations in each second: " + " ".join(str(count) for _, count in result["timeline"]))
        )
    parts.append(_cpu(result))
    for endpoint, value in result.get("hash_kv", {}).items():
        parts.append(Text(f"hash of {endpoint}: {value}"))
    for kind, count in sorted(result["errors"].items(), key=lambda item: -item[1]):
        parts.append(Text(f"{count} x {kind}", style="red"))
    return Group(*parts)


def show(console: Console, result: dict[str, Any], *, sample: bool = False, precise: bool = False) -> None:
    """Print one run's result."""
    console.print(render(result, sample=sample, precise=precise), soft_wrap=True, highlight=False)


def output() -> Console:
    """Stdout; wide enough for any table where it is no terminal, so that nothing is cut in a file."""
    return Console(width=None if sys.stdout.isatty() else 200)


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    digits = 2 if abs(value) >= 1 else 4
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}f}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _latency(result: dict[str, Any], number: Callable[[float], str]) -> Table:
    delivers = result["command"].startswith("watch") or result["command"] == "v2-wait"
    main = "delivery" if delivers else "latency"
    table = _table("ms", *result["latency_ms"])
    table.add_row(main, *(number(value) for value in result["latency_ms"].values()))
    asked = result.get("asked_per_s", {})
    for name, values in result["extra"].items():
        count = f"{values['count']}"
        if name in asked:
            count += f", {result['reached_per_s'][name]:,.1f} of {asked[name]:,g}/s"
        table.add_row(f"{name} ({count})", *(number(v) for v in values["latency_ms"].values()))
    return table


def _histogram(buckets: list[tuple[int, int]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column(justify="right")
    most = max(count for _, count in buckets)
    for upper_us, count in buckets:
        if count * 1000 < most:
            continue  # too few for a bar; the percentiles tell of them
        table.add_row(
            f"<= {number(upper_us / 1000)} ms", "#" * max(1, round(_BAR_WIDTH * count / most)), str(count)
        )
    return table


def _cpu(result: dict[str, Any]) -> Table:
    client, server = result["client"], result["server"]
    table = _table("side", "CPU s", "us/op", "RSS MiB", "written MiB")
    if server is not None:
        for process in server["processes"]:
            per_op = process["cpu_s"] / result["operations"] * 1e6 if result["operations"] else 0.0
            table.add_row(
                f"server {process['name']} {process['pid']}",
                number(process["cpu_s"]),
                number(per_op),
                number(process["rss_bytes"] / 2**20),
                number(process["written_bytes"] / 2**20),
            )
        table.add_row(
            "server, all",
            number(server["cpu_s"]),
            number(server["us_per_op"]),
            number(server["rss_bytes"] / 2**20),
            number(server["written_bytes"] / 2**20),
            style="bold",
        )
    table.add_row("client", number(client["cpu_s"]), number(client["us_per_op"]),
                  number(sum(p["max_rss_bytes"] for p in client["processes"]) / 2**20), "-")
    others = result["others_busy_percent"]
    table.caption = (f"busiest client process {client['busiest_percent']:.0f}% of a CPU; machine "
                     f"{result['machine_busy_percent']:.0f}% busy"
                     + (f", {others:.0f}% by others" if others is not None else "")
                     + f"; limited by the client: {client['limited']}")
    table.caption_justify = "left"
    return table
