"""A comparison as tables: for a terminal, and as Markdown for the documentation."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.compare.comparison import figures
from bench.report.text import number

_COLUMNS = (("throughput_per_s", "ops/s", 1.0), ("mean_ms", "mean ms", 1.0), ("p50_ms", "p50 ms", 1.0),
            ("p99_ms", "p99 ms", 1.0), ("server_us_per_op", "CPU us/op", 1.0),
            ("written_per_op", "written B/op", 1.0), ("syncs_per_op", "syncs/op", 1.0),
            ("server_rss_bytes", "RSS MiB", 2.0**20))

#: Figures that few cells have, told as remarks.
_SPECIAL = (("to_all_ms", "to all watchers {} ms", 1.0), ("watcher_bytes", "{} KiB a watcher", 1024.0),
            ("p99_growth", "p99 grows {} times", 1.0))

FIGURE_NAMES = {
    "throughput_per_s": "throughput",
    "mean_ms": "mean latency",
    "p99_ms": "p99",
    "max_ms": "longest",
    "server_us_per_op": "server CPU us/op",
    "to_all_ms": "time to all",
    "watcher_bytes": "memory a watcher",
    "p99_growth": "p99 during / before",
    "errors": "errors",
    "server_rss_bytes": "memory",
}


def marks(result: dict[str, Any]) -> tuple[str, str]:
    """The lines of a page between which this comparison's tables go."""
    name = "compare " + result["preset"] if result["preset"] else "compare"
    if (hosts := result["plan"].get("hosts", 3)) != 3:
        name += f", {hosts} host" + ("s" if hosts > 1 else "")
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def rows(result: dict[str, Any], *, by: str = "title") -> list[list[str]]:
    """For each cell, by title or name, the medians of each system, then each other system over the first
    (lowest-highest round)."""
    names = [system["name"] for system in result["systems"]]
    lines = []
    for cell in result["cells"]:
        title = cell[by]
        for name in names:
            runs = cell["runs"][name]
            if not runs:
                continue
            line = [title, name]
            for figure, _, scale in _COLUMNS:
                values = figures(runs, figure)
                line.append(number(statistics.median(values) / scale) if values else "-")
            lines.append([*line, _remarks(runs)])
        for name, found in cell["ratios"].items():
            if not found:
                continue
            line = [title, f"{name} / {names[0]}"]
            for figure, _, _ in _COLUMNS:
                ratio = found.get(figure)
                line.append(
                    f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})" if ratio else "-"
                )
            lines.append([*line, ", ".join(
                f"{FIGURE_NAMES[figure]} {found[figure]['median']:.2f}" for figure, _, _ in _SPECIAL
                if figure in found and figure != "p99_growth")])
    return lines


def headings() -> list[str]:
    """The heads of :func:`rows`."""
    return ["work", "system", *(title for _, title, _ in _COLUMNS), "remarks"]


def targets(result: dict[str, Any]) -> list[list[str]]:
    """The issue's table: work, figure, what is wanted, what was reached, whether that is it. Whose figure,
    where there are several."""
    several = len(result["systems"]) > 2
    return [
        [
            cell["title"],
            FIGURE_NAMES.get(target["figure"], target["figure"])
            + (f", {target['system']}" if several else ""),
            target["wanted"],
            "not measured" if target["value"] is None else f"{target['value']:.2f}",
            "yes" if target["met"] else "no",
        ]
        for cell in result["cells"]
        for target in cell["targets"]
    ]


TARGET_HEADS = ["work", "figure", "target", "reached", "met"]


def show(console: Console, result: dict[str, Any]) -> None:
    """Print a comparison."""
    if result["title"]:
        console.print(f"\n{result['preset']}: {result['title']}", style="bold", highlight=False)
    table = _table(headings(), right=range(2, len(headings()) - 1))
    for line in rows(result, by="name"):
        table.add_row(*line, style="bold" if " / " in line[1] else "")
    console.print(table, soft_wrap=True, highlight=False)
    if found := targets(result):
        table = _table(TARGET_HEADS, right=(2, 3))
        for line in found:
            table.add_row(*line, style="" if line[-1] == "yes" else "red")
        console.print(table, soft_wrap=True, highlight=False)
    for sentence in context(result):
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def _table(heads: list[str], right: Any) -> Table:
    table = Table(box=None, pad_edge=False)
    for i, heading in enumerate(heads):
        table.add_column(heading, justify="right" if i in right else "left")
    return table


