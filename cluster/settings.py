"""What a supervisor tells the processes it starts, as a line of JSON on their standard input
(``tools.muster.machine.process.handed``). Units are in the names."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from cluster.endpoints import peer_address

_LEAST_SILENCE_MS = 500  # TCP sends again after 200 ms: a packet may be lost twice


@dataclass(slots=True, frozen=True)
class Peer:
    """One host as its peers and remote fronts reach it."""

    member_id: int
    name: str
    host: str
    port: int
    peer_urls: tuple[str, ...] = ()
    learner: bool = False  # when it joined; the table of members says what it is now

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port above, then those of its further URLs."""
        found = [(self.host, self.port)]
        for url in self.peer_urls if len(self.peer_urls) > 1 else ():
            with contextlib.suppress(ValueError):
                if (address := peer_address(url)) not in found and address[1]:
                    found.append(address)
        return tuple(found)


def limit_s(election_timeout_ms: int) -> float:
    return 5.0 + 2 * election_timeout_ms / 1000


def leave_s(election_timeout_ms: int) -> float:
    return 4 * election_timeout_ms / 1000


@dataclass(slots=True, frozen=True)
class PeerTls:
    """TLS between hosts, with etcd's meaning. Files are read again when they change."""

    cert_file: str
    key_file: str
    client_cert_file: str = ""  # of connections that this host dials; "": the same as of those it takes
    client_key_file: str = ""
    client_cert_auth: bool = False
    trusted_ca_file: str = ""
    crl_file: str = ""
    allowed_cns: tuple[str, ...] = ()
    allowed_hostnames: tuple[str, ...] = ()
    by_address: bool = True  # a dialling peer's address is one of its certificate's
    verifies: bool = True  # False with --peer-auto-tls: each host has made its certificate itself
    cipher_suites: tuple[str, ...] = ()  # these three as of Tls
    min_version: str = "TLS1.2"
    max_version: str = ""

    @property
    def knows_peers(self) -> bool:
        """Whether a peer has to show a certificate of a known authority."""
        return self.client_cert_auth or self.trusted_ca_file != ""


@dataclass(slots=True, frozen=True)
class Common:
    """What nodes and fronts of a host both need."""

    cluster_id: int
    member_id: int  # 0 on a machine without a member (`muster proxy`)
    name: str
    shard_count: int
    placement_depth: int
    peers: tuple[Peer, ...]  # every host of the cluster, this one too
    run_dir: str  # holds node-<shard>.sock, front-<i>.sock: ipc endpoints of this host
    heartbeat_interval_ms: int = 100
    election_timeout_ms: int = 1000
    max_request_bytes: int = 1_572_864
    max_txn_ops: int = 128
    warning_request_ms: float = 300  # a client's request that takes longer is logged; 0: none
    client_stall_timeout_ms: int = 60_000  # of a client that takes nothing of a long answer
    peer_tls: PeerTls | None = None  # of links between hosts; None: in clear, or by CURVE
    local_address: str = ""  # that other hosts are dialled from; "": any
    own_user_peers: bool = False  # peers are processes of this user on this machine: no key or certificate
    alone: bool = False  # it takes no peers, as it listens beyond this machine: it may only be a lone member
    # JSON {"public": z85, "secret": z85}, one key pair for the whole cluster; "" = no CURVE
    curve_key_file: str = ""
    log_level: str = "info"
    log_format: str = "json"
    log_outputs: tuple[str, ...] = ("stderr",)
    cpu: int = -1  # pin to this CPU; -1: not pinned
    cpu_lets_go: bool = False  # as long as others leave it alone
    origin: str = ""  # what this host's data directory began with: cluster.members.origin
    started_ns: int = 0  # when this host started, by the calendar; 0: unknown
    memory_mlock: bool = False  # this process's memory is never swapped out
    status_fd: int = -1  # write JSON lines here: {"event": "ready"}, {"event": "leader", ...}

    @property
    def silence_s(self) -> float:
        """How long a link between hosts may be silent before it is dialled again: an election timeout."""
        return max(self.election_timeout_ms, _LEAST_SILENCE_MS) / 1000

    @property
    def limit_s(self) -> float:
        """The server's own limit to the time that a request waits, as etcd's."""
        return limit_s(self.election_timeout_ms)

    @property
    def leave_s(self) -> float:
        """How long a node that is told to end waits at most to hand over and answer."""
        return leave_s(self.election_timeout_ms)


