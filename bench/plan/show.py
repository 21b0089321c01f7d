"""Plans and scales in words, tables and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.plan.demand import DEFAULT_QUOTA_BYTES, SHOWN
from bench.report import text
from bench.report.text import number

_GB = 1e9


def plan(console: Console, result: dict[str, Any]) -> None:
    """A plan, and the prices that it goes by."""
    found = result["plan"]
    needed = found["quota_bytes"] > DEFAULT_QUOTA_BYTES
    quota = f" --quota-backend-bytes {found['quota_bytes']}" if needed else ""
    text.write(
        console,
        f"{found['hosts']} hosts, each with {found['cpus_per_host']} CPUs, "
        f"{found['memory_bytes_per_host'] / _GB:.1f} GB of memory and "
        f"{found['disk_bytes_per_host'] / _GB:.0f} GB of disk, which takes "
        f"{found['disk_write_bytes_per_s'] / 1e6:.1f} MB a second",
        f"--shards {found['shards']} --fronts {found['fronts_per_host']}" + quota,
        f"first to saturate: the {found['first']}, at {found['first_at_times']:.1f} times this load",
        text.table(["process", "% of a CPU"], [
            [role, f"{100 * found['cpu_by_role'][role]:.0f}"] for role in SHOWN
            if role in found["cpu_by_role"]]))
    prices(console, result)


def prices(console: Console, result: dict[str, Any]) -> None:
    text.write(
        console, text.table(*price_table(result)[0:2], left=(0, 1)),
        f"Measured on {result['machine']['cpu']}, {result['machine']['cpus']} CPUs; one-minute load "
        f"{result['machine_load']:.1f}. Other programs make CPU time dearer: measure on a quiet machine.")


def price_table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    return (["process", "for each", "CPU us"],
            [[row["role"], row["work"], number(row["cpu_us"])] for row in result["prices"]])


def tables(result: dict[str, Any]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """By file name, the tables of a scale: heads and rows."""
    clients = sorted(int(name.removeprefix("simulated_")) for name in result["predictions"][0]
                     if name.startswith("simulated_"))
    predicted = []
    for row in result["predictions"]:
        cells = [str(row["shards"]), str(row["hosts"]), str(row["fronts"]), number(row["by_cost_per_s"]),
                 f"{row['linear']:.2f}", row["first"]]
        for count in clients:
            seen = row[f"simulated_{count}"]
            free = row.get(f"order_only_{count}")
            cells += [number(seen["writes_per_s"]), f"{seen['linear']:.2f}",
                      number(1000 * seen["latency_s"]), seen["first"],
                      number(free["writes_per_s"]) if free else "-", f"{free['linear']:.2f}" if free else "-"]
        predicted.append(cells)
    heads = ["shards", "hosts", "fronts", "writes/s by cost", "of linear", "busiest"]
    for count in clients:
        heads += [f"simulated, {count} clients a shard", "of linear", "mean ms", "busiest",
                  "shard 0 without keys", "of linear"]
    return {
        "scale-prices": price_table(result),
        "scale-steps": (
            ["shards", "load", "puts/s on this machine", "simulated", "CPU us/put", "puts an entry",
             "machine's load"],
            [[str(row["shards"]), row["load"], number(row["throughput_per_s"]),
              number(row["simulated_per_s"]) if row["simulated_per_s"] else "-", number(row["cpu_us_per_op"]),
              number(row["batch"]), f"{row['machine_load']:.1f}"] for row in result["steps"]]),
        "scale-checks": (
            ["shards", "process", "% of a CPU", "predicted / measured", "machine's load"],
            [[str(row["shards"]), row["role"], f"{100 * row['cpu']:.1f}", f"{1 + row['error']:.2f}",
              f"{row['machine_load']:.1f}"] for row in result["checks"]]),
        "scale": (heads, predicted),
    }


def scale(console: Console, result: dict[str, Any]) -> None:
    left = {"scale": (5, 9, 15), "scale-prices": (0, 1), "scale-steps": (1,), "scale-checks": (1,)}
    for name, (heads, rows) in tables(result).items():
        text.write(console, name, text.table(heads, rows, left=left[name]), "")
    for shards, why in result.get("missing", {}).items():
        text.write(console, f"{shards} shards were not measured: {why}")
    goal = result["at_64"]
    text.write(console, f"By cost, {goal['shards']} shards write {goal['by_cost_per_s']:,.0f} a second; the "
                        f"{goal['first']} is the first to be busy.")


def write_into(folder: Path, result: dict[str, Any]) -> None:
    """A tab-separated file for each table."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (heads, rows) in tables(result).items():
        lines: Sequence[Sequence[str]] = [heads, *rows]
        (folder / f"{name}.tsv").write_text(
            "".join("\t".join(cells) + "\n" for cells in lines), encoding="utf-8")
