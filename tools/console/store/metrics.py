"""What hosts tell of themselves at ``/metrics``: looked at every few seconds, kept for an hour, in memory."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx
from muster_client import MusterError, Tls
from prometheus_client.parser import text_string_to_metric_families

from tools.console.store.cluster import Member
from tools.console.store.shards import tls_context

EVERY_S = 5.0
KEPT = 720  # looks: an hour
_ASKED_S = 3.0
_HANDLED = "grpc_server_handled_total"
_SUMS = {
    "events": "etcd_debugging_mvcc_events_total",
    "elections": "etcd_server_leader_changes_seen_total",
    "cpu": "process_cpu_seconds_total",
}
_LEVELS = {"memory": "process_resident_memory_bytes", "watchers": "etcd_debugging_mvcc_watcher_total",
           "size": "etcd_mvcc_db_total_size_in_use_in_bytes"}  # fmt: skip
_TIMES = {"fsync": "etcd_disk_wal_fsync_duration_seconds", "apply": "etcd_server_apply_duration_seconds"}


@dataclass(frozen=True, slots=True)
class Look:
    """What one host said. ``handled``: calls by method and code; ``buckets``: of histograms, by bound."""

    handled: Mapping[tuple[str, str], float]
    sums: Mapping[str, float]
    levels: Mapping[str, float]
    buckets: Mapping[str, Mapping[float, float]]


def read(text: str) -> Look:
    """A host's page. ValueError."""
    handled: dict[tuple[str, str], float] = {}
    sums: dict[str, float] = {}
    levels: dict[str, float] = {}
    buckets: dict[str, dict[float, float]] = {}
    by_sum, by_level = ({metric: name for name, metric in part.items()} for part in (_SUMS, _LEVELS))
    by_time = {f"{metric}_bucket": name for name, metric in _TIMES.items()}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == _HANDLED:
                place = (sample.labels["grpc_method"], sample.labels["grpc_code"])
                handled[place] = handled.get(place, 0.0) + sample.value
            elif name := by_sum.get(sample.name):
                sums[name] = sums.get(name, 0.0) + sample.value
            elif name := by_level.get(sample.name):
                levels[name] = levels.get(name, 0.0) + sample.value
            elif name := by_time.get(sample.name):
                found, bound = buckets.setdefault(name, {}), float(sample.labels["le"])
                found[bound] = found.get(bound, 0.0) + sample.value
    return Look(handled, sums, levels, buckets)


def quantile(share: float, before: Mapping[float, float], after: Mapping[float, float]) -> float | None:
    """Of what a histogram counted between two looks; None: nothing, or the host began anew."""
    counts = [(bound, after[bound] - before.get(bound, 0.0)) for bound in sorted(after)]
    if not counts or counts[-1][1] <= 0 or any(count < 0 for _, count in counts):
        return None
    wanted = share * counts[-1][1]
    low = below = 0.0
    for bound, count in counts:
        if count >= wanted:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return low


def rate(before: float | None, after: float | None, span_s: float) -> float | None:
    """Of a counter; None: it began anew, or is not there."""
    if before is None or after is None or after < before or span_s <= 0:
        return None
    return (after - before) / span_s


Point = tuple[float, float | None]  # seconds since the epoch, and a value


@dataclass(frozen=True, slots=True)
class _At:
    at_s: float
    looks: Mapping[str, Look]