def markdown(result: dict[str, Any]) -> str:
    """The same as Markdown."""
    parts = [*(f"- {line}" for line in context(result)), ""]
    if found := targets(result):
        parts += [*_markdown_table(TARGET_HEADS, found, right=(2, 3)), ""]
    parts += [*_markdown_table(headings(), rows(result), right=range(2, len(headings()) - 1)), ""]
    memory = [[f"{system['name']}: {process['name']}", number(process["rss_bytes"] / 2**20),
               number(process["pss_bytes"] / 2**20), number(process["cpu_s"])]
              for system in result["systems"] for process in system["processes"]]
    parts += _markdown_table(
        ["process at the end", "RSS MiB", "of its own (PSS) MiB", "CPU s in all"], memory, right=(1, 2, 3)
    )
    return "\n".join(parts) + "\n"


def _markdown_table(heads: list[str], lines: list[list[str]], right: Any) -> list[str]:
    out = [
        "| " + " | ".join(heads) + " |",
        "|" + "".join("---:|" if i in right else "---|" for i in range(len(heads))),
    ]
    for line in lines:
        bold = " / " in line[1]
        out.append("| " + " | ".join(f"**{text}**" if bold and text else text for text in line) + " |")
    return out


def write_into(path: Path, result: dict[str, Any]) -> None:
    """Put the Markdown between the two marks of a page. ValueError if the page has no marks."""
    page = path.read_text(encoding="utf-8")
    begin_mark, end_mark = marks(result)
    before, begin, rest = page.partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if not begin or not end:
        raise ValueError(f"{path} has no lines {begin_mark} and {end_mark}")
    path.write_text(f"{before}{begin_mark}\n{markdown(result)}{end_mark}{after}", encoding="utf-8")


def context(result: dict[str, Any]) -> list[str]:
    """Where, when and how it was measured, a sentence each."""
    machine, storage, plan = result["machine"], result["storage"], result["plan"]
    turns = sorted(cell["duration_s"] for cell in result["cells"])
    lengths = f"{turns[0]:.1f} to {turns[-1]:.1f} s" if turns and turns[0] < turns[-1] else \
        f"{plan['duration_s']:g} s" if not turns else f"{turns[0]:.1f} s"
    counts = sorted(len(runs) for cell in result["cells"] for runs in cell["runs"].values() if runs)
    rounds = (
        f"{counts[0]} to {counts[-1]}"
        if counts and counts[0] < counts[-1]
        else f"{counts[0] if counts else 0}"
    )
    lines = [
        f"{result['started_at']}, {machine['cpu']}, {machine['cpus']} CPUs, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, Linux {machine['kernel']}, Python {machine['python']}; "
        f"data on {storage['filesystem'] or 'an unknown file system'}, where a synced write of 300 bytes "
        f"takes {storage['sync_ms']:.2f} ms.",
        f"{rounds} rounds of {lengths} each, in turns, all systems running; connections go to "
        + ("the leader only" if plan["leader_only"] else "all members in turn, the leader first")
        + "; ratios are medians over the rounds, with the lowest and highest.",
    ]
    runs = [
        run
        for cell in result["cells"]
        for runs in cell["runs"].values()
        for run in runs
        if "failed" not in run
    ]
    others = [run["others_busy_percent"] for run in runs if run["others_busy_percent"] is not None]
    if others:
        lines.append(
            f"Other programs and the kernel took {statistics.median(others):.0f}% of the machine's CPUs in "
            f"the median turn, {max(others):.0f}% in the worst."
        )
    for system in result["systems"]:
        flags = f" ({' '.join(system['flags'])})" if system["flags"] else ""
        shards = f", {system['shards']} shard" + ("s" if system["shards"] > 1 else "") \
            if system["name"].startswith("muster") else ""
        lines.append(f"{system['name']}: {system['version']}{flags}{shards}; idle, its processes take "
                     f"{system['idle_cpu_percent']:.1f}% of a CPU.")
    return lines + [f"{name}: {note}" for name, note in result["notes"].items()]


def _remarks(runs: list[dict[str, Any]]) -> str:
    failed = sum("failed" in run for run in runs)
    good = [run for run in runs if "failed" not in run]
    errors = sum(sum(run["errors"].values()) for run in good)
    remarks = []
    for figure, text, scale in _SPECIAL:
        if values := figures(runs, figure):
            remarks.append(text.format(number(statistics.median(values) / scale)))
    disturbed = [run["disturbance"]["finished"] for run in good if "disturbance" in run]
    if disturbed:
        remarks.append(f"{sum(disturbed)} times done")
        if events := sum(run["disturbance"].get("events", 0) for run in good if "disturbance" in run):
            remarks.append(f"{events:,} events caught up with")
        remarks.append(f"longest {number(max(run['latency_ms']['max'] for run in good))} ms")
    if failed:
        remarks.append(f"{failed} failed: {next(run['failed'] for run in runs if 'failed' in run)[:80]}")
    if errors:
        remarks.append(f"{errors} errors")
    if any(run["client"]["limited"].startswith("yes") for run in good):
        remarks.append("client limited")
    return "; ".join(remarks)
