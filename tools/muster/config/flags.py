"""The one flag table: command line, environment, YAML file, ``--help`` and docs/know/flags.md come from it.

Names, defaults, environment variables and file keys are etcd's (3.4 to 3.6); muster's own flags come first. A
flag without its function is refused unless it has its default: no setting is silently dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tools.muster.config.kinds import Flag, Kind, Support

S, B, U, N, D = Kind.STR, Kind.BOOL, Kind.UINT, Kind.INT, Kind.DURATION
URLS, L, E = Kind.URLS, Kind.LIST, Kind.ENUM
NO, REFUSED, IGNORED = Support.NO_EFFECT, Support.REFUSED, Support.IGNORED
LEVELS = ("debug", "info", "warn", "error", "dpanic", "panic", "fatal")
ROTATION = '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}'
_CLIENT, _PEER = "client-transport-security/", "peer-transport-security/"
_DISCOVERY = "discovery-config/client/"

_GROUPS: dict[str, list[Flag]] = {
    "muster": [
        Flag("shards", Kind.COUNT, "1", "number of shards of a new cluster, at most 64. \"auto\": the number "
             "of CPUs of the first leader's host. Default: what the cluster has agreed on, else 1"),
        Flag("shard-depth", U, "2",
             "segments of a key's directory that decide its shard; fixed when the cluster is made"),
        Flag("leader-placement", E, "together", "together: all leaders on the sequencer's host (low "
             "latency); spread: over the hosts (more load)", choices=("together", "spread")),
        Flag("growth", E, "advise", "advise: say when a shard or a move would help; auto: also do it; off",
             choices=("off", "advise", "auto")),
        Flag("growth-bounds", S, "", "bounds of growth: name=value,..."),
        Flag("fronts", Kind.COUNT, "auto", 'front processes sharing the client port, at most 64; 0: node '
             '0 serves clients; "auto": one per four CPUs'),
        Flag("console", B, "false", "serve a web console of the cluster from this host (muster[console])"),
        Flag("console-listen", S, "http://127.0.0.1:8378", "its URL"),
        Flag("cpus", S, "auto", 'CPUs to pin nodes and fronts to: "auto" (one each, if enough are free '
             'and no quota limits their time), "none", or a list: 0-3,6'),
        Flag("range-cache-bytes", U, "33554432",
             "memory of this host, shared by its shards, for rows that ranges read; 0: none"),
        Flag("block-cache-bytes", U, "67108864",
             "memory of this host, shared by its shards (4 MiB each at least), for blocks of stored rows"),
        Flag("write-buffer-bytes", U, "33554432", "memory of this host, shared by its shards (8 MiB each at "
             "least), for rows that are not flushed yet; the log takes half as much again"),
        Flag("lease-check-interval", D, "10m", "interval of the check that keys and leases of this host "
             "agree; a mismatch is logged and counted; 0s: no check"),
        Flag("lease-checkpoint-interval", D, "5m", "with the feature gate LeaseCheckpoint: interval at which "
             "the leader logs the time left of leases that live longer than this; at least 1s"),
        Flag("max-client-connections", Kind.COUNT, "auto",
             "client connections of a host, shared by its fronts; more are closed at once. "
             '"auto", and the most: the limit of open files, less a reserve for storage and peers'),
        Flag("max-client-memory-bytes", Kind.COUNT, "auto", "memory that clients' connections of a host may "
             "use, shared by its fronts: unanswered requests, unread answers, open streams. Above it, "
             "connections above their share get \"too many requests\". \"auto\": an eighth of the memory of "
             "the machine or control group (v2), between 64 MiB and 2 GiB"),
        Flag("max-unanswered-bytes", U, "4194304",
             "complete, unanswered requests of one connection: its flow-control window; at least 64 KiB, "
             "less than 2 GiB"),
        Flag("max-unfinished-bytes", U, "67108864",
             "incomplete requests of one connection; the host refuses any more"),
        Flag("max-untaken-bytes", U, "33554432", "answers that one connection's client has not read: above "
             "it large ranges wait, above eight times it new calls are refused"),
        Flag("large-write-window-bytes", U, "1048576",
             "writes of more than 16 KiB under way from a host to the leaders, shared by its fronts;"
             " the rest wait, and clients take turns. A larger write is sent alone"),
        Flag("max-connection-range-compares", U, "16",
             "transactions under way of one connection that compare ranges and write; the rest wait"),
        Flag("max-connection-snapshots", U, "2",
             "snapshots under way of one connection; a host makes 4 at once"),
        Flag("max-connection-range-streams", U, "64",
             "RangeStreams under way of one connection; the rest wait"),
        Flag("max-client-snapshots", U, "3", "snapshots under way of one client (a user, else an address) "
             "over all its connections to a host, shared by the fronts, one each at least"),
        Flag("max-control-frames", U, "1000", "HTTP/2 frames without content (SETTINGS, PRIORITY, empty "
             "DATA, unknown ones) that one connection may send at once; one more ends the connection; at "
             "least 100"),
        Flag("max-control-frame-rate", U, "100", "such frames in each second after that"),
        Flag("max-stream-resets", U, "10000", "unanswered calls that one connection's client may reset at "
             "once; one more ends the connection; at least 100"),
        Flag("max-stream-reset-rate", U, "5000", "such resets in each second after that"),
        Flag("client-head-timeout", D, "20s", "time for a connection's first bytes, TLS handshake included, "
             "and for the head of each request; at least 1s"),
        Flag("http1-idle-timeout", D, "5m",
             "an HTTP/1.1 connection without requests is closed after this; at least 1s"),
        Flag("max-header-bytes", U, "65536",
             "head of one request; over HTTP/2 SETTINGS_MAX_HEADER_LIST_SIZE; 4096 to 524288"),
        Flag("client-stall-timeout", D, "1m",
             "a client that reads nothing of a stream, snapshot or range for this long gets an error. Its "
             "connection ends if it uses more than its share while --max-client-memory-bytes is used up"),
        Flag("watch-merge-bytes", U, "67108864",
             "memory of this host, shared by its fronts, for events of watches over several shards "
             "that wait for a slower shard, and as much for recent events of watches that lag; events "
             "beyond it are read from history later"),
        Flag("port-wait", D, "10s", "time that a start waits for ports that are still in use, for example by "
             "a killed host's processes"),
        Flag("order-log-bytes", U, "4294967296",
             "disk space for the order log of a host with several shards, at least 256 MiB. An "
             "eighth is kept for this host's nodes that are behind (beyond it they install a state),"
             " three eighths for replicas that install a state; at half, NOSPACE is raised"),
        Flag("order-kept-bytes", U, "268435456", "disk space for files with what shards without a majority "
             "need of the order; beyond it the order log grows; 0: no files"),
        Flag("min-free-disk-bytes", U, "536870912", "free disk space below which a host is short: NOSPACE is "
             "raised before a majority is short; 0: no check"),
        Flag("max-v2-waits", U, "200000", "v2 requests that may wait for changes at a host, shared by its "
             "fronts; the host refuses any more"),
        Flag("discovery-service", B, "false",
             "serve directories in which hosts of other clusters find each other: /new?size=3 at the"
             " client port answers with a URL for their --discovery; needs --enable-v2"),
        Flag("peer-insecure", B, "false", "listen for peers beyond this machine, and for peers of other "
             "users on it, without a --peer-key-file or a --peer-trusted-ca-file: any program that reaches "
             "the port may read, write and vote"),
        Flag("client-cert-allowed-cn", L, "", "a client certificate must have one of these common names; "
             "etcd has this in its file only", yaml=_CLIENT + "allowed-cn"),
        Flag("run-dir", S, "", "directory of this host's sockets; of a sticky one, as /tmp, the subdirectory "
             "muster; default <data-dir>/run, or below $XDG_RUNTIME_DIR or /tmp if too long", yaml="run-dir"),
    ],
    "member": [
        Flag("name", S, "default", "this host's name; the key of its entry in --initial-cluster"),
        Flag("data-dir", S, "${name}.etcd", "directory of this host's data"),
        Flag("wal-dir", S, "",
             "directory of the logs, for example on another device; fixed at the first start"),
        Flag("snapshot-count", U, "10000", "applied entries between truncations of the log"),
        Flag("snapshot-catchup-entries", U, "5000", "log entries kept for lagging followers"),
        Flag("heartbeat-interval", U, "100", "time between a leader's heartbeats, in ms"),
        Flag("shard-birth-timeout", U, "60000",
             "time for an added shard to serve, in ms; then the cluster drops it and tries one more"),
        Flag("election-timeout", U, "1000",
             "time without a leader before an election, in ms; at least 5 heartbeats, at most 50000"),
        Flag("initial-election-tick-advance", B, "true",
             "hold the first election after a start up to an election timeout earlier"),
        Flag("listen-peer-urls", URLS, "http://localhost:2380", "listen addresses for peers, of all shards. "
             "unix://host:port is a file of that name in the working directory"),
        Flag("listen-client-urls", URLS, "http://localhost:2379",
             "listen addresses for clients: http, https, or unix and unixs with a path"),
        Flag("listen-client-http-urls", URLS, "",
             "addresses for HTTP only; --listen-client-urls then serve gRPC only, "
             "where muster proxy and shard fail"),
        Flag("max-snapshots", U, "5", "snapshot files kept", NO),
        Flag("max-wals", U, "5", "log files kept", NO),
        Flag("memory-mlock", B, "false", "lock the memory of this host's processes, so that none is "
             "swapped out; needs an unlimited RLIMIT_MEMLOCK"),
        Flag("quota-backend-bytes", N, "0",
             "size quota of the store; 0: 2147483648, negative: off; above 8 GiB warns"),
        Flag("backend-bbolt-freelist-type", S, "map", "free list of bbolt: array or map", NO),
        Flag("backend-batch-interval", D, "0s", "longest time between commits of the backend", NO),
        Flag("backend-batch-limit", N, "0", "operations between commits of the backend", NO),
        Flag("max-txn-ops", U, "128", "operations in a transaction"),
        Flag("max-request-bytes", U, "1572864", "largest client request; at most 469762048"),
        Flag("max-concurrent-streams", Kind.UINT32, "4294967295", "HTTP/2 streams on a client connection"),
        Flag("grpc-keepalive-min-time", D, "5s", "clients without TLS may not ping more often"),
        Flag("grpc-keepalive-interval", D, "2h0m0s", "the server pings idle clients this often; 0: default"),
        Flag("grpc-keepalive-timeout", D, "20s",
             "an unanswered ping closes the connection after this; 0: both defaults"),
        Flag("socket-reuse-port", B, "false",
             "share client ports with others (SO_REUSEPORT); --port-wait ignores them",
             yaml="socket-options/reuse-port"),
        Flag("socket-reuse-address", B, "false",
             "SO_REUSEADDR; always set", NO, yaml="socket-options/reuse-address"),
        Flag("enable-grpc-gateway", B, "true", "serve the JSON gateway (/v3/...)"),
        Flag("enable-v2", B, "true", "serve etcd's API of version 2 (/v2/...); etcd's default is false"),
        Flag("raft-read-timeout", D, "5s", "read time-out of a peer connection", NO, yaml=""),
        Flag("raft-write-timeout", D, "5s", "write time-out of a peer connection", NO, yaml=""),
        Flag("feature-gates", S, "", "gate=bool,...: etcd's gates. InitialCorruptCheck: compare this host "
             "with the others before it serves. CompactHashCheck: compare all hosts after compactions. "
             "SetMemberLocalAddr: dial peers from the first IP address of --initial-advertise-peer-urls that "
             "is not loopback. StopGRPCServiceOnDefrag: answer gRPC health checks with NOT_SERVING while "
             "this host defragments. LeaseCheckpoint: log the time left of long leases every "
             "--lease-checkpoint-interval, so that a new leader does not grant them their full TTL again; it "
             "survives restarts with or without LeaseCheckpointPersist. Open it once every host has this "
             "version. AllAlpha, AllBeta: all gates that are not named. The others have no effect",
             adds=True),
    ],
    "clustering": [
        Flag("initial-advertise-peer-urls", URLS, "http://localhost:2380",
             "this host's peer URLs, advertised to the cluster"),
        Flag("initial-cluster", S, "default=http://localhost:2380",
             "the first hosts: name=peer URL,...; a host with several URLs: repeat its name"),
        Flag("initial-cluster-state", E, "new", "new: bootstrap; existing: join a running cluster",
             choices=("new", "existing")),
        Flag("initial-cluster-token", S, "etcd-cluster", "enters the IDs of cluster and members"),
        Flag("advertise-client-urls", URLS, "http://localhost:2379",
             "this host's client URLs, advertised to clients; required with --listen-client-urls"),
        Flag("strict-reconfig-check", B, "true", "refuse membership changes that endanger the quorum"),
        Flag("pre-vote", B, "true", "ask before campaigning; always on", NO),
        Flag("max-learners", N, "1", "most learners at a time"),
        Flag("auto-compaction-mode", E, "periodic", "periodic or revision", choices=("periodic", "revision")),
        Flag("auto-compaction-retention", S, "0", "what automatic compaction keeps: a duration (a bare "
             "number: hours) or a number of revisions; 0: off"),
        Flag("discovery-srv", S, "",
             "DNS domain whose SRV records name the first hosts, instead of --initial-cluster"),
        Flag("discovery-srv-name", S, "", "suffix of the SRV service: _etcd-server-<suffix>._tcp.<domain>"),
        Flag("discovery-token", S, "", "name of the v3 keys below /_etcd/registry by which the first hosts "
             "find each other, instead of --initial-cluster", yaml="discovery-config/token"),
        Flag("discovery-endpoints", L, "", "the muster or etcd cluster with the keys of "
             "--discovery-token", yaml=_DISCOVERY + "endpoints"),
        Flag("discovery-dial-timeout", D, "2s", "longest time for a connection to one of "
             "--discovery-endpoints", yaml=_DISCOVERY + "dial-timeout"),
        Flag("discovery-request-timeout", D, "5s", "longest time for a request to one of "
             "--discovery-endpoints", yaml=_DISCOVERY + "request-timeout"),
        Flag("discovery-keepalive-time", D, "2s", "interval of pings to --discovery-endpoints",
             yaml=_DISCOVERY + "keepalive-time"),
        Flag("discovery-keepalive-timeout", D, "6s", "an unanswered ping ends the connection after this",
             yaml=_DISCOVERY + "keepalive-timeout"),
        Flag("discovery-insecure-transport", B, "true", "connect without TLS unless a URL or file asks for "
             "it", yaml=_DISCOVERY + "secure/insecure-transport"),
        Flag("discovery-insecure-skip-tls-verify", B, "false", "accept any certificate of "
             "--discovery-endpoints", yaml=_DISCOVERY + "secure/insecure-skip-tls-verify"),
        Flag("discovery-cert", S, "", "certificate to show at --discovery-endpoints",
             yaml=_DISCOVERY + "secure/cert"),
        Flag("discovery-key", S, "", "key of --discovery-cert", yaml=_DISCOVERY + "secure/key"),
        Flag("discovery-cacert", S, "", "authorities of --discovery-endpoints",
             yaml=_DISCOVERY + "secure/cacert"),
        Flag("discovery-user", S, "", "user at --discovery-endpoints: name[:password]",
             yaml=_DISCOVERY + "auth/username"),
        Flag("discovery-password", S, "", "password of --discovery-user", yaml=_DISCOVERY + "auth/password"),
        Flag("discovery", S, "", "URL of a directory of the v2 API where the first hosts find each other, "
             "instead of --initial-cluster"),
        Flag("discovery-proxy", S, "", "HTTP proxy on the way to --discovery"),
        Flag("discovery-fallback", E, "proxy", "what a host does when the discovered cluster is full: exit, "
             "or become its proxy", choices=("exit", "proxy")),
        Flag("v2-deprecation", E, "write-only", "phase of etcd's v2 store", NO,
             choices=("not-yet", "write-only", "write-only-skip-check", "write-only-drop-data", "gone")),
    ],
    "security": [
        Flag("cert-file", S, "", "certificate of https client URLs, with its intermediates; read again when "
             "it changes, as are the files below", yaml=_CLIENT + "cert-file"),
        Flag("key-file", S, "", "key of --cert-file", yaml=_CLIENT + "key-file"),
        Flag("client-cert-file", S, "", "certificate of this server as its own client; muster has no such "
             "client", NO, yaml=_CLIENT + "client-cert-file"),
        Flag("client-key-file", S, "", "key of --client-cert-file", NO, yaml=_CLIENT + "client-key-file"),
        Flag("client-cert-auth", B, "false", "require client certificates; the common name of a certificate "
             "is its user", yaml=_CLIENT + "client-cert-auth"),
        Flag("trusted-ca-file", S, "", "authorities of client certificates, which are then required; without "
             "it and with --client-cert-auth: the machine's own", yaml=_CLIENT + "trusted-ca-file"),
        Flag("client-crl-file", S, "", "list of revoked client certificates, in PEM or DER", yaml=""),
        Flag("client-cert-allowed-hostname", L, "",
             "a client certificate must name one of these hosts", yaml=_CLIENT + "allowed-hostname"),
        Flag("auto-tls", B, "false", "https client URLs with a self-signed certificate in "
             "<data-dir>/fixtures/client", yaml=_CLIENT + "auto-tls"),
        Flag("peer-cert-file", S, "", "certificate of this host towards its peers, where peer URLs are https",
             yaml=_PEER + "cert-file"),
        Flag("peer-key-file", S, "", "with --peer-cert-file its key; else the cluster's CURVE key file, made "
             "by `muster peer-keys FILE`, the same on every host", yaml=_PEER + "key-file"),
        Flag("peer-client-cert-file", S, "", "certificate of connections that this host dials; default "
             "--peer-cert-file", yaml=_PEER + "client-cert-file"),
        Flag("peer-client-key-file", S, "", "key of --peer-client-cert-file", yaml=_PEER + "client-key-file"),
        Flag("peer-client-cert-auth", B, "false",
             "require certificates of peers", yaml=_PEER + "client-cert-auth"),
        Flag("peer-trusted-ca-file", S, "", "authorities of peers' certificates, which are then required; "
             "default: the machine's own", yaml=_PEER + "trusted-ca-file"),
        Flag("peer-crl-file", S, "", "list of revoked peer certificates, in PEM or DER", yaml=""),
        Flag("peer-cert-allowed-cn", L, "",
             "a peer's certificate must have one of these common names", yaml=_PEER + "allowed-cn"),
        Flag("peer-cert-allowed-hostname", L, "",
             "a peer's certificate must name one of these hosts", yaml=_PEER + "allowed-hostname"),
        Flag("peer-auto-tls", B, "false", "https peer URLs with self-signed certificates in "
             "<data-dir>/fixtures/peer; they do not authenticate peers", yaml=_PEER + "auto-tls"),
        Flag("peer-skip-client-san-verification", B, "false", "accept peers from addresses that their "
             "certificates do not name; without it a peer with names or addresses (SAN) in its certificate "
             "must dial from one of them", yaml=_PEER + "skip-client-san-verification"),
        Flag("self-signed-cert-validity", U, "1",
             "years of the certificates of --auto-tls and --peer-auto-tls"),
        Flag("cipher-suites", L, "", "cipher suites of TLS 1.2, by Go's names; TLS 1.3 has its own"),
        Flag("tls-min-version", E, "TLS1.2", "lowest TLS version", choices=("TLS1.2", "TLS1.3")),
        Flag("tls-max-version", E, "",
             "highest TLS version; empty: the highest there is", choices=("", "TLS1.2", "TLS1.3")),
        Flag("cors", L, "*", "allowed CORS origins"),
        Flag("host-whitelist", L, "*", "accepted Host names of plain HTTP"),
        Flag("auth-token", S, "simple",
             "tokens of users: simple, or jwt,sign-method=M,priv-key=F[,pub-key=F][,ttl=10m]; empty: none"),
        Flag("bcrypt-cost", U, "10", "cost of password hashes, 4 to 31"),
        Flag("auth-token-ttl", U, "300", "seconds that a simple token lasts after its last use"),
    ],
    "profiling, metrics, tracing": [
        Flag("enable-pprof", B, "false", "profiles of Go's runtime; use py-spy for muster", NO),
        Flag("metrics", S, "basic", "extensive adds histograms of the duration of calls, by method"),
        Flag("listen-metrics-urls", URLS, "", "more listeners for /metrics, /health, /livez, /readyz"),
        Flag("enable-distributed-tracing", B, "false",
             "send a span of each call to a collector of OpenTelemetry's; needs muster[tracing]"),
        Flag("distributed-tracing-address", S, "localhost:4317", "the collector (OTLP over gRPC, in clear)"),
        Flag("distributed-tracing-service-name", S, "etcd", "service name in traces"),
        Flag("distributed-tracing-instance-id", S, "", "instance ID in traces, one for each host"),
        Flag("distributed-tracing-sampling-rate", N, "0",
             "how many of a million calls without a trace begin one"),
    ],
    "logging": [
        Flag("logger", E, "zap", "etcd's logger; muster has its own", NO, choices=("zap",)),
        Flag("log-outputs", L, "default", "default (stderr), stderr, stdout, or file paths"),
        Flag("log-level", E, "info", "lowest logged level", choices=LEVELS),
        Flag("debug", B, "false", "same as --log-level=debug, as in etcd 3.4"),
        Flag("log-format", E, "json", "json or console", choices=("json", "console")),
        Flag("enable-log-rotation", B, "false",
             "rotate large log files. Without it, too, muster reopens a file that another program renamed"),
        Flag("log-rotation-config-json", S, ROTATION, "rotate at maxsize (MB); keep rotated files for maxage "
             "days, at most maxbackups of them; 0: all"),
        Flag("warning-apply-duration", D, "100ms", "log applies slower than this"),
        Flag("warning-unary-request-duration", D, "300ms",
             "log requests slower than this; from 50ms on, also what they waited for; 0: none"),
    ],
    "checks, compaction, watches": [
        Flag("corrupt-check-time", D, "0s", "interval of comparing all hosts' replicas; a difference raises "
             "the CORRUPT alarm, which stops writes; 0s: none"),
        Flag("compact-hash-check-time", D, "1m0s",
             "interval of the same comparison after compactions, with the feature gate CompactHashCheck"),
        Flag("compaction-batch-limit", N, "0",
             "revisions removed per batch; muster removes in slices of time", NO),
        Flag("compaction-sleep-interval", D, "0s", "pause between batches", NO),
        Flag("watch-progress-notify-interval", D, "0s",
             "interval of watch progress notifications; 0: 10m, at least 100ms"),
        Flag("downgrade-check-time", D, "5s", "period of the check of a downgrade", NO),
        Flag("bootstrap-defrag-threshold-megabytes", U, "0", "defragment at boot", NO),
    ],
    "unsafe": [
        Flag("force-new-cluster", B, "false",
             "restart as a cluster of one with this host's data; the other members are removed"),
        Flag("unsafe-no-fsync", B, "false", "never sync: a crash of the machine loses acknowledged writes"),
    ],
    "meta": [
        Flag("config-file", S, "",
             "YAML file with etcd's keys; all other flags and variables are then ignored", yaml=""),
        Flag("version", B, "false", "print the versions and exit", yaml=""),
        Flag("help", B, "false", "print this and exit", yaml=""),
    ],
    "proxy mode": [
        Flag("proxy", E, "off", "run as a proxy of the cluster instead of a member; readonly: GET requests "
             "only", choices=("off", "readonly", "on")),
        Flag("proxy-failure-wait", U, "5000",
             "milliseconds before a proxy asks a silent member again"),
        Flag("proxy-refresh-interval", U, "30000", "milliseconds between a proxy's requests for the members"),
        Flag("proxy-dial-timeout", U, "1000", "milliseconds that a proxy waits for that answer"),
        Flag("proxy-write-timeout", U, "5000",
             "fronts leave a member that is silent for an election timeout", NO),
        Flag("proxy-read-timeout", U, "0",
             "fronts leave a member that is silent for an election timeout", NO),
    ],
    "removed from etcd": [
        Flag("experimental-enable-v2v3", S, "",
             "the v2 API on v3 keys; muster serves v2 by --enable-v2, from a tree of its own", REFUSED),
        Flag("log-package-levels", S, "", "levels per package", NO),
    ],
}

_ALIASES = {
    # etcd's experimental spellings, with the flag or feature gate that each became
    "initial-corrupt-check": "feature-gates:InitialCorruptCheck",
    "corrupt-check-time": "",
    "compact-hash-check-enabled": "feature-gates:CompactHashCheck",
    "compact-hash-check-time": "",
    "enable-lease-checkpoint": "feature-gates:LeaseCheckpoint",
    "enable-lease-checkpoint-persist": "feature-gates:LeaseCheckpointPersist",
    "compaction-batch-limit": "",
    "compaction-sleep-interval": "",
    "peer-skip-client-san-verification": "",
    "watch-progress-notify-interval": "",
    "warning-apply-duration": "",
    "warning-unary-request-duration": "",
    "txn-mode-write-with-shared-buffer": "feature-gates:TxnModeWriteWithSharedBuffer",
    "bootstrap-defrag-threshold-megabytes": "",
    "downgrade-check-time": "",
    "memory-mlock": "",
    "snapshot-catchup-entries": "",
    "max-learners": "",
    "stop-grpc-service-on-defrag": "feature-gates:StopGRPCServiceOnDefrag",
    "enable-distributed-tracing": "",
    "distributed-tracing-address": "",
    "distributed-tracing-service-name": "",
    "distributed-tracing-instance-id": "",
    "distributed-tracing-sampling-rate": "",
    "backend-bbolt-freelist-type": "",
}

_IGNORED = (
    "cluster-active-size", "cluster-remove-delay", "cluster-sync-interval", "config", "force",
    "max-result-buffer", "max-retry-attempts", "peer-heartbeat-interval", "peer-election-timeout",
    "retry-interval", "snapshot", "v", "vv",
)  # fmt: skip

# etcd's feature gates (3.6 and 3.7) and their defaults: tools.muster.config.gates
GATES = {
    "AllAlpha": False, "AllBeta": False, "StopGRPCServiceOnDefrag": False, "InitialCorruptCheck": False,
    "CompactHashCheck": False, "TxnModeWriteWithSharedBuffer": True, "LeaseCheckpoint": False,
    "LeaseCheckpointPersist": False, "SetMemberLocalAddr": False, "FastLeaseKeepAlive": True,
    "PriorityRequest": False,
}  # fmt: skip


def _build(groups: dict[str, list[Flag]]) -> dict[str, Flag]:
    table: dict[str, Flag] = {}

    def add(flags: Iterable[Flag], group: str) -> None:
        for f in flags:
            assert f.name not in table, f.name
            table[f.name] = replace(f, group=group)

    for group, flags in groups.items():
        add(flags, group)
    aliases = []
    for short, target in _ALIASES.items():
        if target:
            gate = target.partition(":")[2]
            default = "true" if GATES[gate] else "false"
            aliases.append(Flag(
                f"experimental-{short}", B, default, f"feature gate {gate}", Support.ALIAS, alias=target))
        else:
            f = table[short]
            aliases.append(Flag(
                f"experimental-{short}", f.kind, f.default, f"--{short}", Support.ALIAS, None, f.choices,
                short))
    aliases.append(Flag("log-output", L, "default", "--log-outputs", Support.ALIAS, alias="log-outputs"))
    # the key of etcd 3.5's file, where the flag has no second hyphen
    aliases.append(Flag("experimental-snapshot-catch-up-entries", U, "5000", "--snapshot-catchup-entries",
                        Support.ALIAS, alias="snapshot-catchup-entries"))
    add(aliases, "deprecated names")
    add((Flag(name, S, "", "ignored", IGNORED, yaml="") for name in _IGNORED), "accepted and ignored")
    return table


SERVER_FLAGS = _build(_GROUPS)
