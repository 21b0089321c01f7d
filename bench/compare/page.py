"""The table of a documentation page, made again from a comparison (preset ``page``)."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from bench.compare.figures import median
from bench.compare.report import base_of
from bench.report.text import markdown, number

BEGIN, END = "<!-- begin: muster-bench page -->\n", "<!-- end: muster-bench page -->\n"
#: Rows: a cell and its figure.
_ROWS = (
    ("put-1", "mean_ms"), ("put-1", "p99_ms"), ("put-100", "throughput_per_s"),
    ("put-1000", "throughput_per_s"), ("put-1000", "server_us_per_op"), ("range-l-1", "mean_ms"),
    ("range-l-100", "throughput_per_s"), ("range-l-1000", "throughput_per_s"),
    ("range-s-1000", "throughput_per_s"),
    ("txn-1000", "throughput_per_s"), ("lease-keepalive", "throughput_per_s"), ("watch-one-key", "to_all_ms"),
    ("range-paged", "throughput_per_s"),
    *((f"tool-{name}", "throughput_per_s")
      for name in ("put-1", "put-100", "put-1000", "range-l-1", "range-l-100", "range-l-1000", "range-s-1000",
                   "lease-keepalive")),
    ("tool-put-1000", "server_us_per_op"),
)
_WORDS = {"mean_ms": ": mean latency", "p99_ms": ": p99", "server_us_per_op": ": servers' CPU of each",
          "throughput_per_s": "", "to_all_ms": ""}
_UNITS = {"throughput_per_s": "/s", "server_us_per_op": " µs"}


def table(result: dict[str, Any]) -> str:
    """The table in Markdown, and a sentence that says how it was measured."""
    names = [system["name"] for system in result["systems"]]
    subject, base = names[len(result.get("baselines", names[:1]))], base_of(result)
    cells = {cell["name"]: cell for cell in result["cells"]}
    rows = []
    for name, figure in _ROWS:
        if (cell := cells.get(name)) is not None:
            found = cell["ratios"].get(subject, {}).get(figure)
            ratio = f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})" if found else "-"
            rows.append([cell["title"] + _WORDS[figure],
                         *(_value(median(cell["runs"][one], figure), figure) for one in names), ratio])
    return markdown(["work", *names, f"{subject} / {base}"], rows) + "\n" + _said(result) + "\n"


def _value(value: float | None, figure: str) -> str:
    return "-" if value is None else number(value) + _UNITS.get(figure, " ms")


def _said(result: dict[str, Any]) -> str:
    machine, storage = result["machine"], result["storage"]
    rounds = max((len(runs) for cell in result["cells"] for runs in cell["runs"].values()), default=0)
    turn_s = statistics.median(cell["duration_s"] for cell in result["cells"])
    versions = "; ".join(system["version"].replace(" Version:", "") for system in result["systems"])
    return (f"Medians of {rounds} rounds of {turn_s:.0f} s in turns (lowest-highest), "
            f"{result['started_at'][:10]}:\n{machine['cpu']}, {machine['cpus']} CPUs, "
            f"{storage['filesystem']} with syncs of {storage['sync_ms']:.1f} ms.\n{versions}.")


def around(page: Path) -> tuple[str, str]:
    """What stands before and behind the table, the marks included. ValueError if the page lacks them."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no line {BEGIN.strip()!r} with {END.strip()!r} behind it")
    return before + begin, end + after


def write_into(page: Path, results: list[dict[str, Any]]) -> None:
    """Put the first comparison's table between the page's marks. ValueError if it lacks them."""
    before, after = around(page)
    page.write_text(before + table(results[0]) + after, encoding="utf-8")
