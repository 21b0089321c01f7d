"""A host's settings, checked: what the supervisor and its children work from."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from cluster.settings import PeerTls, Tls
from node.control_groups import usable_cpus
from tools.muster.config.checks import (
    bcrypt_cost,
    check_advertised,
    check_discovery,
    check_limits,
    check_listeners,
    check_outputs,
    check_peer_port,
    check_support,
    check_timing,
    check_users,
    progress_interval,
    replace_zeros,
)
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.gates import gates_of
from tools.muster.config.kinds import AUTO
from tools.muster.config.parse import PACKAGED_DATA_DIR, ConfigError, Values
from tools.muster.config.rotation import Rotation, rotation_of
from tools.muster.config.tls import peer_tls_of, tls_of
from tools.muster.config.tracing import tracing_of
from tools.muster.config.urls import Url, parse_peer_url, parse_url, parse_urls
from tools.muster.host import pinning

DEFAULT_QUOTA_BYTES = 2 * 1024**3
DEFAULT_PROGRESS_INTERVAL_MS = 600_000
CPUS_PER_FRONT = 4  # a front takes some 165,000 puts a second on a CPU of its own, a leader some 100,000
MAX_SHARDS = 64
MAX_FRONTS = 64

InitialCluster = tuple[tuple[str, tuple[str, ...]], ...]  # (name, peer URLs) in the order given


@dataclass(slots=True, frozen=True)
class ServerConfig:
    """``values`` holds the settings that are passed on as they are."""

    name: str
    data_dir: str
    run_dir: str  # "": chosen from the data directory
    shards: int
    shard_depth: int
    shards_set: bool  # a number, not "auto": the cluster must have so many
    depth_set: bool
    fronts: int
    cpus: str
    listen_peer: tuple[Url, ...]
    listen_client: tuple[Url, ...]
    listen_http: tuple[Url, ...]  # for HTTP; then listen_client serves gRPC only
    listen_metrics: tuple[Url, ...]
    advertise_peer: tuple[Url, ...]
    advertise_client: tuple[Url, ...]
    initial_cluster: InitialCluster
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
    used: bool = False  # the data directory names the members, and not the initial flags
    warnings: tuple[str, ...] = ()

    @property
    def own_user_peers(self) -> bool:
        """Whether peers on this machine have to be this user's processes, as nothing else identifies them."""
        shown = self.peer_key_file or (self.peer_tls is not None and self.peer_tls.knows_peers)
        return not shown and not self.values["peer-insecure"]

    @property
    def alone(self) -> bool:
        """Whether this host takes no peers: nothing would identify those from other machines."""
        return self.own_user_peers and not all(url.is_loopback for url in self.listen_peer)


def parse_initial_cluster(text: str) -> InitialCluster:
    """``name=url,name=url,...``; a host that was added and has not started has no name. ConfigError."""
    members: dict[str, list[str]] = {}
    seen: set[str] = set()
    for part in (p.strip() for p in text.split(",") if p.strip()):
        name, equals, url = part.partition("=")
        if not equals or "://" in name:
            raise ConfigError(
                "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: "
                f"{part} (an entry has the form name=URL)")
        parsed = parse_peer_url(url)
        if parsed.text in seen:
            raise ConfigError(f"error setting up initial cluster: initial cluster {text} has duplicate url")
        seen.add(parsed.text)
        members.setdefault(name, []).append(parsed.text)
    return tuple((name, tuple(urls)) for name, urls in members.items())


def default_data_dir(name: str) -> str:
    """etcd's folder for a member of this name; an older muster's, ``NAME.muster``, where there is one."""
    older = f"{name}.muster"
    return older if os.path.isdir(older) else f"{name}.etcd"


def _data_dir(values: Values, name: str, warnings: list[str], is_used: Callable[[str], bool]) -> str:
    if not values["data-dir"]:
        values.sources.pop("data-dir", None)  # as if it was not given
    if values.is_set("data-dir"):
        given = str(values["data-dir"])
        if values.variables.get("data-dir") == "ETCD_DATA_DIR":
            _check_left(given, is_used)
        return given
    found, other = default_data_dir(name), f"{name}.etcd"
    if found != other and os.path.isdir(other):
        warnings.append(
            f"this host uses the data directory {found}, and not {other} beside it: give --data-dir, or move "
            "away the one that is not meant")
    return found


def _check_left(given: str, is_used: Callable[[str], bool]) -> None:
    """Versions whose image and unit set MUSTER_DATA_DIR ignored ETCD_DATA_DIR there: a host would begin empty
    beside its data. ConfigError."""
    with contextlib.suppress(OSError):  # that of another user's host
        if is_used(PACKAGED_DATA_DIR) and not is_used(given):
            raise ConfigError(
                f"{PACKAGED_DATA_DIR} holds the data of a host, and {given} of ETCD_DATA_DIR, which earlier "
                "versions ignored in the container image and under the unit, holds none. To go on with that "
                f"data, take out ETCD_DATA_DIR, or set MUSTER_DATA_DIR={PACKAGED_DATA_DIR}. For a host "
                f"without it, set MUSTER_DATA_DIR={given}")


