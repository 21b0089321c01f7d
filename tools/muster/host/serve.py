"""Running one host: from checked settings to processes and an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import cache, partial
from typing import Any

from cluster.settings import Common, FrontSettings, NodeSettings, Peer, dumps, genesis_file
from cluster.version import ETCD_VERSION, MUSTER_VERSION
from tools.muster.config.kinds import AUTO
from tools.muster.config.parse import ConfigError
from tools.muster.config.rotation import rotating
from tools.muster.config.settings import ServerConfig, gate, local_address, with_shards
from tools.muster.config.tracing import tracing_of
from tools.muster.config.urls import Url, in_url
from tools.muster.discovery.service import shown
from tools.muster.host import control, logs, nodestate, pinning, ports, rundir
from tools.muster.host.identity import bootstrap, by_srv, by_url, copies
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.host.identity.keys import with_keys
from tools.muster.host.supervising.born import BornShards, finish_drops
from tools.muster.host.supervising.children import ChildSpec, python
from tools.muster.host.supervising.supervisor import AGAIN, Logger, StopLimits, Supervisor, say_removed
from tools.muster.machine.process import descriptors
from tools.muster.machine.process.locking import CannotLock, limit_that_ends_growth, lock_memory
from tools.muster.machine.process.memory import for_clients, of_the_host
from tools.muster.machine.zmtp.port.door import Door

_LEAST_BLOCK_CACHE_BYTES = 4 << 20  # of a shard
_LEAST_WRITE_BUFFER_BYTES = 8 << 20


def run(config: ServerConfig) -> int:
    """Run a host until it is told to stop; the exit code."""
    log = log_of(config)
    logs.warn(config, log)
    raise_open_files(config, log)
    hold_memory(config, log)
    for looser in bootstrap.prepare_data_dir(config.data_dir, config.values["wal-dir"]):
        log.warning(looser)
    lock = rundir.DataDirLock(config.data_dir)
    try:
        config = with_keys(config)
        if not bootstrap.is_known(config.data_dir):
            if by_url.discovers(config):  # registered hosts have to come
                ports.compare(config, config.shards)
                ports.wait_until_free(config, config.shards, log)
            config = by_url.with_cluster(by_srv.with_cluster(config, log), log)
            # a refused first start leaves nothing for the next one
            ports.compare(config, config.shards)
        elif by_url.discovers(config):
            log.warning(
                "discovery token ignored since a cluster has already been initialized. "
                f'Valid log found at "{bootstrap.member_dir(config.data_dir)}"')
        force = config.values["force-new-cluster"] and bootstrap.is_known(config.data_dir)
        copies.check(config.data_dir, force)
        while True:
            if bootstrap.was_removed(config.data_dir) and not force:
                say_removed(log)
                return 0  # as etcd: another start is of no use
            finish_drops(config.data_dir)
            identity, is_new = bootstrap.establish(config, log.warning)
            config = with_shards(config, identity.shard_count)
            ports.check(config, identity, log)
            if force:
                # it loads RocksDB, which a supervisor needs for nothing else
                from tools.muster.host.identity import forcing

                identity = forcing.force(config.data_dir, identity, log, alone=config.alone)
                copies.taken(config.data_dir)
                force = False
            run_dir = rundir.make_run_dir(config.data_dir, config.run_dir)
            try:
                supervisor = _supervisor(config, identity, run_dir, log)
                if is_new:
                    bootstrap.keep(config, identity)
                _log_facts(log, config, identity, is_new)
                door = partial(ports.door, config, identity, run_dir, log, supervisor.runs_node)
                code = until_told(config, log, supervise(supervisor, config, identity, run_dir, door))
            finally:
                rundir.remove_run_dir(config.data_dir, run_dir)
            if code == AGAIN:
                _check_data(config.data_dir, lock, log)
                continue
            if supervisor.told_to_stop or not bootstrap.may_follow(config, identity):
                return code
            log.info(
                "the cluster has another number of shards than this host has chosen: "
                "starting again with the cluster's")
    finally:
        lock.release()


def _check_data(data_dir: str, lock: rundir.DataDirLock, log: Logger) -> None:
    """ConfigError: it is not that of before. H10: a host makes no new identity by itself."""
    if not (lock.is_there() and bootstrap.is_known(data_dir)):
        gone = (f"{data_dir} was removed or replaced while this host ran: put it back, or remove the member "
                "and add it anew, before another start")
        log.error(gone)
        raise ConfigError(gone)


def _supervisor(config: ServerConfig, identity: Identity, run_dir: str, log: Logger) -> Supervisor:
    def born_spec(shard: int, voters: Sequence[int], cpus: Sequence[int]) -> ChildSpec:
        return _born_spec(config, bootstrap.known(config.data_dir), run_dir, shard, voters, cpus)

    born = BornShards(config.data_dir, run_dir, partial(bootstrap.place_logs_of, config), born_spec)
    return Supervisor(child_specs(config, identity, run_dir), log, stop_limits(config),
                      partial(bootstrap.grown, config.data_dir), born,
                      partial(bootstrap.served, config.data_dir), control.socket_of(run_dir))


def raise_open_files(config: ServerConfig, log: Logger) -> None:
    """Raise the limit of open files. Warns of a number of clients' connections that it does not allow."""
    allowed = descriptors.for_clients(descriptors.raise_limit()) * max(config.fronts, 1)
    if (wanted := config.values["max-client-connections"]) > allowed:
        log.warning(
            f"--max-client-connections={wanted}: the limit of open files allows {allowed} (LimitNOFILE=)")


