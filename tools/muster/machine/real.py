"""The machine of a front (``cluster.machine.Machine``); a node's also opens disks (``disks``)."""

from __future__ import annotations

import asyncio
import os
import random
import select
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor

import structlog

from cluster.machine import StatusSink, Syncs, Tracer
from cluster.pacing.scarcity import Cpus
from cluster.settings import Common, Tracing
from tools.muster.machine.disk.syncer import Syncer
from tools.muster.machine.names import NAMES
from tools.muster.machine.process.descriptors import for_clients, raise_limit
from tools.muster.machine.process.place import cpu_wait, cpus_idle
from tools.muster.machine.process.status import StatusPipe
from tools.muster.machine.process.trimming import resident_bytes
from tools.muster.machine.process.turns import turns
from tools.muster.machine.silence import keep_alive
from tools.muster.machine.zmtp import traffic
from tools.muster.machine.zmtp.curve.keys import CurveKeys
from tools.muster.machine.zmtp.links import Links
from tools.muster.machine.zmtp.tls import PeerCredentials

log = structlog.get_logger("machine")


def _peer_credentials(common: Common) -> PeerCredentials | None:
    if common.peer_tls is None:
        return None

    def failed(reason: str) -> None:
        log.warning("cannot use the changed peer TLS files; the previous ones stay in use", error=reason)

    return PeerCredentials(common.peer_tls, failed)


class RealMachine:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, common: Common, status: StatusSink | None = None
    ) -> None:
        """``status``: the settings' pipe, unless two parts share one sink."""
        self.loop = loop
        self.status: StatusSink = status or StatusPipe(common.status_fd)
        self.random = random.SystemRandom()
        self.turns = turns
        self.traffic = traffic
        self.monotonic = time.monotonic
        self.wall_time = time.time
        self.perf_counter = time.perf_counter
        self.random_bytes = os.urandom
        self.resident_bytes = resident_bytes
        self.names = NAMES
        self.keep_alive = keep_alive
        self.cpu_s = time.process_time
        self.cpus_scarce = Cpus(time.monotonic, cpu_wait, cpus_idle).scarce
        self._links = Links(
            loop, CurveKeys.load(common.curve_key_file), _peer_credentials(common), common.local_address,
            common.own_user_peers)
        self.listen = self._links.listen
        self.dial = self._links.dial

    def now_ms(self) -> int:
        return int(time.monotonic() * 1000)

    def tracer(self, settings: Tracing) -> Tracer:
        # imported here: it takes 0.1 s and 20 MB
        from tools.muster.machine.process.tracing import OtlpTracer

        return OtlpTracer(settings, self.loop)

    # -- threads

    def thread(self, name: str) -> Executor:
        return ThreadPoolExecutor(1, thread_name_prefix=name)

    def syncs(self, sync: Callable[[], None], done: Callable[[int], None]) -> Syncs:
        return Syncer(self.loop, sync, done)

    def poller(self) -> Callable[[int], list[tuple[int, int]]] | None:
        """Polls uvloop's own descriptor; None for other loops."""
        backend = getattr(self.loop, "_get_backend_id", None)
        if backend is None:
            return None
        poller = select.poll()
        poller.register(backend(), select.POLLIN)
        return poller.poll

    # -- the process

    def client_descriptors(self) -> int:
        return for_clients(raise_limit())