def _default_route_host() -> str | None:
    """The address of this machine's default route; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(s.getsockname()[0])


def _advertised(values: Values, flag: str, listen: tuple[Url, ...]) -> tuple[Url, ...]:
    """The default, also where it is given, becomes the machine's own address where the host listens at every
    address."""
    urls = tuple(map(parse_peer_url if "peer" in flag else parse_url, values[flag]))
    if values[flag] != (SERVER_FLAGS[flag].default,) or not listen or listen[0].host not in ("0.0.0.0", "::"):
        return urls
    host = _default_route_host()
    scheme = listen[0].scheme
    return (Url(f"{scheme}://{host}:{listen[0].port}", host, listen[0].port),) if host else urls


def build(values: Values, is_used: Callable[[str], bool] = lambda data_dir: False) -> ServerConfig:
    """Check all that can be checked without touching the disk. ``is_used``: whether a data directory names
    the members, so that the initial flags are ignored."""
    if values.rest:
        raise ConfigError(f"'{values.rest[0]}' is not a valid flag")
    warnings = values.warnings + check_support(values)
    if values["debug"]:
        values.values["log-level"] = "debug"
    check_timing(values)
    check_advertised(values)
    listen_peer = tuple(parse_peer_url(text) for text in values["listen-peer-urls"])
    listen_client, listen_http, listen_metrics = (
        parse_urls(values[f"listen-{of}-urls"]) for of in ("client", "client-http", "metrics"))
    clients = (*listen_client, *listen_http)
    tls, more = tls_of(values, [u.text for u in clients], [u.text for u in listen_metrics])
    warnings += more
    check_listeners(listen_peer, listen_client, listen_http)
    name = values["name"]
    advertise_peer = _advertised(values, "initial-advertise-peer-urls", listen_peer)
    cluster_text = _cluster_text(values, name, advertise_peer)
    warnings += _check_others(values)
    used = is_used(data_dir := _data_dir(values, name, warnings, is_used))
    initial_cluster = _first_hosts(cluster_text, used, warnings)
    own = ((), ()) if values["proxy"] != "off" else (listen_peer, _told(values, used, advertise_peer))
    named, alone = () if used else _urls_of(initial_cluster), _may_be_alone(values, used, initial_cluster)
    key_file, peer_tls = _peer_security(values, *own, named, warnings, alone=alone)
    return ServerConfig(
        name=name,
        data_dir=data_dir,
        run_dir=values["run-dir"],
        shards=shard_count(values["shards"]),
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
        # by their text: so etcd's lists of members have them
        advertise_client=tuple(sorted(
            _advertised(values, "advertise-client-urls", listen_client), key=lambda url: url.text)),
        initial_cluster=initial_cluster,
        initial_cluster_text=cluster_text,
        initial_cluster_set=values.is_set("initial-cluster"),
        initial_cluster_state=values["initial-cluster-state"],
        initial_cluster_token=values["initial-cluster-token"],
        peer_key_file=key_file,
        quota_backend_bytes=values["quota-backend-bytes"] or DEFAULT_QUOTA_BYTES,
        watch_progress_notify_interval_ms=_progress_interval_ms(values),
        values=values,
        socket_mode=0o777 & ~_umask(),
        tls=tls,
        peer_tls=peer_tls,
        rotation=_rotation(values, warnings),
        used=used,
        warnings=tuple(warnings))


def _cluster_text(values: Values, name: str, advertised: tuple[Url, ...]) -> str:
    """The first hosts: this one alone by default. The default of etcd is none beside a name, also where it is
    given."""
    given: str = values["initial-cluster"]
    default = SERVER_FLAGS["initial-cluster"].default
    if values.is_set("initial-cluster") and (given != default or name == SERVER_FLAGS["name"].default):
        return given
    return ",".join(f"{name}={url.text}" for url in advertised)


def _first_hosts(text: str, used: bool, warnings: list[str]) -> InitialCluster:
    try:
        return parse_initial_cluster(text)
    except ConfigError as e:
        if not used:
            raise
        warnings.append(f"--initial-cluster is ignored, as the data directory names the members: {e}")
        return ()


def _check_others(values: Values) -> list[str]:
    check_discovery(values)
    if values["shard-depth"] < 1:
        raise ConfigError("--shard-depth must be at least 1")
    replace_zeros(values)
    warnings = check_users(values["auth-token"]) + bcrypt_cost(values) + progress_interval(values)
    check_limits(values)
    check_outputs(values)
    tracing_of(values)
    pinning.check(values["cpus"])
    return warnings


def _peer_security(
    values: Values, listen: tuple[Url, ...], advertised: tuple[Url, ...], members: tuple[Url, ...],
    warnings: list[str], *, alone: bool = False,
) -> tuple[str, PeerTls | None]:
    """The peer key file, "" for none, and TLS between hosts. A proxy has members alone."""
    tls, more = peer_tls_of(values, [u.text for u in listen], [u.text for u in (*advertised, *members)])
    key_file = "" if values["peer-cert-file"] else values["peer-key-file"]
    if key_file and any(url.is_unix for url in (*listen, *advertised, *members)):
        raise ConfigError("--peer-key-file is for http peer URLs: peers talk by Unix sockets in clear")
    warnings += more + check_peer_port(listen, members, key_file, tls, values, alone)
    return key_file, tls


def _told(values: Values, used: bool, advertised: tuple[Url, ...]) -> tuple[Url, ...]:
    """The peer URLs that a host tells others. The cluster that it joins has its URLs already."""
    return () if used or values["initial-cluster-state"] == "existing" else advertised


def _may_be_alone(values: Values, used: bool, initial: InitialCluster) -> bool:
    """Whether no other host is named. Members that a data directory knows are counted as it starts."""
    found = any(values[way] for way in ("discovery", "discovery-srv", "discovery-endpoints"))
    return used or (len(initial) == 1 and values["initial-cluster-state"] == "new" and not found)


def _urls_of(initial: InitialCluster) -> tuple[Url, ...]:
    return tuple(parse_peer_url(url) for _, urls in initial for url in urls)


def _progress_interval_ms(values: Values) -> int:
    given: int = values["watch-progress-notify-interval"]
    return given if given > 0 else DEFAULT_PROGRESS_INTERVAL_MS


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _fronts(wanted: int, listen: tuple[Url, ...]) -> int:
    """A Unix socket is one process's: with nothing else to listen on there is at most one front."""
    return min(wanted, 1) if all(url.is_unix for url in listen) else wanted


