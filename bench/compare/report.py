"""A comparison as tables: for a terminal, and as files of tab-separated values for the documentation."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.compare.figures import figures, good_runs, median
from bench.report.text import number, table, write

_COLUMNS = (("throughput_per_s", "ops/s", 1.0), ("mean_ms", "mean ms", 1.0), ("p50_ms", "p50 ms", 1.0),
            ("p99_ms", "p99 ms", 1.0), ("server_us_per_op", "CPU us/op", 1.0),
            ("written_per_op", "written B/op", 1.0), ("syncs_per_op", "syncs/op", 1.0),
            ("server_rss_bytes", "RSS MiB", 2.0**20))
HEADINGS = ["work", "system", *(title for _, title, _ in _COLUMNS), "remarks"]
TARGET_HEADS = ["work", "figure", "target", "reached", "met"]

#: Figures that few cells have: they are remarks.
_SPECIAL = (("to_all_ms", "to all watchers {} ms", 1.0), ("watcher_bytes", "{} KiB a watcher", 1024.0),
            ("p99_growth", "p99 grows {} times", 1.0))

FIGURE_NAMES = {
    "throughput_per_s": "throughput", "mean_ms": "mean latency", "p99_ms": "p99", "max_ms": "longest",
    "server_us_per_op": "server CPU us/op", "to_all_ms": "time to all", "watcher_bytes": "memory a watcher",
    "p99_growth": "p99 during / before", "errors": "errors", "server_rss_bytes": "memory",
}
_RUNS = "figures\thow it was measured\n"


def file_name(result: dict[str, Any]) -> str:
    """The name of the comparison's files: that of the preset, and the number of hosts unless it is 3."""
    preset = result["preset"]
    name = "peer-keys" if preset == "keys" else preset or "comparison"
    hosts = result["plan"].get("hosts", 3)
    return name if hosts == 3 else f"{name}-{hosts}-host" + ("s" if hosts > 1 else "")


def rows(result: dict[str, Any], *, by: str = "title") -> list[list[str]]:
    """For each cell, by title or name: medians of each system, then ratios (lowest-highest)."""
    names = [system["name"] for system in result["systems"]]
    lines = []
    for cell in result["cells"]:
        for name in names:
            if runs := cell["runs"][name]:
                values = [(median(runs, figure), scale) for figure, _, scale in _COLUMNS]
                lines.append([cell[by], name,
                              *("-" if value is None else number(value / scale) for value, scale in values),
                              _remarks(runs)])
        for name, base, found in _to_bases(result, cell):
            if found:
                special = [f"{FIGURE_NAMES[figure]} {found[figure]['median']:.2f}"
                           for figure in ("to_all_ms", "watcher_bytes") if figure in found]
                lines.append([cell[by], f"{name} / {base}",
                              *(_ratio(found.get(figure)) for figure, _, _ in _COLUMNS), ", ".join(special)])
    return lines


def base_of(result: dict[str, Any]) -> str:
    """What a cell's ``ratios`` are to."""
    several = "baselines" in result
    return "better etcd" if several else str(result["systems"][0]["name"])


def _to_bases(result: dict[str, Any], cell: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """A cell's ratios: the system, what it is compared with, by figure."""
    for name, found in cell["ratios"].items():
        for base, ratios in cell.get("ratios_to", {}).get(name, {}).items():
            yield name, base, ratios
        yield name, base_of(result), found


def _ratio(found: dict[str, float] | None) -> str:
    return f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})" if found else "-"


def targets(result: dict[str, Any]) -> list[list[str]]:
    """The cells' targets, under :data:`TARGET_HEADS`. Of three systems the figure names its system."""
    several = len(result["systems"]) - len(result.get("baselines", [0])) > 1
    return [
        [cell["title"],
         FIGURE_NAMES.get(target["figure"], target["figure"]) + (f", {target['system']}" if several else ""),
         target["wanted"], "not measured" if target["value"] is None else f"{target['value']:.2f}",
         "yes" if target["met"] else "no"]
        for cell in result["cells"] for target in cell["targets"]
    ]


def show(console: Console, result: dict[str, Any]) -> None:
    if result["title"]:
        console.print(f"\n{result['preset']}: {result['title']}", style="bold", highlight=False)
    write(console, table(HEADINGS, rows(result, by="name"), (0, 1, len(HEADINGS) - 1),
                         lambda row: "bold" if " / " in row[1] else ""))
    if found := targets(result):
        write(console, table(TARGET_HEADS, found, (0, 1, 4), lambda row: "" if row[-1] == "yes" else "red"))
    write(console, *context(result))


