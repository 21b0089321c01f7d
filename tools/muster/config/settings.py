"""A host's settings, checked: what the supervisor and its children work from.

Raises ConfigError with etcd's words where etcd has words for it.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from cluster.endpoints import peer_address
from cluster.settings import PeerTls, Tls
from tools.muster.config.flags import AUTO, SERVER_FLAGS, Support
from tools.muster.config.gates import gates_of, warnings_of
from tools.muster.config.limits import check_limits
from tools.muster.config.parse import ConfigError, Values, convert
from tools.muster.config.rotation import Rotation, rotation_of
from tools.muster.config.tls import peer_tls_of, tls_of
from tools.muster.config.tracing import tracing_of
from tools.muster.config.users import bcrypt_cost, check_users
from tools.muster.config.values import duration_ms, mistake_of_url
from tools.muster.host import pinning

LEAST_ORDER_LOG_BYTES = 256 << 20  # half of it is well above what a host keeps while all is well
DEFAULT_QUOTA_BYTES = 2 * 1024**3
DEFAULT_PROGRESS_INTERVAL_MS = 600_000
MIN_PROGRESS_INTERVAL_MS = 100
CPUS_PER_FRONT = 4  # a front takes some 165,000 puts a second on a CPU of its own, a leader some 100,000
MAX_SHARDS = 64
LONGEST_SOCKET_PATH = 107  # bytes; the kernel's


@dataclass(slots=True, frozen=True)
class Url:
    """One URL of a flag: ``text`` as written, host and port of it; of a Unix socket its path, and 0."""

    text: str
    host: str
    port: int

    @property
    def scheme(self) -> str:
        """What stands before the colon."""
        return self.text.partition(":")[0]

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket's."""
        return self.scheme in ("unix", "unixs")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost" or self.is_unix:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(slots=True, frozen=True)
class ServerConfig:
    """One host. ``values`` holds the settings that are passed on as they are."""

    name: str
    data_dir: str
    run_dir: str  # "": chosen from the data directory
    shards: int
    shard_depth: int
    shards_set: bool  # a number was asked for, not "auto": then the cluster must have this one
    depth_set: bool
    fronts: int
    cpus: str
    listen_peer: tuple[Url, ...]
    listen_client: tuple[Url, ...]
    listen_http: tuple[Url, ...]  # clients of HTTP; those of listen_client are gRPC's alone, then
    listen_metrics: tuple[Url, ...]
    advertise_peer: tuple[Url, ...]
    advertise_client: tuple[Url, ...]
    initial_cluster: tuple[tuple[str, tuple[str, ...]], ...]  # (name, peer URLs) in the order given
    initial_cluster_text: str
    initial_cluster_set: bool
    initial_cluster_state: str
    initial_cluster_token: str
    peer_key_file: str
    quota_backend_bytes: int
    watch_progress_notify_interval_ms: int
    values: Values
    socket_mode: int = 0o700  # of the files of Unix sockets for clients
    tls: Tls | None = None  # of https URLs
    peer_tls: PeerTls | None = None  # of https peer URLs; with --peer-auto-tls the files are yet to come
    rotation: Rotation | None = None  # of the log file
    warnings: tuple[str, ...] = ()


