"""The real machine: clocks and randomness of the system, links over ZeroMQ, threads, lines to the supervisor.

A front's machine is :class:`RealMachine`; a node's also opens disks (``disks``).
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cached_property

import structlog
import zmq

from cluster.machine import FrameSocket, Receive, StatusSink, Syncs, Tracer
from cluster.settings import Common, Tracing
from tools.muster.machine.disk.syncer import Syncer
from tools.muster.machine.process.descriptors import for_clients, raise_limit
from tools.muster.machine.process.status import StatusPipe
from tools.muster.machine.process.trimming import resident_bytes
from tools.muster.machine.process.turns import turns
from tools.muster.machine.zmtp import traffic
from tools.muster.machine.zmtp.keys import CurveKeys
from tools.muster.machine.zmtp.links import Gatekeeper, open_dealer, open_router
from tools.muster.machine.zmtp.tls import PeerCredentials

log = structlog.get_logger("machine")


def _peer_credentials(common: Common) -> PeerCredentials | None:
    if common.peer_tls is None:
        return None

    def failed(reason: str) -> None:
        log.warning("changed files of peer certificates cannot be used", error=reason)

    return PeerCredentials(common.peer_tls, failed)


class RealMachine:
    """See ``cluster.machine.Machine``."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, common: Common, status: StatusSink | None = None
    ) -> None:
        """``status``: where the process says how it is; the settings' pipe unless two parts share it."""
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
        self.cpu_s = time.process_time
        self._keys = CurveKeys.load(common.curve_key_file)
        self._tls = _peer_credentials(common)
        self._local_address = common.local_address
        self._gatekeeper: Gatekeeper | None = None

    def now_ms(self) -> int:
        """Monotonic milliseconds."""
        return int(time.monotonic() * 1000)

    def tracer(self, settings: Tracing) -> Tracer:
        """See ``cluster.machine.Machine``. Imported here: it takes 0.1 s and 20 MB."""
        from tools.muster.machine.process.tracing import OtlpTracer

        return OtlpTracer(settings, self.loop)

    # -- links

    @cached_property
    def _libzmq(self) -> zmq.Context[zmq.Socket[bytes]]:
        return zmq.Context(io_threads=1)

    @property
    def _context(self) -> zmq.Context[zmq.Socket[bytes]] | None:
        """libzmq carries what a key holder alone may say."""
        return self._libzmq if self._keys is not None else None

    def listen(
        self,
        endpoint: str,
        receive: Receive,
        *,
        keyed: bool,
        hwm: int,
        silence_s: float = 0.0,
        strangers: bool = False,
        gone: Callable[[bytes], None] | None = None,
    ) -> FrameSocket:
        """See ``cluster.machine.Machine``."""
        keys = self._keys if keyed else None
        if keys is not None and self._gatekeeper is None:
            self._gatekeeper = Gatekeeper(self.loop, self._libzmq, keys)
        return open_router(
            self.loop,
            self._context,
            endpoint,
            receive,
            keys=keys,
            hwm=hwm,
            silence_s=silence_s,
            strangers=strangers,
            gone=gone,
            tls=self._tls if keyed else None,
        )

    def dial(
        self,
        endpoint: str,
        identity: bytes,
        receive: Receive,
        *,
        keyed: bool,
        hwm: int,
        silence_s: float = 0.0,
        opened: Callable[[], None] | None = None,
        lost: Callable[[str], None] | None = None,
        redials: bool = True,
    ) -> FrameSocket:
        """See ``cluster.machine.Machine``."""
        return open_dealer(
            self.loop,
            self._context,
            endpoint,
            identity,
            receive,
            keys=self._keys if keyed else None,
            hwm=hwm,
            silence_s=silence_s,
            opened=opened,
            lost=lost,
            redials=redials,
            tls=self._tls if keyed else None,
            local=self._local_address if keyed else "",
        )

    # -- threads

    def thread(self, name: str) -> Executor:
        """See ``cluster.machine.Machine``."""
        return ThreadPoolExecutor(1, thread_name_prefix=name)

    def syncs(self, sync: Callable[[], None], done: Callable[[int], None]) -> Syncs:
        """See ``cluster.machine.Machine``."""
        return Syncer(self.loop, sync, done)

    def poller(self) -> Callable[[int], list[tuple[int, int]]] | None:
        """On uvloop's own descriptor; other loops have none to look at."""
        backend = getattr(self.loop, "_get_backend_id", None)
        if backend is None:
            return None
        poller = select.poll()
        poller.register(backend(), select.POLLIN)
        return poller.poll

    # -- the process

    def client_descriptors(self) -> int:
        """How many connections of clients this process can take."""
        return for_clients(raise_limit())

    def close(self) -> None:
        """See ``cluster.machine.Machine``."""
        if self._gatekeeper is not None:
            self._gatekeeper.close()
        if "_libzmq" in self.__dict__:
            self._libzmq.destroy(linger=0)
