"""/metrics, under etcd's names where one exists. Hot paths count in plain integers; a scrape turns them into
samples, and asks the nodes for theirs."""

from __future__ import annotations

import itertools
import json
import os
import platform
import re
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from cluster.errors import Code
from cluster.faults import faults
from cluster.machine import Turns
from cluster.pb import rpc_pb2
from cluster.version import CLUSTER_VERSION, ETCD_VERSION, MUSTER_VERSION
from cluster.wire.messages import HEAD, Method
from proxy.grpc.registry import Registry
from proxy.metrics.move_facts import move_samples
from proxy.metrics.node_metrics import Figures, has_gone, node_samples
from proxy.metrics.scrapes import Scrapes, at_once
from proxy.metrics.shard_facts import ShardFacts, ask_own, gather, samples
from proxy.routing.router import Waiting
from proxy.shared.context import INNER, Context

if TYPE_CHECKING:
    from proxy.listener.server import Server


gauge, counter = GaugeMetricFamily, CounterMetricFamily
_MEMORY, _MEMORY_OF_FRONT = "process_resident_memory_bytes", "muster_front_resident_memory_bytes"
_ALARM = re.compile(r"(?:memberID:(\d+) )?alarm:(\w+)")  # Go leaves an ID of 0 out
# exported as 0 from the start, as by etcd
_KNOWN = (
    ("unary", "etcdserverpb.KV", ("Range", "Put", "DeleteRange", "Txn", "Compact")),
    ("unary", "etcdserverpb.Lease", ("LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseLeases")),
    ("unary", "etcdserverpb.Cluster",
     ("MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote")),
    ("unary", "etcdserverpb.Maintenance",
     ("Alarm", "Status", "Defragment", "Hash", "HashKV", "MoveLeader", "Downgrade")),
    ("unary", "etcdserverpb.Auth", (
        "AuthEnable", "AuthDisable", "AuthStatus", "Authenticate", "UserAdd", "UserGet", "UserList",
        "UserDelete", "UserChangePassword", "UserGrantRole", "UserRevokeRole", "RoleAdd", "RoleGet",
        "RoleList", "RoleDelete", "RoleGrantPermission", "RoleRevokePermission",
    )),
    ("bidi_stream", "etcdserverpb.Watch", ("Watch",)),
    ("bidi_stream", "etcdserverpb.Lease", ("LeaseKeepAlive",)),
    ("server_stream", "etcdserverpb.Maintenance", ("Snapshot",)),
)


