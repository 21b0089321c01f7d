"""What keys cost: bytes on disk and in memory, and the time of a restart, a compaction, a defragmentation.

Each system has the machine to itself. Figures are sums over all three members. PSS divides memory that
processes share among them. A restart counts from the processes' start to the answer to a linearizable count.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.client import RpcError
from bench.compare.loads import upkeep
from bench.load import run
from bench.load.spec import Spec
from bench.load.traffic.workloads import RANGE
from bench.report import text
from bench.report.text import number
from bench.systems import servers
from bench.systems.systems import System, started
from cluster.pb import rpc_pb2 as pb

SCHEMA = "muster-bench-size/1"
DEFRAGMENT = "/etcdserverpb.Maintenance/Defragment"
_PREFIX = "/size/"
_SETTLE_S = 2.0  # for writes that a system makes a little later


@dataclass(slots=True, frozen=True)
class Load:
    """How much is put."""

    keys: int
    val_size_bytes: int = 256
    overwrites: int = 0
    limit_s: float = 600.0  # for one system


def measure(names: Sequence[str], load: Load, *, data_dir: Path | None = None, etcd_flags: Sequence[str] = (),
            muster_flags: Sequence[str] = (), said: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure each system, one after the other. RuntimeError, RunError, or TimeoutError by the limit."""
    if given := [name for name in names if "=" in name]:
        raise ValueError(f"{', '.join(given)}: size starts and restarts its systems itself")
    rows = []
    started_at = datetime.now(UTC)
    for name in names:
        said(f"{name}: start")
        with started([name], data_dir=data_dir, etcd_flags=etcd_flags, muster_flags=muster_flags) as [system]:
            rows.append(asyncio.run(asyncio.wait_for(_measure(system, load, said), load.limit_s)))
    return {
        "schema": SCHEMA, "started_at": started_at.isoformat(timespec="seconds"), "machine": run.machine(),
        "settings": asdict(load), "systems": rows,
    }


async def _measure(system: System, load: Load, said: Callable[[str], None]) -> dict[str, Any]:
    def tell(what: str) -> None:
        said(f"{system.name}: {what}")

    size = max(len(_PREFIX) + 8, len(_PREFIX) + len(str(load.keys)))
    spec = Spec("put", tuple(system.endpoints), key_prefix=_PREFIX, key_size_bytes=size, key_space=load.keys,
                val_size_bytes=load.val_size_bytes, total=1)
    row: dict[str, Any] = {"name": system.name, "version": system.version, "flags": list(system.flags),
                           "shards": system.shards, "empty": _now(system)}
    tell(f"put {load.keys:,} keys")
    row["load_s"] = await _timed(run.populate(spec))
    row["loaded"] = await _settled(system)
    tell("restart")
    row["start_s"] = system.restart()  # in this thread: servers end with the one that started them
    row["restart_s"] = row["start_s"] + await _timed(_counted(spec))
    row["restarted"] = await _settled(system)
    if load.overwrites:
        tell(f"put {load.overwrites:,} of them again")
        again = replace(spec, key_space=min(load.overwrites, load.keys))
        row["overwrite_s"] = await _timed(run.populate(again))
    row["overwritten"] = await _settled(system)
    client = await upkeep.connect(spec)
    try:
        tell("compact")
        revision = await upkeep.revision_of(client)
        try:
            row["compact_s"] = await _timed(
                upkeep.compact(client, revision, physical=True, timeout_s=load.limit_s))
        except RpcError as error:
            row["compact_s"] = str(error)
        row["compacted"] = await _settled(system)
        tell("defragment")
        try:
            row["defragment_s"] = [
                await _timed(client.unary(DEFRAGMENT, pb.DefragmentRequest(), pb.DefragmentResponse,
                                          connection=i, timeout_s=load.limit_s))
                for i in range(len(client.connections))]
        except RpcError as error:
            row["defragment_s"] = str(error)
        row["defragmented"] = await _settled(system)
    finally:
        await client.close()
    await _counted(spec)
    return row


async def _timed(work: Any) -> float:
    began = time.monotonic()
    await work
    return time.monotonic() - began


async def _counted(spec: Spec) -> None:
    """Wait for the answer to a linearizable count. RunError if it is not that of the keys put."""
    client = await upkeep.connect(spec)
    prefix = spec.key_prefix.encode()
    request = pb.RangeRequest(key=prefix, range_end=prefix[:-1] + b"0", count_only=True)
    try:
        while True:
            try:
                answer = await client.unary(RANGE, request, pb.RangeResponse, timeout_s=60.0)
                break
            except RpcError:
                await asyncio.sleep(0.02)
    finally:
        await client.close()
    if answer.count != spec.key_space:
        raise run.RunError(f"{answer.count} keys are there; {spec.key_space} were put")


async def _settled(system: System) -> dict[str, Any]:
    await asyncio.sleep(_SETTLE_S)
    system.check()
    return _now(system)


def _now(system: System) -> dict[str, Any]:
    processes = servers.memory(system.pids)
    return {"disk_bytes": disk_bytes(system.data_dir, system.logs), "processes": processes,
            **{kind: sum(int(str(p[kind])) for p in processes) for kind in ("rss_bytes", "pss_bytes")}}


def disk_bytes(directory: Path, logs: Collection[Path] = ()) -> int:
    """Disk space of the files below, without those in ``logs``."""
    total = 0
    for path in directory.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink() and path not in logs:
                total += path.stat().st_blocks * 512
        except OSError:
            continue  # gone meanwhile
    return total


def show(console: Console, result: dict[str, Any]) -> None:
    """Print a table with the systems beside each other, and the ratio of the last to the first."""
    rows = result["systems"]
    shown = []
    for title, pick, scale in _lines():
        values = [pick(row) for row in rows]
        texts = [value if isinstance(value, str) else "-" if value is None else number(value / scale)
                 for value in values]
        shown.append([title, *texts, *text.ratio(values)])
    settings, machine = result["settings"], result["machine"]
    text.write(
        console, text.table(text.beside([row["name"] for row in rows]), shown),
        f"{settings['keys']:,} keys with values of {settings['val_size_bytes']} bytes, "
        f"{settings['overwrites']:,} put again; three members each, sums over all of them; "
        f"{result['started_at']}, {machine['cpu']}, {machine['cpus']} CPUs.",
        *(f"{row['name']}, {what[:-2]}: {row[what]}" for row in rows for what in ("compact_s", "defragment_s")
          if isinstance(row[what], str)))


def _lines() -> list[tuple[str, Callable[[dict[str, Any]], Any], float]]:
    found: list[tuple[str, Callable[[dict[str, Any]], Any], float]] = [("load, s", lambda r: r["load_s"], 1)]
    for stage in ("empty", "loaded", "restarted", "overwritten", "compacted", "defragmented"):
        for kind, title in (("disk_bytes", "on disk"), ("rss_bytes", "RSS"), ("pss_bytes", "PSS")):
            found.append((f"{stage}: {title}, MiB", lambda r, s=stage, k=kind: r[s][k], 2**20))  # type: ignore[misc]
    return [
        *found,
        ("restart until serving, s", lambda r: r["restart_s"], 1),
        ("compaction, s", lambda r: None if isinstance(r["compact_s"], str) else r["compact_s"], 1),
        ("defragmentation of a member, s",
         lambda r: None if isinstance(r["defragment_s"], str) else statistics.mean(r["defragment_s"]), 1),
    ]
