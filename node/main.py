"""``python -m node JSON``: run one node until it is told to stop.

Exit codes: 0 stopped as told, 3 must not be started again (``node.server.FATAL_EXIT``), others: crashed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import psutil
import structlog
import uvloop

from cluster.raft import LogContradiction
from cluster.settings import NodeSettings, loads
from node.order_node import OrderNode
from node.server import FATAL_EXIT, Fatal, Node
from node.shard_node import ShardNode
from node.status import StatusPipe, configure_logging
from node.storage.errors import DirectoryLocked, StorageCorruption

log = structlog.get_logger("node")

_SWITCH_INTERVAL_S = 0.0002
REPLACE_HOST = (
    "This replica's log is not the one that it voted and acknowledged with, so it may not take part under its old identity. "
    "Remove the member and add it again as a new one, with an empty data directory"
)


def make_node(settings: NodeSettings, loop: asyncio.AbstractEventLoop) -> Node:
    """The node that these settings ask for; not started."""
    if settings.common.shard_count == 1:
        return Node(settings, loop)
    return OrderNode(settings, loop) if settings.shard == 0 else ShardNode(settings, loop)


async def _run(settings: NodeSettings) -> int:
    loop = asyncio.get_running_loop()
    node = make_node(settings, loop)
    stop = asyncio.Event()
    loop.set_exception_handler(crash)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    node.fatal.add_done_callback(lambda _: stop.set())
    node.start()
    gc.collect()
    gc.freeze()  # what lives as long as the process need not be looked at again
    gc.set_threshold(50_000, 20, 20)
    await stop.wait()
    await end(node)
    return 0


async def end(node: Node) -> None:
    """Stop a node in order; Fatal if it must not go on."""
    if node.fatal.done():
        raise Fatal(node.fatal.result())
    log.info("stopping", shard=node.settings.shard)
    await node.stop()


def crash(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Whatever nobody expected ends the process: the supervisor starts it again, the log tells why. A disk that
    cannot be trusted any more is not tried again."""
    error = context.get("exception")
    if isinstance(error, StorageCorruption):
        log.error("this node cannot run", error=str(error))
        os._exit(FATAL_EXIT)
    if isinstance(error, LogContradiction):  # H10: a heartbeat may tell an emptied host before its hello is refused
        log.error("this node cannot run", error=f"{error}. {REPLACE_HOST}")
        os._exit(FATAL_EXIT)
    log.error("this node crashed", error=context.get("message"), exc_info=error)
    os._exit(1)


def main() -> int:
    """Run with the settings of the command line."""
    settings = loads(NodeSettings, sys.argv[1])
    common = settings.common
    configure_logging(common.log_level, common.log_format, common.log_outputs,
                      host=common.name, process=f"node-{settings.shard}")
    if common.cpu >= 0:
        psutil.Process().cpu_affinity([common.cpu])
    return guarded(settings, _run(settings))


def guarded(settings: NodeSettings, run: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop; what a restart would not mend becomes an exit code."""
    common = settings.common
    # a finished sync must get the interpreter soon: the usual 5 ms would be the slowest part of a commit
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        return uvloop.run(run)
    except (StorageCorruption, DirectoryLocked, Fatal) as e:
        log.error("this node cannot run", shard=settings.shard, error=str(e))
        StatusPipe(common.status_fd).say("fatal", shard=settings.shard, error=str(e))
        return FATAL_EXIT
