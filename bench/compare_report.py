"""A comparison as tables: for a terminal, and as Markdown for the documentation."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.compare import figures
from bench.report import number

BEGIN, END = "<!-- compare: begin -->", "<!-- compare: end -->"

_COLUMNS = (("throughput_per_s", "ops/s"), ("mean_ms", "mean ms"), ("p50_ms", "p50 ms"), ("p99_ms", "p99 ms"),
            ("server_us_per_op", "CPU us/op"), ("server_rss_bytes", "RSS MiB"))


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Three lines for each cell: the medians of A, those of B, and B over A with its lowest and highest round."""
    names = [system["name"] for system in result["systems"]]
    lines = []
    for cell in result["cells"]:
        for name in names:
            runs = cell["runs"][name]
            line = [cell["name"], name]
            for figure, _ in _COLUMNS:
                values = figures(runs, figure)
                scale = 2**20 if figure == "server_rss_bytes" else 1
                line.append(number(statistics.median(values) / scale) if values else "-")
            line.append(_remarks(runs))
            lines.append(line)
        line = [cell["name"], f"{names[1]} / {names[0]}"]
        for figure, _ in _COLUMNS:
            ratio = cell["ratios"].get(figure)
            line.append(f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})" if ratio else "-")
        lines.append([*line, ""])
    return lines


def headings() -> list[str]:
    """The heads of :func:`rows`."""
    return ["work", "system", *(title for _, title in _COLUMNS), "remarks"]


def show(console: Console, result: dict[str, Any]) -> None:
    """Print a comparison."""
    table = Table(box=None, pad_edge=False)
    for i, heading in enumerate(headings()):
        table.add_column(heading, justify="right" if 1 < i < len(headings()) - 1 else "left")
    for line in rows(result):
        table.add_row(*line, style="bold" if " / " in line[1] else "")
    console.print(table, soft_wrap=True, highlight=False)
    for sentence in context(result):
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def markdown(result: dict[str, Any]) -> str:
    """The same as Markdown."""
    head = headings()
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * 2 + "---:|" * (len(head) - 3) + "---|"]
    for line in rows(result):
        cells = [f"**{text}**" if " / " in line[1] and text else text for text in line]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*(f"- {line}" for line in context(result)), "", *lines, "", *_memory(result)]) + "\n"


def write_into(path: Path, result: dict[str, Any]) -> None:
    """Put the Markdown between the two marks of a page. ValueError if the page has no marks."""
    page = path.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n{markdown(result)}{END}{after}", encoding="utf-8")


def context(result: dict[str, Any]) -> list[str]:
    """Where, when and how it was measured, a sentence each."""
    machine, storage, plan = result["machine"], result["storage"], result["plan"]
    lines = [
        f"{result['started_at']}, {machine['cpu']}, {machine['cpus']} CPUs, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, Linux {machine['kernel']}, Python {machine['python']}; data on "
        f"{storage['filesystem'] or 'an unknown file system'}, where a synced write of 300 bytes takes "
        f"{storage['sync_ms']:.2f} ms.",
        f"{plan['rounds']} rounds of {plan['duration_s']:g} s each, in turns, both systems running; connections go to "
        + ("the leader only" if plan["leader_only"] else "all members in turn, the leader first")
        + "; ratios are medians over the rounds, with the lowest and highest.",
    ]
    runs = [run for cell in result["cells"] for runs in cell["runs"].values() for run in runs if "failed" not in run]
    others = [run["others_busy_percent"] for run in runs if run["others_busy_percent"] is not None]
    if others:
        lines.append(f"Other programs and the kernel took {statistics.median(others):.0f}% of the machine's CPUs in "
                     f"the median turn, {max(others):.0f}% in the worst.")
    for system in result["systems"]:
        lines.append(f"{system['name']}: {system['version']}; idle, its processes take "
                     f"{system['idle_cpu_percent']:.1f}% of a CPU.")
    return lines + [f"{name}: {note}" for name, note in result["notes"].items()]


def _memory(result: dict[str, Any]) -> list[str]:
    lines = ["| process at the end | RSS MiB | CPU s in all |", "|---|---:|---:|"]
    for system in result["systems"]:
        for process in system["processes"]:
            lines.append(f"| {system['name']}: {process['name']} | {number(process['rss_bytes'] / 2**20)} | "
                         f"{number(process['cpu_s'])} |")
    return lines


def _remarks(runs: list[dict[str, Any]]) -> str:
    failed = sum("failed" in run for run in runs)
    good = [run for run in runs if "failed" not in run]
    errors = sum(sum(run["errors"].values()) for run in good)
    remarks = []
    if failed:
        remarks.append(f"{failed} failed: {next(run['failed'] for run in runs if 'failed' in run)[:80]}")
    if errors:
        remarks.append(f"{errors} errors")
    if any(run["client"]["limited"].startswith("yes") for run in good):
        remarks.append("client limited")
    return "; ".join(remarks)
