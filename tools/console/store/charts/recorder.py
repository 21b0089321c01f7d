"""The last hour of every host, in memory: one for all browsers, bounded by its number of looks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import httpx
from muster_client import MusterError, Tls

from tools.console.store import web
from tools.console.store.charts import figures
from tools.console.store.charts.figures import Figures

EVERY_S = 10.0
KEPT_S = 3600.0
_ASKED_S = 2.0
_MEMBERS_EVERY = 6  # looks
_MOST_NAMES = 200  # of one host's values; it has some 60 methods

Line = list[tuple[float, float | None]]
"""Time of day in milliseconds, and value; None: nothing was told."""
Members = Callable[[], Awaitable[Sequence[tuple[str, str]]]]
"""Name and URL of each host. MusterError."""


@dataclass(frozen=True, slots=True)
class Look:
    """Values of each host that answered, by name, over the time since the look before. ``at_s``: of day."""

    at_s: float
    hosts: dict[str, dict[str, float]]


@dataclass(slots=True)
class Recorder:
    """Looks at hosts while it runs. ``members`` reports them; else they are the endpoints."""

    endpoints: Sequence[str]
    tls: Tls | None
    members: Members
    every_s: float = EVERY_S
    looks: deque[Look] = field(default_factory=lambda: deque(maxlen=int(KEPT_S / EVERY_S)))
    down: dict[str, str] = field(default_factory=dict)
    """Hosts that do not tell, and why."""
    count: int = 0
    drawn: dict[tuple[str, str], tuple[int, dict[str, Line]]] = field(default_factory=dict)
    """Lines that were made of the looks, by chart and host, and at which look: browsers share them."""
    _before: dict[str, tuple[float, Figures]] = field(default_factory=dict)
    _hosts: list[tuple[str, str]] = field(default_factory=list)
    _client: httpx.AsyncClient | None = None
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look from now on, unless it does already."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self.every_s)

    async def look(self) -> None:
        """Ask each host once."""
        if self.count % _MEMBERS_EVERY == 0 or not self._hosts:
            await self._find()
            await self._renew()
        if self._client is None:
            return
        told = await asyncio.gather(*(self._asked(self._client, *host) for host in self._hosts))
        found = {host: values for host, values in told if values}
        self.looks.append(Look(time.time(), found))
        self.count += 1

    def age_s(self, revision: int, now_s: float) -> tuple[float, bool]:
        """How long a revision has been there, as the looks tell, and whether it is older than they are."""
        since_s = now_s
        for look in reversed(self.looks):
            told = max((values.get("revision", 0.0) for values in look.hosts.values()), default=0.0)
            if told and told < revision:
                return now_s - since_s, False
            if told:
                since_s = look.at_s
        return now_s - since_s, True

    async def _find(self) -> None:
        with contextlib.suppress(MusterError):
            self._hosts = list(await self.members())
        if not self._hosts:
            self._hosts = [(url.partition("://")[2], url) for url in web.urls(self.endpoints, self.tls)]
        known = {host for host, _ in self._hosts}
        self.down = {host: reason for host, reason in self.down.items() if host in known}
        self._before = {host: last for host, last in self._before.items() if host in known}

    async def _renew(self) -> None:
        """Go by the files of certificates as they are now; where these cannot be used, by those of before."""
        if self.tls is None and self._client is not None:
            return
        with contextlib.suppress(OSError):
            before, self._client = self._client, await asyncio.to_thread(web.client, self.tls, _ASKED_S)
            if before is not None:
                await before.aclose()

    async def _asked(self, client: httpx.AsyncClient, host: str, url: str) -> tuple[str, dict[str, float]]:
        try:
            answer = await client.get(f"{url}/metrics")
            answer.raise_for_status()
            fresh = figures.read(answer.text)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            self.down[host] = str(error) or type(error).__name__
            self._before.pop(host, None)
            return host, {}
        self.down.pop(host, None)
        now_s = time.monotonic()
        before = self._before.get(host)
        self._before[host] = now_s, fresh
        if before is None:
            return host, dict(fresh.gauges)
        values = figures.between(before[1], fresh, max(0.001, now_s - before[0]))
        return host, dict(list(values.items())[:_MOST_NAMES])