class Metrics:
    """The last hour of all hosts. ``members`` finds them anew at each look."""

    def __init__(self, members: Callable[[], Awaitable[Sequence[Member]]], tls: Tls | None) -> None:
        self._members, self._tls = members, tls
        self._kept: deque[_At] = deque(maxlen=KEPT)
        self._task: asyncio.Task[None] | None = None
        self.looks = 0  # so far; the last of them are kept

    def start(self) -> None:
        """Look from now on, until :meth:`close`."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self, now_s: float) -> None:
        """Once."""
        members = [one for one in await self._members() if one.client_urls]
        async with httpx.AsyncClient(
            verify=tls_context(self._tls), timeout=_ASKED_S, trust_env=False
        ) as client:
            looks = await asyncio.gather(*(_asked(client, one.client_urls[0]) for one in members))
        found = {one.name: look for one, look in zip(members, looks, strict=True) if look is not None}
        self._add(_At(now_s, found))

    def _add(self, look: _At) -> None:
        self._kept.append(look)
        self.looks += 1

    async def _run(self) -> None:
        while True:
            try:
                await self.look(time.time())
            except MusterError:
                self._add(_At(time.time(), {}))
            await asyncio.sleep(EVERY_S)

    def methods(self, most: int = 6) -> dict[str, list[Point]]:
        """Calls a second of all hosts, of the methods that were called most."""
        totals: dict[str, float] = {}
        for step in self._steps():
            for (method, _), count in _calls(*step).items():
                totals[method] = totals.get(method, 0.0) + count
        names = sorted(totals, key=lambda name: -totals[name])[:most]
        return {name: self._line(lambda step, name=name: _sum(step, lambda place: place[0] == name))  # type: ignore[misc]
                for name in names if totals[name]}  # fmt: skip

    def errors(self) -> dict[str, list[Point]]:
        """Calls a second that ended otherwise than well, by code."""
        codes = {code for step in self._steps() for (_, code), count in _calls(*step).items() if count}
        return {code: self._line(lambda step, code=code: _sum(step, lambda place: place[1] == code))  # type: ignore[misc]
                for code in sorted(codes - {"OK", "Canceled"})}  # fmt: skip

    def levels(self, name: str) -> dict[str, list[Point]]:
        """A level by host."""
        return {host: [(one.at_s, one.looks[host].levels.get(name) if host in one.looks else None)
                       for one in self._kept] for host in self._hosts()}  # fmt: skip

    def rates(self, name: str) -> dict[str, list[Point]]:
        """A counter's rate by host."""

        def of(host: str) -> list[Point]:
            return [(after.at_s, rate(before.looks[host].sums.get(name), after.looks[host].sums.get(name),
                                      after.at_s - before.at_s)
                     if host in before.looks and host in after.looks else None)
                    for before, after in self._steps()]  # fmt: skip

        return {host: of(host) for host in self._hosts()}

    def quantiles(self, name: str, share: float) -> dict[str, list[Point]]:
        """A quantile of a histogram by host, in milliseconds."""

        def of(host: str) -> list[Point]:
            found: list[Point] = []
            for before, after in self._steps():
                value = None
                if host in before.looks and host in after.looks:
                    value = quantile(share, before.looks[host].buckets.get(name, {}),
                                     after.looks[host].buckets.get(name, {}))  # fmt: skip
                found.append((after.at_s, None if value is None else 1000 * value))
            return found

        return {host: of(host) for host in self._hosts()}

    def _hosts(self) -> list[str]:
        return sorted({host for one in self._kept for host in one.looks})

    def _steps(self) -> list[tuple[_At, _At]]:
        kept = list(self._kept)
        return list(itertools.pairwise(kept))

    def _line(self, value: Callable[[tuple[_At, _At]], float]) -> list[Point]:
        return [(step[1].at_s, value(step)) for step in self._steps()]


def _calls(before: _At, after: _At) -> dict[tuple[str, str], float]:
    """Calls between two looks, of all hosts that were there at both."""
    found: dict[tuple[str, str], float] = {}
    for host, look in after.looks.items():
        if (old := before.looks.get(host)) is None:
            continue
        for place, count in look.handled.items():
            found[place] = found.get(place, 0.0) + max(0.0, count - old.handled.get(place, 0.0))
    return found


def _sum(step: tuple[_At, _At], wanted: Callable[[tuple[str, str]], bool]) -> float:
    span_s = max(0.001, step[1].at_s - step[0].at_s)
    return sum(count for place, count in _calls(*step).items() if wanted(place)) / span_s


async def _asked(client: httpx.AsyncClient, url: str) -> Look | None:
    try:
        answer = await client.get(f"{url}/metrics")
        return read(answer.text) if answer.status_code == 200 else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError):
        return None
