"""/version, /health, /livez, /readyz, /metrics and /debug/vars, as etcd's clients and scrapers know them."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable

import orjson

from cluster.errors import EtcdError
from cluster.pb import rpc_pb2
from cluster.version import CLUSTER_VERSION, ETCD_VERSION
from cluster.wire.messages import HEAD, Method
from proxy.http.requests import JSON, TEXT, HttpHandler, HttpRequest, parameters
from proxy.metrics.exposition import Metrics
from proxy.routing.router import Waiting
from proxy.shared.context import Context, Registry
from proxy.shared.warnings import Warnings

_ALARM_NAMES = {1: "NOSPACE", 2: "CORRUPT"}
_JOINS = "this host joins: it does not have the cluster's data yet"

Done = Callable[[str], None]  # "" or what is wrong


def register_http(
    registry: Registry, context: Context, metrics: Metrics, *, metrics_only: bool = False
) -> None:
    """Register the paths; ``metrics_only``: those of ``--listen-metrics-urls``."""
    checks = Checks(context)
    health = Health(context, checks, metrics)
    registry.http("/metrics", metrics.scrapes.serve)
    registry.http("/health", health.serve)
    for name, listed in (
        ("livez", ("serializable_read",)),
        ("readyz", ("data_corruption", "serializable_read", "linearizable_read", "non_learner")),
    ):
        probe = Probe(name, listed, checks, metrics)
        registry.http(f"/{name}", probe.serve)
        for check in listed:
            registry.http(f"/{name}/{check}", probe.one(check))
    if not metrics_only:
        registry.http("/version", _version)
        registry.http("/debug/vars", lambda request: _debug_vars(request, context))


def _version(request: HttpRequest) -> None:
    if request.allowed("GET"):
        versions = {"etcdserver": ETCD_VERSION, "etcdcluster": CLUSTER_VERSION}
        request.respond(200, orjson.dumps(versions), (), JSON)


def _debug_vars(request: HttpRequest, context: Context) -> None:
    if request.allowed("GET"):
        route = context.router.routes[0]
        own = context.common.member_id
        facts = {
            "cmdline": sys.argv[:1],
            "pid": os.getpid(),
            "file_descriptor_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "raft.status": {
                "id": f"{own:x}",
                "term": route.term,
                "lead": f"{route.leader:x}",
                "leader": f"{route.leader:x}",
                "raftState": "StateLeader" if route.leader == own != 0 else "StateFollower",
            },
            "router": context.router.statistics(),
            "watch": context.hub.statistics(),
        }
        request.respond(200, orjson.dumps(facts), (), "application/json; charset=utf-8")


class Checks:
    """What health endpoints look at; each reports once, with "" or what is wrong."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._router = context.router

    def read(self, serializable: bool, done: Done) -> None:
        """A read that names no keys: they may move meanwhile (G7)."""
        def answer(waiting: Waiting, status: int, body: bytes) -> None:
            done("" if status == 0 else EtcdError.decode(body).text)

        router = self._router
        if self._context.joins and not serializable:
            done(_JOINS)
        elif serializable:
            router.local(None, Method.ALARM, b"", 0, router.quiet, answer)
        else:
            router.read(None, Method.ALARM, b"", 0, False, router.quiet, answer)

    def alarms(self, done: Callable[[list[str] | None, str], None]) -> None:
        """The names of the alarms as the local replica knows them."""
        def answer(waiting: Waiting, status: int, body: bytes) -> None:
            if status != 0:
                done(None, EtcdError.decode(body).text)
                return
            found = rpc_pb2.AlarmResponse.FromString(body[HEAD.size:])
            done([_ALARM_NAMES.get(a.alarm, "UNKNOWN") for a in found.alarms], "")

        self._router.local(None, Method.ALARM, b"", 0, self._router.quiet, answer)

    def learner(self, done: Done) -> None:
        if self._context.joins:
            done(_JOINS)  # at once: there is no own node to wait for
            return

        def answer(waiting: Waiting, status: int, body: bytes) -> None:
            if status != 0:
                done(EtcdError.decode(body).text)
            else:
                learner = rpc_pb2.StatusResponse.FromString(body[HEAD.size:]).isLearner
                done("not supported for learner" if learner else "")

        self._router.own(None, Method.STATUS, b"", 0, self._router.quiet, answer)

    def by_name(self, name: str, done: Done) -> None:
        if name == "data_corruption":
            self.alarms(lambda found, error: done(
                error or ("alarm activated: CORRUPT" if found and "CORRUPT" in found else "")))
        elif name == "serializable_read":
            self.read(True, done)
        elif name == "linearizable_read":
            self.read(False, done)
        else:
            self.learner(done)

    @property
    def leader_known(self) -> bool:
        """Whether a host that this front hears names a leader: that one answers reads."""
        return self._router.routes[0].leader != 0


