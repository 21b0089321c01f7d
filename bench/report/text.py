"""A result in words and bars, for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Sequence
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
    write(console, render(result, sample=sample, precise=precise))


def output() -> Console:
    """Stdout; wide enough for any table where it is no terminal, so that nothing is cut in a file."""
    return Console(width=None if sys.stdout.isatty() else 200)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]] = (), left: Collection[int] = (0,),
          style: Callable[[Sequence[str]], str] = lambda row: "") -> Table:
    """A table without lines; the columns numbered in ``left`` are flush left, the others flush right."""
    made = Table(box=None, pad_edge=False)
    for i, head in enumerate(heads):
        made.add_column(head, justify="left" if i in left else "right")
    for row in rows:
        made.add_row(*row, style=style(row))
    return made


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """The same in Markdown."""
    rule = ["---" if i in left else "---:" for i in range(len(heads))]
    return "".join("|" + "|".join(cells) + "|\n" for cells in (heads, rule, *rows))


def beside(names: Sequence[str]) -> list[str]:
    """Heads of a table that has a column for each system, and the ratio of the last to the first."""
    return ["", *names, *([f"{names[-1]} / {names[0]}"] if len(names) > 1 else [])]


def ratio(values: Sequence[object]) -> list[str]:
    """The cell below the last head of :func:`beside`."""
    if len(values) < 2:
        return []
    first, last = values[0], values[-1]
    known = isinstance(first, float | int) and isinstance(last, float | int) and first
    return [f"{last / first:.2f}" if known else "-"]  # type: ignore[operator]  # numbers if known


def write(console: Console, *shown: RenderableType) -> None:
    """Print tables and sentences as they are: unbroken, and without markup."""
    for one in shown:
        console.print(one, soft_wrap=True, highlight=False, markup=False)


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    digits = 2 if abs(value) >= 1 else 4
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}f}"


def _latency(result: dict[str, Any], number: Callable[[float], str]) -> Table:
    delivers = result["command"].startswith("watch") or result["command"] == "v2-wait"
    main = "delivery" if delivers else "latency"
    rows = [[main, *map(number, result["latency_ms"].values())]]
    asked = result.get("asked_per_s", {})
    for name, values in result["extra"].items():
        count = f"{values['count']}"
        if name in asked:
            count += f", {result['reached_per_s'][name]:,.1f} of {asked[name]:,g}/s"
        rows.append([f"{name} ({count})", *map(number, values["latency_ms"].values())])
    return table(["ms", *result["latency_ms"]], rows)


def _histogram(buckets: list[tuple[int, int]]) -> Table:
    made = table(["", "", ""], left=(1,))
    made.show_header = False
    most = max(count for _, count in buckets)
    for upper_us, count in buckets:
        if count * 1000 >= most:  # fewer have no bar
            bar = "#" * max(1, round(_BAR_WIDTH * count / most))
            made.add_row(f"<= {number(upper_us / 1000)} ms", bar, str(count))
    return made


def _cpu(result: dict[str, Any]) -> Table:
    client, server, others = result["client"], result["server"], result["others_busy_percent"]
    made = table(["side", "CPU s", "us/op", "RSS MiB", "written MiB"])

    def add(name: str, used: dict[str, Any], style: str = "") -> None:
        per_op = used["cpu_s"] / result["operations"] * 1e6 if result["operations"] else 0.0
        made.add_row(name, number(used["cpu_s"]), number(per_op), number(used["rss_bytes"] / 2**20),
                     number(used["written_bytes"] / 2**20) if "written_bytes" in used else "-", style=style)

    if server is not None:
        for process in server["processes"]:
            add(f"server {process['name']} {process['pid']}", process)
        add("server, all", server, "bold")
    add("client", {"cpu_s": client["cpu_s"],
                   "rss_bytes": sum(p["max_rss_bytes"] for p in client["processes"])})
    made.caption = (f"busiest client process {client['busiest_percent']:.0f}% of a CPU; machine "
                    f"{result['machine_busy_percent']:.0f}% busy"
                    + (f", {others:.0f}% by others" if others is not None else "")
                    + f"; limited by the client: {client['limited']}")
    made.caption_justify = "left"
    return made
