"""What the order log costs: three real node 0 processes, and shards that only report commits.

This process plays the nodes of the other shards: they take the feed, and those on the sequencer's host report
commits at a fixed rate. So the sequencer's process uses CPU for the order alone: reports, cuts, replication,
feeds. :func:`saturation` computes from it how many shards one sequencer can order; a step with that many
shards checks it. No load of one machine saturates a whole CPU, so ``--cpu-limit 0.1`` gives the process a
tenth, by a cgroup. ``--data-dir /dev/shm`` takes the disk out.

The bench imports no node's code: the caller of :func:`measure` passes in a :class:`Ground`, as
``tools.muster_bench`` does.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import psutil
import uvloop
from rich.console import Console

from bench.cpu_limit import limited
from bench.load import run
from bench.report import text
from bench.report.text import number
from bench.systems.systems import free_ports
from cluster.order.log import Fold
from cluster.order.prepare import REPORT
from cluster.settings import Common, NodeSettings, Peer
from cluster.wire.messages import FEED_ACK_BODY, FEED_BODY, FEED_HEAD, NO_HASTE, OWN_HASTE, Method, Status

SCHEMA = "muster-bench-cuts/1"
HOSTS = 3
LATE_MS = 100.0  # a sequencer whose order comes later than this does not keep up
# the lowest rate at which reports are in time: a report waits for a cut and the next cut's quorum
_CUTS_PER_S = 3 * 1000 / LATE_MS
_START_LIMIT_S = 30.0
_TURN_S = 0.005  # between two looks at which shards have something to report
_SETTLE_S = 0.5


class Link(Protocol):
    """A link to a node."""

    @property
    def alive(self) -> bool: ...

    def request(
        self, method: int, body: bytes, answered: Callable[[int, bytes], object] | None = None
    ) -> int:
        """Queue a request; ``answered(status, body)`` for every answer."""


class Links(Protocol):
    """The links of one node."""

    def get(self, member_id: int, shard: int) -> Link: ...

    def flush(self) -> None:
        """Send the queued requests."""

    def close(self) -> None: ...


class Asking(Protocol):
    """This process in place of a host's nodes."""

    def links(self) -> Links:
        """The links of one more node."""

    def close(self) -> None: ...


class Ground(Protocol):
    """Starts nodes, and links to them."""

    def start(self, settings: NodeSettings) -> subprocess.Popen[bytes]: ...

    def asking(self, loop: asyncio.AbstractEventLoop, common: Common) -> Asking: ...


@dataclass(slots=True, frozen=True)
class Load:
    """What each step does."""

    rate_per_s: float  # commits that each shard reports
    duration_s: float
    data_dir: Path | None = None
    cpu_limit: float = 1.0  # of a CPU for the sequencer's process; below 1 by a cgroup


@dataclass(slots=True)
class _Host:
    common: Common
    process: subprocess.Popen[bytes]
    status: Any  # the reading end of its status pipe


class _Shard:
    """A shard's node on one host: takes the feed, and as a leader (``waits_ms`` is a list) reports."""

    def __init__(self, loop: asyncio.AbstractEventLoop, links: Links, common: Common, shard: int,
                 waits_ms: list[float] | None) -> None:
        self.shard = shard
        self.links = links
        self.records = 0
        self._loop = loop
        self._fold = Fold()
        self._waits_ms = waits_ms
        self._index = 0
        self._applied = 0
        self._acknowledged = -1
        self._haste = NO_HASTE if waits_ms is None else OWN_HASTE
        self._reported: dict[int, float] = {}  # index -> when
        self.link = self.links.get(common.member_id, 0)
        self.link.request(Method.FEED, FEED_BODY.pack(shard, 1), self._fed)

    def _fed(self, status: int, body: bytes) -> None:
        if status != Status.PARTIAL:
            raise RuntimeError(f"shard {self.shard} is not fed any more: status {status}")
        self._applied = FEED_HEAD.unpack_from(body)[0]
        self.records += 1
        if self._waits_ms is None:
            return
        self._fold.take(body[FEED_HEAD.size:], self.shard)
        ordered = self._fold.cut(self.shard).index
        now = self._loop.time()
        for index in [index for index in self._reported if index <= ordered]:
            self._waits_ms.append(1000 * (now - self._reported.pop(index)))

    def report(self, puts: int) -> None:
        """Report one more entry, of ``puts`` puts."""
        self._index += 1
        self._reported[self._index] = self._loop.time()
        self.link.request(Method.REPORT,
                          REPORT.pack(self.shard, self._index, 1, self._index * puts, self._applied))

    def flush(self) -> None:
        if self._applied != self._acknowledged:
            self._acknowledged = self._applied
            self.link.request(Method.FEED_ACK,
                              FEED_ACK_BODY.pack(self._applied, self._applied, self._haste))
        self.links.flush()


