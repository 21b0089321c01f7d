"""The members of the cluster that a proxy serves, asked on their peer ports.

At a start they are asked each second until one answers; later at every interval, in random order, so that the
proxy's file stays current. Running fronts hear of changes from the members. Those of a cluster that was
made anew at the same URLs refuse them: then they have to start again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from cluster.members.described import Running
from cluster.repeats import Repeats
from cluster.settings import Peer, PeerTls
from tools.muster.config.parse import ConfigError
from tools.muster.config.settings import ServerConfig
from tools.muster.config.urls import dialable
from tools.muster.host.identity.joining import ask as asked
from tools.muster.host.supervising.supervisor import Logger
from tools.muster.machine.names import Unawaited
from tools.muster.proxy_mode import kind

_AGAIN_S, _TOLD_S = 1.0, 30.0
_LOOKS = 3  # members of the cluster may be silent for a moment, while a stray one answers

Ask = Callable[[Sequence[tuple[str, int]], str, PeerTls | None, float], Running | None]


class Members:
    """Peer URLs and their answers. ``ask``: by default that of ``tools.muster.host.identity.joining``."""

    def __init__(
        self, config: ServerConfig, peer_urls: Sequence[str], log: Logger, ask: Ask | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """What ``ask`` raises is logged, and counts as no answer: files that are replaced fit again soon."""
        self.peer_urls = tuple(peer_urls)
        self.peers: tuple[Peer, ...] = ()  # of the last kept answer
        self._config = config
        self._log = log
        self._ask = ask or partial(asked, own_user=config.own_user_peers)
        self._clock = clock
        self._refusals = Repeats(_TOLD_S)
        self._dial_s = max(config.values["proxy-dial-timeout"], 1) / 1000
        self._failure_s = config.values["proxy-failure-wait"] / 1000
        self._thread = Unawaited(1, "members")
        self._aside: dict[str, float] = {}  # silent URLs, and until when they are left alone

    def first(self, sleep: Callable[[float], None] = time.sleep) -> Running:
        """The first member's answer, however long that takes."""
        told = Repeats(_TOLD_S)
        while True:
            self._aside.clear()
            if (running := self.now()) is not None:
                return running
            if told.news("unanswered", self._clock()):
                self._log.warning(
                    "failed to get cluster from remote peers; asking again every second",
                    peer_urls=list(self.peer_urls),
                    error="could not retrieve cluster information from the given URLs")
            sleep(_AGAIN_S)

    def now(self) -> Running | None:
        """A member's answer; None: none answers that is not left alone."""
        urls = list(self.peer_urls)
        random.shuffle(urls)
        for url in urls:
            if self._aside.get(url, 0.0) > self._clock():
                continue
            if (running := self._asked(url)) is not None:
                self._aside.pop(url, None)
                return running
            self._aside[url] = self._clock() + self._failure_s
        return None

    def _asked(self, url: str) -> Running | None:
        if (at := dialable(url)) is None:
            return None
        config = self._config
        try:
            running = self._ask([(at.host, at.port)], config.peer_key_file, config.peer_tls, self._dial_s)
        except (ConfigError, ValueError, OSError) as e:
            if self._refusals.news(url, self._clock()):
                self._log.warning("cannot ask a member", peer_url=url, error=str(e))
            return None
        return running if running is not None and running.members else None

    def _clusters(self) -> set[tuple[int, int, int]]:
        """Those of all members that answer."""
        answers = map(self._asked, self.peer_urls)
        return {_cluster_of(running) for running in answers if running is not None}

    def keep(self, running: Running) -> None:
        """Remember the members, and write them down."""
        self.peers = _peers_of(running)
        urls = sorted({url for member in running.members for url in member.peer_urls if dialable(url)})
        if tuple(urls) != self.peer_urls:
            self._log.info("updated peer URLs", was=list(self.peer_urls), now=urls)
        elif kind.cluster_file(self._config.data_dir).exists():
            return
        self.peer_urls = tuple(urls)
        aside = list(self._aside.items())  # a look that nobody awaits any more may go on
        self._aside = {url: until for url, until in aside if url in urls}
        try:
            kind.write(self._config.data_dir, urls)
        except OSError as e:
            self._log.warning("cannot write the members' URLs", error=e.strerror or str(e))

    async def refresh(self, served: Running) -> None:
        """Look again at every interval, until all members that answer are of one other cluster, look after
        look."""
        ours, others = _cluster_of(served), 0
        loop = asyncio.get_running_loop()
        interval_s = max(self._config.values["proxy-refresh-interval"], 100) / 1000
        while True:
            await asyncio.sleep(interval_s)
            running = await loop.run_in_executor(self._thread, self.now)
            if running is None:
                self._log.warning("failed to get cluster from remote peers", peer_urls=list(self.peer_urls))
            elif (found := _cluster_of(running)) != ours:
                self._log.warning(
                    "a member of another cluster answers at the members' URLs",
                    got=f"{running.cluster_id:x}", want=f"{served.cluster_id:x}", shards=running.shards,
                )  # fmt: skip
                clusters = await loop.run_in_executor(self._thread, self._clusters)
                others = others + 1 if clusters == {found} else 0
                if others == _LOOKS:
                    return
            else:
                others = 0
                self.keep(running)


def _cluster_of(running: Running) -> tuple[int, int, int]:
    """What tells clusters apart: one that is made anew with the same token has the same ID."""
    return running.cluster_id, running.shards, running.depth


def _peers_of(running: Running) -> tuple[Peer, ...]:
    return tuple(sorted(_peers(running), key=lambda p: p.member_id))


def _peers(running: Running) -> Iterable[Peer]:
    for member in running.members:
        first = next(filter(None, map(dialable, member.peer_urls)), None)
        if first is not None:
            yield Peer(
                member.member_id, member.name, first.host, first.port, member.peer_urls, member.learner)
