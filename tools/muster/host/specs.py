"""The processes of a host, and their settings."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from cluster.settings import Common, FrontSettings, NodeSettings, dumps, genesis_file
from tools.muster.config.kinds import AUTO
from tools.muster.config.settings import ServerConfig, gate, local_address
from tools.muster.config.tracing import tracing_of
from tools.muster.config.urls import Url, in_url
from tools.muster.host import own_console, pinning, ports, rundir
from tools.muster.host.identity import bootstrap
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.host.supervising.children import ChildSpec, python
from tools.muster.machine.process.memory import for_clients, of_the_host

_LEAST_BLOCK_CACHE_BYTES = 4 << 20  # of a shard
_LEAST_WRITE_BUFFER_BYTES = 8 << 20


def child_specs(config: ServerConfig, identity: Identity, run_dir: str) -> list[ChildSpec]:
    """The processes of a host, nodes first."""
    first = identity.first
    pins = pinning.assign(config.cpus, len(first) + config.fronts, floating=config.fronts)
    found = [
        _node_spec(config, identity, run_dir, shard, cpu) for shard, cpu in zip(first, pins, strict=False)]
    for shard, voters in identity.born:
        used = [*pins, *(spec.cpu for spec in found)]
        found.append(born_spec(config, identity, run_dir, shard, voters, used))
    found += front_specs(config, identity, run_dir, identity.member_id, pins[len(first):])
    return found + console_specs(config)


@cache
def _started_ns() -> int:
    """When this host started: its first process asks."""
    return time.time_ns()


def _common(
    config: ServerConfig, identity: Identity, run_dir: str, member_id: int, cpu: int, status_fd: int
) -> Common:
    return Common(
        cluster_id=identity.cluster_id,
        member_id=member_id,
        name=config.name,
        shard_count=identity.shard_count,
        placement_depth=identity.placement_depth,
        peers=identity.peers,
        run_dir=run_dir,
        origin=identity.origin,
        started_ns=_started_ns(),
        warning_request_ms=config.values["warning-unary-request-duration"],
        peer_tls=config.peer_tls,
        local_address=local_address(config),
        own_user_peers=config.own_user_peers,
        alone=config.alone,
        curve_key_file=os.path.abspath(config.peer_key_file) if config.peer_key_file else "",
        cpu=cpu,
        cpu_lets_go=pinning.lets_go(config.cpus),
        status_fd=status_fd,
        **_as_given(
            config, "max-request-bytes", "max-txn-ops", "log-outputs", "log-level", "log-format",
            "memory-mlock"),
        **_as_given(config, "heartbeat-interval", "election-timeout", "client-stall-timeout", unit="_ms"))


def _as_given(config: ServerConfig, *flags: str, unit: str = "") -> dict[str, Any]:
    """Values that are passed on as they are, by their fields' names."""
    return {flag.replace("-", "_") + unit: config.values[flag] for flag in flags}


def born_spec(
    config: ServerConfig, identity: Identity, run_dir: str, shard: int, voters: Sequence[int],
    cpus: Sequence[int],
) -> ChildSpec:
    """The process of a node of a shard that was born. ``cpus``: those in use."""
    return _node_spec(config, identity, run_dir, shard, pinning.another(config.cpus, cpus), tuple(voters))


