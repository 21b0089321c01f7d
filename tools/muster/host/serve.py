"""Running one host: from checked settings to an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from cluster.settings import Peer
from cluster.version import ETCD_VERSION, MUSTER_VERSION
from tools.muster.config.parse import ConfigError
from tools.muster.config.rotation import rotating
from tools.muster.config.settings import ServerConfig, gate, local_address, with_shards
from tools.muster.discovery.service import shown
from tools.muster.host import control, logs, nodestate, ports, rundir
from tools.muster.host.identity import bootstrap, by_srv, by_url, copies
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.host.identity.keys import with_keys
from tools.muster.host.specs import born_spec, child_specs
from tools.muster.host.supervising.born import BornShards, finish_drops
from tools.muster.host.supervising.children import ChildSpec
from tools.muster.host.supervising.supervisor import AGAIN, Logger, StopLimits, Supervisor, say_removed
from tools.muster.machine.process import descriptors
from tools.muster.machine.process.locking import CannotLock, limit_that_ends_growth, lock_memory
from tools.muster.machine.zmtp.port.door import Door


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
    def newborn(shard: int, voters: Sequence[int], cpus: Sequence[int]) -> ChildSpec:
        return born_spec(config, bootstrap.known(config.data_dir), run_dir, shard, voters, cpus)

    born = BornShards(config.data_dir, run_dir, partial(bootstrap.place_logs_of, config), newborn)
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
