"""Fronts alone, on a machine without a member: for ``muster proxy`` and ``muster --proxy``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from tools.muster.config.settings import ServerConfig
from tools.muster.host import control, rundir, serve
from tools.muster.host.identity.bootstrap import Identity
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
