"""The front's process: ``python -m proxy``; its ``cluster.settings.FrontSettings`` come by ``tools.muster.machine.handed``.

It listens, opens its links, says ``{"event": "ready"}`` once every shard has a leader that it can reach and it
serves, and on SIGTERM sends GOAWAY, ends watch streams, lets calls finish and exits 0.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import traceback
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import structlog
import uvloop

from cluster.faults import faults
from cluster.settings import FrontSettings, loads
from proxy.gateway.calls import Room
from proxy.gateway.serve import Gateway
from proxy.grpc.registry import Registry
from proxy.http.endpoints import register_http
from proxy.http.filter import FilteredRegistry, redirect
from proxy.http.server import Limits, Server
from proxy.metrics.exposition import Metrics
from proxy.metrics.shard_endpoints import register as register_shards
from proxy.metrics.siblings import Siblings
from proxy.routing.links import Connector
from proxy.routing.router import SWEEP_S, Router
from proxy.services.context import Context
from proxy.services.table import register_all
from proxy.tls import Credentials
from tools.muster.machine import logs
from tools.muster.machine.descriptors import for_clients, raise_limit
from tools.muster.machine.handed import take
from tools.muster.machine.scheduling import short_slices
from tools.muster.machine.setup import pin, settle_memory
from tools.muster.machine.status import StatusPipe, StatusSink
from tools.muster.machine.trimming import give_back_freed
from tools.muster.machine.turns import turns

log = structlog.get_logger("front")

FAULT_EXIT = 70  # sysexits' EX_SOFTWARE
_RECEIVE_OVERHEAD_BYTES = 524_288


class Front:
    """Everything of one front process."""

    def __init__(self, settings: FrontSettings, connector: type[Connector] | Callable[..., Connector] = Connector,
                 status: StatusSink | None = None) -> None:
        """``status``: where it says how it is; the settings' pipe unless it shares its process."""
        self.settings = settings
        common = settings.common
        loop = asyncio.get_running_loop()
        self.status: StatusSink = status or StatusPipe(common.status_fd)
        self.connector = connector(loop, common, lambda: random.getrandbits(64))
        self.router = Router(loop, common, self.connector)
        self.context = Context(settings, self.router)
        self.registry = FilteredRegistry(settings.cors, settings.host_whitelist, timed=settings.timed_calls)
        register_all(self.registry, self.context)
        limits = Limits(
            max_message_bytes=common.max_request_bytes + _RECEIVE_OVERHEAD_BYTES,
            max_concurrent_streams=settings.max_concurrent_streams,
            max_connections=settings.max_client_connections if settings.max_client_connections >= 0
            else for_clients(raise_limit()),
            max_memory_bytes=settings.max_client_memory_bytes,
            connection_window_bytes=settings.max_unanswered_bytes,
            max_buffered_bytes=settings.max_unfinished_bytes,
            max_untaken_bytes=settings.max_untaken_bytes,
            max_queued_bytes=8 * settings.max_untaken_bytes,
            stalled_s=common.client_stall_timeout_ms / 1000,
            ping_min_interval_s=settings.grpc_keepalive_min_time_ms / 1000,
            keepalive_interval_s=settings.grpc_keepalive_interval_ms / 1000,
            keepalive_timeout_s=settings.grpc_keepalive_timeout_ms / 1000,
        )
        self.server = Server(self.registry, limits)
        self.metrics = Metrics(self.context, self.server, self.registry)
        self.siblings = Siblings(common.run_dir, settings.index, settings.fronts, self.metrics.own, self.metrics.look)
        self.metrics.in_thread = self._in_thread
        self.metrics.gather = self.siblings.gather
        register_http(self.registry, self.context, self.metrics)
        register_shards(self.registry, self.context)
        if settings.gateway:
            room = Room(loop, self.server.memory, limits.max_message_bytes, limits.max_untaken_bytes)
            self.registry.http("/v3/", Gateway(self.registry, room).serve)
            self.registry.http("/v3", lambda request: redirect(request, "/v3/"))
        self.metrics_server: Server | None = None
        self._loop = loop
        self._ready = False
        self._refused = 0  # connections, as far as the log tells
        self._refusals = logs.Repeats()
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Listen and connect."""
        self._sweep()
        settings = self.settings
        tls = Credentials(settings.tls, self._tell_unusable) if settings.tls is not None else None
        await self._listen(self.server, settings.listen, tls)
        if settings.listen_metrics:
            registry = Registry()
            register_http(registry, self.context, self.metrics, metrics_only=True)
            self.metrics_server = Server(registry)
            await self._listen(self.metrics_server, settings.listen_metrics, tls)
        await self.siblings.start()
        log.info("serving", urls=list(settings.listen))
        settle_memory()

    async def _listen(self, server: Server, urls: Sequence[str], tls: Credentials | None) -> None:
        """Bind every address once, whichever of the schemes its URLs name."""
        server.handshake_failed = self._tell_handshake
        schemes: dict[tuple[str, int], set[str]] = {}
        for url in urls:
            scheme, host, port = split_url(url)
            schemes.setdefault((host, port), set()).add(scheme)
        for (host, port), named in schemes.items():
            await server.start(host, port, reuse_port=self.settings.reuse_port, tls=tls if "https" in named else None,
                               plain_too="http" in named)

    def _tell_unusable(self, reason: str) -> None:
        log.warning("changed files of TLS cannot be used, those from before go on to count", error=reason)

    def _tell_handshake(self, address: str, reason: str) -> None:
        if self._refusals.news((address, reason), self._loop.time()):
            log.warning("rejected connection", remote_address=address, error=reason)

    def _in_thread(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        def done(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and (error := future.exception()) is not None:
                faults.met("looking at the process", error)
            then()

        self._loop.run_in_executor(None, work).add_done_callback(done)

    def _tell_refused(self) -> None:
        """Once a minute, if clients' connections were refused."""
        refused = self.server.refused
        if refused > self._refused and self._refusals.news("connections", self._loop.time()):
            log.warning("refused connections of clients: there are as many as may be", refused=refused - self._refused,
                        limit=self.server.limits.max_connections)
            self._refused = refused

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        self.router.sweep()
        logs.log_faults(log)
        self._tell_refused()
        self.context.tick(self._loop.time())
        if not self._ready and self.router.ready and self.server.addresses:
            self._ready = True
            log.info("ready")
            self.status.say("ready")

    async def stop(self) -> None:
        """Stop serving, in order."""
        log.info("stopping")
        self.context.stop()
        self.siblings.close()
        # the server's own limit to what a request waits: then each has been answered, unless it is a long stream
        await self.server.stop(self.settings.common.limit_s, self.router.close)
        if self.metrics_server is not None:
            await self.metrics_server.stop(0.0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.router.close()
        self.connector.close()
        log.info("stopped")


def crash(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A fault in this program ends the process: half-done work could lose an event or an answer without anybody
    noticing, while clients of a front that has gone know what to do. What the network did is only logged."""
    error = context.get("exception")
    if error is None or isinstance(error, OSError):
        log.warning("event loop", message=context.get("message"), error=str(error))
        return
    log.critical("fault", message=context.get("message"),
                 trace="".join(traceback.format_exception(error)))
    os._exit(FAULT_EXIT)


def split_url(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a client URL to bind. ValueError for what cannot be served."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{url}: only http and https client URLs are served so far")
    if parts.port is None:
        raise ValueError(f"{url}: a client URL needs a port")
    return parts.scheme, parts.hostname or "", parts.port


async def serve(settings: FrontSettings) -> None:
    """Run a front until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(crash)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    front = Front(settings)
    await front.start()
    give_back_freed(loop)
    turns.watch(loop)
    await stopping.wait()
    await front.stop()


def main() -> None:
    """Entry point of ``python -m proxy``."""
    settings = loads(FrontSettings, *take(1))
    common = settings.common
    logs.configure("muster/front", common.log_level, common.log_format, common.log_outputs, host=common.name,
                   front=settings.index)
    pin(common.cpu)
    short_slices()
    uvloop.run(serve(settings))


if __name__ == "__main__":
    main()
