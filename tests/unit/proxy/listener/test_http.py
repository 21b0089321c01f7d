"""/health, /livez, /readyz, /version and /metrics."""

from __future__ import annotations

import gzip
import json
import sys
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.pb import rpc_pb2
from cluster.wire.messages import Method
from proxy.grpc.registry import Clients, Registry
from proxy.http.requests import HttpRequest
from proxy.listener.endpoints import register_http
from proxy.listener.filter import FilteredRegistry, redirect
from proxy.metrics.exposition import Metrics
from proxy.metrics.scrapes import go_numbers
from tests.unit.proxy.fakes import Net


class Request(HttpRequest):
    """What an HTTP handler sees, answers recorded."""

    def __init__(self, path: str, method: str = "GET", query: str = "") -> None:
        super().__init__(method, path, query, {}, b"", "")
        self.answer: tuple[int, bytes] | None = None
        self.fields: dict[str, str] = {}

    def respond(self, status: int, body: bytes = b"", headers: Any = (), content_type: str = "") -> None:
        assert self.answer is None, "answered twice"
        self.answer = (status, body)
        self.fields = {**dict(headers), "content-type": content_type}


class Figures:
    def statistics(self) -> dict[str, int]:
        return {
            "connections": 1, "connections_refused": 0, "connections_stalled": 0, "requests_refused": 0,
            "streams": 2, "queued_bytes": 3, "memory_bytes": 0, "memory_limit_bytes": 9, "received_bytes": 4,
            "sent_bytes": 5,
        }


FIGURES = json.dumps({
    "counters": {"syncs": 7, "sync_us": 2500, "slow_applies": 2, "heartbeats_late": 1, "leases_expired": 6},
    "histograms": {
        "etcd_disk_wal_fsync_duration_seconds": {"bounds": [0.001, 1.0], "counts": [4, 2, 1], "sum": 2.5},
        "etcd_server_apply_duration_seconds": {"bounds": [0.5], "counts": [1, 0], "sum": 0.25},
    },
    "peers": {"2": {"sent_bytes": 70, "send_failures": 3, "received_bytes": 9, "receive_failures": 8,
                    "active": 1, "losses": 2,
                    "round_trips": {"bounds": [0.1], "counts": [2, 1], "sum": 0.5}}},
    "snapshots": {"receive": {}, "send": {
        "2": {"success": 1, "failures": 4, "inflights": 1,
              "took": {"bounds": [0.1], "counts": [0, 1], "sum": 5.5}}}},
    "installing": 1,
    "lease_ttls": {"bounds": [1.0, 2.0], "counts": [0, 1, 1], "sum": 62.0},
    "leases_revoked": 1,
}).encode()


REGISTRY = Registry(timed=True)
for _method in ("Put", "Range"):
    REGISTRY.unary(f"/etcdserverpb.KV/{_method}", lambda call, data: None)
REGISTRY.times["/etcdserverpb.KV/Put"].observe(0.2)
REGISTRY.clients["unary", "3.5"] = Clients()
REGISTRY.clients["unary", "3.5"].calls = 4