def parse_url(text: str) -> Url:
    """A http or https URL with a port, or a Unix socket's; ConfigError in etcd's words.

    etcd 3.5 takes ``unix://host:port``, which it makes a file of that name; later ones take any path, too.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ConfigError(mistake_of_url(text)) from None
    if parts.scheme not in ("http", "https", "unix", "unixs") or (
        not parts.netloc and parts.scheme[:4] == "http"
    ):
        raise ConfigError(f"URL scheme must be http, https, unix, or unixs: {text}")
    text = parts.scheme + text[len(parts.scheme) :]  # of HTTP:// the scheme is http
    if parts.scheme in ("unix", "unixs"):
        path = text.partition("://")[2]
        if not path:
            raise ConfigError(f'URL address does not have the form "host:port": {text}')
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            raise ConfigError(f"listen unix {path}: bind: invalid argument")
        return Url(text, path, 0)
    try:
        port = parts.port
    except ValueError:
        given = parts.netloc.rpartition(":")[2]
        if given.isdecimal():
            raise ConfigError(f"listen tcp: address {given}: invalid port") from None
        port = None
    if not parts.hostname or port is None:
        raise ConfigError(f'URL address does not have the form "host:port": {text}')
    if parts.path not in ("", "/"):
        raise ConfigError(f"URL must not contain a path: {text}")
    return Url(text.rstrip("/"), parts.hostname, port)


def parse_peer_url(text: str) -> Url:
    """A http or https URL with a port; or ``unix://host:port``, as an etcd has it for peers: a file of that
    name in the working directory."""
    url = parse_url(text)
    if not url.is_unix:
        return url
    if url.scheme == "unixs":
        raise ConfigError(f"{text}: peers talk by Unix sockets in clear, or over https")
    host, port = peer_address(url.text)
    if not port or urlsplit(text).path:
        raise ConfigError(f'URL address does not have the form "host:port": {text}')
    return Url(url.text, host, port)


def parse_urls(texts: tuple[str, ...]) -> tuple[Url, ...]:
    """Each of them by :func:`parse_url`."""
    return tuple(parse_url(t) for t in texts)


def parse_initial_cluster(text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """``n=url,n=url,...``: names with their URLs, in the order given."""
    members: dict[str, list[str]] = {}
    seen: set[str] = set()
    for part in (p.strip() for p in text.split(",") if p.strip()):
        name, equals, url = part.partition("=")
        if not equals or not name or "://" in name:
            raise ConfigError(f'error setting up initial cluster: "{part}" is not of the form name=URL')
        parsed = parse_peer_url(url)
        if parsed.text in seen:
            raise ConfigError(f"error setting up initial cluster: initial cluster {text} has duplicate url")
        seen.add(parsed.text)
        members.setdefault(name, []).append(parsed.text)
    return tuple((name, tuple(urls)) for name, urls in members.items())


def _default_route_host() -> str | None:
    """The address this machine uses towards the world; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(s.getsockname()[0])


def _advertised(values: Values, flag: str, listen: tuple[Url, ...]) -> tuple[Url, ...]:
    """Advertised URLs; where only the default stands and the host listens everywhere, the machine's own
    address."""
    urls = tuple(map(parse_peer_url if "peer" in flag else parse_url, values[flag]))
    if values.is_set(flag) or not listen or listen[0].host not in ("0.0.0.0", "::"):
        return urls
    host = _default_route_host()
    scheme = listen[0].scheme
    return (Url(f"{scheme}://{host}:{listen[0].port}", host, listen[0].port),) if host else urls


def _check_support(values: Values) -> list[str]:
    """Refuse what is not there; ConfigError names the flag. Returns warnings."""
    warnings = []
    for flag in SERVER_FLAGS.values():
        if not values.is_set(flag.name) or values[flag.name] == convert(flag, flag.default):
            continue
        if flag.support is Support.REFUSED:
            raise ConfigError(f"--{flag.name} is not supported ({flag.help})")
        if flag.support is Support.NO_EFFECT:
            warnings.append(f"--{flag.name} has no effect in muster ({flag.help})")
    gates_of(values["feature-gates"])
    return warnings + warnings_of(values["feature-gates"])


