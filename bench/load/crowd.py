"""What many connections and watches of one process cost a server and its other clients.

Each system has the machine to itself. Memory is the sum over all members' processes after some idle seconds,
without the kernel's socket buffers.

Processes open all connections, put and get on each, create watches, and end both. Puts *beside* a
crowd come from 100 clients as fast as they are answered. *While* a crowd comes or goes, 100 puts a second are
sent; their latency counts from the intended sending. A connection takes a descriptor here and at its server.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import uvloop
from rich.console import Console

from bench import counters
from bench.client import parse_endpoint
from bench.load import run
from bench.load.spec import Spec
from bench.load.stats import Latencies
from bench.load.traffic.holding import allow_descriptors
from bench.load.traffic.shares import Shares, spread
from bench.report import text
from bench.report.text import number
from bench.systems import servers
from bench.systems.systems import System, started

SCHEMA = "muster-bench-crowd/1"
_KEYS = {"key_prefix": "/load/", "key_size_bytes": 14, "key_space": 10_000}
_SETTLE_S = 3.0  # before memory is read
_BESIDE_S = 2.0  # the least time of others' puts
_LET_GO_S = 30.0  # for a server to notice ended connections or watches
_SPARE_BYTES = 2 << 30  # of free memory: with less, nothing more is opened
_DELIVERED = 1000  # watches that get an event
_RESERVED = 1024  # descriptors that a server needs for itself


@dataclass(slots=True, frozen=True)
class Load:
    """How large the crowd is, and what works beside it."""

    connections: int = 10_000
    watches: int = 100_000
    watch_streams: int = 0  # connections with a watch stream; 0: all of them
    members: int = 0  # that the crowd connects to; 0: all
    processes: int = 1  # that hold the crowd
    at_once: int = 256  # connections, requests or streams under way at a time
    clients: int = 100  # of the puts beside it
    duration_s: float = 5.0  # of these puts, each time
    rate_per_s: float = 100.0  # of one put after the other while the crowd comes and goes
    limit_s: float = 240.0  # for one system
    timeout_s: float = 30.0  # of one connection, request or stream

    def shares(self) -> int:
        """The processes that have work."""
        return spread(self.processes, self.connections, self.watches, self.watch_streams)

    def check(self) -> None:
        """ValueError if it cannot be run, in words."""
        if min(self.connections, self.watches, self.at_once, self.clients, self.processes) < 1:
            raise ValueError("connections, watches, clients, processes and what is under way at once must be "
                             "at least 1")
        if min(self.duration_s, self.rate_per_s, self.limit_s, self.timeout_s) <= 0:
            raise ValueError("durations, limits and the rate must be positive")
        if not 0 <= self.watch_streams <= self.connections:
            raise ValueError("there are at most as many watch streams as connections")


def measure(names: Sequence[str], load: Load, *, data_dir: Path | None = None, etcd_flags: Sequence[str] = (),
            muster_flags: Sequence[str] = (), said: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure each system, one after the other, with failures in its ``errors`` and ``failed``.

    ValueError for a load above this machine's limits. RuntimeError if a system does not start.
    """
    load.check()
    if given := [name for name in names if "=" in name]:
        raise ValueError(f"{', '.join(given)}: crowd starts its systems itself")
    hard = allow_descriptors(-(-load.connections // load.shares()))
    for_each = -(-load.connections // (load.members or 3) // _fronts(names, muster_flags)) + _RESERVED
    if for_each > hard:
        raise ValueError(f"a server needs {for_each:,} open files for its connections and itself; "
                         f"the hard limit here is {hard:,} (ulimit -Hn)")
    rows = []
    started_at = datetime.now(UTC)
    for name in names:
        said(f"{name}: start")
        with started([name], data_dir=data_dir, etcd_flags=etcd_flags, muster_flags=muster_flags) as running:
            rows.append(uvloop.run(_Turn(running[0], load, said).measure()))
    return {
        "schema": SCHEMA, "started_at": started_at.isoformat(timespec="seconds"), "machine": run.machine(),
        "settings": asdict(load), "hard_limit": hard, "systems": rows,
    }


def _fronts(names: Sequence[str], muster_flags: Sequence[str]) -> int:
    """Processes that share a member's connections: muster's fronts, if muster alone is measured."""
    if set(names) != {"muster"}:
        return 1
    given = [part for flag in muster_flags for part in flag.split("=")]
    found = [value for flag, value in itertools.pairwise(given) if flag == "--fronts"]
    return max([1, *(int(value) for value in found if value.isdecimal())])


class _Turn:
    """One system's turn."""

    def __init__(self, system: System, load: Load, said: Callable[[str], None]) -> None:
        self._system = system
        self._load = load
        self._said = said
        endpoints = [parse_endpoint(e) for e in system.endpoints[: load.members or None]]
        self._crowd = Shares(endpoints, load.at_once, load.timeout_s, load.shares())
        self._row: dict[str, Any] = {
            "name": system.name, "version": system.version, "flags": list(system.flags), "failed": "",
        }

    async def measure(self) -> dict[str, Any]:
        """The row of this system, complete or up to the limit."""
        row = self._row
        try:
            async with asyncio.timeout(self._load.limit_s):
                await self._stages()
        except TimeoutError:
            row["failed"] = f"not done within {self._load.limit_s:.0f} s"
        except run.RunError as failed:
            row["failed"] = str(failed)
        finally:
            await self._crowd.close()
        self._system.check()
        row["errors"] = dict(self._crowd.errors)
        return row

    async def _stages(self) -> None:
        load, crowd, row = self._load, self._crowd, self._row
        crowd.start(load.connections)
        descriptors = self._descriptors()
        await self._beside("puts_alone")
        row["empty"] = await self._settled()

        took_us = await self._coming("connect", lambda p: crowd.open(load.connections, p), load.connections)
        _count(row["connect"], len(took_us), took_us)
        row["connected"] = await self._settled()
        took_us = await self._coming("serve", crowd.serve, 2 * crowd.connections)
        _count(row["serve"], len(took_us), took_us)
        row["served"] = await self._settled()
        await self._beside("puts_beside_connections")
        row["loaded"] = await self._settled()

        streams = load.watch_streams or crowd.connections
        await self._coming("watch", lambda p: crowd.watch(load.watches, streams, p), load.watches)
        _count(row["watch"], crowd.watches)
        row["watch"]["streams"] = streams
        row["watched"] = await self._settled()
        await self._beside("puts_beside_watches")
        some = min(load.watches, _DELIVERED)
        took_us = await self._coming("deliver", lambda p: crowd.deliver(some, p), some)
        _count(row["deliver"], len(took_us), took_us)

        async def end_watches(progress: Callable[[int], None]) -> None:
            await crowd.end_watches()
            await self._until(lambda: self._watchers() == 0, "watches")

        async def close(progress: Callable[[int], None]) -> None:
            await crowd.close()
            await self._until(lambda: self._descriptors() < descriptors + max(100, load.connections // 100),
                              "connections")

        await self._coming("end_watches", end_watches, 0)
        row["unwatched"] = await self._settled()
        await self._coming("close", close, 0)
        row["closed"] = await self._settled()
        await self._beside("puts_after")
        row["after"] = await self._settled()

    async def _coming(self, stage: str, work: Callable[[Callable[[int], None]], Coroutine[Any, Any, Any]],
                      total: int) -> Any:
        """A step of the crowd beside puts at a steady rate; its figures go to ``stage``."""
        load = self._load
        self._said(f"{self._system.name}: {stage.replace('_', ' ')}")
        stop = asyncio.Event()
        spec = Spec("put", tuple(self._system.endpoints), conns=3, clients=64, duration_s=load.limit_s,
                    rate_per_s=load.rate_per_s, **_KEYS)  # type: ignore[arg-type]
        said_at = [time.monotonic()]

        def progress(done: int) -> None:
            now = time.monotonic()
            if now - said_at[0] > 2.0:
                said_at[0] = now
                self._said(f"{self._system.name}: {stage.replace('_', ' ')}: {done:,} of {total:,}")
                if psutil.virtual_memory().available < _SPARE_BYTES:
                    raise run.RunError("stopped: this machine is short of memory")

        began_sending: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def sending(operations: int, errors: int) -> None:
            if operations and not began_sending.done():
                began_sending.set_result(None)

        beside = asyncio.ensure_future(run.run(spec, stop=stop, drains=True, progress=sending))
        try:
            await asyncio.wait((beside, began_sending), return_when=asyncio.FIRST_COMPLETED)
            cpu_s, began = self._cpu_s(), time.monotonic()
            found = await work(progress)
            took_s = time.monotonic() - began
            row = {"took_s": took_s, "server_cpu_s": self._cpu_s() - cpu_s}
            await asyncio.sleep(max(0.0, _BESIDE_S - took_s))
        finally:
            stop.set()
            result = await beside
        self._row[stage] = row | {"others": _puts(result)}
        return found

    async def _beside(self, stage: str) -> None:
        self._said(f"{self._system.name}: {stage.replace('_', ' ')}")
        spec = Spec("put", tuple(self._system.endpoints), conns=10, clients=self._load.clients,
                    duration_s=self._load.duration_s, **_KEYS)  # type: ignore[arg-type]
        self._row[stage] = _puts(await run.run(spec, server_roots=self._system.pids))

    async def _settled(self) -> dict[str, Any]:
        """Memory, descriptors and idle CPU, after some seconds without work."""
        cpu_s = self._cpu_s()
        await asyncio.sleep(_SETTLE_S)
        idle_percent = 100 * (self._cpu_s() - cpu_s) / _SETTLE_S
        self._system.check()
        processes = servers.memory(self._system.pids)
        return {"idle_cpu_percent": idle_percent, "descriptors": self._descriptors(), "processes": processes,
                **{kind: sum(int(str(p[kind])) for p in processes) for kind in ("rss_bytes", "pss_bytes")}}

    async def _until(self, reached: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _LET_GO_S
        while not await asyncio.to_thread(reached):
            if time.monotonic() > end:
                self._crowd.count(f"{what} that the server still has {_LET_GO_S:.0f} s after their end")
                return
            await asyncio.sleep(0.2)  # what asks for metrics is work for the server, too

    def _watchers(self) -> float:
        total = 0.0
        for endpoint in self._crowd.endpoints:
            metrics = counters.parse(counters.http_get(endpoint.host, endpoint.port, "/metrics"))
            total += metrics.get("etcd_debugging_mvcc_watcher_total", 0.0)
        return total

    def _descriptors(self) -> int:
        return sum(psutil.Process(pid).num_fds() for pid in servers.sample(self._system.pids))

    def _cpu_s(self) -> float:
        return sum(usage.cpu_s for usage in servers.sample(self._system.pids).values())


def _count(stage: dict[str, Any], count: int, took_us: list[int] | None = None) -> None:
    """A stage's figures go by what the server took, not by what was asked."""
    stage |= {"count": count, "per_s": count / stage["took_s"]}
    if took_us is not None:
        stage["latency_ms"] = _summary(took_us)


def _summary(samples_us: list[int]) -> dict[str, float]:
    latencies = Latencies()
    latencies.add(samples_us)
    return latencies.summary_ms()


def _puts(result: dict[str, Any]) -> dict[str, Any]:
    return {"operations": result["operations"], "throughput_per_s": result["throughput_per_s"],
            "latency_ms": result["latency_ms"], "errors": result["errors"]}


def failures(result: dict[str, Any]) -> bool:
    """Whether any system did not do all of it."""
    return any(row["failed"] or row["errors"] for row in result["systems"])


# -- as a table


_Pick = Callable[[dict[str, Any]], float]


def _kib_each(before: str, after: str, stage: str) -> _Pick:
    return lambda row: ((row[after]["rss_bytes"] - row[before]["rss_bytes"])
                        / max(1, row[stage]["count"]) / 1024)


def lines(load: dict[str, Any]) -> list[tuple[str, _Pick]]:
    """The rows of the table: a title, and how a system's row has its figure."""
    connections, watches = load["connections"], load["watches"]
    found: list[tuple[str, _Pick]] = [
        ("connections accepted a second", lambda r: r["connect"]["per_s"]),
        ("until one is accepted, p99 ms", lambda r: r["connect"]["latency_ms"]["p99"]),
        ("put and get on each of them: requests a second", lambda r: r["serve"]["per_s"]),
        ("watches created a second", lambda r: r["watch"]["per_s"]),
        ("RSS of a connection, KiB", _kib_each("empty", "connected", "connect")),
        ("RSS of a connection that has served, KiB", _kib_each("empty", "served", "connect")),
        ("RSS of a watch, its share of a stream included, KiB", _kib_each("loaded", "watched", "watch")),
    ]
    for stage, title in (("empty", "before"), ("served", f"with {connections:,} connections"),
                         ("watched", f"with {watches:,} watches on them"), ("unwatched", "watches ended"),
                         ("closed", "connections closed")):
        found.append((f"RSS {title}, MiB", lambda r, s=stage: r[s]["rss_bytes"] / 2**20))  # type: ignore[misc]
    found += [
        (f"idle CPU with {connections:,} connections, % of one", lambda r: r["served"]["idle_cpu_percent"]),
        (f"idle CPU with {watches:,} watches, % of one", lambda r: r["watched"]["idle_cpu_percent"]),
    ]
    for stage, title in (("puts_alone", "alone"), ("puts_beside_connections", "beside the connections"),
                         ("puts_beside_watches", "beside the watches"), ("puts_after", "after they closed")):
        found += [(f"puts a second {title}", lambda r, s=stage: r[s]["throughput_per_s"]),  # type: ignore[misc]
                  ("p99 of these, ms", lambda r, s=stage: r[s]["latency_ms"]["p99"])]  # type: ignore[misc]
    for stage, title in (("connect", "connections come"), ("watch", "watches come"),
                         ("end_watches", "watches end"), ("close", "connections close")):
        found += [(f"a put's p99 while {title}, ms",
                   lambda r, s=stage: r[s]["others"]["latency_ms"]["p99"]),  # type: ignore[misc]
                  ("the slowest, ms", lambda r, s=stage: r[s]["others"]["latency_ms"]["max"])]  # type: ignore[misc]
    return [
        *found,
        ("put to its event at a watch, p99 ms", lambda r: r["deliver"]["latency_ms"]["p99"]),
        ("until all watches are gone, s", lambda r: r["end_watches"]["took_s"]),
        ("until all connections are gone, s", lambda r: r["close"]["took_s"]),
    ]


def _texts(result: dict[str, Any]) -> list[list[str]]:
    rows = []
    for title, pick in lines(result["settings"]):
        values = [_value(pick, row) for row in result["systems"]]
        rows.append([title, *("-" if value is None else number(value) for value in values),
                     *text.ratio(values)])
    return rows


def _value(pick: _Pick, row: dict[str, Any]) -> float | None:
    try:
        return pick(row)
    except KeyError:
        return None  # the turn ended before


def _heads(result: dict[str, Any]) -> list[str]:
    return text.beside([row["name"] for row in result["systems"]])


def _remarks(result: dict[str, Any]) -> list[str]:
    settings, machine = result["settings"], result["machine"]
    found = [
        f"{settings['connections']:,} connections to {settings['members'] or 3} of three members, "
        f"{settings['watches']:,} watches on {settings['watch_streams'] or settings['connections']:,} "
        f"streams, each on a key of its own; sums over all members. Puts by {settings['clients']} clients "
        f"for {settings['duration_s']:g} s; while the crowd comes and goes {settings['rate_per_s']:g} a "
        f"second. {result['started_at']}, {machine['cpu']}, {machine['cpus']} CPUs."
    ]
    for row in result["systems"]:
        found += [f"{row['name']}: {row['failed']}"] if row["failed"] else []
        found += [f"{row['name']}: {count} x {what}" for what, count in row["errors"].items()]
    return found


def show(console: Console, result: dict[str, Any]) -> None:
    """Print a table with the systems beside each other, and remarks."""
    text.write(console, text.table(_heads(result), _texts(result)), *_remarks(result))


def markdown(result: dict[str, Any]) -> str:
    return "\n".join([text.markdown(_heads(result), _texts(result)), *_remarks(result)]) + "\n"