class Metrics:
    def __init__(self, context: Context, server: Server, calls: Registry, turns: Turns | None = None) -> None:
        """``calls`` counts clients, and times calls with ``--metrics=extensive``."""
        self._context = context
        self._server = server
        self._calls = calls
        self._turns = turns
        self.health_successes = 0
        self.health_failures = 0
        # (type, name) -> [last, successes, failures]
        self._healthchecks: dict[tuple[str, str], list[int]] = {}
        self._status = rpc_pb2.StatusResponse()
        self._revision = 0
        self._shards: list[ShardFacts] = []
        self._told: dict[int, ShardFacts] = {}  # by shard, as its node has told last; empty: it has not
        self._nodes: dict[int, Figures] = {}  # by shard, of this host's nodes
        for grpc_type, service, methods in _KNOWN:
            for method in methods:
                context.method(grpc_type, service, method)
        self._process = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._process)
        prometheus_client.PlatformCollector(registry=self._process)
        prometheus_client.GCCollector(registry=self._process)
        self._of_process: list[Metric] = []  # as :meth:`look` has found it
        # adds the host's other fronts (proxy.metrics.siblings)
        self.gather: Callable[[Callable[[Iterable[Metric]], None]], None] = lambda done: done(self.own())
        self.of_v2: Callable[[], Iterable[Metric]] = tuple  # of requests of version 2
        self.of_proxy: Callable[[], Iterable[Metric]] = tuple  # of a proxy
        # calls the first in a thread, then the second on the loop
        self.in_thread: Callable[[Callable[[], None], Callable[[], None]], None] = at_once
        self.scrapes = Scrapes(self._gathered)

    def healthcheck(self, kind: str, name: str, passed: bool | None) -> None:
        counts = self._healthchecks.setdefault((kind, name), [0, 0, 0])
        if passed is not None:
            counts[0] = int(passed)
            counts[1 if passed else 2] += 1

    def _gathered(self, done: Callable[[Iterable[Metric]], None]) -> None:
        """``done`` gets all families: with the nodes' figures, if they answer."""
        asked = [shard for shard in self._context.router.routes if self._is_own(shard)]
        own = self._is_own(0)
        missing = len(asked) + 1 + own
        for shard in self._nodes.keys() - set(asked):
            has_gone(self._nodes[shard])

        def one() -> None:
            nonlocal missing
            missing -= 1
            if not missing:
                self.in_thread(self.look, lambda: self.gather(told))

        def gathered(facts: list[ShardFacts]) -> None:
            before, proxy = self._told, not self._context.common.member_id
            self._told = {shard["shard"]: (_sizes_in(shard) if proxy else shard) if shard["up"]
                          else before.get(shard["shard"], {})
                          for shard in facts if shard["up"] or shard["state"] != "forming"}
            self._shards = _without_nodes(facts) if proxy else facts
            one()

        def counted(waiting: Waiting, status: int, body: bytes) -> None:
            if status == 0:
                self._nodes[waiting.shard] = json.loads(body[HEAD.size:])
            one()

        def answer(waiting: Waiting, status: int, body: bytes) -> None:
            if status == 0:
                self._revision = HEAD.unpack_from(body)[0]
                self._status = rpc_pb2.StatusResponse.FromString(body[HEAD.size:])
            one()

        def told(of_fronts: Iterable[Metric]) -> None:
            of_fronts = list(of_fronts)
            done(itertools.chain(of_fronts, self.of_host(of_fronts)))

        for shard in asked:
            ask_own(self._context, shard, Method.COUNTERS, counted)
        if own:
            ask_own(self._context, 0, Method.STATUS, answer)
        gather(self._context, gathered, anywhere=True)

    def _is_own(self, shard: int) -> bool:
        """Whether questions go to this host's node of a shard; while that is down another host's would
        answer. A proxy has none: any answers for it."""
        route = self._context.router.routes.get(shard)
        if route is None:
            return False
        return (route.home if self._context.common.member_id else route.replica) is not None

    def of_host(self, of_fronts: Iterable[Metric]) -> Iterator[Metric]:
        """What was gathered for this scrape, and the host's own."""
        yield from self._memory(of_fronts)
        yield from self._member()
        yield from self._cluster()
        yield from self._store()
        yield from node_samples(self._nodes, self._context.common.member_id)
        yield from samples(self._shards)
        yield from move_samples(self._shards)

    def own(self) -> Iterator[Metric]:
        yield from self._grpc()
        yield from self._front()
        yield from self._requests()
        yield from self.of_v2()
        yield from self.of_proxy()
        yield from self._health()
        yield from self._of_process

    def look(self) -> None:
        """Look at the process, in a thread: the kernel lists descriptors repeatedly, 4 ms for 10,000."""
        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        most = _UNLIMITED if most == resource.RLIM_INFINITY else most
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._of_process = [
            *map(_renamed, self._process.collect()),
            gauge("os_fd_used", "Open file descriptors.", len(os.listdir("/proc/self/fd"))),
            gauge("os_fd_limit", "The limit of open file descriptors.", files),
            gauge("process_virtual_memory_max_bytes", "The limit of virtual memory.", most),
        ]

    def _memory(self, of_fronts: Iterable[Metric]) -> Iterator[Metric]:
        """An etcd is one process: its name tells the memory of all processes here."""
        found = (family for family in of_fronts if family.name == _MEMORY_OF_FRONT)
        if fronts := [sample.value for family in found for sample in family.samples]:
            nodes = (facts for facts in self._shards if facts.get("pid") != os.getpid())  # of a joined front
            text = "Resident memory of this host's fronts and nodes."
            yield gauge(_MEMORY, text, sum(fronts) + sum(facts.get("resident_bytes", 0) for facts in nodes))

    def _grpc(self) -> Iterator[Metric]:
        labels = ["grpc_type", "grpc_service", "grpc_method"]
        started = counter("grpc_server_started", "RPCs started on the server.", labels=labels)
        text = "RPCs completed on the server, by code."
        handled = counter("grpc_server_handled", text, labels=[*labels, "grpc_code"])
        received = counter("grpc_server_msg_received", "Messages received.", labels=labels)
        sent = counter("grpc_server_msg_sent", "Messages sent.", labels=labels)
        context, calls = self._context, self._calls
        methods = {key: stats for key, stats in context.stats.items() if key[0] != INNER}
        for key, stats in methods.items():
            unary = key[0] == "unary"
            started.add_metric(key, stats.started)
            handled.add_metric([*key, "OK"], stats.ok)
            for code, name in _CODE_NAMES.items():
                handled.add_metric([*key, name], stats.codes.get(code, 0))
            received.add_metric(key, stats.received if key[0] == "bidi_stream" else stats.started)
            sent.add_metric(key, stats.ok if unary else stats.sent)
        yield from (started, handled, received, sent)
        text = "Client requests per client version."
        clients = counter("etcd_server_client_requests", text, labels=["type", "client_api_version"])
        for (kind, version), found in calls.clients.items():
            clients.add_metric([kind, version], found.calls)
        yield clients
        text = "How long calls took until their answer."
        times = HistogramMetricFamily("grpc_server_handling_seconds", text, labels=labels)
        for key in methods:
            took = calls.times.get(f"/{key[1]}/{key[2]}")
            if took is not None:
                times.add_metric(key, took.buckets(), took.sum)
        if times.samples:
            yield times

    def _member(self) -> Iterator[Metric]:
        context, router, status = self._context, self._context.router, self._status
        leader, own = router.routes[0].leader, context.common.member_id
        yield gauge("etcd_server_has_leader", "Whether a leader exists.", int(router.has_leader))
        leads = int(leader == own != 0)
        yield gauge("etcd_server_is_leader", "Whether this member is a leader.", leads)
        learner = int(status.isLearner)
        yield gauge("etcd_server_is_learner", "Whether this member is a learner.", learner)
        committed, applied = status.raftIndex, status.raftAppliedIndex
        yield gauge("etcd_server_proposals_committed_total", "Proposals committed.", committed)
        yield gauge("etcd_server_proposals_applied_total", "Proposals applied.", applied)
        quota = context.settings.quota_backend_bytes
        yield gauge("etcd_server_quota_backend_bytes", "The quota, in bytes.", quota)
        for name, label, value in (
            ("etcd_server_id", "server_id", f"{own:x}"),
            ("etcd_server_version", "server_version", ETCD_VERSION),
            ("etcd_cluster_version", "cluster_version", CLUSTER_VERSION[:3]),
            # etcd's name for what it was built with
            ("etcd_server_go_version", "server_go_version", f"python{platform.python_version()}"),
            ("muster_version", "version", MUSTER_VERSION),
            ("muster_python_version", "version", platform.python_version()),
        ):
            info = gauge(name, "Always 1: see the label.", labels=[label])
            info.add_metric([value], 1)
            yield info

    def _cluster(self) -> Iterator[Metric]:
        own, hosts = self._context.common.member_id, self._context.router.members.hosts
        known = gauge("etcd_network_known_peers", "Members: 1; removed ones: 0.", labels=["Local", "Remote"])
        for member_id, host in hosts.items() if own else ():  # etcd counts itself, too
            known.add_metric([f"{own:x}", f"{member_id:x}"], int(not host.removed))
        labels = ["server_id", "alarm_type"]
        alarms = gauge("etcd_debugging_server_alarms", "Raised alarms.", labels=labels)
        for member, kind in _ALARM.findall(" ".join(self._status.errors)):
            alarms.add_metric([f"{int(member or 0):x}", kind], 1)
        yield from (known, alarms)

    def _front(self) -> Iterator[Metric]:
        context, router = self._context, self._context.router
        figures = router.statistics()
        # with the front's label: each counts for itself, and a scrape may meet any of them
        changes = router.routes[0].leader_changes
        yield counter("etcd_server_leader_changes_seen", "Leader changes seen.", changes)
        pending = figures["pending"] + figures["queued"]
        yield gauge("etcd_server_proposals_pending", "Requests under way.", pending)
        failed = sum(
            sum(n for code, n in stats.codes.items() if code in _FAILED_PROPOSAL)
            for (_, service, method), stats in context.stats.items()
            if (service, method) in _PROPOSALS)
        yield counter("etcd_server_proposals_failed", "Failed proposals.", failed)
        if (turns := self._turns) is not None:
            yield HistogramMetricFamily(
                "muster_loop_turn_seconds", "Duration of turns of this process's event loop.",
                buckets=turns.late.buckets(), sum_value=turns.late.sum)
            text = "The longest turn of this process's event loop."
            yield gauge("muster_loop_turn_seconds_max", text, turns.longest_s)
        yield from _rows(_OF_ROUTER, figures)
        yield from _rows(_OF_SERVER, self._server.statistics())
        yield counter("muster_front_comparisons", "Comparisons of all hosts' replicas.", context.comparisons)
        yield counter("muster_front_corrupt_found", "Replicas found that differ.", context.corrupt_found)

    def _store(self) -> Iterator[Metric]:
        status = self._status
        told = self._told.values()
        keys = [facts.get("keys", -1) for facts in told]
        if keys and min(keys) >= 0:  # -1: a node is still counting, or has told nothing yet
            yield gauge("etcd_debugging_mvcc_keys_total", "Keys.", sum(keys))
        compacted = max((facts.get("compact_revision", 0) for facts in told), default=0)
        text = "Revision of the last compaction."
        yield gauge("etcd_debugging_mvcc_compact_revision", text, compacted)
        inflight = sum(facts.get("defragmenting", 0) for facts in self._shards)
        yield gauge(
            "etcd_disk_defrag_inflight", "Defragmentations under way on this host, by shard.", inflight)
        others = [facts for shard, facts in self._told.items() if shard]  # shard 0's status tells
        size = status.dbSize + sum(facts.get("size_bytes", 0) for facts in others)
        yield gauge("etcd_mvcc_db_total_size_in_bytes", "Size of the database on disk.", size)
        in_use = status.dbSizeInUse + sum(facts.get("size_in_use_bytes", 0) for facts in others)
        yield gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Size of the database in use.", in_use)
        text = "Revision of the store."
        yield gauge("etcd_debugging_mvcc_current_revision", text, self._revision)

    def _requests(self) -> Iterator[Metric]:
        context = self._context

        def seen(method: str) -> int:
            return sum(context.method(kind, "etcdserverpb.KV", method).ok for kind in ("unary", INNER))

        for name, method in (("put", "Put"), ("range", "Range"), ("delete", "DeleteRange"), ("txn", "Txn")):
            yield counter(f"etcd_mvcc_{name}", f"{method} requests seen by this front.", seen(method))
        text = "As etcd_mvcc_range_total."
        yield counter("etcd_debugging_mvcc_range", text, seen("Range"))
        yield from _rows(_OF_WATCHES, context.hub.statistics())
        yield counter("etcd_debugging_lease_renewed", "Leases kept alive.", context.leases_renewed)
        text = "Requests that hit a bug of muster in this front."
        yield counter("muster_front_faults", text, faults.count)

    def _health(self) -> Iterator[Metric]:
        # counters that etcd names without _total, which the library would add to a counter
        yield gauge("etcd_server_health_success", "Successful health checks.", self.health_successes)
        yield gauge("etcd_server_health_failures", "Failed health checks.", self.health_failures)
        promoted = self._context.method("unary", "etcdserverpb.Cluster", "MemberPromote").ok
        text = "Learners promoted as this front was asked to."
        yield gauge("etcd_server_learner_promote_successes", text, promoted)
        refused = gauge("etcd_server_learner_promote_failures", "Promotions refused.", labels=["Reason"])
        for reason, count in self._context.unpromoted.items():
            refused.add_metric([reason], count)
        yield refused
        last = gauge("etcd_server_healthcheck", "Result of the last check.", labels=["type", "name"])
        total = counter("etcd_server_healthchecks", "Checks by result.", labels=["type", "name", "status"])
        for (kind, name), (passed, successes, failures) in self._healthchecks.items():
            if successes or failures:  # 0 says that it failed
                last.add_metric([kind, name], passed)
            total.add_metric([kind, name, "success"], successes)
            total.add_metric([kind, name, "error"], failures)
        yield from (last, total)