def _check_peer_port(
    listen: tuple[Url, ...], members: tuple[Url, ...], key_file: str, tls: PeerTls | None, insecure: bool
) -> list[str]:
    """Whoever reaches a peer port without a key is believed (decision 53): ConfigError unless that was asked
    for. Warnings."""
    if key_file:
        if insecure:
            raise ConfigError(
                "--peer-insecure and --peer-key-file exclude each other: with a key file the peer port is "
                "secured")
        return []
    if tls is not None and tls.knows_peers:
        if insecure:
            raise ConfigError(
                "--peer-insecure and --peer-trusted-ca-file exclude each other: peers show certificates"
            )
        return []
    beyond = next((u for u in listen if not u.is_loopback), None)
    if beyond is not None and not insecure:
        raise ConfigError(
            f"--listen-peer-urls={beyond.text} is reached from other machines, and would believe whoever "
            "does: give every host "
            "the same --peer-key-file (muster peer-keys FILE makes it), or https URLs and a "
            "--peer-trusted-ca-file, "
            "or say --peer-insecure"
        )
    if beyond is not None:
        how = "peers talk in clear" if tls is None else "peers show no certificate that somebody vouches for"
        return [f"--peer-insecure: {how}, and whoever reaches {beyond.text} may act as one of them"]
    if tls is None and not all(u.is_loopback for u in members):
        return [
            "peers talk in clear and unauthenticated: give every host the same --peer-key-file "
            "(muster peer-keys FILE)"]
    return []


def build(values: Values) -> ServerConfig:
    """Check everything that can be checked without touching the disk."""
    if values.rest:
        raise ConfigError(f"'{values.rest[0]}' is not a valid flag")
    warnings = values.warnings + _check_support(values)
    if values["debug"]:
        values.values["log-level"] = "debug"
    _check_timing(values)
    falls_back = values["discovery"] != "" and values["discovery-fallback"] == "proxy"
    by_file = values.sources.get("listen-client-urls") == "file"  # with which etcd advertises the default
    listens = values.is_set("listen-client-urls") and not by_file
    unsaid = listens and not values.is_set("advertise-client-urls")
    if unsaid and values["proxy"] == "off" and not falls_back:
        raise ConfigError(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly. When "
            "listening on specific "
            "address(es), this process must advertise accessible url(s) to each connected client"
        )
    name = values["name"]
    listen_peer = tuple(parse_peer_url(text) for text in values["listen-peer-urls"])
    listen_client = parse_urls(values["listen-client-urls"])
    listen_http = parse_urls(values["listen-client-http-urls"])
    listen_metrics = parse_urls(values["listen-metrics-urls"])
    clients = (*listen_client, *listen_http)
    tls, more = tls_of(values, [u.text for u in clients], [u.text for u in listen_metrics])
    warnings += more
    bound = {(u.host, u.port) for u in listen_client}
    if (twice := next((u for u in listen_http if (u.host, u.port) in bound), None)) is not None:
        raise ConfigError(
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url "
            f"{twice.text}"
        )
    if not listen_peer:
        raise ConfigError("--listen-peer-urls must not be empty")
    if not listen_client:
        raise ConfigError("--listen-client-urls must not be empty")
    _check_discovery(values)
    advertise_peer = _advertised(values, "initial-advertise-peer-urls", listen_peer)
    cluster_text = values["initial-cluster"]
    if not values.is_set("initial-cluster"):
        cluster_text = ",".join(f"{name}={u.text}" for u in advertise_peer)
    shards = shard_count(values["shards"])
    if values["shard-depth"] < 1:
        raise ConfigError("--shard-depth must be at least 1")
    check_users(values["auth-token"])
    warnings += bcrypt_cost(values)
    check_limits(values)
    tracing_of(values)
    if values["order-log-bytes"] < LEAST_ORDER_LOG_BYTES:
        raise ConfigError(f"--order-log-bytes must be at least {LEAST_ORDER_LOG_BYTES}")
    pinning.check(values["cpus"])
    members = tuple(parse_peer_url(u) for _, urls in parse_initial_cluster(cluster_text) for u in urls)
    named = [u.text for u in (*advertise_peer, *members)]
    peer_tls, more = peer_tls_of(values, [u.text for u in listen_peer], named)
    warnings += more
    key_file = "" if values["peer-cert-file"] else values["peer-key-file"]
    if key_file and any(url.is_unix for url in (*listen_peer, *advertise_peer, *members)):
        raise ConfigError("--peer-key-file is for http peer URLs: peers talk by Unix sockets in clear")
    warnings += _check_peer_port(listen_peer, members, key_file, peer_tls, values["peer-insecure"])
    return ServerConfig(
        name=name,
        data_dir=values["data-dir"] if values.is_set("data-dir") else f"{name}.muster",
        run_dir=values["run-dir"],
        shards=shards,
        shard_depth=values["shard-depth"],
        shards_set=values.is_set("shards") and values["shards"] != AUTO,
        depth_set=values.is_set("shard-depth"),
        fronts=_fronts(front_count(values["fronts"]), clients),
        cpus=values["cpus"],
        listen_peer=listen_peer,
        listen_client=listen_client,
        listen_http=listen_http,
        listen_metrics=listen_metrics,
        advertise_peer=advertise_peer,
        advertise_client=_advertised(values, "advertise-client-urls", listen_client),
        initial_cluster=parse_initial_cluster(cluster_text),
        initial_cluster_text=cluster_text,
        initial_cluster_set=values.is_set("initial-cluster"),
        initial_cluster_state=values["initial-cluster-state"],
        initial_cluster_token=values["initial-cluster-token"],
        peer_key_file=key_file,
        quota_backend_bytes=values["quota-backend-bytes"] or DEFAULT_QUOTA_BYTES,
        watch_progress_notify_interval_ms=values["watch-progress-notify-interval"]
        or DEFAULT_PROGRESS_INTERVAL_MS,
        values=values,
        socket_mode=0o777 & ~_umask(),
        tls=tls,
        peer_tls=peer_tls,
        rotation=_rotation(values, warnings),
        warnings=tuple(warnings),
    )