def tables(result: dict[str, Any]) -> dict[str, list[list[str]]]:
    """The tables by the names of their files, heads first."""
    name = file_name(result)
    found = {name: [HEADINGS, *rows(result)]}
    if wanted := targets(result):
        found[f"{name}-targets"] = [TARGET_HEADS, *wanted]
    found[f"{name}-processes"] = [
        ["process at the end", "RSS MiB", "of its own (PSS) MiB", "CPU s in all"],
        *([f"{system['name']}: {process['name']}", number(process["rss_bytes"] / 2**20),
           number(process["pss_bytes"] / 2**20), number(process["cpu_s"])]
          for system in result["systems"] for process in system["processes"]),
    ]
    return found


def prepared(folder: Path) -> str:
    """Make the folder, and read its ``runs.tsv``. ValueError if that has another first line. OSError."""
    runs = folder / "runs.tsv"
    before = runs.read_text(encoding="utf-8") if runs.exists() else _RUNS
    if not before.startswith(_RUNS):
        raise ValueError(f"{runs} does not begin with the line {_RUNS.strip()!r}")
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    return before


def write_into(folder: Path, result: dict[str, Any]) -> None:
    """Write each table to a file of tab-separated values, as in ``docs/figures``.

    ``runs.tsv`` says how each comparison was measured; its lines of other comparisons stay. ValueError as of
    :func:`prepared`.
    """
    before, name = prepared(folder), file_name(result)
    for file, lines in tables(result).items():
        text = "".join("\t".join(line) + "\n" for line in lines)
        (folder / f"{file}.tsv").write_text(text, encoding="utf-8")
    others = [line for line in before.splitlines(keepends=True) if not line.startswith(f"{name}\t")]
    own = [f"{name}\t{line}\n" for line in context(result)]
    (folder / "runs.tsv").write_text("".join([*others, *own]), encoding="utf-8")


def context(result: dict[str, Any]) -> list[str]:
    """Where, when and how it was measured, a sentence each."""
    machine, storage, plan = result["machine"], result["storage"], result["plan"]
    turns = [cell["duration_s"] for cell in result["cells"]] or [plan["duration_s"]]
    counts = [len(runs) for cell in result["cells"] for runs in cell["runs"].values() if runs] or [0]
    lines = [
        f"{result['started_at']}, {machine['cpu']}, {machine['cpus']} CPUs, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, Linux {machine['kernel']}, Python {machine['python']}; "
        f"data on {storage['filesystem'] or 'an unknown file system'}, where a synced write of 300 bytes "
        f"takes {storage['sync_ms']:.2f} ms.",
        f"{_span(counts, 'd')} rounds of {_span(turns, '.1f')} s each, in turns, all systems running; "
        f"connections go to "
        + ("the leader only" if plan["leader_only"] else "all members in turn, the leader first")
        + "; ratios are medians over the rounds, with the lowest and highest.",
    ]
    runs = [run for cell in result["cells"] for runs in cell["runs"].values() for run in good_runs(runs)]
    if others := [run["others_busy_percent"] for run in runs if run["others_busy_percent"] is not None]:
        lines.append(
            f"Other programs and the kernel took {statistics.median(others):.0f}% of the machine's CPUs in "
            f"the median turn, {max(others):.0f}% in the worst.")
    lines += map(_system, result["systems"])
    return lines + [f"{name}: {note}" for name, note in result["notes"].items()]


def _span(values: list[Any], form: str) -> str:
    low, high = min(values), max(values)
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"


def _system(system: dict[str, Any]) -> str:
    flags = f" ({' '.join(system['flags'])})" if system["flags"] else ""
    shards = ""
    if system["name"].startswith("muster"):
        shards = f", {system['shards']} shard" + ("s" if system["shards"] > 1 else "")
    idle = system["idle_cpu_percent"]
    takes = "its processes are not here" if idle is None else f"idle, its processes take {idle:.1f}% of a CPU"
    return f"{system['name']}: {system['version']}{flags}{shards}; {takes}."


def _remarks(runs: list[dict[str, Any]]) -> str:
    good = good_runs(runs)
    remarks = [text.format(number(statistics.median(values) / scale))
               for figure, text, scale in _SPECIAL if (values := figures(runs, figure))]
    if disturbed := [run["disturbance"] for run in good if "disturbance" in run]:
        remarks.append(f"{sum(done['finished'] for done in disturbed)} times done")
        if events := sum(done.get("events", 0) for done in disturbed):
            remarks.append(f"{events:,} events caught up with")
        remarks.append(f"longest {number(max(run['latency_ms']['max'] for run in good))} ms")
    if failed := [run["failed"] for run in runs if "failed" in run]:
        remarks.append(f"{len(failed)} failed: {failed[0][:80]}")
    if errors := sum(sum(run["errors"].values()) for run in good):
        remarks.append(f"{errors} errors")
    if any(run["client"]["limited"].startswith("yes") for run in good):
        remarks.append("client limited")
    return "; ".join(remarks)