def hold_memory(config: ServerConfig, log: Logger) -> None:
    """Lock the supervisor's memory, if asked for; its processes lock their own. ConfigError."""
    if not config.values["memory-mlock"]:
        return
    try:
        lock_memory()
    except CannotLock as e:
        raise ConfigError(str(e)) from None
    if most := limit_that_ends_growth():
        log.warning("memory is locked, with a limit: a process that exceeds it ends", limit_bytes=most)


def log_of(config: ServerConfig) -> Logger:
    """ConfigError."""
    try:
        return logs.configure(
            config.values["log-outputs"], config.values["log-level"], config.values["log-format"])
    except OSError as e:
        raise ConfigError(f"cannot open --log-outputs {e.filename}: {e.strerror}") from None


def until_told(config: ServerConfig, log: Logger, work: Coroutine[Any, Any, int]) -> int:
    """Supervise, and rotate the log file; the exit code."""
    return asyncio.run(rotating(
        config.rotation, lambda error: log.warning("cannot rotate the log file", error=error), work))


async def supervise(
    supervisor: Supervisor, config: ServerConfig, identity: Identity, run_dir: str,
    door: Callable[[], Door | None] = lambda: None,
) -> int:
    """Run the children, the control socket and what holds the peer port; the exit code."""
    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        what = request["do"]
        if what == "status":
            return await asyncio.to_thread(status_of, supervisor, config, identity, run_dir)
        if what == "ready":  # cheap, as it is asked repeatedly
            return {"ready": supervisor.ready, "pid": os.getpid()}
        if what == "kill":
            pid = supervisor.kill(request["kind"], request["index"])
            return {"pid": pid} if pid else {"error": f"{request['kind']} {request['index']} is not running"}
        if what == "stop":
            supervisor.stop()
            return {"pid": os.getpid()}
        return {"error": f"unknown request {what!r}"}

    path = control.socket_of(run_dir)
    opened = door()
    server = await control.listen(path, answer)
    try:
        return await supervisor.run()
    finally:
        server.close()
        with contextlib.suppress(FileNotFoundError):  # the run directory may be gone
            os.unlink(path)
        if opened is not None:
            opened.close()


def status_of(
    supervisor: Supervisor, config: ServerConfig, identity: Identity, run_dir: str
) -> dict[str, Any]:
    """For ``muster local status``."""
    shards, hosts = nodestate.states(
        run_dir, identity.cluster_id, identity.member_id,
        [c.spec.index for c in supervisor.children if c.spec.kind == "node" and c.pid],
    )  # fmt: skip
    names = {f"{p.member_id:x}": p.name for p in identity.peers} | {f"{identity.member_id:x}": config.name}
    own = hosts.get(identity.member_id, identity.own) if identity.member_id else None  # it may have moved
    nodes = []
    for child in supervisor.children:
        if child.spec.kind == "node":
            state = shards.get(child.spec.index, {})
            nodes.append({
                "shard": child.spec.index, **_process(child), **state,
                "leader_name": names.get(state.get("leader", ""), ""),
                "is_leader": state.get("leader") == f"{identity.member_id:x}",
            })  # fmt: skip
    # without front processes node 0 serves clients
    kind = "front" if config.fronts else "node"
    fronts = [c for c in supervisor.children if c.spec.kind == kind and (config.fronts or c.spec.index == 0)]
    return {
        "name": config.name,
        "member_id": f"{identity.member_id:x}",
        "cluster_id": f"{identity.cluster_id:x}",
        "pid": os.getpid(),
        "ready": supervisor.ready,
        "client_urls": [u.text for u in config.advertise_client],
        "peer_urls": list(own.peer_urls) if own is not None else [],
        "data_dir": os.path.abspath(config.data_dir),
        "run_dir": run_dir,
        "listen_urls": ports.near_urls(config),
        "nodes": nodes,
        "fronts": [{"front": c.spec.index, **_process(c)} for c in fronts],
    }


def _process(child: Any) -> dict[str, Any]:
    return {"pid": child.pid, "cpu": child.spec.cpu, "ready": child.ready, "starts": child.starts}


