"""Systems beside each other on one machine: the same matrix, in turns, as ratios with their spread.

All systems run all the time and take turns of a few seconds, so that other load on the machine meets all
alike. A ratio is a system's figure over the first system's in the same round. Under a budget turns get
shorter, then rounds fewer, then cells are left out by name.

The result, ``muster-bench-compare/2``, has ``systems``, ``plan``, ``storage`` (with the time of a synced
write) and for each of ``cells`` its ``runs`` (``bench.load.run``, by system; ``counters`` has syncs and the
like), ``ratios`` (of each system to the first) and ``targets``. Several presets make a list of these.

With several etcds these are ``baselines``. Each cell's ``ratios`` are then to the one of them that is better
in that figure (``better`` names it), and ``ratios_to`` has those to each.

CPU of an operation: user and system time of all server processes over the operations answered. RSS: the sum
over these processes at the end of a turn, shared memory counted in each.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from bench import counters
from bench.compare import kinds
from bench.compare.figures import better, ratios, targets, to_better, to_each
from bench.compare.go_tool import GoTool
from bench.compare.loads import upkeep
from bench.compare.loads.disturb import disturbed_run
from bench.compare.matrix import BIG_KEY_BYTES, BIG_PREFIX, Cell, Sizes
from bench.load import run
from bench.load.outcome import results_in
from bench.load.spec import V2, WATCHES, Spec
from bench.systems import servers
from bench.systems.systems import System
from cluster.placement import Placement

SCHEMA = "muster-bench-compare/2"
TURN_OVERHEAD_S = 1.3  # client processes started and stopped, connections made, figures read
SHORTEST_TURN_S = 0.6
COMFORTABLE_TURN_S = 1.0


@dataclass(slots=True)
class Plan:
    """How a comparison is made."""

    cells: list[Cell]
    rounds: int = 3
    duration_s: float = 5.0
    warm_up_s: float = 1.0
    processes: int = 1
    leader_only: bool = False
    hosts: int = 3
    key_space: int = 10_000
    idle_s: float = 2.0
    sizes: Sizes = field(default_factory=Sizes)
    budget_s: float = 0.0  # 0: none
    preset: str = ""
    title: str = ""
    notes: dict[str, str] = field(default_factory=dict)
    baselines: int = 1  # so many of the systems, the first ones, are compared with
    tool: GoTool = field(default_factory=GoTool)


#: Fields of the plan that the result has.
_TOLD = ("rounds", "duration_s", "warm_up_s", "processes", "leader_only", "hosts", "key_space", "budget_s")


class Told:
    """Takes the progress of a comparison; this one drops it."""

    def say(self, line: str) -> None:
        """A line before each turn."""

    def progress(self, done: int, total: int) -> None:
        """Turns made, of all systems."""


async def compare(
    plan: Plan, systems: Sequence[System], told: Told, *, began: float | None = None
) -> dict[str, Any]:
    """Run the plan on the systems in turn. The ``--json`` dictionary.

    A run that fails is recorded, and the others go on; RuntimeError if a system has ended. The budget counts
    from ``began``, of ``time.monotonic``.
    """
    began = time.monotonic() if began is None else began
    started_at = datetime.now(UTC)
    await _fill(plan, systems, told)
    idle = {system.name: await _idle_percent(system, plan.idle_s) for system in systems}
    rows = await _passes(plan, systems, told, _Clock(plan, len(systems), began))
    return {
        "schema": SCHEMA, "preset": plan.preset, "title": plan.title,
        "started_at": started_at.isoformat(timespec="seconds"), "took_s": time.monotonic() - began,
        "machine": run.machine(), "storage": storage(systems[0].data_dir), "notes": plan.notes,
        "plan": {name: getattr(plan, name) for name in _TOLD} | {"sizes": asdict(plan.sizes)},
        "systems": [{"name": s.name, "version": s.version, "endpoints": s.endpoints, "shards": s.shards,
                     "flags": list(s.flags), "idle_cpu_percent": idle[s.name],
                     "processes": servers.memory(s.pids)}
                    for s in systems],
        **({"baselines": [s.name for s in systems[:plan.baselines]]} if plan.baselines > 1 else {}),
        "cells": rows,
    }


async def _passes(plan: Plan, systems: Sequence[System], told: Told, clock: _Clock) -> list[dict[str, Any]]:
    """Every cell once, then every cell again: each has a turn when time runs short."""
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {
        cell.name: {system.name: [] for system in systems} for cell in plan.cells}
    lengths: dict[str, float] = {}
    done, total = 0, len(plan.cells) * len(systems) * plan.rounds
    for i in range(plan.rounds):
        for place, cell in enumerate(plan.cells):
            duration_s = clock.duration_s(cell, plan.cells[place:], plan.rounds - i - 1, first=i == 0)
            if not duration_s:
                continue
            lengths.setdefault(cell.name, duration_s)
            where = f"[{place + 1}/{len(plan.cells)}] {cell.name}"
            able = [system for system in systems if system.shards >= cell.min_shards]
            if i == 0 and plan.warm_up_s and _warms_up(cell) and not clock.hurry:
                for system in able:
                    told.say(f"{where}: {system.name}, warm-up")
                    with clock.turn(cell, plan.warm_up_s):
                        await _turn(plan, cell, system, plan.warm_up_s, i)
            for system in able:
                told.say(f"{where}: {system.name}, round {i + 1} of {plan.rounds}")
                with clock.turn(cell, duration_s):
                    runs[cell.name][system.name].append(await _turn(plan, cell, system, duration_s, i))
            done += len(systems)
            told.progress(done, total)
    if left_out := [cell.name for cell in plan.cells if cell.name not in lengths]:
        plan.notes["left out, the time was used up"] = ", ".join(left_out)
    names = [system.name for system in systems]
    return [row for cell in plan.cells if cell.name in lengths
            for row in _rows(cell, lengths[cell.name], runs[cell.name], names, plan.baselines,
                             judged=bool(plan.preset))]


def _rows(cell: Cell, duration_s: float, runs: dict[str, list[dict[str, Any]]], names: Sequence[str],
          baselines: int, *, judged: bool) -> list[dict[str, Any]]:
    """A cell's row of the result; of Kubernetes' cell one for each kind of request besides."""
    found = _ratios(runs, names, baselines)
    subjects = [names[0], *names[baselines:]]
    row = {"name": cell.name, "title": cell.title, "duration_s": duration_s, "runs": runs, **found,
           "targets": targets(cell, runs, found["ratios"], subjects) if judged else []}
    if cell.spec.command != "kubernetes":
        return [row]
    return [row, *(one | _ratios(one["runs"], names, baselines) for one in kinds.split(row, names))]


def _ratios(runs: dict[str, list[dict[str, Any]]], names: Sequence[str], baselines: int) -> dict[str, Any]:
    if baselines < 2:
        return {"ratios": ratios(runs, names)}
    each = to_each(runs, names, names[:baselines])
    best = better(runs, names[:baselines])
    return {"ratios": to_better(each, best), "ratios_to": each, "better": best}


class _Clock:
    """Divides the rest of the budget among the turns to come."""

    def __init__(self, plan: Plan, systems: int, began: float) -> None:
        self._plan = plan
        self._systems = systems
        self._ends = began + plan.budget_s
        self._overhead_s = TURN_OVERHEAD_S
        self.hurry = False  # no warm-ups any more

    def duration_s(self, cell: Cell, left: Sequence[Cell], later_passes: int, *, first: bool) -> float:
        """The length of a turn of ``cell``, the first of those ``left`` in this pass; 0: no time is left.

        Later passes go first, then warm-ups, then length, then cells.
        """
        plan = self._plan
        own = cell.duration_s or plan.duration_s
        if not plan.budget_s:
            return own
        remaining = (self._ends - time.monotonic()) / self._systems
        this, whole = sum(map(_weight, left)), sum(map(_weight, plan.cells))
        if first and plan.warm_up_s and not self.hurry:
            rest = remaining - sum(_warms_up(one) for one in left) * (plan.warm_up_s + self._overhead_s)
            self.hurry = rest / this - self._overhead_s < SHORTEST_TURN_S
            remaining = remaining if self.hurry else rest
        for passes in range(later_passes, -1, -1):
            share = remaining / (this + passes * whole) - self._overhead_s
            if share >= COMFORTABLE_TURN_S:
                return min(own, share)
        if share >= SHORTEST_TURN_S:
            return min(own, share)
        return SHORTEST_TURN_S if first and remaining > 0 else 0.0

    @contextmanager
    def turn(self, cell: Cell, duration_s: float) -> Iterator[None]:
        """Measures what a turn takes above its duration."""
        began = time.monotonic()
        yield
        beside_s = (time.monotonic() - began) / _weight(cell) - duration_s
        self._overhead_s += 0.2 * (max(0.5, beside_s) - self._overhead_s)


def _weight(cell: Cell) -> float:
    return 2.5 if cell.kind == "disturbed" else 1.5 if cell.big else 1.0


def _warms_up(cell: Cell) -> bool:
    return cell.kind == "load" and not cell.big and cell.spec.command not in WATCHES


async def _fill(plan: Plan, systems: Sequence[System], told: Told) -> None:
    """Put the keys that reads find."""
    if all(cell.spec.command in ("kubernetes", *V2) for cell in plan.cells):
        return  # these loads put their own
    for system in systems:
        told.say(f"{system.name}: put {plan.key_space} keys")
        blank = Spec("put", tuple(system.endpoints), key_space=plan.key_space, cacert=system.cacert)
        await run.populate(blank)
        if any(cell.big for cell in plan.cells):
            told.say(f"{system.name}: put {plan.sizes.big_keys} keys below {BIG_PREFIX}")
            await run.populate(replace(blank, key_prefix=BIG_PREFIX, key_size_bytes=BIG_KEY_BYTES,
                                       key_space=plan.sizes.big_keys))


async def _turn(plan: Plan, cell: Cell, system: System, duration_s: float, round_: int) -> dict[str, Any]:
    """One system's turn; ``{"failed": reason}`` where it could not be made."""
    endpoints = await _endpoints(plan, system)
    spec = replace(cell.spec, endpoints=endpoints, cacert=system.cacert, duration_s=duration_s,
                   seed=round_ + 2, key_space=min(cell.spec.key_space, plan.key_space))
    if cell.own_key_of >= 0:
        spec = _key_of_shard(spec, cell.own_key_of, system.shards)
    before = counters.sample(system.told)
    try:
        if cell.kind == "disturbed":
            part = 1 / max(1, plan.rounds - max(round_, 0))
            result = await disturbed_run(spec, cell.disturbance, system.pids, processes=plan.processes,
                                         part=part)
        elif cell.kind == "tool":
            result = await plan.tool.run(spec, f"{cell.name} {system.name}", system.pids)
        else:
            result = await run.run(spec, processes=plan.processes, server_roots=system.pids)
    except (run.RunError, OSError, TimeoutError) as error:
        system.check()
        return {"failed": str(error) or type(error).__name__}
    result["counters"] = counters.grown(before, counters.sample(system.told))
    # later rounds find the memory already there
    if round_ == 0 and spec.command in WATCHES and result["server"]:
        watchers = spec.streams * spec.watchers_per_stream
        result["watcher_bytes"] = max(0, result["server"]["setup_rss_bytes"]) / watchers
    return result


