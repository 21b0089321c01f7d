"""Running a proxy: fronts alone, from checked settings to an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from tools.muster import peer_keys
from tools.muster.config.parse import ConfigError
from tools.muster.config.rotation import rotating
from tools.muster.config.settings import ServerConfig, setting, with_agreed_layout
from tools.muster.config.tls import check_files, check_peer_files
from tools.muster.host import pinning, ports, rundir, serve
from tools.muster.host.children import ChildSpec
from tools.muster.host.identity import auto_tls, by_srv, by_url
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.host.supervisor import Logger, Supervisor
from tools.muster.machine.process.descriptors import raise_limit
from tools.muster.proxy_mode import kind
from tools.muster.proxy_mode.found import Members


def run(config: ServerConfig, log: Logger) -> int:
    """Run fronts until told to stop; the exit code. ConfigError."""
    raise_limit()
    os.umask(0o077)
    try:
        os.makedirs(config.data_dir, mode=0o700, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"cannot access data directory: {e.strerror}: {config.data_dir}") from None
    lock = rundir.DataDirLock(config.data_dir)
    try:
        log.info("v2 API proxy starting", readonly=setting(config, "proxy") == "readonly")
        if config.peer_key_file:
            peer_keys.check(config.peer_key_file)
        config = auto_tls.with_certificate(config)
        if config.tls is not None:
            check_files(config.tls)
        if config.peer_tls is not None:
            check_peer_files(config.peer_tls)
        ports.check(config, None, log)
        members = Members(config, _peer_urls(config, log), log)
        running = members.first()
        config = with_agreed_layout(config, running.shards, running.depth)
        config = replace(config, fronts=max(config.fronts, 1))
        members.keep(running)
        run_dir = rundir.make_run_dir(config.data_dir, config.run_dir)
        try:
            identity = Identity(
                running.cluster_id, 0, 0, config.shards, config.shard_depth, members.peers)
            specs = _specs(config, identity, run_dir, members)
            log.info(f"starting a proxy of cluster {running.cluster_id:x}", peer_urls=list(members.peer_urls))
            work = serve.supervise(
                Supervisor(specs, log, serve.stop_limits(config)), config, identity, run_dir)
            return asyncio.run(rotating(
                config.rotation, lambda error: log.warning("cannot rotate the log file", error=error),
                _beside(members.refresh(running.cluster_id), work)))
        finally:
            rundir.remove_run_dir(config.data_dir, run_dir)
    finally:
        lock.release()


def _peer_urls(config: ServerConfig, log: Logger) -> tuple[str, ...]:
    """Where to ask for the members: what is written down counts, then the flags. ConfigError."""
    known = kind.read(config.data_dir)
    if known is not None:
        at = kind.cluster_file(config.data_dir)
        for flag, what in (("discovery", "discovery token"), ("discovery-srv", "DNS SRV discovery")):
            if setting(config, flag):
                log.warning(f"{what} ignored since the proxy has already been initialized. "
                            f'Valid cluster file found at "{at}"')
        log.info(f"using peer urls {list(known)} from cluster file {str(at)!r}")
        return known
    named = by_url.for_a_proxy(by_srv.with_cluster(config, log, member=False), log)
    found = tuple(url for _, urls in named.initial_cluster for url in urls)
    log.info(f"using peer urls {list(found)}")
    return found


def _specs(config: ServerConfig, identity: Identity, run_dir: str, members: Members) -> list[ChildSpec]:
    """The fronts; one that is started again is told who the members are by then."""
    pins = pinning.assign(config.cpus, config.fronts)

    def now() -> list[ChildSpec]:
        return serve.front_specs(config, replace(identity, peers=members.peers), run_dir, 0, pins)

    def told(index: int) -> Callable[[int], Sequence[str]]:
        return lambda status_fd: now()[index].settings(status_fd)

    return [replace(spec, settings=told(index)) for index, spec in enumerate(now())]


async def _beside(more: Coroutine[Any, Any, None], work: Coroutine[Any, Any, int]) -> int:
    """Something that goes on as long as the work does."""
    task = asyncio.ensure_future(more)
    try:
        return await work
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