def stop_limits(config: ServerConfig) -> StopLimits:
    return StopLimits.of(config.values["election-timeout"])


def child_specs(config: ServerConfig, identity: Identity, run_dir: str) -> list[ChildSpec]:
    """The processes of a host, nodes first."""
    first = identity.first
    pins = pinning.assign(config.cpus, len(first) + config.fronts, floating=config.fronts)
    specs = [
        _node_spec(config, identity, run_dir, shard, cpu) for shard, cpu in zip(first, pins, strict=False)]
    for shard, voters in identity.born:
        used = [*pins, *(spec.cpu for spec in specs)]
        specs.append(_born_spec(config, identity, run_dir, shard, voters, used))
    specs += front_specs(config, identity, run_dir, identity.member_id, pins[len(first):])
    return specs + console_specs(config)


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


def _born_spec(
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
    """The web console, if the host serves one: a client like any other."""
    if not config.values["console"]:
        return []
    endpoints = ",".join(url.text for url in config.advertise_client)
    flags = [f"--endpoints={endpoints}", f"--listen={config.values['console-listen']}"]
    own = config.tls.cert_file if config.tls is not None and not config.values["cert-file"] else ""
    if "https://" in endpoints and (trusted := own or config.values["trusted-ca-file"]):  # own: --auto-tls
        flags.append(f"--cacert={trusted}")
    if config.values["client-cert-auth"]:
        flags += [f"--cert={config.values['cert-file']}", f"--key={config.values['key-file']}"]
    argv = python("tools.muster.cli", "console", *flags)
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


def _log_facts(log: Logger, config: ServerConfig, identity: Identity, is_new: bool) -> None:
    log.info(
        "starting muster", muster_version=MUSTER_VERSION, etcd_version=ETCD_VERSION,
        python_version=platform.python_version(),
        os_arch=f"{sys.platform}/{platform.machine()}", cpus=os.cpu_count(), pid=os.getpid(),
    )  # fmt: skip
    if not config.values.is_set("data-dir"):
        log.info("no data-dir provided, using default data-dir", data_dir=os.path.abspath(config.data_dir))
    log.info(
        "listening", peer_urls=[u.text for u in config.listen_peer],
        client_urls=[u.text for u in config.listen_client])
    url = config.values["discovery"]
    token = shown(url) if url else config.initial_cluster_token
    log.info("settings", **{  # by the names of their flags, as in etcd's log
        "name": config.name,
        "data-dir": os.path.abspath(config.data_dir),
        "member-dir": os.path.abspath(bootstrap.member_dir(config.data_dir)),
        "heartbeat-interval": f"{config.values['heartbeat-interval']}ms",
        "election-timeout": f"{config.values['election-timeout']}ms",
        "snapshot-count": config.values["snapshot-count"],
        "snapshot-catchup-entries": config.values["snapshot-catchup-entries"],
        "advertise-client-urls": [u.text for u in config.advertise_client],
        "initial-advertise-peer-urls": [u.text for u in config.advertise_peer],
        "initial-cluster": config.initial_cluster_text if is_new else "",
        "initial-cluster-token": token,
        "shards": identity.shard_count,
        "fronts": config.fronts,
    })  # fmt: skip
    if not is_new and config.initial_cluster_set:
        log.info("the member has been initialized before: the initial-* flags are ignored")
        flags = bootstrap.peers_of(config.initial_cluster, config.initial_cluster_token)
        if flags and _named(flags) != _named(identity.peers):
            log.warning(
                "the data directory names other members than the flags, and takes precedence: does it belong "
                "to another cluster?",
                data_dir=os.path.abspath(config.data_dir), members=_members(identity.peers),
                flags=_members(flags),
            )  # fmt: skip
    if local := local_address(config):
        log.info("setting member local address from AdvertisePeerURLs", local_address=local)
    elif gate(config, "SetMemberLocalAddr"):
        log.warning("unable to set a member local address due to lack of suitable local addresses")
    cluster = f"{identity.cluster_id:x}"
    log.info(f"starting member {identity.member_id:x} in cluster {cluster}")
    for peer in identity.peers if is_new else ():
        log.info(f"added member {peer.member_id:x} [{' '.join(peer.peer_urls)}] to cluster {cluster}")
    for url in (*config.listen_client, *config.listen_http):
        if url.scheme in ("https", "unixs"):
            log.info("serving client traffic securely", address=url.text)
        else:
            log.warning("serving client traffic insecurely; this is strongly discouraged!", address=url.text)


def _named(peers: Sequence[Peer]) -> set[tuple[str, tuple[str, ...]]]:
    """Names and peer URLs. Not IDs: an added member's comes from the cluster, not from flags."""
    return {(peer.name, tuple(sorted(peer.peer_urls))) for peer in peers}


def _members(peers: Sequence[Peer]) -> str:
    return ",".join(f"{peer.name}={url}" for peer in peers for url in peer.peer_urls)
