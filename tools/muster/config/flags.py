"""The one flag table: command line, environment, YAML file, ``--help`` and docs/flags.md come from it.

Names, defaults, environment variables and file keys are etcd's (3.4 to 3.6); muster's own flags stand first.
``support`` says what muster does with a flag today. A flag whose function is not there is refused when it
is set to anything but its default: a setting is never silently dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """How a value is written, and what it becomes."""

    STR = "string"
    BOOL = "bool"
    UINT = "uint"
    INT = "int"
    COUNT = "uint or auto"  # "auto" becomes AUTO
    DURATION = "duration"  # 1h30m, 100ms; becomes milliseconds. In the file: integer nanoseconds
    URLS = "urls"  # comma separated; in the file one string as well
    LIST = "list"  # comma separated; in the file a list or one string
    ENUM = "enum"


AUTO = -1  # what Kind.COUNT makes of "auto"


class Support(Enum):
    """What muster does with a flag."""

    WORKS = "works"
    NO_EFFECT = "accepted, without effect in muster"
    REFUSED = "not supported: refused unless it has its default value"
    ALIAS = "deprecated: use the other name"
    IGNORED = "accepted and ignored with a warning, as etcd does"


@dataclass(slots=True, frozen=True)
class Flag:
    """One flag.

    ``default`` is text as on the command line; ``yaml`` is the path of its key ("" = not in the file).
    """

    name: str
    kind: Kind
    default: str
    help: str
    support: Support = Support.WORKS
    yaml: str | None = None  # None: the flag's own name
    choices: tuple[str, ...] = ()
    alias: str = ""  # the flag this one stands for; "feature-gates:X": that gate
    group: str = ""

    @property
    def yaml_path(self) -> tuple[str, ...]:
        """The key in the configuration file, outermost first; empty if it cannot stand there."""
        path = self.name if self.yaml is None else self.yaml
        return tuple(path.split("/")) if path else ()

    @property
    def env_name(self) -> str:
        """The environment name without its MUSTER_ or ETCD_."""
        return self.name.upper().replace("-", "_")


S, B, U, N, D = Kind.STR, Kind.BOOL, Kind.UINT, Kind.INT, Kind.DURATION
URLS, L, E = Kind.URLS, Kind.LIST, Kind.ENUM
NO, REFUSED, IGNORED = Support.NO_EFFECT, Support.REFUSED, Support.IGNORED
LEVELS = ("debug", "info", "warn", "error", "panic", "fatal")
ROTATION = '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}'
_CLIENT, _PEER = "client-transport-security/", "peer-transport-security/"
_DISCOVERY = "discovery-config/client/"

_GROUPS: dict[str, list[Flag]] = {
    "muster": [
        Flag("shards", Kind.COUNT, "1",
             'number of shards of a new cluster, at most 64; "auto": as many as the first '
             "leader's host may use CPUs. Unless given, a host takes what its cluster has agreed on"),
        Flag("shard-depth", U, "2", "how many segments of a key's directory decide its shard; agreed once"),
        Flag("leader-placement", E, "together",
             "where shards' leaders are kept: together, on the sequencer's host (for latency), or "
             "spread over the hosts (for load)", choices=("together", "spread")),
        Flag("fronts", Kind.COUNT, "auto",
             "number of front processes that share the client port; 0: node 0 serves clients itself; "
             '"auto": one for every four CPUs'),
        Flag("cpus", S, "auto",
             'CPUs to pin nodes and fronts to: "auto" (one each, where enough are free), "none", or a '
             "list: 0-3,6"),
        Flag("range-cache-bytes", U, "33554432",
             "memory of this host, shared among its shards, for rows that ranges have read lately, so "
             "that a range asked again is not walked again; 0: none"),
        Flag("block-cache-bytes", U, "67108864",
             "memory of this host, shared among its shards (each gets 4 MiB at least), for blocks of "
             "stored rows that were read"),
        Flag("write-buffer-bytes", U, "33554432",
             "memory of this host, shared among its shards (each gets 8 MiB at least), for rows that "
             "are not flushed yet; the log takes half as much again, and is truncated after three "
             "quarters of it"),
        Flag("lease-check-interval", D, "10m",
             "time between looks, in slices beside requests, whether this host's keys and the leases "
             "that they hang on agree; what does not is logged and counted; 0s: none"),
        Flag("lease-checkpoint-interval", D, "5m",
             "with the feature gate LeaseCheckpoint: time between the records that tell what is left of a "
             "lease which has longer to live than this; at least 1s"),
        Flag("max-client-connections", Kind.COUNT, "auto",
             "connections of clients that a host takes, shared among its fronts; one more is closed at "
             'once. "auto": as many as its limit of open files leaves beside a reserve for storage and '
             "peers"),
        Flag("max-client-memory-bytes", Kind.COUNT, "auto",
             "memory that clients' connections of a host may hold together, shared among its fronts: "
             "requests that are not answered, answers that are not taken, open streams. Beyond it those "
             'that hold more than their share are answered "too many requests"; "auto": an eighth of '
             "the memory of the machine or control group, 64 MiB at least, 2 GiB at most"),
        Flag("max-unanswered-bytes", U, "4194304",
             "requests of one connection that are complete and not answered: so much window a client "
             "has for them (small and unfinished ones aside); at least 64 KiB"),
        Flag("max-unfinished-bytes", U, "67108864",
             "requests of one connection of which a part is to come; one more is refused"),
        Flag("max-untaken-bytes", U, "33554432",
             "answers of one connection that its client has not taken: beyond it its next large ranges "
             "wait, and new calls are refused at eight times as much"),
        Flag("large-write-window-bytes", U, "1048576",
             "writes of more than 16 KiB that clients of a host may have on their way to the leaders "
             "together, shared among its fronts; the rest wait, and clients take turns. One that is larger "
             "goes alone"),
        Flag("max-connection-range-compares", U, "16",
             "transactions that compare ranges and write, that one connection may have on their way; the "
             "rest wait"),
        Flag("max-connection-snapshots", U, "2",
             "snapshots that one connection may have under way; a host makes 4 at once"),
        Flag("max-connection-range-streams", U, "64", "RangeStreams that one connection may have under way"),
        Flag("max-client-snapshots", U, "3",
             "snapshots that one client, a user or else an address, may have under way at a host however "
             "many connections it makes, shared among the host's fronts, at least one each; so one is left "
             "for others"),
        Flag("max-control-frames", U, "1000",
             "frames of HTTP/2 that bring nothing (SETTINGS, PRIORITY, empty DATA, unknown ones) that one "
             "connection may send at once; with one more it ends; at least 100"),
        Flag("max-control-frame-rate", U, "100", "the same in each second after that"),
        Flag("max-stream-resets", U, "10000",
             "calls that the client of one connection may reset at once before they are answered; with one "
             "more it ends; at least 100"),
        Flag("max-stream-reset-rate", U, "5000", "the same in each second after that"),
        Flag("client-head-timeout", D, "20s",
             "a connection's first octets, with TLS' handshake before them, and the head of each request are "
             "to be there so long after they have begun; at least 1s"),
        Flag("http1-idle-timeout", D, "5m",
             "a connection that speaks HTTP/1.1 and asks nothing for so long is closed; at least 1s"),
        Flag("max-header-bytes", U, "65536",
             "head of one request, over HTTP/2 counted as its SETTINGS_MAX_HEADER_LIST_SIZE is; 4096 to "
             "524288"),
        Flag("client-stall-timeout", D, "1m",
             "a client that takes nothing of a stream, a snapshot or a range for so long is answered "
             "with an error; of one that holds more than its share of --max-client-memory-bytes when "
             "that is used up, the connection ends"),
        Flag("watch-merge-bytes", U, "67108864",
             "memory of this host, shared among its fronts, for events of watches over several shards "
             "that wait for a shard whose replica here is behind; what is beyond is read from history, "
             "later"),
        Flag("port-wait", D, "10s",
             "how long a start waits for ports that are still taken, by processes of a host that was "
             "killed, say, before it gives up"),
        Flag("order-log-bytes", U, "4294967296",
             "what the order log of a host with several shards may take of the disk; an eighth is kept "
             "for nodes of the own host that are behind (beyond, they install a state), three eighths "
             "for replicas that get a state; at half, which a shard without a majority leads to, "
             "NOSPACE is raised; at least 256 MiB"),
        Flag("min-free-disk-bytes", U, "536870912",
             "a host with less free space on its data directory's file system is short of it: NOSPACE "
             "is raised before such hosts leave the store without a majority; 0: not looked at"),
        Flag("max-v2-waits", U, "200000",
             "requests of version 2 that may wait for changes at a host, shared among its fronts; "
             "one more is refused"),
        Flag("discovery-service", B, "false",
             "make directories in which hosts of other clusters find each other: /new?size=3 at the client "
             "port answers with a URL for their --discovery; needs --enable-v2"),
        Flag("peer-insecure", B, "false",
             "listen for peers beyond this machine with neither a --peer-key-file nor certificates of a "
             "--peer-trusted-ca-file: whoever reaches that port may read, write and vote"),
        Flag("client-cert-allowed-cn", L, "",
             "common names of which a client certificate must have one; etcd has this in its file only",
             yaml=_CLIENT + "allowed-cn"),
        Flag("run-dir", S, "",
             "directory of this host's sockets; default <data-dir>/run, or a short one under "
             "$XDG_RUNTIME_DIR or /tmp where that path is too long for a socket", yaml="run-dir"),
    ],
    "member": [
        Flag("name", S, "default", "this host's name; the key of its entry in --initial-cluster"),
        Flag("data-dir", S, "${name}.muster", "directory of all this host keeps"),
        Flag("wal-dir", S, "",
             "directory of the logs, on another device, say: a host keeps to the one that it began with"),
        Flag("snapshot-count", U, "10000", "applied entries between truncations of the log"),
        Flag("snapshot-catchup-entries", U, "5000", "log entries kept for followers that are behind"),
        Flag("heartbeat-interval", U, "100", "time between a leader's heartbeats, in ms"),
        Flag("election-timeout", U, "1000",
             "time without a leader before an election, in ms; at least 5 heartbeats, at most 50000"),
        Flag("initial-election-tick-advance", B, "true",
             "hold the first election after a start up to an election timeout sooner"),
        Flag("listen-peer-urls", URLS, "http://localhost:2380",
             "where peers are listened to: shard s binds each of these ports + s. unix://host:port is the "
             "file of that name in the working directory"),
        Flag("listen-client-urls", URLS, "http://localhost:2379",
             "where clients are listened to: http, https, or unix and unixs with a path"),
        Flag("listen-client-http-urls", URLS, "",
             "listeners for HTTP alone; those of --listen-client-urls serve gRPC alone then"),
        Flag("max-snapshots", U, "5", "snapshot files kept", NO),
        Flag("max-wals", U, "5", "log files kept", NO),
        Flag("memory-mlock", B, "false",
             "lock the memory of all processes of this host, so that none of it is swapped out; needs an "
             "unlimited RLIMIT_MEMLOCK"),
        Flag("quota-backend-bytes", N, "0", "size quota of the store; 0: 2147483648, negative: off"),
        Flag("backend-bbolt-freelist-type", E, "map", "free list of bbolt", NO, choices=("array", "map")),
        Flag("backend-batch-interval", D, "0s", "longest time between commits of the backend", NO),
        Flag("backend-batch-limit", U, "0", "operations between commits of the backend", NO),
        Flag("max-txn-ops", U, "128", "operations in a transaction"),
        Flag("max-request-bytes", U, "1572864", "largest client request"),
        Flag("max-concurrent-streams", U, "4294967295", "HTTP/2 streams on a client connection"),
        Flag("grpc-keepalive-min-time", D, "5s", "clients may not ping more often than this"),
        Flag("grpc-keepalive-interval", D, "2h0m0s", "the server pings idle clients this often; 0: never"),
        Flag("grpc-keepalive-timeout", D, "20s",
             "an unanswered ping closes the connection after this; 0: never"),
        Flag("socket-reuse-port", B, "false",
             "SO_REUSEPORT on the client port (always, with several fronts)",
             yaml="socket-options/reuse-port"),
        Flag("socket-reuse-address", B, "false",
             "SO_REUSEADDR; always set", NO, yaml="socket-options/reuse-address"),
        Flag("enable-grpc-gateway", B, "true", "serve the JSON gateway (/v3/...)"),
        Flag("enable-v2", B, "true", "serve etcd's API of version 2 (/v2/...); etcd's default is false"),
        Flag("raft-read-timeout", D, "5s", "read time-out of a peer connection", NO, yaml=""),
        Flag("raft-write-timeout", D, "5s", "write time-out of a peer connection", NO, yaml=""),
        Flag("feature-gates", S, "",
             "gate=bool,...: etcd's gates. InitialCorruptCheck: compare this host with "
             "the others before it serves. CompactHashCheck: compare all after compactions. "
             "SetMemberLocalAddr: dial peers from the first address of --initial-advertise-peer-urls that is "
             "neither a name nor loopback. StopGRPCServiceOnDefrag: gRPC's health checks are answered "
             "NOT_SERVING while this host defragments. LeaseCheckpoint: the leader logs what is left of long "
             "leases every --lease-checkpoint-interval, so that a new leader does not give them their whole "
             "time; that outlives restarts, as in a cluster of etcd 3.6, with LeaseCheckpointPersist or "
             "without; open it once every host is of this version. AllAlpha, AllBeta: those that are not "
             "named. The others have no effect"),
    ],
    "clustering": [
        Flag("initial-advertise-peer-urls", URLS, "http://localhost:2380",
             "this host's peer URLs, told to the cluster"),
        Flag("initial-cluster", S, "default=http://localhost:2380",
             "the first hosts: name=peer URL,...; a host with several URLs: repeat its name"),
        Flag("initial-cluster-state", E, "new", "new: bootstrap; existing: join a running cluster",
             choices=("new", "existing")),
        Flag("initial-cluster-token", S, "etcd-cluster", "goes into the IDs of cluster and members"),
        Flag("advertise-client-urls", URLS, "http://localhost:2379",
             "this host's client URLs, told to clients; required with --listen-client-urls"),
        Flag("strict-reconfig-check", B, "true", "refuse membership changes that endanger the quorum"),
        Flag("pre-vote", B, "true", "ask before campaigning; always on", NO),
        Flag("max-learners", U, "1", "learners there may be at a time"),
        Flag("auto-compaction-mode", E, "periodic", "periodic or revision", choices=("periodic", "revision")),
        Flag("auto-compaction-retention", S, "0",
             "what automatic compaction keeps: a duration (a bare number: hours) or a number of "
             "revisions; 0: off"),
        Flag("discovery-srv", S, "",
             "DNS domain whose SRV records name the first hosts, instead of --initial-cluster"),
        Flag("discovery-srv-name", S, "", "suffix of the SRV service: _etcd-server-<suffix>._tcp.<domain>"),
        Flag("discovery-token", S, "",
             "names the keys of version 3 below /_etcd/registry by which the first hosts find each "
             "other, instead of --initial-cluster",
             yaml="discovery-config/token"),
        Flag("discovery-endpoints", L, "",
             "the cluster that has the keys of --discovery-token: muster's or etcd's",
             yaml=_DISCOVERY + "endpoints"),
        Flag("discovery-dial-timeout", D, "2s",
             "longest time for a connection to one of --discovery-endpoints",
             yaml=_DISCOVERY + "dial-timeout"),
        Flag("discovery-request-timeout", D, "5s",
             "longest time for a request to one of --discovery-endpoints",
             yaml=_DISCOVERY + "request-timeout"),
        Flag("discovery-keepalive-time", D, "2s",
             "pings to --discovery-endpoints come so often",
             yaml=_DISCOVERY + "keepalive-time"),
        Flag("discovery-keepalive-timeout", D, "6s",
             "an unanswered ping ends the connection after this",
             yaml=_DISCOVERY + "keepalive-timeout"),
        Flag("discovery-insecure-transport", B, "true",
             "connect in clear where neither URL nor files say otherwise",
             yaml=_DISCOVERY + "secure/insecure-transport"),
        Flag("discovery-insecure-skip-tls-verify", B, "false",
             "trust whatever certificate --discovery-endpoints show",
             yaml=_DISCOVERY + "secure/insecure-skip-tls-verify"),
        Flag("discovery-cert", S, "",
             "certificate to show at --discovery-endpoints",
             yaml=_DISCOVERY + "secure/cert"),
        Flag("discovery-key", S, "", "key of --discovery-cert", yaml=_DISCOVERY + "secure/key"),
        Flag("discovery-cacert", S, "",
             "authorities of --discovery-endpoints",
             yaml=_DISCOVERY + "secure/cacert"),
        Flag("discovery-user", S, "",
             "user at --discovery-endpoints: name[:password]",
             yaml=_DISCOVERY + "auth/username"),
        Flag("discovery-password", S, "", "password of --discovery-user", yaml=_DISCOVERY + "auth/password"),
        Flag("discovery", S, "",
             "URL of a directory of the v2 API where the first hosts find each other, "
             "instead of --initial-cluster"),
        Flag("discovery-proxy", S, "", "HTTP proxy on the way to --discovery"),
        Flag("discovery-fallback", E, "proxy",
             "what a host does that finds the discovered cluster full: end, or be a proxy of it",
             yaml="", choices=("exit", "proxy")),
        Flag("v2-deprecation", E, "write-only",
             "phase of etcd's v2 store",
             NO, choices=("not-yet", "write-only", "write-only-skip-check", "write-only-drop-data", "gone")),
    ],
    "security": [
        Flag("cert-file", S, "",
             "certificate of https client URLs, with those that lead to its authority; read again when "
             "it changes, as the files below are", yaml=_CLIENT + "cert-file"),
        Flag("key-file", S, "", "key of --cert-file", yaml=_CLIENT + "key-file"),
        Flag("client-cert-file", S, "",
             "certificate of this server as a client of itself, which muster's is not",
             NO, yaml=_CLIENT + "client-cert-file"),
        Flag("client-key-file", S, "", "key of --client-cert-file", NO, yaml=_CLIENT + "client-key-file"),
        Flag("client-cert-auth", B, "false",
             "require client certificates; the common name of one says who its client is",
             yaml=_CLIENT + "client-cert-auth"),
        Flag("trusted-ca-file", S, "",
             "authorities of client certificates, which are required then; without the file and with "
             "--client-cert-auth the machine's own", yaml=_CLIENT + "trusted-ca-file"),
        Flag("client-crl-file", S, "", "list of revoked client certificates, in PEM or DER", yaml=""),
        Flag("client-cert-allowed-hostname", L, "",
             "hosts of which a client certificate must name one", yaml=_CLIENT + "allowed-hostname"),
        Flag("auto-tls", B, "false",
             "https client URLs with a certificate that signs itself, made in "
             "<data-dir>/fixtures/client", yaml=_CLIENT + "auto-tls"),
        Flag("peer-cert-file", S, "",
             "certificate of this host towards its peers, where peer URLs are https",
             yaml=_PEER + "cert-file"),
        Flag("peer-key-file", S, "",
             "with --peer-cert-file its key; else the cluster's CURVE key file, made by `muster "
             "peer-keys FILE`, the same on every host", yaml=_PEER + "key-file"),
        Flag("peer-client-cert-file", S, "",
             "certificate of connections that this host dials; without it --peer-cert-file",
             yaml=_PEER + "client-cert-file"),
        Flag("peer-client-key-file", S, "", "key of --peer-client-cert-file", yaml=_PEER + "client-key-file"),
        Flag("peer-client-cert-auth", B, "false",
             "peers have to show a certificate", yaml=_PEER + "client-cert-auth"),
        Flag("peer-trusted-ca-file", S, "",
             "authorities of peers' certificates, which are required then; without the file the "
             "machine's own", yaml=_PEER + "trusted-ca-file"),
        Flag("peer-crl-file", S, "", "list of revoked peer certificates, in PEM or DER", yaml=""),
        Flag("peer-cert-allowed-cn", L, "",
             "common names of which a peer's certificate must have one", yaml=_PEER + "allowed-cn"),
        Flag("peer-cert-allowed-hostname", L, "",
             "hosts of which a peer's certificate must name one", yaml=_PEER + "allowed-hostname"),
        Flag("peer-auto-tls", B, "false",
             "https peer URLs with certificates that sign themselves, made in <data-dir>/fixtures/peer: "
             "peers are not known by them", yaml=_PEER + "auto-tls"),
        Flag("peer-skip-client-san-verification", B, "false",
             "take peers from addresses, too, that their certificates are not for: without it a peer whose "
             "certificate has names or addresses (SAN) has to dial from one of them",
             yaml=_PEER + "skip-client-san-verification"),
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
        Flag("auth-token-ttl", U, "300", "seconds that a simple token counts since its last use"),
    ],
    "profiling, metrics, tracing": [
        Flag("enable-pprof", B, "false",
             "serve profiles of Go's runtime, which is not here; py-spy makes them of a running muster",
             NO),
        Flag("metrics", E, "basic",
             "extensive adds histograms of how long calls take, by method",
             choices=("basic", "extensive")),
        Flag("listen-metrics-urls", URLS, "", "more listeners for /metrics, /health, /livez, /readyz"),
        Flag("enable-distributed-tracing", B, "false",
             "send a span of each call to a collector of OpenTelemetry's; needs muster[tracing]"),
        Flag("distributed-tracing-address", S, "localhost:4317", "the collector (OTLP over gRPC, in clear)"),
        Flag("distributed-tracing-service-name", S, "etcd", "service name in traces"),
        Flag("distributed-tracing-instance-id", S, "", "instance ID in traces, one for each host"),
        Flag("distributed-tracing-sampling-rate", U, "0",
             "of a million calls that belong to no trace yet, how many begin one"),
    ],
    "logging": [
        Flag("logger", E, "zap", "etcd's logger; muster's own whatever it says", NO, choices=("zap",)),
        Flag("log-outputs", L, "default", "default (stderr), stderr, stdout, or file paths"),
        Flag("log-level", E, "info", "lowest level that is logged", choices=LEVELS),
        Flag("debug", B, "false", "the same as --log-level=debug, as in etcd 3.4"),
        Flag("log-format", E, "json", "json or console", choices=("json", "console")),
        Flag("enable-log-rotation", B, "false",
             "set the log file aside when it is large; without it too, a file that something else "
             "renames is opened anew"),
        Flag("log-rotation-config-json", S, ROTATION,
             "when it is large (maxsize, in MB) and which of the files set aside are kept: maxage in "
             "days and maxbackups, 0: all"),
        Flag("warning-apply-duration", D, "100ms", "log applies slower than this"),
        Flag("warning-unary-request-duration", D, "300ms",
             "log requests slower than this, and from 50ms on what they waited for; 0: none"),
    ],
    "checks, compaction, watches": [
        Flag("corrupt-check-time", D, "0s",
             "period of comparing all hosts' replicas; one that differs raises the CORRUPT alarm, "
             "which stops writes; 0s: none"),
        Flag("compact-hash-check-time", D, "1m0s",
             "period of the same comparison after compactions, with the feature gate CompactHashCheck"),
        Flag("compaction-batch-limit", U, "0",
             "revisions removed per batch; muster works in slices of time", NO),
        Flag("compaction-sleep-interval", D, "0s", "pause between batches", NO),
        Flag("watch-progress-notify-interval", D, "0s",
             "period of watch progress notifications; 0: 10m, at least 100ms"),
        Flag("downgrade-check-time", D, "5s", "period of the check of a downgrade", NO),
        Flag("bootstrap-defrag-threshold-megabytes", U, "0", "defragment at boot", NO),
    ],
    "unsafe": [
        Flag("force-new-cluster", B, "false",
             "restart as a cluster of one with the data that this host has; the other members are removed"),
        Flag("unsafe-no-fsync", B, "false", "never sync: a crash of the machine loses acknowledged writes"),
    ],
    "meta": [
        Flag("config-file", S, "",
             "YAML file with etcd's keys; all other flags and variables are then ignored", yaml=""),
        Flag("version", B, "false", "print the versions and exit", yaml=""),
        Flag("help", B, "false", "print this and exit", yaml=""),
    ],
    "proxy mode": [
        Flag("proxy", E, "off",
             "be no member but a proxy of the cluster; readonly: of what is asked by GET alone",
             choices=("off", "readonly", "on")),
        Flag("proxy-failure-wait", U, "5000",
             "milliseconds that a member is not asked who belongs to the cluster, if it did not answer"),
        Flag("proxy-refresh-interval", U, "30000",
             "milliseconds between a proxy's questions who belongs to the cluster"),
        Flag("proxy-dial-timeout", U, "1000", "milliseconds that a proxy waits for a member to say that"),
        Flag("proxy-write-timeout", U, "5000",
             "a front leaves a member that is silent for an election timeout", NO),
        Flag("proxy-read-timeout", U, "0",
             "a front leaves a member that is silent for an election timeout", NO),
    ],
    "removed from etcd": [
        Flag("experimental-enable-v2v3", S, "",
             "version 2 of the API on the keys of version 3; muster serves it by --enable-v2, from a tree of "
             "its own", REFUSED),
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
            table[f.name] = Flag(
                f.name, f.kind, f.default, f.help, f.support, f.yaml, f.choices, f.alias, group)

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
    add(aliases, "deprecated names")
    add((Flag(name, S, "", "ignored", IGNORED, yaml="") for name in _IGNORED), "accepted and ignored")
    return table


SERVER_FLAGS = _build(_GROUPS)