@dataclass(slots=True, frozen=True)
class NodeSettings:
    common: Common
    shard: int
    data_dir: str  # this node's own directory: <data-dir>/member/shard-<s>
    # where a node binds a peer port of its own; "": its supervisor holds the host's, and hands connections on
    listen_host: str = ""
    listen_port: int = 0
    client_urls: tuple[str, ...] = ()  # advertised; published to the cluster by shard 0's node
    peer_urls: tuple[str, ...] = ()
    incarnation: int = 0
    # its host came to a running cluster: it is no voter of the configuration that its log begins with
    joined: bool = False
    # of a shard that was born: the voters of the configuration that its log begins with, and the file that
    # its state begins with, if that exists: node.storage.genesis
    born: tuple[int, ...] = ()
    genesis: str = ""
    birth_timeout_ms: int = 60_000  # how long a shard may form: cluster.placement.births
    growth: str = "off"  # whether it advises how the cluster should grow, and acts: cluster.growth
    growth_bounds: str = ""  # cluster.growth.bounds
    max_learners: int = 1  # cluster.members.checks
    initial_election_tick_advance: bool = True
    snapshot_count: int = 10_000  # applied entries between truncations of the log
    snapshot_catchup_entries: int = 5_000
    quota_backend_bytes: int = 2_147_483_648  # <= 0: off
    order_log_bytes: int = 4_294_967_296  # what shard 0's log may take of the disk: node.upkeep.space.disks
    order_kept_bytes: int = 268_435_456  # what may be kept beside it: node.upkeep.space.keeping
    min_free_disk_bytes: int = 0  # 0: not looked at
    auto_compaction_mode: str = "periodic"
    auto_compaction_retention: str = "0"
    leader_placement: str = "together"  # or "spread": cluster.leader_placement
    unsafe_no_fsync: bool = False
    block_cache_bytes: int = 67_108_864  # of this node, as the two below
    write_buffer_bytes: int = 33_554_432  # rows that are not flushed; the log takes half as much again
    range_cache_bytes: int = 33_554_432  # rows read lately
    lease_checkpoint_interval_ms: int = 0  # between notes of what is left of a long lease; 0: none
    lease_check_interval_ms: int = 0  # between looks whether keys and leases agree; 0: none
    corrupt_check: bool = False  # keys and leases that do not agree raise the CORRUPT alarm
    warning_apply_ms: float = 100  # an apply that takes longer is logged


@dataclass(slots=True, frozen=True)
class Tls:
    """TLS of a front's https URLs. Files are read again when they change."""

    cert_file: str
    key_file: str
    client_cert_auth: bool = False  # the certificate's common name is the user
    trusted_ca_file: str = ""  # "" with client_cert_auth: the machine's
    crl_file: str = ""
    allowed_cns: tuple[str, ...] = ()  # one of these or of the next; both empty: any
    allowed_hostnames: tuple[str, ...] = ()
    cipher_suites: tuple[str, ...] = ()  # Go's names; (): Go's choice
    min_version: str = "TLS1.2"
    max_version: str = ""  # "" the highest there is


@dataclass(slots=True, frozen=True)
class Tracing:
    """Where a front sends spans of its calls, and of which."""

    address: str  # of a collector that speaks OTLP over gRPC, in clear: host:port
    service_name: str = "etcd"
    instance_id: str = ""  # "": none is told
    sampling_rate: int = 0  # of a million calls that no sampled one made


