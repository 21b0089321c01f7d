"""Two systems beside each other on one machine: the same matrix, A B A B, as ratios with their spread.

Both run all the while (what each costs when idle is measured and told), and take turns of a few seconds, so
that whatever else the machine does meets both alike. A ratio is B's figure over A's in the same round.
"""

from __future__ import annotations

import asyncio
import fnmatch
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from bench import run, servers
from bench.client import Client, RpcError, parse_endpoint
from bench.spec import Spec
from bench.systems import System
from cluster.pb import rpc_pb2 as pb

SCHEMA = "muster-bench-compare/1"
STATUS = "/etcdserverpb.Maintenance/Status"

_CONNS = {1: 1, 100: 10, 1000: 100}  # clients: connections, as in etcd's published benchmarks

#: The figures of one run that are compared, and whether more is better.
FIGURES = {"throughput_per_s": True, "mean_ms": False, "p50_ms": False, "p99_ms": False, "server_us_per_op": False,
           "server_rss_bytes": False}


@dataclass(slots=True, frozen=True)
class Cell:
    """One row of the matrix. ``spec`` lacks only endpoints and duration."""

    name: str
    spec: Spec
    default: bool = True


def cells() -> list[Cell]:
    """The whole matrix; those marked default run unless others are named."""
    found = []
    for name, changes in (("put", {"command": "put"}), ("range-l", {"command": "range"}),
                          ("range-s", {"command": "range", "serializable": True})):
        for clients, conns in _CONNS.items():
            found.append(Cell(f"{name}-{clients}", replace(_BLANK, clients=clients, conns=conns, **changes)))
    found += [
        Cell("txn-put-1000", replace(_BLANK, command="txn-put", clients=1000, conns=100), default=False),
        Cell("watch-100x100", replace(_BLANK, command="watch", conns=10, streams=100, watchers_per_stream=100,
                                      key_space=1, rate_per_s=20.0, clients=20), default=False),
        Cell("watch-latency", replace(_BLANK, command="watch-latency", conns=10, streams=100, key_space=1,
                                      rate_per_s=200.0, clients=100), default=False),
        Cell("lease-keepalive-100", replace(_BLANK, command="lease-keepalive", clients=100, conns=10, leases=1000),
             default=False),
    ]
    return found


_BLANK = Spec("put", ())


def choose(patterns: Sequence[str]) -> list[Cell]:
    """The cells whose names match one of the shell patterns; the default ones for none. ValueError if none match."""
    if not patterns:
        return [cell for cell in cells() if cell.default]
    chosen = [cell for cell in cells() if any(fnmatch.fnmatchcase(cell.name, p) for p in patterns)]
    if not chosen:
        raise ValueError(f"no cell matches; there are {', '.join(cell.name for cell in cells())}")
    return chosen


@dataclass(slots=True)
class Plan:
    """How a comparison is made."""

    cells: list[Cell]
    rounds: int = 3
    duration_s: float = 5.0
    warm_up_s: float = 1.0
    processes: int = 1
    leader_only: bool = False
    key_space: int = 10_000
    idle_s: float = 2.0
    notes: dict[str, str] = field(default_factory=dict)


async def compare(plan: Plan, systems: Sequence[System], said: Callable[[str], None]) -> dict[str, Any]:
    """Run the plan on the systems in turn; ``said`` gets a line before each run. The ``--json`` dictionary.

    A run that fails is recorded as such and the others go on; RuntimeError if a system has ended.
    """
    started_at = datetime.now(UTC)
    for system in systems:
        said(f"{system.name}: put {plan.key_space} keys")
        await run.populate(replace(_BLANK, endpoints=tuple(system.endpoints), key_space=plan.key_space))
    idle = {system.name: await _idle_percent(system, plan.idle_s) for system in systems}
    rows = []
    for place, cell in enumerate(plan.cells):
        endpoints = {system.name: await _endpoints(plan, system) for system in systems}

        def numbered(line: str, number: int = place + 1) -> None:
            said(f"[{number}/{len(plan.cells)}] {line}")

        runs = await _cell(plan, cell, systems, endpoints, numbered)
        rows.append({"name": cell.name, "runs": runs, "ratios": ratios(runs, [system.name for system in systems])})
    return {
        "schema": SCHEMA, "started_at": started_at.isoformat(timespec="seconds"), "machine": run.machine(),
        "storage": storage(systems[0].data_dir), "notes": plan.notes,
        "plan": {"rounds": plan.rounds, "duration_s": plan.duration_s, "warm_up_s": plan.warm_up_s,
                 "processes": plan.processes, "leader_only": plan.leader_only, "key_space": plan.key_space},
        "systems": [{"name": s.name, "version": s.version, "endpoints": s.endpoints,
                     "idle_cpu_percent": idle[s.name],
                     "processes": [{"pid": pid, **asdict(usage)} for pid, usage in servers.sample(s.pids).items()]}
                    for s in systems],
        "cells": rows,
    }