class Site:
    """The endpoints over a fake cluster whose nodes answer health's questions."""

    def __init__(self, leader: int = 1, own: int = 1) -> None:
        self.net = Net(own=own)
        if leader:
            self.net.started(leader)
        else:
            self.net.pass_time(0.3)
        self.handlers: dict[str, Any] = {}
        self.alarms: list[int] = []
        self.learner = False
        self.facts = {"shard": 0, "keys": 5, "compact_revision": 3}
        self.metrics = Metrics(self.net.context, Figures(), REGISTRY)
        register_http(self, self.net.context, self.metrics)

    def unary(self, path: str, handler: Any, counted: str = "unary") -> None: ...
    def stream(self, path: str, handler: Any) -> None: ...
    def http(self, path: str, handler: Any) -> None:
        self.handlers[path] = handler

    def get(self, path: str, query: str = "", method: str = "GET", answering: bool = True) -> Request:
        request = Request(path, method, query)
        self.handlers[path](request)
        self.net.run()
        if answering:
            self.answer()
        return request

    def answer(self) -> None:
        """The nodes answer what they are asked."""
        for _ in range(4):
            for node in self.net.nodes.values():
                for asked in node.take():
                    if asked.method == Method.READ_INDEX:
                        node.index(asked, 1)
                    elif asked.method == Method.ALARM:
                        node.ok(asked, 1, rpc_pb2.AlarmResponse(
                            alarms=[rpc_pb2.AlarmMember(alarm=a) for a in self.alarms]).SerializeToString())
                    elif asked.method == Method.COUNTERS:
                        node.ok(asked, 1, FIGURES)
                    elif asked.method == Method.FACTS:
                        node.ok(asked, 1, json.dumps(self.facts).encode())
                    elif asked.method == Method.STATUS:
                        index = 9 if node.member == 1 else 1009
                        node.ok(asked, 1, rpc_pb2.StatusResponse(
                            isLearner=self.learner, dbSize=4096, raftIndex=index,
                            errors=["memberID:31 alarm:NOSPACE ", "alarm:CORRUPT "]).SerializeToString())
                    elif asked.method == Method.RANGE:
                        node.ok(asked, 1)
            self.net.run()


@pytest.mark.parametrize(("own", "leader", "state"), [
    (1, 1, "StateLeader"), (1, 2, "StateFollower"), (1, 0, "StateFollower"), (0, 0, "StateFollower")])
def test_only_the_leaders_host_says_that_it_leads(own: int, leader: int, state: str) -> None:
    """A proxy said so while nobody did."""
    request = Site(leader, own).get("/debug/vars")
    assert request.answer is not None
    assert json.loads(request.answer[1])["raft.status"]["raftState"] == state


def test_version_and_wrong_methods() -> None:
    site = Site()
    request = site.get("/version")
    assert request.answer is not None
    assert json.loads(request.answer[1]) == {"etcdserver": "3.5.21", "etcdcluster": "3.5.0"}
    for path in ("/version", "/health", "/livez", "/readyz", "/debug/vars"):
        wrong = site.get(path, method="POST")
        assert wrong.answer == (405, b"Method Not Allowed\n")
        assert wrong.fields["Allow"] == "GET"


def test_health_is_true_when_a_read_succeeds() -> None:
    assert Site().get("/health").answer == (200, b'{"health":"true","reason":""}')


def test_health_looks_at_alarms_then_the_leader_then_a_read() -> None:
    site = Site(leader=0)
    site.alarms = [1]
    full = site.get("/health")
    assert full.answer == (503, b'{"health":"false","reason":"ALARM NOSPACE"}\n')
    assert full.fields["X-Content-Type-Options"] == "nosniff"
    leaderless = site.get("/health", "exclude=NOSPACE")
    assert leaderless.answer is None
    site.net.pass_time(1.2)
    assert leaderless.answer == (503, b'{"health":"false","reason":"RAFT NO LEADER"}\n')
    assert site.get("/health", "exclude=NOSPACE&serializable=true").answer == (
        200,
        b'{"health":"true","reason":""}',
    )
    assert (site.metrics.health_successes, site.metrics.health_failures) == (1, 2)


def test_health_is_true_as_soon_as_a_linearizable_read_is_answered() -> None:
    """The own node may not know the leader yet that a client's read at this front is sent to."""
    site = Site()
    site.net.nodes[1].leader = 0
    for member in (2, 3):
        site.net.nodes[member].leader, site.net.nodes[member].term = 3, 2
    site.net.pass_time(0.3)
    assert not site.net.router.has_leader
    assert site.get("/health").answer == (200, b'{"health":"true","reason":""}')