def measure(ground: Ground, shards: Sequence[int], load: Load, *,
            said: Callable[[str], None] = print) -> dict[str, Any]:
    """Load the sequencer of one store after the other, with these numbers of shards (2 at least).

    The ``--json`` dictionary; RuntimeError if a node ends, is not ready in time, or cannot be limited.
    """
    if min(shards) < 2:
        raise ValueError("a store with one shard has no cuts")
    began = datetime.now(UTC)
    rows = []
    for count in shards:
        said(f"{count} shards")
        rows.append(uvloop.run(_step(ground, count, load)))
    return {"schema": SCHEMA, "started_at": began.isoformat(timespec="seconds"), "machine": run.machine(),
            "rate_per_s": load.rate_per_s, "duration_s": load.duration_s, "cpu_limit": load.cpu_limit,
            "rows": rows, "saturates_at_shards": saturation(rows, load.rate_per_s, load.cpu_limit)}


def saturation(rows: Sequence[dict[str, Any]], rate_per_s: float, cpu: float = 1.0) -> float | None:
    """How many shards a sequencer orders with ``cpu`` of a CPU, at ``rate_per_s`` reports of each.

    The prices of a cut and of a report come by least squares over the steps that it kept up with. A busier
    sequencer takes more reports into a cut; it saturates where cuts just in time leave no CPU for more
    reports. None: the steps do not separate the two prices."""
    kept = [(row["cuts_per_s"], row["reports_per_s"], row["sequencer_cpu"]) for row in rows if row["kept_up"]]
    cuts, reports = sum(c * c for c, _, _ in kept), sum(r * r for _, r, _ in kept)
    both, of_cuts, of_reports = (sum(c * r for c, r, _ in kept), sum(c * u for c, _, u in kept),
                                 sum(r * u for _, r, u in kept))
    apart = cuts * reports - both * both
    if len(kept) < 2 or apart <= 1e-9 * cuts * reports:
        return None
    of_a_cut = (reports * of_cuts - both * of_reports) / apart
    of_a_report = (cuts * of_reports - both * of_cuts) / apart
    if of_a_report <= 0:
        return None
    return float(1 + max(0.0, cpu - of_a_cut * _CUTS_PER_S) / of_a_report / rate_per_s)