def _check_discovery(values: Values) -> None:
    """One way to find each other, as etcd."""
    url, endpoints = values["discovery"], values["discovery-endpoints"]
    ways = (values["discovery-srv"] != "", url != "", bool(endpoints), values.is_set("initial-cluster"))
    if sum(ways) > 1:
        raise ConfigError(
            "multiple discovery or bootstrap flags are set. "
            'Choose one of "initial-cluster", "discovery", "discovery-endpoints" or "discovery-srv"')
    v3 = ("token", "cert", "key", "cacert", "user", "password")
    if values["discovery-proxy"] != "" and (endpoints or any(values[f"discovery-{name}"] for name in v3)):
        raise ConfigError(
            "both v2 discovery settings (discovery, discovery-proxy) and v3 discovery settings "
            "(discovery-token, discovery-endpoints, discovery-cert, discovery-key, discovery-cacert, "
            "discovery-user, discovery-password) are set")
    if (values["discovery-token"] != "") != bool(endpoints):
        raise ConfigError("both --discovery-token and --discovery-endpoints must be set")
    if not url:
        return
    parts = urlsplit(url)
    try:
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"--discovery={url} is no URL of http or https")


def _umask() -> int:
    """As this process was started with."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _fronts(wanted: int, listen: tuple[Url, ...]) -> int:
    """Unix sockets are one process's: with nothing else to listen on there is at most one front."""
    return min(wanted, 1) if all(url.is_unix for url in listen) else wanted


def _rotation(values: Values, warnings: list[str]) -> Rotation | None:
    if values["enable-log-rotation"]:
        return rotation_of(values["log-outputs"], values["log-rotation-config-json"])
    if values.is_set("log-rotation-config-json"):
        warnings.append("--log-rotation-config-json has no effect without --enable-log-rotation")
    return None


def with_shards(config: ServerConfig, shards: int) -> ServerConfig:
    """The same, once it is known how many shards there are."""
    return replace(config, shards=shards)