async def _endpoints(plan: Plan, system: System) -> tuple[str, ...]:
    """The leader's endpoint, then the others: with one connection it makes a difference where it goes.

    Left as they are where no member says that it leads (a member of etcd always knows, once it is healthy).
    """
    try:
        leader = await leader_of(system.endpoints)
    except RuntimeError:
        return tuple(system.endpoints)
    return (leader,) if plan.leader_only else (leader, *(e for e in system.endpoints if e != leader))


async def _cell(plan: Plan, cell: Cell, systems: Sequence[System], endpoints: dict[str, tuple[str, ...]],
                said: Callable[[str], None]) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = {system.name: [] for system in systems}
    for i in range(-1 if plan.warm_up_s else 0, plan.rounds):
        for system in systems:
            duration_s = plan.warm_up_s if i < 0 else plan.duration_s
            said(f"{cell.name}: {system.name}, " + ("warm-up" if i < 0 else f"round {i + 1} of {plan.rounds}"))
            spec = replace(cell.spec, endpoints=endpoints[system.name], duration_s=duration_s, seed=i + 2,
                           key_space=min(cell.spec.key_space, plan.key_space))
            try:
                result = await run.run(spec, processes=plan.processes, server_roots=system.pids)
            except run.RunError as error:
                system.check()
                result = {"failed": str(error)}
            if i >= 0:
                runs[system.name].append(result)
    return runs


def figure(result: dict[str, Any], name: str) -> float | None:
    """One of :data:`FIGURES` from a run's result; None where the run has it not."""
    if "failed" in result or not result["operations"]:
        return None
    if name == "throughput_per_s":
        return float(result[name])
    if name.startswith("server_"):
        return float(result["server"][name.removeprefix("server_")]) if result["server"] else None
    return float(result["latency_ms"][name.removesuffix("_ms")])


def figures(results: Iterable[dict[str, Any]], name: str) -> list[float]:
    """One figure of several runs, failed ones left out."""
    return [value for result in results if (value := figure(result, name)) is not None]


def ratios(runs: dict[str, list[dict[str, Any]]], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """For each figure the second system's over the first's, round by round: median, lowest, highest."""
    found = {}
    for name in FIGURES:
        pairs = zip(runs[names[0]], runs[names[1]], strict=True)
        values = [b / a for one, other in pairs
                  if (a := figure(one, name)) and (b := figure(other, name)) is not None]
        if values:
            found[name] = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return found


async def leader_of(endpoints: Sequence[str]) -> str:
    """The endpoint of the member that leads, by what the members' status says. RuntimeError if none does."""
    for endpoint in endpoints:
        try:
            client = await Client.open([parse_endpoint(endpoint)])
        except (OSError, TimeoutError):
            continue
        try:
            status = await client.unary(STATUS, pb.StatusRequest(), pb.StatusResponse)
        except (RpcError, TimeoutError):
            continue
        finally:
            await client.close()
        if status.leader == status.header.member_id:
            return endpoint
    raise RuntimeError(f"no leader among {', '.join(endpoints)}")


def storage(directory: Path) -> dict[str, Any]:
    """What the data lay on, and what a small synced write costs there (median of 100, in ms)."""
    path = directory.resolve()
    mounts = [p for p in psutil.disk_partitions(all=True) if path.is_relative_to(p.mountpoint)]
    mount = max(mounts, key=lambda p: len(p.mountpoint), default=None)
    probe = path / "sync-probe"
    times = []
    fd = os.open(probe, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for _ in range(100):
            started = time.perf_counter()
            os.write(fd, bytes(300))
            os.fdatasync(fd)
            times.append(time.perf_counter() - started)
    finally:
        os.close(fd)
        probe.unlink()
    return {"filesystem": mount.fstype if mount else "", "device": mount.device if mount else "",
            "sync_ms": statistics.median(times) * 1000}


async def _idle_percent(system: System, seconds: float) -> float:
    """CPU the system takes while nobody asks it for anything, in percent of one CPU."""
    before = servers.sample(system.pids)
    await asyncio.sleep(seconds)
    return 100 * sum(u.cpu_s for u in servers.spent(before, servers.sample(system.pids))) / seconds
