"""The commands ``plan`` and ``scale`` of ``muster-bench``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.compare.cli import Measured, failures, print_result, said
from bench.compare.loads.cuts import Ground
from bench.load import run
from bench.options import taking_fields
from bench.plan import show


def _option(help_text: str, **more: Any) -> Any:
    return typer.Option(help=help_text, **more)


def register(app: typer.Typer) -> None:
    for command in (plan, scale):
        app.command()(command)


def _ground(context: typer.Context) -> Ground:
    if context.obj is None:
        raise typer.BadParameter("this starts muster's own nodes: run it as muster-bench")
    ground: Ground = context.obj
    return ground


@dataclass(kw_only=True)
class _Planned(Measured):
    context: typer.Context
    writes: Annotated[float, _option("Writes per second.")] = 1000.0
    reads: Annotated[float, _option("Linearizable reads of one key per second.")] = 10_000.0
    events: Annotated[float, _option(
        "Events per second, each counted once for every watcher that gets it.")] = 0.0
    watches: Annotated[int, _option("Number of watches.")] = 0
    connections: Annotated[int, _option("Number of client connections.")] = 1000
    wide: Annotated[float, _option(
        "Transactions over several shards per second, in addition to the writes.")] = 0.0
    key_size: Annotated[int, _option("Bytes of a key.")] = 32
    val_size: Annotated[int, _option("Bytes of a value.")] = 256
    keys: Annotated[int, _option("Live keys.")] = 1_000_000
    compacted_every: Annotated[float, _option(
        "Seconds between compactions. Each keeps the versions that are younger, as "
        "--auto-compaction-retention does.")] = 3600.0
    hosts: Annotated[int, _option("Hosts: 1, 3, 5, 7 or 9.")] = 3
    most: Annotated[float, _option(
        "Share of a CPU that a process may use. The rest is for bursts, and for failures of hosts.")] = 0.6


@taking_fields(_Planned)
def plan(given: _Planned) -> None:
    """Say what CPUs, shards, memory and disks a load needs, by costs measured here in about a minute."""
    from bench.plan import demand as planning
    from bench.plan import prices as pricing
    from bench.plan.scale import price_rows

    ground = _ground(given.context)
    with failures():
        demand = planning.Demand(
            given.writes, given.reads, given.events, given.watches, given.connections, given.wide,
            given.key_size, given.val_size, given.keys, given.compacted_every, given.hosts, given.most)
        demand.check()
        prices, windows = pricing.measure(
            ground, key_bytes=given.key_size, value_bytes=given.val_size,
            data_dir=given.data_dir, said=said(given))
        result = {
            "schema": planning.SCHEMA, "machine": run.machine(),
            "machine_load": max(seen.machine_load for seen in windows), "prices": price_rows(prices),
            "plan": planning.plan(demand, prices)}
    print_result(result, show.plan, given)


@dataclass(kw_only=True)
class _Scaled(Measured):
    context: typer.Context
    shards: Annotated[str, _option("Comma-separated numbers of shards to measure.")] = "1,2,4,8"
    rounds: Annotated[int, _option("Turns of each load.", min=1)] = 3
    duration: Annotated[float, _option("Seconds of one turn.", min=0.1)] = 3.0
    tables: Annotated[Path | None, _option("Folder for the tables, as tab-separated files.")] = None


@taking_fields(_Scaled)
def scale(given: _Scaled) -> None:
    """Measure here what shards cost in each kind of process, and predict 1 to 64 shards on 3 to 9 hosts."""
    from bench.plan import scale as scaling

    ground = _ground(given.context)
    with failures():
        steps = scaling.Steps(tuple(int(n) for n in given.shards.split(",")), given.rounds, given.duration,
                              data_dir=given.data_dir)
        if len(set(steps.shards)) < 2 or min(steps.shards) < 1:
            raise ValueError("prices need clusters of two different numbers of shards at least")
        result = scaling.measure(ground, steps, said=said(given))
        if given.tables is not None:
            show.write_into(given.tables, result)
    print_result(result, show.scale, given)