def _node_spec(
    config: ServerConfig, identity: Identity, run_dir: str, shard: int, cpu: int,
    born: tuple[int, ...] = (),
) -> ChildSpec:
    """A node's process; without front processes node 0's holds the front (``tools.muster.joined``)."""
    serves = shard == 0 and config.fronts == 0
    nodes = len(identity.shards)  # they share the host's memory

    def settings(status_fd: int) -> Sequence[str]:
        of_node = dumps(NodeSettings(
            common=_common(config, identity, run_dir, identity.member_id, cpu, status_fd),
            shard=shard,
            data_dir=os.path.abspath(bootstrap.shard_dir(config.data_dir, shard)),
            client_urls=tuple(u.text for u in config.advertise_client),
            peer_urls=identity.own.peer_urls,
            incarnation=identity.incarnation,
            joined=identity.joined,
            born=born,
            genesis=genesis_file(
                os.path.abspath(bootstrap.shard_dir(config.data_dir, 0)), shard) if born else "",
            quota_backend_bytes=config.quota_backend_bytes,
            block_cache_bytes=max(
                config.values["block-cache-bytes"] // nodes, _LEAST_BLOCK_CACHE_BYTES),
            write_buffer_bytes=max(
                config.values["write-buffer-bytes"] // nodes, _LEAST_WRITE_BUFFER_BYTES),
            range_cache_bytes=config.values["range-cache-bytes"] // nodes,
            birth_timeout_ms=config.values["shard-birth-timeout"],
            lease_check_interval_ms=config.values["lease-check-interval"],
            lease_checkpoint_interval_ms=(
                config.values["lease-checkpoint-interval"] * gate(config, "LeaseCheckpoint")),
            corrupt_check=config.values["corrupt-check-time"] > 0,
            warning_apply_ms=config.values["warning-apply-duration"],
            **_as_given(
                config, "max-learners", "initial-election-tick-advance", "snapshot-count",
                "snapshot-catchup-entries", "order-log-bytes", "order-kept-bytes",
                "min-free-disk-bytes", "auto-compaction-mode", "auto-compaction-retention",
                "leader-placement", "unsafe-no-fsync", "growth", "growth-bounds"),
        ))  # fmt: skip
        if serves:
            return of_node, _front_settings(config, identity, run_dir, identity.member_id, 0, cpu, status_fd)
        return (of_node,)

    module = "tools.muster.joined" if serves else "tools.muster.processes.node"
    argv = python(module, f"shard={shard}", f"host={config.name}")
    return ChildSpec("node", shard, cpu, lambda status_fd: argv, settings, serves=serves)


def front_specs(
    config: ServerConfig, identity: Identity, run_dir: str, member_id: int, pins: Sequence[int]
) -> list[ChildSpec]:
    """The front processes; ``member_id`` 0 on a machine without a member."""

    def spec(index: int, cpu: int) -> ChildSpec:
        def settings(status_fd: int) -> Sequence[str]:
            return (_front_settings(config, identity, run_dir, member_id, index, cpu, status_fd),)

        argv = python("tools.muster.processes.front", f"front={index}", f"host={config.name}")
        return ChildSpec("front", index, cpu, lambda status_fd: argv, settings,
                         shared_fd=rundir.page_of(run_dir, config.fronts))

    return [spec(index, cpu) for index, cpu in enumerate(pins)]


def console_specs(config: ServerConfig) -> list[ChildSpec]:
    """The web console, if the host serves one."""
    if not config.values["console"]:
        return []
    argv = python("tools.muster.cli", "console", *own_console.flags_of(config))
    return [ChildSpec("console", 0, -1, lambda status_fd: argv)]


def _front_settings(
    config: ServerConfig, identity: Identity, run_dir: str, member_id: int, index: int, cpu: int,
    status_fd: int,
) -> str:
    return dumps(FrontSettings(
        common=_common(config, identity, run_dir, member_id, cpu, status_fd),
        index=index,
        listen=_of_front(config, config.listen_client, index),
        grpc_alone=bool(config.listen_http),
        listen_http=_of_front(config, config.listen_http, index),
        socket_mode=config.socket_mode,
        fronts=max(config.fronts, 1),
        shown_fd=rundir.page_of(run_dir, config.fronts),
        joining=identity.joining and bootstrap.known(config.data_dir).joining,
        reuse_port=config.fronts > 1 or config.values["socket-reuse-port"],
        gateway=config.values["enable-grpc-gateway"],
        v2=config.values["enable-v2"],
        read_only=member_id == 0 and config.values["proxy"] == "readonly",
        max_v2_waits=_of_a_front(config, config.values["max-v2-waits"]),
        timed_calls=config.values["metrics"] == "extensive",
        # one process serves them
        listen_metrics=_of_front(config, config.listen_metrics, index) if index == 0 else (),
        max_client_connections=_of_a_front(config, config.values["max-client-connections"]),
        max_client_memory_bytes=_memory_of_a_front(config),
        large_write_window_bytes=config.values["large-write-window-bytes"] // max(config.fronts, 1),
        max_client_snapshots=max(config.values["max-client-snapshots"] // max(config.fronts, 1), 1),
        watch_progress_notify_interval_ms=config.watch_progress_notify_interval_ms,
        watch_merge_bytes=config.values["watch-merge-bytes"] // max(config.fronts, 1),
        initial_corrupt_check=gate(config, "InitialCorruptCheck"),
        corrupt_check_ms=config.values["corrupt-check-time"],
        compact_hash_check_ms=config.values["compact-hash-check-time"] * gate(config, "CompactHashCheck"),
        stop_on_defrag=gate(config, "StopGRPCServiceOnDefrag"),
        quota_backend_bytes=config.quota_backend_bytes,
        tls=config.tls,
        tracing=tracing_of(config.values),
        auth_token_ttl_s=config.values["auth-token-ttl"],
        **_as_given(
            config, "max-concurrent-streams", "max-unanswered-bytes", "max-unfinished-bytes",
            "max-untaken-bytes", "max-connection-range-compares", "max-connection-snapshots",
            "max-connection-range-streams", "max-control-frames", "max-control-frame-rate",
            "max-stream-resets", "max-stream-reset-rate", "max-header-bytes", "discovery-service", "cors",
            "host-whitelist", "auth-token", "bcrypt-cost", "strict-reconfig-check"),
        **_as_given(
            config, "client-head-timeout", "http1-idle-timeout", "grpc-keepalive-min-time",
            "grpc-keepalive-interval", "grpc-keepalive-timeout", "proxy-failure-wait", unit="_ms"),
    ))  # fmt: skip


def _of_front(config: ServerConfig, urls: Sequence[Url], index: int) -> tuple[str, ...]:
    clients = ports.client_urls(config)
    return tuple(_to_bind(url, clients) for url in urls if index == 0 or not url.is_unix)


def _to_bind(url: Url, among: Sequence[Url]) -> str:
    """A listen URL with its name resolved; without a host: of IPv6 and IPv4."""
    if url.is_unix:
        return f"{url.scheme}://{ports.bind_address(url)}"
    return f"{url.scheme}://{in_url(ports.client_address(url, among))}:{url.port}"


def _of_a_front(config: ServerConfig, most: int) -> int:
    return most if most == AUTO else -(-most // max(config.fronts, 1))


def _memory_of_a_front(config: ServerConfig) -> int:
    wanted: int = config.values["max-client-memory-bytes"]
    return (for_clients(of_the_host()) if wanted == AUTO else wanted) // max(config.fronts, 1)