def with_agreed_layout(config: ServerConfig, shards: int, depth: int) -> ServerConfig:
    """A proxy places keys as the cluster does, or not at all. ConfigError if another layout was asked for."""
    if config.shards_set and config.shards != shards:
        raise ConfigError(f"--shards={config.shards}, but this cluster has {shards}")
    if config.depth_set and config.shard_depth != depth:
        raise ConfigError(f"--shard-depth={config.shard_depth}, but this cluster has {depth}")
    return replace(config, shards=shards, shard_depth=depth)


def shard_count(wanted: int, hosts: int = 1) -> int:
    """The number of shards that --shards asks for, with so many hosts on this machine."""
    if wanted == AUTO:
        return max(1, min(MAX_SHARDS, len(os.sched_getaffinity(0)) // max(1, hosts)))
    if wanted < 1:
        raise ConfigError("--shards must be at least 1")
    if wanted > MAX_SHARDS:
        raise ConfigError(f"--shards={wanted} is not supported yet: at most {MAX_SHARDS}")
    return wanted


def front_count(wanted: int, hosts: int = 1) -> int:
    """The number of front processes that --fronts asks for, with so many hosts on this machine.

    Where few CPUs must be shared, a front of its own only adds messages and wake-ups (docs/benchmarks.md), so
    node 0 serves clients itself. A large host's fronts saturate before its nodes do: one for every
    CPUS_PER_FRONT.
    """
    if wanted != AUTO:
        return wanted
    return len(os.sched_getaffinity(0)) // max(1, hosts) // CPUS_PER_FRONT


def _check_timing(values: Values) -> None:
    heartbeat, election = values["heartbeat-interval"], values["election-timeout"]
    if heartbeat == 0:
        raise ConfigError("--heartbeat-interval must be >0 (set to 0ms)")
    if election == 0:
        raise ConfigError("--election-timeout must be >0 (set to 0ms)")
    if 5 * heartbeat > election:
        raise ConfigError(
            f"--election-timeout[{election}ms] should be at least as 5 times as "
            f"--heartbeat-interval[{heartbeat}ms]"
        )
    if election > 50_000:
        raise ConfigError(
            f"--election-timeout[{election}ms] is too long, and should be set less than 50000ms"
        )
    if values["compact-hash-check-time"] <= 0:
        raise ConfigError("--compact-hash-check-time must be >0 (set to 0s)")
    progress = values["watch-progress-notify-interval"]
    if progress and progress < MIN_PROGRESS_INTERVAL_MS:
        raise ConfigError(
            f"--watch-progress-notify-interval[{progress}ms] must be at least {MIN_PROGRESS_INTERVAL_MS}ms"
        )
    _check_retention(values["auto-compaction-mode"], values["auto-compaction-retention"])


def _check_retention(mode: str, text: str) -> None:
    try:
        ok = int(text) >= 0 if text.lstrip("-").isdigit() else mode == "periodic" and duration_ms(text) >= 0
    except ValueError:
        ok = False
    if not ok:
        raise ConfigError(
            f'error parsing --auto-compaction-retention: "{text}" is not a possible value of mode {mode}'
        )


def gate(config: ServerConfig, name: str) -> bool:
    """Whether a feature gate is open."""
    return gates_of(config.values["feature-gates"])[name]


def local_address(config: ServerConfig) -> str:
    """The address that this host dials its peers from, by etcd's rule: with the gate SetMemberLocalAddr the
    first that it advertises to them, unless that is a name, or of this machine alone. "": any."""
    if not gate(config, "SetMemberLocalAddr"):
        return ""
    for url in config.advertise_peer:
        try:
            address = ipaddress.ip_address(url.host)
        except ValueError:
            continue
        if not (address.is_loopback or address.is_unspecified):
            return str(address)
    return ""


def setting(config: ServerConfig, name: str) -> Any:
    """A value that is passed on as it stands."""
    return config.values[name]
