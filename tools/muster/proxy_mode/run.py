"""Running a proxy: fronts alone, from checked settings to an exit code."""

from __future__ import annotations

import os
from dataclasses import replace

from cluster.members.described import Running
from tools.muster.config.parse import ConfigError
from tools.muster.config.settings import ServerConfig, with_agreed_layout, with_members
from tools.muster.host import ports, rundir, serve
from tools.muster.host.identity import by_srv, by_url
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.host.identity.keys import with_keys
from tools.muster.host.supervising.notify import notify
from tools.muster.host.supervising.supervisor import AGAIN, Logger
from tools.muster.proxy_mode import fronts, kind
from tools.muster.proxy_mode.found import Members
from tools.muster.proxy_mode.unready import refusing


def run(config: ServerConfig, log: Logger) -> int:
    """Run fronts until told to stop; the exit code. ConfigError."""
    serve.raise_open_files(config, log)
    serve.hold_memory(config, log)
    os.umask(0o077)
    try:
        os.makedirs(config.data_dir, mode=0o700, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"cannot access data directory: {e.strerror}: {config.data_dir}") from None
    lock = rundir.DataDirLock(config.data_dir)
    try:
        log.info("v2 API proxy starting", readonly=config.values["proxy"] == "readonly")
        ports.check(config, None, log)
        peer_urls = _peer_urls(config, log)
        config = with_keys(with_members(config, peer_urls))
        members = Members(config, peer_urls, log)
        while (code := _serve(config, members, log)) == AGAIN:
            log.info("starting again, with the members that are at their URLs now")
        return code
    finally:
        lock.release()


def _serve(config: ServerConfig, members: Members, log: Logger) -> int:
    """Serve the cluster that the members are of. AGAIN: they are of another one now, or the run directory is
    gone. ConfigError."""
    running = members.now() or _awaited(config, members)
    config = with_agreed_layout(config, running.shards, running.depth)
    config = replace(config, fronts=max(config.fronts, 1))
    members.keep(running)
    identity = Identity(running.cluster_id, 0, 0, config.shards, config.shard_depth, members.peers)
    log.info(f"starting a proxy of cluster {running.cluster_id:x}", peer_urls=list(members.peer_urls))
    return fronts.run(
        config, identity, log, lambda run_dir: fronts.specs(config, identity, run_dir, lambda: members.peers),
        lambda: members.refresh(running))


def _awaited(config: ServerConfig, members: Members) -> Running:
    """The first member's answer; clients are refused meanwhile. As at etcd the service has started: what
    comes after it in systemd's order may be the members."""
    urls, values = (*config.listen_client, *config.listen_http), config.values
    with refusing(urls, values["proxy"] == "readonly", values["cors"]):
        notify("READY=1")
        return members.first()


def _peer_urls(config: ServerConfig, log: Logger) -> tuple[str, ...]:
    """Where to ask for the members: the kept URLs, else the flags'. ConfigError."""
    known = kind.read(config.data_dir)
    if known is not None:
        at = kind.cluster_file(config.data_dir)
        for flag, what in (("discovery", "discovery token"), ("discovery-srv", "DNS SRV discovery")):
            if config.values[flag]:
                log.warning(f"{what} ignored since the proxy has already been initialized. "
                            f'Valid cluster file found at "{at}"')
        log.info(f"using peer urls {list(known)} from cluster file {str(at)!r}")
        return known
    named = by_url.for_a_proxy(by_srv.with_cluster(config, log, member=False), log)
    found = tuple(url for _, urls in named.initial_cluster for url in urls)
    log.info(f"using peer urls {list(found)}")
    return found
