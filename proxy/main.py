"""The front: it listens, opens its links, and says ``{"event": "ready"}`` once it serves and reaches every
shard's leader. When it stops it sends GOAWAY, ends watch streams and lets calls finish.

Its process is ``tools.muster.processes.front``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import structlog

from cluster.faults import faults
from cluster.repeats import Repeats
from cluster.settings import Common, FrontSettings
from proxy.gateway.paths import BOTH_WAYS
from proxy.gateway.room import Room
from proxy.gateway.serve import Gateway
from proxy.grpc.registry import Registry
from proxy.listener.endpoints import register_http
from proxy.listener.filter import FilteredRegistry, elsewhere, redirect, refused_read_only
from proxy.listener.limits import limits_of, limits_of_metrics
from proxy.listener.proxied import Proxied
from proxy.listener.server import Server
from proxy.listener.shard_endpoints import register as register_shards
from proxy.listener.traffic import GrpcAlone, HttpAlone, Serves
from proxy.machine import Machine
from proxy.metrics.exposition import Metrics
from proxy.metrics.scrapes import LIMIT_S, REST_S
from proxy.metrics.siblings import Siblings
from proxy.routing.links import Connector
from proxy.routing.members.answering import kind_of
from proxy.routing.reads.arrival import Arrival
from proxy.routing.reads.shared import Shared, shared_by
from proxy.routing.router import SWEEP_S
from proxy.routing.routes import ShardRoute
from proxy.services import cluster
from proxy.services.table import register_all
from proxy.services.upkeep.corruption import CorruptionChecks, differs
from proxy.shared.context import Context
from proxy.tls import HINTS, Credentials
from proxy.v2.endpoints import register_v2

log = structlog.get_logger("front")

FATAL_EXIT = 3  # the supervisor does not start a process again that ends with this


class Front:
    """Everything of one front process."""

    def __init__(self, settings: FrontSettings, machine: Machine,
                 connector: Callable[[Machine, Common], Connector] = Connector) -> None:
        self.settings = settings
        common = settings.common
        loop = machine.loop
        self.status = machine.status
        self._names, self._keep_alive = machine.names, machine.keep_alive
        self.connector = connector(machine, common)
        self.router = kind_of(common)(loop, common, self.connector, settings.large_write_window_bytes,
                                      settings.max_connection_range_compares, machine.cpus_scarce)
        self.connector.follow(self.router.members)
        self.router.shared = _shared(settings)
        self.context = Context(settings, self.router)
        self.context.hub.random = machine.random.random
        self.tracer = machine.tracer(settings.tracing) if settings.tracing is not None else None
        self.registry = FilteredRegistry(
            settings.cors, settings.host_whitelist, timed=settings.timed_calls, tracer=self.tracer,
            read_only=settings.read_only, slow=self.router.slow.ended if self.router.slow.each else None)
        self.registry.shown = self.context.principals.of
        self.registry.auth_enabled = lambda: self.context.principals.enabled
        register_all(self.registry, self.context)
        self.router.members.subscribe(self._members_changed)
        self._members_changed()
        limits = limits_of(settings, machine.client_descriptors)
        self.server = Server(self.registry, limits)
        self.corruption = CorruptionChecks(self.context)
        self.metrics = Metrics(self.context, self.server, self.registry, machine.turns)
        self.siblings = Siblings(
            common.run_dir, settings.index, settings.fronts, self.metrics.own, self.metrics.look
        )
        self.metrics.in_thread = self.metrics.scrapes.in_thread = self._in_thread
        self.metrics.scrapes.soon = loop.call_soon
        self.metrics.scrapes.rest = lambda then: loop.call_later(REST_S, then)
        self.metrics.scrapes.limit = lambda then: loop.call_later(LIMIT_S, then)
        self.metrics.gather = self.siblings.gather
        register_http(self.registry, self.context, self.metrics)
        register_shards(self.registry, self.context)
        if settings.gateway:
            room = Room(loop, self.server.memory, limits.max_message_bytes, limits.max_untaken_bytes,
                        self.server.backlog)
            self.registry.http("/v3/", Gateway(self.registry, room).serve)
            self.registry.early = BOTH_WAYS
            self.registry.http("/v3", lambda request: redirect(request, "/v3/"))
        if settings.v2:
            traffic = register_v2(self.registry, self.context, machine.random_bytes)
            if settings.fronts > 1:
                traffic.gather = self.siblings.gather
            self.metrics.of_v2 = traffic.samples
            if not settings.common.member_id:
                proxied = _proxied(self.router.routes[0], settings)
                self.registry.passed_on = proxied.pass_on
                self.metrics.of_proxy = proxied.samples
        self.metrics_server: Server | None = None
        self._loop = loop
        self._ready = False
        self._beginning: asyncio.Task[None] | None = None  # of a host that has joined, once it is complete
        self._refused = 0  # connections, as far as the log tells
        self._refusals = Repeats()
        self._sweeper: asyncio.TimerHandle | None = None
        self.router.stirred = self._sweep_after

    def _members_changed(self) -> None:
        learner = self.router.members.learner(self.settings.common.member_id)
        if self.settings.read_only:
            self.registry.gate = refused_read_only
        else:
            self.registry.gate = cluster.refused_at_learner if learner else None

    async def start(self) -> None:
        """Serve, or have that begin once the host that joins holds what was there before it. Meanwhile probes
        are answered, as by an etcd: whoever gets no answer may end the host."""
        self._sweep()
        if self.settings.joining:
            log.info("this host was added: it serves once it has the cluster's data")
            await self._serve_metrics()
            context = self.context
            context.on_tick.append(Arrival(self.router, lambda: context.placement.kept, self._arrived).tick)
        else:
            await self._serve()

    def _arrived(self) -> None:
        if self.context.stopping:
            return
        self._beginning = self._loop.create_task(self._serve())
        self._beginning.add_done_callback(_served)

    async def _serve(self) -> None:
        settings = self.settings
        if settings.initial_corrupt_check and (reason := await differs(self.context)):
            log.critical("this host cannot serve", error=reason)
            self.status.say("fatal", error=reason)
            os._exit(FATAL_EXIT)
        tls = Credentials(settings.tls, self._tell_unusable) if settings.tls is not None else None
        grpc = GrpcAlone(self.registry) if settings.grpc_alone else None
        await self._listen(self.server, settings.listen, tls, grpc)
        await self._listen(self.server, settings.listen_http, tls, HttpAlone(self.registry))
        if not settings.joining:
            await self._serve_metrics()
        self.context.joins = False
        urls = (*settings.listen, *settings.listen_http)
        log.info("serving", urls=[url.replace("//:", "//[::]:") for url in urls])

    async def _serve_metrics(self) -> None:
        settings = self.settings
        if settings.listen_metrics:
            registry = Registry()
            registry.find_other = elsewhere
            register_http(registry, self.context, self.metrics, metrics_only=True)
            self.metrics_server = Server(registry, limits_of_metrics(self.server.limits))
            tls = None
            if settings.tls is not None:
                tls = Credentials(settings.tls, by_address=self._names)  # the clients' logs changed files
            await self._listen(self.metrics_server, settings.listen_metrics, tls)
        await self.siblings.start()

    async def _listen(self, server: Server, urls: Sequence[str], tls: Credentials | None,
                      serves: Serves | None = None) -> None:
        server.handshake_failed, server.keep_alive = self._tell_handshake, self._keep_alive
        schemes: dict[tuple[str, int], set[str]] = {}
        for url in urls:
            scheme, host, port = split_url(url)
            schemes.setdefault((host, port), set()).add(scheme)
        for (host, port), named in schemes.items():
            if named <= {"unix", "unixs"}:
                await server.start_unix(host, mode=self.settings.socket_mode,
                                        tls=tls if "unixs" in named else None, plain_too="unix" in named,
                                        serves=serves)
            else:
                await server.start(host, port, reuse_port=self.settings.reuse_port,
                                   tls=tls if "https" in named else None, plain_too="http" in named,
                                   serves=serves)

    def _tell_unusable(self, reason: str) -> None:
        log.warning("cannot use the changed TLS files; the previous ones stay in use", error=reason)

    def _tell_handshake(self, address: str, reason: str) -> None:
        if self._refusals.news((address, reason), self._loop.time()):
            hint = {"hint": HINTS[reason]} if reason in HINTS else {}
            what = "rejected connection on client endpoint"
            log.warning(what, remote_address=address, error=reason, **hint)

    def _in_thread(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        def done(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and (error := future.exception()) is not None:
                faults.met("looking at the process", error)
            then()

        self._loop.run_in_executor(None, work).add_done_callback(done)

    def _tell_refused(self) -> None:
        refused = self.server.refused
        if refused > self._refused and self._refusals.news("connections", self._loop.time()):
            log.warning(
                "refused client connections: their limit is reached",
                refused=refused - self._refused,
                limit=self.server.limits.max_connections,
            )
            self._refused = refused

    def _sweep(self) -> None:
        self._sweep_after(SWEEP_S)  # first: a fault in a sweep is not the last sweep
        self.router.sweep()
        faults.log(log)
        self._tell_refused()
        self.context.tick(self._loop.time())
        if not self._ready and self.router.ready and self.server.addresses:
            self._ready = True
            log.info("ready")
            self.status.say("ready")
        pause_s = self.router.lull.looked(self._ready and self.router.calm)
        if pause_s > SWEEP_S:
            self._sweep_after(pause_s)

    def _sweep_after(self, pause_s: float) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweeper = self._loop.call_later(pause_s, self._sweep)

    async def stop(self) -> None:
        log.info("stopping")
        if self._beginning is not None:
            self._beginning.cancel()
        self.context.stop()
        # by the server's own time limit each request is answered, but for long streams
        await self.server.stop(self.settings.common.limit_s, self.router.close)
        self.siblings.close()  # it may have owed an answer
        if self.metrics_server is not None:
            await self.metrics_server.stop(0.0)
        if self.tracer is not None:
            await self.tracer.close()
        self.context.passwords.close()
        self.router.stirred = lambda pause_s: None
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.router.close()
        log.info("stopped")


def _proxied(route: ShardRoute, settings: FrontSettings) -> Proxied:
    return Proxied(route.reaches_any, in_vain=route.in_vain,
                   failure_wait_s=settings.proxy_failure_wait_ms / 1000)


def _shared(settings: FrontSettings) -> Shared | None:
    """What the fronts of this host have shown, if they can share that."""
    if settings.shown_fd < 0:
        return None
    try:
        return shared_by(settings.shown_fd, settings.index, settings.fronts)
    except OSError as error:
        log.warning("reads may miss what clients of other fronts have seen", error=str(error))
        return None


def _served(beginning: asyncio.Task[None]) -> None:
    """A fault ends the process, whose loop only logs a client's."""
    if not beginning.cancelled() and (error := beginning.exception()) is not None:
        raise RuntimeError("this front cannot begin to serve") from error


def split_url(url: str) -> tuple[str, str, int]:
    """Scheme, host ("": all) and port of a client URL to bind; of a Unix socket its path, and 0.
    ValueError."""
    parts = urlsplit(url)
    if parts.scheme in ("unix", "unixs"):
        return parts.scheme, url.partition("://")[2], 0
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{url}: only http, https, unix and unixs client URLs are served")
    if parts.port is None:
        raise ValueError(f"{url}: a client URL needs a port")
    return parts.scheme, parts.hostname or "", parts.port