def _rotation(values: Values, warnings: list[str]) -> Rotation | None:
    if values["enable-log-rotation"]:
        return rotation_of(values["log-outputs"], values["log-rotation-config-json"])
    if values.is_set("log-rotation-config-json"):
        warnings.append("--log-rotation-config-json has no effect without --enable-log-rotation")
    return None


def with_shards(config: ServerConfig, shards: int) -> ServerConfig:
    return replace(config, shards=shards)


def with_members(config: ServerConfig, peer_urls: Iterable[str]) -> ServerConfig:
    """Of a proxy: with what it needs to dial members at these URLs. ConfigError."""
    members = tuple(parse_peer_url(url) for url in peer_urls)
    key_file, tls = _peer_security(config.values, (), (), members, [])
    return replace(config, peer_key_file=key_file, peer_tls=tls)


def as_member(config: ServerConfig) -> ServerConfig:
    """The same for a member that was started with --proxy: it listens for peers, after all. ConfigError."""
    more: list[str] = []
    told = _told(config.values, config.used, config.advertise_peer)
    named = () if config.used else _urls_of(config.initial_cluster)
    key_file, tls = _peer_security(
        config.values, config.listen_peer, told, named, more,
        alone=_may_be_alone(config.values, config.used, config.initial_cluster))
    warnings = tuple(dict.fromkeys((*config.warnings, *more)))
    return replace(config, peer_key_file=key_file, peer_tls=tls, warnings=warnings)


def with_agreed_layout(config: ServerConfig, shards: int, depth: int) -> ServerConfig:
    """Of a proxy: the layout that the cluster began with. ConfigError if another one was asked for."""
    if config.shards_set and config.shards != shards:
        raise ConfigError(f"--shards={config.shards}, but this cluster began with {shards}")
    if config.depth_set and config.shard_depth != depth:
        raise ConfigError(f"--shard-depth={config.shard_depth}, but this cluster has {depth}")
    return replace(config, shards=shards, shard_depth=depth)


def shard_count(wanted: int, hosts: int = 1) -> int:
    """What --shards asks for, with so many hosts on this machine."""
    if wanted == AUTO:
        return max(1, min(MAX_SHARDS, usable_cpus() // max(1, hosts)))
    if wanted < 1:
        raise ConfigError("--shards must be at least 1")
    if wanted > MAX_SHARDS:
        raise ConfigError(f"--shards={wanted} is not supported yet: at most {MAX_SHARDS}")
    return wanted


def front_count(wanted: int, hosts: int = 1) -> int:
    """What --fronts asks for, with so many hosts on this machine.

    On few CPUs a front only adds messages and wake-ups (docs/benchmarks.md), so node 0 serves clients itself.
    On many the fronts saturate before the nodes: one for every CPUS_PER_FRONT.
    """
    if wanted == AUTO:
        return min(MAX_FRONTS, usable_cpus() // max(1, hosts) // CPUS_PER_FRONT)
    if wanted > MAX_FRONTS:
        raise ConfigError(f"--fronts={wanted} is not supported: at most {MAX_FRONTS}")
    return wanted


def gate(config: ServerConfig, name: str) -> bool:
    return gates_of(config.values["feature-gates"])[name]


def local_address(config: ServerConfig) -> str:
    """The address that this host dials its peers from, "": any. With the gate SetMemberLocalAddr it is the
    first advertised address that is no name and not of this machine only, as in etcd."""
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
