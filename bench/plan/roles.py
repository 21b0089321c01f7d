"""What each process of a local cluster does, and what it spent between two moments."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from bench.client import parse_endpoint
from bench.counters import http_get

FRONT, SEQUENCER, LEADER, ORDER_FOLLOWER, FOLLOWER = "front", "sequencer", "leader", "node 0", "follower"
#: A process's roles: the sequencer leads shard 0; a node 0 follows it. Leaders and followers are of others.
ROLES = (FRONT, SEQUENCER, LEADER, ORDER_FOLLOWER, FOLLOWER)
_NAMED = re.compile(r"^(shard|host)=(.*)$")
_BY_SHARD = re.compile(r'^(\w+)\{shard="(\d+)"\} (\S+)$', re.MULTILINE)
_FRONT = "tools.muster.processes.front"
_NODES = ("tools.muster.processes.node", "tools.muster.joined")


class LeaderChanged(RuntimeError):
    """A process had two roles in one window."""


@dataclass(slots=True, frozen=True)
class Seen:
    """One process."""

    host: str
    shard: int  # -1: a front
    cpu_s: float
    rss_bytes: int
    written_bytes: int


@dataclass(slots=True, frozen=True)
class Moment:
    """A cluster at one moment."""

    processes: dict[int, Seen]  # by pid
    leaders: dict[int, str]  # shard -> host
    entries: dict[int, int]  # shard -> log entries at its leader
    syncs: int  # of all hosts
    sync_us: int
    cuts: int


@dataclass(slots=True, frozen=True)
class Work:
    """What one process did in a window."""

    role: str
    shard: int
    cpu_s: float
    written_bytes: int
    rss_bytes: int


def sample(roots: Sequence[int], endpoints: Sequence[str]) -> Moment:
    """``roots``: of ``muster local``; ``endpoints``: of its hosts, ``host0`` first."""
    processes = {}
    for root in roots:
        for process in psutil.Process(root).children(recursive=True):
            try:
                with process.oneshot():
                    words = process.cmdline()
                    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
                    if module != _FRONT and module not in _NODES:
                        continue
                    named = {found[1]: found[2] for word in words if (found := _NAMED.match(word))}
                    times = process.cpu_times()
                    processes[process.pid] = Seen(
                        named.get("host", ""), -1 if module == _FRONT else int(named.get("shard", 0)),
                        times.user + times.system, process.memory_info().rss,
                        process.io_counters().write_bytes)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
    leaders: dict[int, str] = {}
    entries: Counter[int] = Counter()
    summed: Counter[str] = Counter()
    for number, endpoint in enumerate(endpoints):
        where = parse_endpoint(endpoint)
        for name, shard, value in _BY_SHARD.findall(http_get(where.host, where.port, "/metrics")):
            summed[name] += int(float(value))
            if name == "muster_shard_is_leader" and float(value):
                leaders[int(shard)] = f"host{number}"
            if name == "muster_node_log_last_index_total":
                entries[int(shard)] = max(entries[int(shard)], int(float(value)))
    return Moment(processes, leaders, dict(entries), summed["muster_node_syncs_total"],
                  summed["muster_node_sync_us_total"], summed["muster_order_cuts"])


def spent(before: Moment, after: Moment) -> list[Work]:
    """What each process spent that was there at both moments. LeaderChanged if a shard's did."""
    if before.leaders != after.leaders:
        raise LeaderChanged("a leader changed during a measurement: the machine is too busy")
    found = []
    for pid, now in after.processes.items():
        if (then := before.processes.get(pid)) is not None:
            leads = after.leaders.get(now.shard) == now.host
            role = (FRONT if now.shard < 0
                    else (SEQUENCER if leads else ORDER_FOLLOWER) if not now.shard
                    else LEADER if leads else FOLLOWER)
            found.append(Work(role, now.shard, now.cpu_s - then.cpu_s,
                              now.written_bytes - then.written_bytes, now.rss_bytes))
    return found