def _key_of_shard(spec: Spec, shard: int, shards: int) -> Spec:
    """The same work on one key that lives on a shard."""
    placement = Placement(shards)
    for number in range(10_000):
        prefix = f"{number:07d}"
        if shards == 1 or placement.shard_of(f"{prefix}0".encode()) == shard:
            return replace(spec, key_prefix=prefix, key_size_bytes=8, key_space=1)
    raise AssertionError("a hash that leaves a shard without keys")


async def _endpoints(plan: Plan, system: System) -> tuple[str, ...]:
    """The leader's endpoint first, since a lone connection goes there; unchanged if no member leads."""
    try:
        leader = await upkeep.leader_of(system.endpoints, Spec("put", (), cacert=system.cacert))
    except OSError:
        return tuple(system.endpoints)
    return (leader,) if plan.leader_only else (leader, *(e for e in system.endpoints if e != leader))


def saved(path: Path) -> list[dict[str, Any]]:
    """The comparisons in a file of ``compare --save``. ValueError if it has none, OSError if unread."""
    results = results_in(path)
    for result in results:
        schema = result.get("schema") if isinstance(result, dict) else None
        if not isinstance(schema, str) or not schema.startswith("muster-bench"):
            raise ValueError(f"{path}: not a result of muster-bench")
        if schema != SCHEMA:
            raise ValueError(f"{path}: not a comparison that this version wrote, but {schema}")
    return results


def storage(directory: Path) -> dict[str, Any]:
    """The file system, and the median time of 100 small synced writes there."""
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


async def _idle_percent(system: System, seconds: float) -> float | None:
    """CPU of the system without load, in percent of one CPU; None if its processes are not here."""
    if not system.pids:
        return None
    before = servers.sample(system.pids)
    await asyncio.sleep(seconds)
    return 100 * sum(u.cpu_s for u in servers.spent(before, servers.sample(system.pids))) / seconds