@dataclass(slots=True, frozen=True)
class FrontSettings:
    common: Common
    index: int
    listen: tuple[str, ...]  # client URLs to bind: http://127.0.0.1:2379
    grpc_alone: bool = False  # they serve, and nothing else: HTTP has listeners of its own
    listen_http: tuple[str, ...] = ()  # these
    reuse_port: bool = False  # several fronts share the port
    socket_mode: int = 0o700  # of the files of Unix sockets
    fronts: int = 1  # of this host, this one too
    shown_fd: int = -1  # the memory in which they share what they have shown; -1: none
    timed_calls: bool = False  # measure how long calls take, by method
    listen_metrics: tuple[str, ...] = ()
    max_concurrent_streams: int = 4_294_967_295
    max_client_connections: int = -1  # of this front; -1: as its descriptors allow, also the most
    max_client_memory_bytes: int = 1 << 62  # of this front
    max_unanswered_bytes: int = 4_194_304  # of a connection, as the two below
    max_unfinished_bytes: int = 67_108_864
    max_untaken_bytes: int = 33_554_432
    large_write_window_bytes: int = 1_048_576  # of this front: proxy.routing.in_turn
    max_connection_range_compares: int = 16
    max_connection_snapshots: int = 2
    max_connection_range_streams: int = 64
    max_client_snapshots: int = 3  # of this front: proxy.services.shares
    max_control_frames: int = 1_000  # of a connection, as the three below; at once
    max_control_frame_rate: int = 100  # a second
    max_stream_resets: int = 10_000
    max_stream_reset_rate: int = 5_000
    client_head_timeout_ms: int = 20_000  # for TLS' handshake and first octets; a request's head
    http1_idle_timeout_ms: int = 300_000
    max_header_bytes: int = 65_536  # of one request
    grpc_keepalive_min_time_ms: int = 5_000
    grpc_keepalive_interval_ms: int = 7_200_000
    grpc_keepalive_timeout_ms: int = 20_000
    watch_progress_notify_interval_ms: int = 600_000
    watch_merge_bytes: int = 67_108_864  # of events that wait for other shards; as much for slow watches
    initial_corrupt_check: bool = False  # compare this host with the others before it serves
    corrupt_check_ms: int = 0  # between comparisons of all replicas, at the leader's host; 0: none
    compact_hash_check_ms: int = 0  # the same, once something was compacted meanwhile
    quota_backend_bytes: int = 2_147_483_648
    stop_on_defrag: bool = False  # health checks are told NOT_SERVING while this host defragments
    cors: tuple[str, ...] = ("*",)
    host_whitelist: tuple[str, ...] = ("*",)
    gateway: bool = True  # serve JSON below /v3/
    v2: bool = True  # serve etcd's API of version 2
    read_only: bool = False  # answer GET alone, as etcd's proxy of version 2 with --proxy readonly
    # of such a proxy: once it has said that no member answers, it says for so long that there is none
    proxy_failure_wait_ms: int = -1
    max_v2_waits: int = 200_000  # of this front
    joining: bool = False  # its host was added, and has never served: proxy.routing.reads.arrival
    discovery_service: bool = False  # make directories for hosts of other clusters, at /new
    tls: Tls | None = None
    tracing: Tracing | None = None
    auth_token: str = "simple"  # or "jwt,...", or "": none
    auth_token_ttl_s: int = 300  # of a simple token, since it was last used
    bcrypt_cost: int = 10  # 4 to 31
    strict_reconfig_check: bool = True  # of what this host is asked (cluster.members.checks)


S = TypeVar("S", NodeSettings, FrontSettings)


def dumps(settings: NodeSettings | FrontSettings) -> str:
    return json.dumps(asdict(settings), separators=(",", ":"))


def loads(kind: type[S], text: str) -> S:
    """The settings that :func:`dumps` wrote. TypeError on an unknown field."""
    raw = json.loads(text)
    common = raw.pop("common")
    common["peers"] = tuple(Peer(**{**p, "peer_urls": tuple(p["peer_urls"])}) for p in common["peers"])
    common["log_outputs"] = tuple(common["log_outputs"])
    if common.get("peer_tls") is not None:
        common["peer_tls"] = PeerTls(**_with_tuples(common["peer_tls"]))
    if raw.get("tls") is not None:
        raw["tls"] = Tls(**_with_tuples(raw["tls"]))
    if raw.get("tracing") is not None:
        raw["tracing"] = Tracing(**raw["tracing"])
    _with_tuples(raw)
    return kind(common=Common(**common), **raw)


def genesis_file(data_dir: str, shard: int) -> str:
    """What a born shard's node on the same host begins with, in the directory of node 0."""
    return f"{data_dir}/genesis-{shard}"


def _with_tuples(raw: dict[str, Any]) -> dict[str, Any]:
    for name, value in raw.items():
        if isinstance(value, list):
            raw[name] = tuple(value)
    return raw
