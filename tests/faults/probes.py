"""Every class of request asked all the time, one at a time each: how long it stalls when a process dies.

``async with Probes(hosts, shards) as probes:`` asks around the body; ``probes.killed(shard, led)`` notes a
death, and
:meth:`Probes.table` says for each class and kind of death when the first request that began after it was
answered.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from google.protobuf.message import Message

from bench.client import Client, Endpoint, RpcError
from cluster.pb import rpc_pb2 as pb
from tests.faults.hosts import Hosts
from tests.faults.shards import keys_of

CALL_LIMIT_S = 12.0  # a front gives up by itself before
APART_S = 3.0  # a death counts where no other came within this time before it, or before the answer
TTL_S = 600


@dataclass(frozen=True)
class Death:
    """Of a node."""

    at_ns: int
    shard: int
    led: bool  # it led its shard


@dataclass(frozen=True)
class Probe:
    """A class of requests: what is asked, and of which shards' leaders it needs something."""

    name: str
    method: str
    request: Message
    response: type[Any]
    shards: frozenset[int]


def probes_of(shards: int, lease: int) -> list[Probe]:
    """Every class there is. The writes delete what is not there: logged, committed and put in order like any,
    without an event that a check of somebody else's history would find."""
    keys = [keys_of(s, shards, 1)[0].encode() + b"-probe" for s in range(shards)]
    everything = frozenset(range(shards))
    found = []
    for s, key in enumerate(keys):
        found.append(
            Probe(
                f"write on shard {s}", "KV/DeleteRange", pb.DeleteRangeRequest(key=key),
                pb.DeleteRangeResponse, frozenset((s,)),
            )
        )
    for s in (0, shards - 1):
        found.append(
            Probe(
                f"get on shard {s}", "KV/Range", pb.RangeRequest(key=keys[s]), pb.RangeResponse, frozenset()
            )
        )
    two = pb.TxnRequest(
        success=[pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key)) for key in keys[:2]]
    )
    found += [
        Probe("serializable get", "KV/Range",
              pb.RangeRequest(key=keys[-1], serializable=True), pb.RangeResponse, frozenset()),
        Probe("range over all shards", "KV/Range",
              pb.RangeRequest(key=b"/", range_end=b"0", count_only=True), pb.RangeResponse, frozenset()),
        Probe("serializable range over all shards", "KV/Range",
              pb.RangeRequest(key=b"/", range_end=b"0", count_only=True, serializable=True), pb.RangeResponse,
              frozenset()),
        Probe("transaction over shards 0 and 1", "KV/Txn", two, pb.TxnResponse, frozenset((0, 1))),
        Probe("delete over all shards", "KV/DeleteRange",
              pb.DeleteRangeRequest(key=b"/nothing", range_end=b"/nothinh"),
              pb.DeleteRangeResponse, everything),
        Probe("lease grant", "Lease/LeaseGrant",
              pb.LeaseGrantRequest(TTL=TTL_S), pb.LeaseGrantResponse, frozenset((0,))),
        Probe("time to live of a lease", "Lease/LeaseTimeToLive",
              pb.LeaseTimeToLiveRequest(ID=lease), pb.LeaseTimeToLiveResponse, frozenset()),
    ]  # fmt: skip
    return found


class Probes:
    """See the module. ``pause_s``: rest of each class between two requests."""

    def __init__(self, hosts: Hosts, shards: int, *, pause_s: float = 0.05) -> None:
        self._endpoints = [Endpoint(*e) for e in hosts.endpoints]
        self._shards = shards
        self._pause_s = pause_s
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.probes: list[Probe] = []
        self.deaths: list[Death] = []
        # (asked, answered), of those that succeeded
        self.answered: dict[str, list[tuple[int, int]]] = defaultdict(list)

    async def __aenter__(self) -> Probes:
        client = await Client.open(self._endpoints[:1], 1, timeout_s=10.0)
        grant = await client.unary(
            "/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=TTL_S), pb.LeaseGrantResponse,
            timeout_s=CALL_LIMIT_S,
        )
        await client.close()
        self.probes = probes_of(self._shards, grant.ID)
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._ask(p, self._endpoints[i % 3])) for i, p in enumerate(self.probes)
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        done = await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is None:
            for failure in done:
                if isinstance(failure, BaseException):
                    raise failure

    def killed(self, shard: int, led: bool) -> None:
        """A node has been killed just now."""
        self.deaths.append(Death(time.monotonic_ns(), shard, led))

    async def _ask(self, probe: Probe, endpoint: Endpoint) -> None:
        client: Client | None = None
        try:
            while not self._stop.is_set():
                if client is None:
                    try:
                        client = await Client.open([endpoint], 1, timeout_s=2.0)
                    except (OSError, TimeoutError):
                        await asyncio.sleep(0.05)
                        continue
                began = time.monotonic_ns()
                try:
                    await client.unary(
                        f"/etcdserverpb.{probe.method}", probe.request, probe.response, timeout_s=CALL_LIMIT_S
                    )
                except (RpcError, TimeoutError):
                    await client.close()
                    client = None
                    continue
                self.answered[probe.name].append((began, time.monotonic_ns()))
                await asyncio.sleep(self._pause_s)
        finally:
            if client is not None:
                await client.close()

    # -- what was found

    def stall_s(self, probe: Probe, death: Death) -> float | None:
        """From a death to the first answer to a request that began after it; None: another death came
        between."""
        after = [returned for asked, returned in self.answered[probe.name] if asked > death.at_ns]
        if not after:
            return None
        first = min(after)
        for other in self.deaths:
            if other is not death and death.at_ns - APART_S * 1e9 < other.at_ns < first:
                return None
        return (first - death.at_ns) / 1e9

    def stalls(self) -> dict[str, dict[str, list[float]]]:
        """Class -> whose death -> seconds."""
        found: dict[str, dict[str, list[float]]] = {}
        for probe in self.probes:
            by = found[probe.name] = defaultdict(list)
            for death in self.deaths:
                if (stall := self.stall_s(probe, death)) is not None:
                    by[_whose(probe, death)].append(stall)
        return found

    def table(self) -> str:
        """A table in Markdown: median and longest stall, in seconds, and of how many deaths."""
        columns = ("the sequencer", "a leader it needs", "another leader", "a follower")
        lines = ["| request | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
        for name, by in self.stalls().items():
            lines.append(f"| {name} | " + " | ".join(_cell(by.get(c, [])) for c in columns) + " |")
        return "\n".join(lines)


def _whose(probe: Probe, death: Death) -> str:
    if not death.led:
        return "a follower"
    if death.shard == 0:
        return "the sequencer"
    return "a leader it needs" if death.shard in probe.shards else "another leader"


def _cell(stalls: Sequence[float]) -> str:
    return f"{statistics.median(stalls):.2f}, {max(stalls):.2f} ({len(stalls)})" if stalls else ""