def test_health_waits_for_a_leader_as_a_read_does() -> None:
    site = Site(leader=0)
    request = site.get("/health")
    assert request.answer is None
    site.net.lead(2, 1)
    site.answer()
    assert request.answer == (200, b'{"health":"true","reason":""}')
    site.net.pass_time(2.0)  # its read's own end changes nothing
    assert (site.metrics.health_successes, site.metrics.health_failures) == (1, 0)


def test_health_fails_when_the_read_does() -> None:
    site = Site()
    request = site.get("/health", answering=False)
    for node in site.net.nodes.values():
        for asked in node.take(Method.ALARM):
            node.ok(asked, 1)  # the read stays unanswered
    site.net.pass_time(7.5)
    assert request.answer == (
        503,
        b'{"health":"false","reason":"RANGE ERROR:etcdserver: request timed out"}\n',
    )


def test_livez_and_readyz_list_their_checks() -> None:
    site = Site()
    assert site.get("/livez").answer == (200, b"ok\n")
    assert site.get("/livez", "verbose").answer == (200, b"[+]serializable_read ok\nok\n")
    assert site.get("/livez/serializable_read").answer == (200, b"ok\n")
    assert {path for path in site.handlers if "livez" in path} == {"/livez", "/livez/serializable_read"}
    site.alarms = [2]
    assert site.get("/readyz").answer == (
        503, b"[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n"
        b"[+]linearizable_read ok\n[+]non_learner ok\n\n")
    assert site.get("/readyz", "exclude=data_corruption").answer == (200, b"ok\n")
    site.learner = True
    assert site.get("/readyz/non_learner").answer == (
        503,
        b"[-]non_learner failed: not supported for learner\n\n",
    )


def test_a_host_that_joins_is_alive_and_not_ready() -> None:
    """The leader answers its reads, and no client reaches it yet."""
    site = Site()
    site.net.context.joins = True
    assert site.get("/livez").answer == (200, b"ok\n")
    wrong = b"this host joins: it does not have the cluster's data yet"
    ready = site.get("/readyz/linearizable_read")
    assert ready.answer == (503, b"[-]linearizable_read failed: " + wrong + b"\n\n")
    site.net.cut(1)
    ready = site.get("/readyz")  # at once: it has no own node yet that it could wait for
    assert ready.answer is not None
    assert ready.answer[0] == 503
    assert site.get("/health").answer == (503, b'{"health":"false","reason":"RANGE ERROR:' + wrong + b'"}\n')
    assert site.get("/health", "serializable=true").answer == (200, b'{"health":"true","reason":""}')
    assert site.get("/metrics").answer is not None


