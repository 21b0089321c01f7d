"""Fronts alone, on a machine without a member: for ``muster proxy`` and ``muster --proxy``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from cluster.settings import Peer
from tools.muster.config.settings import ServerConfig
from tools.muster.host import control, pinning, rundir, serve
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.host.specs import front_specs
from tools.muster.host.supervising.children import ChildSpec
from tools.muster.host.supervising.supervisor import AGAIN, Logger, Supervisor


def run(
    config: ServerConfig, identity: Identity, log: Logger, specs: Callable[[str], list[ChildSpec]],
    beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> int:
    """Run them until told to stop; the exit code. ``specs``: their processes, by the run directory;
    ``beside`` runs as long as they do: when it returns, they end, and the code is AGAIN, as it is when the
    run directory is gone."""
    run_dir = rundir.make_run_dir(config.data_dir, config.run_dir)
    try:
        supervisor = Supervisor(
            specs(run_dir), log, serve.stop_limits(config), socket=control.socket_of(run_dir))
        work = serve.supervise(supervisor, config, identity, run_dir)
        return serve.until_told(config, log, work if beside is None else _beside(beside(), work, supervisor))
    finally:
        rundir.remove_run_dir(config.data_dir, run_dir)


def specs(
    config: ServerConfig, identity: Identity, run_dir: str, peers: Callable[[], tuple[Peer, ...]]
) -> list[ChildSpec]:
    """Their processes. A front that starts again gets the members of that time."""
    pins = pinning.assign(config.cpus, max(1, config.fronts))

    def now() -> list[ChildSpec]:
        return front_specs(config, replace(identity, peers=peers()), run_dir, 0, pins)

    def told(index: int) -> Callable[[int], Sequence[str]]:
        return lambda status_fd: now()[index].settings(status_fd)

    return [replace(spec, settings=told(index)) for index, spec in enumerate(now())]


async def _beside(
    more: Coroutine[Any, Any, None], work: Coroutine[Any, Any, int], supervisor: Supervisor
) -> int:
    async def until_over() -> None:
        await more
        supervisor.stop(AGAIN)

    task = asyncio.ensure_future(until_over())
    try:
        return await work
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