async def _step(ground: Ground, count: int, load: Load) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    with _started(ground, count, load.data_dir) as hosts, ExitStack() as stack:
        leader = await asyncio.wait_for(asyncio.to_thread(_leader, hosts), _START_LIMIT_S)
        if load.cpu_limit < 1:
            stack.enter_context(limited(leader.process.pid, load.cpu_limit))
        waits_ms: list[float] = []
        asking = {host.common.member_id: ground.asking(loop, host.common) for host in hosts}
        reporting = [
            _Shard(loop, asking[leader.common.member_id].links(), leader.common, shard, waits_ms)
            for shard in range(1, count)
        ]
        others = [_Shard(loop, asking[host.common.member_id].links(), host.common, shard, None)
                  for host in hosts if host is not leader for shard in range(1, count)]
        everyone = [*reporting, *others]
        try:
            await _pace(loop, everyone, reporting, load.rate_per_s, _SETTLE_S)
            waits_ms.clear()
            before = {host.common.member_id: _cpu_s(host.process.pid) for host in hosts}
            fed, cuts = sum(s.records for s in everyone), reporting[0].records
            own_s, started = _cpu_s(os.getpid()), loop.time()
            reports = await _pace(loop, everyone, reporting, load.rate_per_s, load.duration_s)
            took_s = loop.time() - started
            used = {host.common.member_id: _cpu_s(host.process.pid) - before[host.common.member_id]
                    for host in hosts}
            fed, cuts = sum(s.records for s in everyone) - fed, reporting[0].records - cuts
            own_s = _cpu_s(os.getpid()) - own_s
        finally:
            for shard in everyone:
                shard.links.close()
            for one in asking.values():
                one.close()
    sequencer = used.pop(leader.common.member_id)
    ordered = sorted(waits_ms)
    return {
        "shards": count,
        "reports_per_s": reports / took_s, "cuts_per_s": cuts / took_s, "fed_per_s": fed / took_s,
        "sequencer_cpu": sequencer / took_s,
        "follower_cpu": statistics.mean(used.values()) / took_s,
        "us_per_report": 1e6 * sequencer / reports,
        "us_per_cut": 1e6 * sequencer / cuts if cuts else None,
        "to_order_p50_ms": ordered[len(ordered) // 2] if ordered else None,
        "to_order_p99_ms": ordered[int(len(ordered) * 0.99)] if ordered else None,
        "load_cpu": own_s / took_s,
        "kept_up": len(ordered) >= 0.95 * reports and ordered[int(len(ordered) * 0.99)] <= LATE_MS,
    }


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def _pace(loop: asyncio.AbstractEventLoop, everyone: Sequence[_Shard], reporting: Sequence[_Shard],
                rate_per_s: float, duration_s: float) -> int:
    """Have the shards report at even distances; the number of reports."""
    started = loop.time()
    made = 0
    while (now := loop.time() - started) < duration_s:
        due = int(now * rate_per_s * len(reporting))
        for i in range(made, min(due, made + len(reporting))):
            reporting[i % len(reporting)].report(puts=100)
        made = min(due, made + len(reporting))
        for shard in everyone:
            shard.flush()
            if not shard.link.alive:
                raise RuntimeError(f"the link of shard {shard.shard} broke: the sequencer does not keep up")
        await asyncio.sleep(_TURN_S)
    return made


@contextmanager
def _started(ground: Ground, count: int, data_dir: Path | None) -> Iterator[list[_Host]]:
    """Node 0 of three hosts of a store with ``count`` shards."""
    directory = Path(tempfile.mkdtemp(prefix="muster-cuts-",
                                      dir=data_dir or os.environ.get("TMPDIR", "/var/tmp")))
    ports = free_ports(HOSTS)
    peers = tuple(Peer(i + 1, f"host{i}", "127.0.0.1", port) for i, port in enumerate(ports))
    hosts: list[_Host] = []
    try:
        for peer in peers:
            own = directory / peer.name
            (own / "run").mkdir(parents=True)
            reading, writing = os.pipe()
            common = Common(cluster_id=1, member_id=peer.member_id, name=peer.name, shard_count=count,
                            placement_depth=2, peers=peers, run_dir=str(own / "run"), log_level="error",
                            status_fd=writing)
            settings = NodeSettings(
                common=common, shard=0, data_dir=str(own / "shard-0"), listen_host="127.0.0.1",
                listen_port=peer.port, incarnation=peer.member_id,
            )
            try:
                process = ground.start(settings)
            finally:
                os.close(writing)
            hosts.append(_Host(replace(common, status_fd=-1), process, os.fdopen(reading)))
        yield hosts
    finally:
        for host in hosts:
            host.process.kill()
        for host in hosts:
            host.process.wait()
            host.status.close()
        shutil.rmtree(directory, ignore_errors=True)


def _leader(hosts: Sequence[_Host]) -> _Host:
    """The sequencer's host, once every node is ready."""
    leader = 0
    for host in hosts:
        for line in host.status:
            said = json.loads(line)
            if said["event"] == "leader" and said["leader"]:
                leader = said["leader"]
            if said["event"] == "ready":
                break
        else:
            raise RuntimeError(f"{host.common.name} ended with code {host.process.wait()}")
    return next(host for host in hosts if host.common.member_id == leader)


_COLUMNS: tuple[tuple[str, str, float], ...] = (
    ("shards", "shards", 1), ("reports/s", "reports_per_s", 1), ("cuts/s", "cuts_per_s", 1),
    ("records fed/s", "fed_per_s", 1), ("sequencer, % of a CPU", "sequencer_cpu", 100),
    ("another node 0, % of a CPU", "follower_cpu", 100), ("us/report", "us_per_report", 1),
    ("us/cut", "us_per_cut", 1), ("report to order p50 ms", "to_order_p50_ms", 1),
    ("p99 ms", "to_order_p99_ms", 1),
)


def lines(result: dict[str, Any]) -> list[list[str]]:
    """The table's rows, the heading first."""
    rows = [[title for title, _, _ in _COLUMNS] + ["kept up"]]
    for row in result["rows"]:
        rows.append([str(row["shards"]),
                     *("-" if row[name] is None else number(row[name] * scale)
                       for _, name, scale in _COLUMNS[1:]),
                     "yes" if row["kept_up"] else "no"])
    return rows


def summary(result: dict[str, Any]) -> str:
    """The sentence below the table."""
    found, limit = result["saturates_at_shards"], result["cpu_limit"]
    much = "a whole CPU" if limit == 1 else f"the {100 * limit:.0f} % of a CPU that it gets"
    where = "how many cannot be told" if found is None else f"about {found:.0f} shards"
    return (f"Each shard but 0 reports {result['rate_per_s']:g} commits a second for "
            f"{result['duration_s']:g} s; {HOSTS} hosts; worked out from the steps that it kept up with "
            f"(99 of 100 ordered within {LATE_MS:g} ms), the sequencer orders with {much}: {where}.")


def markdown(result: dict[str, Any]) -> str:
    heading, *rows = lines(result)
    return text.markdown(heading, rows, left=()) + "\n" + summary(result) + "\n"


def show(console: Console, result: dict[str, Any]) -> None:
    heading, *rows = lines(result)
    text.write(console, text.table(heading, rows, left=()), summary(result))