def test_metrics_have_etcds_names_and_methods_from_the_start() -> None:
    site = Site()
    stats = site.net.context.method("unary", "etcdserverpb.KV", "Put")
    stats.started, stats.ok = 5, 4
    stats.failed(14)
    snapshots = site.net.context.method("server_stream", "etcdserverpb.Maintenance", "Snapshot")
    snapshots.started, snapshots.sent = 1, 7
    site.net.context.unpromoted["membership: ID not found"] = 3
    site.net.context.method("inner", "etcdserverpb.KV", "Range").ok = 2
    request = site.get("/metrics")
    assert request.answer is not None
    found = {
        (s.name, *sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(request.answer[1].decode()) for s in family.samples
    }
    put = (("grpc_method", "Put"), ("grpc_service", "etcdserverpb.KV"), ("grpc_type", "unary"))
    assert found[("grpc_server_started_total", *put)] == 5
    assert found[("grpc_server_handled_total", ("grpc_code", "OK"), *put)] == 4
    snapshot = (("grpc_method", "Snapshot"), ("grpc_service", "etcdserverpb.Maintenance"),
                ("grpc_type", "server_stream"))
    assert found[("grpc_server_msg_received_total", *snapshot)] == 1
    assert found[("grpc_server_msg_sent_total", *snapshot)] == 7
    assert found[("grpc_server_handled_total", ("grpc_code", "Unavailable"), *put)] == 1
    assert found[("etcd_server_has_leader",)] == 1
    assert found[("etcd_server_is_leader",)] == 1
    assert found[("etcd_server_proposals_failed_total",)] == 1
    assert found[("etcd_mvcc_db_total_size_in_bytes",)] == 4096
    assert found[("etcd_server_proposals_committed_total",)] == 9
    assert found[("etcd_network_client_grpc_sent_bytes_total",)] == 5
    assert found[("etcd_disk_wal_fsync_duration_seconds_count",)] == 7
    assert found[("etcd_disk_wal_fsync_duration_seconds_sum",)] == 2.5
    assert [
        found[("etcd_disk_wal_fsync_duration_seconds_bucket", ("le", le))] for le in ("0.001", "1", "+Inf")
    ] == [4, 6, 7]
    applies = (("op", "Batch"), ("success", "true"), ("version", "v3"))
    assert found[("etcd_server_apply_duration_seconds_bucket", ("le", "0.5"), *applies)] == 1
    assert found[("etcd_server_slow_apply_total",)] == 2
    assert found[("etcd_server_heartbeat_send_failures_total",)] == 1
    assert (
        found[("etcd_server_slow_read_indexes_total",)]
        == found[("etcd_server_read_indexes_failed_total",)]
        == 0
    )
    assert found[("etcd_network_peer_sent_bytes_total", ("To", "2"))] == 70
    assert found[("etcd_network_peer_received_bytes_total", ("From", "2"))] == 9
    assert found[("etcd_network_peer_sent_failures_total", ("To", "2"))] == 3
    assert found[("etcd_network_peer_round_trip_time_seconds_bucket", ("To", "2"), ("le", "0.1"))] == 2
    assert found[("etcd_network_peer_round_trip_time_seconds_count", ("To", "2"))] == 3
    assert found[("etcd_network_peer_received_failures_total", ("From", "2"))] == 8
    link = (("Local", "1"), ("Remote", "2"))
    assert found[("etcd_network_active_peers", *link)] == 1
    assert found[("etcd_network_known_peers", *link)] == 1
    assert found[("etcd_network_known_peers", ("Local", "1"), ("Remote", "1"))] == 1
    assert found[("etcd_debugging_server_alarms", ("alarm_type", "NOSPACE"), ("server_id", "1f"))] == 1
    assert found[("etcd_debugging_server_alarms", ("alarm_type", "CORRUPT"), ("server_id", "0"))] == 1
    assert found[("etcd_network_disconnected_peers_total", *link)] == 2
    assert found[("etcd_network_snapshot_send_inflights_total", ("To", "2"))] == 1
    assert found[("etcd_network_snapshot_send_total_duration_seconds_sum", ("To", "2"))] == 5.5
    assert not [name for name, *_ in found if str(name).startswith("etcd_network_snapshot_receive")]
    assert found[("etcd_server_snapshot_apply_in_progress_total",)] == 1
    assert found[("etcd_debugging_server_lease_expired_total",)] == 6
    assert found[("etcd_debugging_lease_ttl_total_bucket", ("le", "2"))] == 1
    assert found[("etcd_debugging_lease_ttl_total_sum",)] == 62
    told = b'# TYPE %b counter\n%b{Reason="membership: ID not found"} 3\n'
    assert told % ((b"etcd_server_learner_promote_failures",) * 2) in request.answer[1]
    assert found[("etcd_debugging_mvcc_range_total",)] == found[("etcd_mvcc_range_total",)] == 2
    assert "inner" not in {value for labels in found for _, value in labels[1:]}
    put = (("grpc_method", "Put"), ("grpc_service", "etcdserverpb.KV"), ("grpc_type", "unary"))
    assert [
        found[("grpc_server_handling_seconds_bucket", *put, ("le", le))] for le in ("0.1", "0.25", "+Inf")
    ] == [0, 1, 1]
    assert found[("etcd_server_client_requests_total", ("client_api_version", "3.5"), ("type", "unary"))] == 4
    assert (found[("etcd_debugging_mvcc_keys_total",)], found[("etcd_debugging_mvcc_compact_revision",)]) == (
        5,
        3,
    )
    assert found[("muster_node_syncs_total", ("shard", "0"))] == 7
    assert ("process_resident_memory_bytes",) in found
    watch = (("grpc_method", "Watch"), ("grpc_service", "etcdserverpb.Watch"), ("grpc_type", "bidi_stream"))
    assert found[("grpc_server_started_total", *watch)] == 0


def test_metrics_are_compressed_for_a_scraper_that_asks_for_that() -> None:
    site, request = Site(), Request("/metrics")
    request.headers["accept-encoding"] = "gzip, deflate"
    site.handlers["/metrics"](request)
    site.net.run()
    site.answer()
    assert request.answer is not None
    assert request.fields["content-encoding"] == "gzip"
    plain = site.get("/metrics")
    assert plain.answer is not None
    assert "content-encoding" not in plain.fields
    assert gzip.decompress(request.answer[1]).splitlines()[:5] == plain.answer[1].splitlines()[:5]
    assert 5 * len(request.answer[1]) < len(plain.answer[1])


def test_metrics_are_given_without_a_node() -> None:
    site = Site()
    for member in site.net.nodes:
        site.net.cut(member)
    request = site.get("/metrics")
    assert request.answer is not None
    assert b"etcd_server_has_leader 0\n" in request.answer[1]


def test_metrics_keep_what_a_node_that_has_gone_counted_and_no_more() -> None:
    site = Site()
    site.get("/metrics")
    site.net.cut(1)
    request = site.get("/metrics")
    assert request.answer is not None
    for sample in (b'active_peers{Local="1",Remote="2"} 0', b'snapshot_send_inflights_total{To="2"} 0',
                   b'disconnected_peers_total{Local="1",Remote="2"} 2', b'snapshot_send_success{To="2"} 1'):
        assert b"\netcd_network_" + sample + b"\n" in request.answer[1]
    assert b"\netcd_server_snapshot_apply_in_progress_total 0\n" in request.answer[1]


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("asked", ["nothing", "counters", "facts", "status"])
def test_metrics_are_never_those_of_another_hosts_node(
    asked: str, back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``back``: the own one is there again when it could have answered."""
    site = Site()
    site.get("/metrics")
    request = site.get("/metrics", answering=False)
    node = site.net.nodes[1]
    if asked == "nothing":
        site.answer()
    elif asked in ("facts", "status"):
        (counters,) = node.take(Method.COUNTERS)
        node.ok(counters, 1, FIGURES)
        site.net.run()
        if asked == "status":
            (facts,) = node.take(Method.FACTS)
            node.ok(facts, 1, b'{"shard": 0}')
            site.net.run()
    site.net.cut(1)
    monkeypatch.setattr(sys.modules[__name__], "FIGURES", FIGURES.replace(b'"syncs": 7', b'"syncs": 1007'))
    if back:
        node.up = True
        site.net.pass_time(0.5)
        assert site.net.router.routes[0].home is not None
        node.requests.clear()
    elif asked == "nothing":
        request = site.get("/metrics")
    site.answer()
    assert request.answer is not None
    assert b'\nmuster_node_syncs_total{shard="0"} 7\n' in request.answer[1]
    assert b"\netcd_server_proposals_committed_total 9\n" in request.answer[1]
    if not back and asked != "status":
        assert b'\nmuster_shard_up{shard="0"} 0\n' in request.answer[1]


def test_a_check_has_no_result_before_somebody_asks_for_it() -> None:
    """0 says that it failed, and each front has series of its own."""
    site = Site()
    site.get("/livez")
    request = site.get("/metrics")
    assert request.answer is not None
    lines = request.answer[1].splitlines()
    results = [line for line in lines if line.startswith(b"etcd_server_healthcheck{")]
    assert results == [b'etcd_server_healthcheck{name="serializable_read",type="livez"} 1']
    assert b'etcd_server_healthchecks_total{name="non_learner",status="error",type="readyz"} 0' in lines


def test_counts_without_total_are_counters_as_in_etcd() -> None:
    site = Site()
    site.get("/health")
    request = site.get("/metrics")
    assert request.answer is not None
    for name in (
        "server_health_success", "server_health_failures", "server_learner_promote_successes",
        "network_snapshot_send_success", "network_snapshot_send_failures",
    ):  # fmt: skip
        assert f"# TYPE etcd_{name} counter\n".encode() in request.answer[1]
    assert b"\netcd_server_health_success 1\n" in request.answer[1]
    assert b'\netcd_network_snapshot_send_failures{To="2"} 4\n' in request.answer[1]
    assert b"# TYPE etcd_network_snapshot_send_inflights_total gauge\n" in request.answer[1]


def test_whole_numbers_are_written_as_by_go() -> None:
    text = (
        b"# HELP x takes 1.0\n"
        b'x_bucket{le="1.0"} 2.0\nx_bucket{le="0.5",version="3.0"} 1.5\nx_sum '
        b'2.147483648e+09\nx_up{v="1.0"} -1.0\nx 10.05\n'
    )
    assert go_numbers(text) == (
        b"# HELP x takes 1.0\n"
        b'x_bucket{le="1"} 2\nx_bucket{le="0.5",version="3.0"} 1.5\nx_sum '
        b'2.147483648e+09\nx_up{v="1.0"} -1\nx 10.05\n'
    )


class Seen(HttpRequest):
    """A request whose answer is kept."""

    def __init__(self, method: str, path: str, headers: dict[str, str]) -> None:
        super().__init__(method, path, "", headers, b"", "")
        self.status = 0
        self.fields: dict[str, str] = {}
        self.text = b""

    def start(self, status: int, headers: Any = ()) -> None:
        self.status, self.fields = status, dict((*self.added, *headers))

    def write(self, chunk: bytes) -> None:
        self.text += chunk

    def end(self) -> None: ...


def ask(registry: FilteredRegistry, method: str, path: str, *, secure: bool = False,
        peer_name: str | None = None, **headers: str) -> Seen:
    request = Seen(method, path, headers)
    request.secure, request.peer_name = secure, peer_name
    handler = registry.find_http(path)
    assert handler is not None
    handler(request)
    return request


def test_cors_headers_go_to_allowed_origins_and_options_are_answered() -> None:
    registry = FilteredRegistry(("*",), ("*",))
    registry.http("/version", lambda request: request.respond(200, b"yes", [("X-Own", "1")]))
    answer = ask(registry, "GET", "/version")
    assert (answer.status, answer.text, answer.fields["X-Own"]) == (200, b"yes", "1")
    assert answer.fields["Access-Control-Allow-Origin"] == "*"
    options = ask(registry, "OPTIONS", "/version")
    assert (options.status, options.text) == (200, b"")
    missing = ask(registry, "GET", "/nope")
    assert (missing.status, missing.text) == (404, b"404 page not found\n")
    one = FilteredRegistry(("http://a",), ("*",))
    one.http("/version", lambda request: request.respond(200))
    assert ask(one, "GET", "/version", origin="http://a").fields["Access-Control-Allow-Origin"] == "http://a"
    assert "Access-Control-Allow-Origin" not in ask(one, "GET", "/version", origin="http://b").fields


def test_the_query_of_a_path_elsewhere_is_shown_as_by_go() -> None:
    request = Seen("GET", "/a//b", {})
    request.query = "x=\xe9<&'\""
    redirect(request, "/a/b")
    assert request.fields["Location"] == "/a/b?x=%e9<&'\""
    assert request.text == b"<a href=\"/a/b?x=\xe9&lt;&amp;&#39;&#34;\">Moved Permanently</a>.\n\n"


def test_an_unknown_host_is_refused_when_there_is_a_whitelist() -> None:
    registry = FilteredRegistry(("*",), ("good.example", "::1"))
    registry.http("/version", lambda request: request.respond(200))
    assert ask(registry, "GET", "/version", host="good.example:2379").status == 200
    assert ask(registry, "GET", "/version", host="[::1]:2379").status == 200
    refused = ask(registry, "GET", "/version", host="evil.example")
    assert refused.status == 421
    assert refused.text.startswith(b"\netcd received your request, but the Host header was unrecognized.")
    assert refused.text.endswith(b"(CVE-2018-5702).\n\n")  # Go's http.Error ends a text once more


@pytest.mark.parametrize(("host", "shown"), [
    ("[::2]:2379", "::2"), ("[::2]", "[::2]"), ("::2", "::2"), ("evil.example:80", "evil.example"),
    ("a:b:1", "a:b:1"), ("[::2", "[::2"), ("[::2]x:1", "[::2]x:1"), ("[::2]x", "[::2]x"),
])  # fmt: skip
def test_an_unknown_host_is_shown_as_etcd_shows_it(host: str, shown: str) -> None:
    """By Go's rules: what is no host with a port is a host as it stands. So the whitelist takes it, too."""
    refused = ask(FilteredRegistry(("*",), ("good.example",)), "GET", "/version", host=host)
    assert refused.status == 421
    assert f'etcd --host-whitelist "{shown}"\n'.encode() in refused.text
    named = FilteredRegistry(("*",), (shown,))
    named.http("/version", lambda request: request.respond(200))
    assert ask(named, "GET", "/version", host=host).status == 200


@pytest.mark.parametrize("host", [
    "good.example]", "]good.example", "good.example[", "[good.example]", "[[good.example]]", "::1]",
    "[[::1]]",
])  # fmt: skip
def test_only_the_brackets_around_an_address_are_taken_off(host: str) -> None:
    registry = FilteredRegistry(("*",), ("good.example", "::1"))
    registry.http("/version", lambda request: request.respond(200))
    assert ask(registry, "GET", "/version", host=host).status == 421
    assert ask(registry, "GET", "/version", host="[::1]").status == 200


def test_by_tls_every_host_is_served_whatever_the_whitelist_says() -> None:
    registry = FilteredRegistry(("*",), ("good.example",))
    registry.http("/version", lambda request: request.respond(200))
    assert ask(registry, "GET", "/version", secure=True, host="evil.example").status == 200


def test_where_there_are_users_the_gateway_refuses_a_client_that_a_certificate_names() -> None:
    registry = FilteredRegistry(("*",), ("*",))
    registry.http("/v3/", lambda request: request.respond(200))
    registry.http("/version", lambda request: request.respond(200))
    assert ask(registry, "POST", "/v3/kv/range", peer_name="alice").status == 200
    registry.auth_enabled = lambda: True
    refused = ask(registry, "POST", "/v3/kv/range", peer_name="alice")
    assert refused.status == 400
    assert refused.text == (b"CommonName of client sending a request against gateway will be ignored "
                            b"and not used as expected\n")
    assert ask(registry, "POST", "/v3beta/kv/range", peer_name="alice").status == 400
    assert ask(registry, "GET", "/version", peer_name="alice").status == 200
    assert ask(registry, "POST", "/v3/kv/range", peer_name="").status == 200
    assert ask(registry, "POST", "/v3/kv/range").status == 200


def test_the_old_gateway_prefix_is_rewritten() -> None:
    registry = FilteredRegistry(("*",), ("*",))
    seen: list[str] = []
    registry.http("/v3/", lambda request: seen.append(request.path))
    handler = registry.find_http("/v3beta/kv/put")
    assert handler is not None
    handler(Seen("POST", "/v3beta/kv/put", {}))
    assert seen == ["/v3/kv/put"]