def _without_nodes(told: Iterable[ShardFacts]) -> list[ShardFacts]:
    """A proxy has no nodes: what hosts tell of theirs, sizes apart, is not its own."""
    return [{"shard": facts["shard"], "up": False, "state": facts["state"]} for facts in told]


def _sizes_in(told: ShardFacts) -> ShardFacts:
    return {name: told.get(name, 0) for name in ("size_bytes", "size_in_use_bytes")}


def _renamed(family: Metric) -> Metric:
    """Its memory is a part of the host's."""
    if family.name != _MEMORY:
        return family
    return gauge(_MEMORY_OF_FRONT, "Resident memory of the front's process.", family.samples[0].value)


def _rows(rows: Iterable[Row], figures: Mapping[str, float]) -> Iterator[Metric]:
    for family, name, text, figure in rows:
        yield family(name, text, figures[figure])


Row = tuple[type[GaugeMetricFamily] | type[CounterMetricFamily], str, str, str]  # family, name, help, figure

_OF_ROUTER: tuple[Row, ...] = (
    (counter, "etcd_server_slow_read_indexes",
     "Read-index questions answered after 0.5 s or later.", "read_index_slow"),
    (counter, "etcd_server_read_indexes_failed", "Read-index questions that failed.", "read_index_failed"),
    (counter, "muster_front_frames_sent", "Frames of this front's links to nodes.", "frames_sent"),
    (counter, "muster_front_frames_received", "Frames of this front's links to nodes.", "frames_received"),
    (counter, "muster_front_read_index_rounds", "Read-index questions asked.", "read_index_rounds"),
    (gauge, "muster_front_links_up", "Links to nodes that are up.", "links_up"),
)
_OF_SERVER: tuple[Row, ...] = (
    (counter, "etcd_network_client_grpc_received_bytes", "Bytes from clients.", "received_bytes"),
    (counter, "etcd_network_client_grpc_sent_bytes", "Bytes to clients.", "sent_bytes"),
    (counter, "muster_front_connections_refused",
     "Clients' connections closed because there were too many.", "connections_refused"),
    (counter, "muster_front_connections_stalled",
     "Client connections ended because they held memory and read nothing.", "connections_stalled"),
    (counter, "muster_front_requests_refused",
     "Requests of clients that held more than their share of memory.", "requests_refused"),
    (gauge, "muster_front_connections", "Connections of clients that are open.", "connections"),
    (gauge, "muster_front_streams", "HTTP/2 streams that are open.", "streams"),
    (gauge, "muster_front_queued_bytes", "Answers that clients have not read yet.", "queued_bytes"),
    (gauge, "muster_front_memory_bytes", "Memory that connections of clients hold.", "memory_bytes"),
    (gauge, "muster_front_memory_limit_bytes", "This front's share of --max-client-memory-bytes.",
     "memory_limit_bytes"),
)
_OF_WATCHES: tuple[Row, ...] = (
    (gauge, "etcd_debugging_mvcc_watch_stream_total", "Watch streams.", "streams"),
    (gauge, "etcd_debugging_mvcc_watcher_total", "Watchers.", "watches"),
    (gauge, "etcd_debugging_mvcc_slow_watcher_total", "Unsynced watchers.", "slow"),
    (gauge, "etcd_debugging_mvcc_pending_events_total", "Events kept for lagging watches.", "held_events"),
    (gauge, "muster_watch_subscriptions", "Distinct ranges watched.", "subscriptions"),
    (gauge, "muster_watch_merge_bytes", "Events of watches over several shards that wait for a shard.",
     "merge_bytes"),
    (counter, "muster_watch_merge_pauses",
     "Times that a shard's events did not fit; watches read them from history.", "merge_pauses"),
    (counter, "etcd_debugging_mvcc_events", "Events sent to this front.", "events"),
)
# gRPC codes as Go spells them
_CODE_NAMES = {int(c): "".join(part.capitalize() for part in c.name.split("_")) for c in Code if c != Code.OK}
_UNLIMITED = (1 << 64) - 1  # as Go's client library has it
_FAILED_PROPOSAL = frozenset((2, 4, 14))
_PROPOSALS = frozenset(
    [("etcdserverpb.KV", m) for m in ("Put", "DeleteRange", "Txn", "Compact")]
    + [("etcdserverpb.Lease", m) for m in ("LeaseGrant", "LeaseRevoke")])