class _Asked:
    __slots__ = ("alarms", "excluded", "read", "request", "serializable", "since")

    def __init__(self, request: HttpRequest, since: float) -> None:
        query = parameters(request)
        self.request = request
        self.since = since
        self.excluded = set(query.get("exclude", ()))
        self.serializable = query.get("serializable", [""])[0] == "true"
        self.alarms: str | None = None  # "" or what is wrong; None: not known yet
        self.read: str | None = None


class Health:
    """/health: alarms, and a read as clients make it, true as soon as a client's linearizable read is
    answered.

    Without a leader it waits for an election timeout; etcd fails at once, though it answers the read later.
    While a leader is known, the read's own limit counts.
    """

    def __init__(self, context: Context, checks: Checks, metrics: Metrics) -> None:
        self._checks = checks
        self._metrics = metrics
        self._warnings = Warnings()
        self._loop = context.router.loop
        self._patience_s = context.router.election_s
        self._open: set[_Asked] = set()
        context.on_tick.append(self._tick)

    def serve(self, request: HttpRequest) -> None:
        if not request.allowed("GET"):
            return
        asked = _Asked(request, self._loop.time())
        self._open.add(asked)

        def alarms(found: list[str] | None, error: str) -> None:
            raised = next((name for name in found or () if name not in asked.excluded), "")
            asked.alarms = f"ALARM {raised}" if raised else f"RANGE ERROR:{error}" if error else ""
            self._look(asked)

        def read(wrong: str) -> None:
            asked.read = f"RANGE ERROR:{wrong}" if wrong else ""
            self._look(asked)

        self._checks.alarms(alarms)
        self._checks.read(asked.serializable, read)

    def _look(self, asked: _Asked) -> None:
        if asked not in self._open or asked.alarms is None:
            return
        if asked.alarms:
            self._end(asked, asked.alarms)
        elif asked.read is not None:
            leaderless = asked.read and not asked.serializable and not self._checks.leader_known
            self._end(asked, "RAFT NO LEADER" if leaderless else asked.read)

    def _tick(self, now: float) -> None:
        for asked in tuple(self._open):
            if (
                not asked.serializable
                and now - asked.since > self._patience_s
                and not self._checks.leader_known
            ):
                self._end(asked, asked.alarms or "RAFT NO LEADER")

    def _end(self, asked: _Asked, reason: str) -> None:
        self._open.discard(asked)
        self._answer(asked.request, reason)

    def _answer(self, request: HttpRequest, reason: str) -> None:
        body = orjson.dumps({"health": "false" if reason else "true", "reason": reason})
        if reason:
            self._metrics.health_failures += 1
            self._warnings.tell("/health error", output=body.decode(), status_code=503)
        else:
            self._metrics.health_successes += 1
        if not request.closed:
            if reason:
                request.error(503, body + b"\n")
            else:
                request.respond(200, body, (), TEXT)


class Probe:
    """/livez or /readyz: a list of checks, all made at once."""

    def __init__(self, name: str, listed: tuple[str, ...], checks: Checks, metrics: Metrics) -> None:
        self._name = name
        self._listed = listed
        self._checks = checks
        self._metrics = metrics
        self._warnings = Warnings()
        for check in listed:
            metrics.healthcheck(name, check, None)

    def serve(self, request: HttpRequest) -> None:
        if request.allowed("GET"):
            query = parameters(request)
            excluded = set(query.get("exclude", ()))
            self._run(request, [n for n in self._listed if n not in excluded], "verbose" in query)

    def one(self, check: str) -> HttpHandler:
        def serve(request: HttpRequest) -> None:
            if request.allowed("GET"):
                self._run(request, [check], "verbose" in parameters(request))

        return serve

    def _run(self, request: HttpRequest, names: list[str], verbose: bool) -> None:
        found: dict[str, str] = {}

        def done(name: str, wrong: str) -> None:
            found[name] = wrong
            self._metrics.healthcheck(self._name, name, not wrong)
            if len(found) == len(names):
                self._answer(request, names, found, verbose)

        if not names:
            self._answer(request, names, found, verbose)
        for name in names:
            self._checks.by_name(name, lambda wrong, name=name: done(name, wrong))  # type: ignore[misc]

    def _answer(self, request: HttpRequest, names: list[str], found: dict[str, str], verbose: bool) -> None:
        failed = any(found.values())
        if failed:
            reason = ", ".join(f"{name}: {found[name]}" for name in names if found[name])
            path = f"/{self._name}"
            self._warnings.tell("Health check error", path=path, reason=reason, status_code=503)
        if request.closed:
            return
        lines = [f"[-]{n} failed: {found[n]}\n" if found[n] else f"[+]{n} ok\n" for n in names]
        if failed:
            request.error(503, "".join([*lines, "\n"]).encode())
        else:
            body = ("".join(lines) if verbose else "").encode() + b"ok\n"
            request.respond(200, body, [("X-Content-Type-Options", "nosniff")], TEXT)


