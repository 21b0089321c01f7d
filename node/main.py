"""``python -m node``: run one node until it is told to stop; its settings come by ``tools.muster.machine.handed``.

Exit codes: 0 stopped as told, 3 must not be started again (``FATAL_EXIT``), others: crashed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
import uvloop

from cluster.order.sound import NewerRecord
from cluster.raft import LogContradiction
from cluster.settings import NodeSettings, loads
from node.replica.order_node import OrderNode
from node.replica.server import Node
from node.replica.shard_node import ShardNode
from node.storage.errors import DirectoryLocked, DiskFull, LibraryRefused, StorageCorruption, is_disk_full
from tools.muster.machine import logs, seal
from tools.muster.machine.handed import take
from tools.muster.machine.scheduling import short_slices
from tools.muster.machine.setup import keep_aside, pin, settle_memory
from tools.muster.machine.status import StatusPipe, StatusSink
from tools.muster.machine.trimming import give_back_freed
from tools.muster.machine.turns import turns

log = structlog.get_logger("node")

FATAL_EXIT = 3  # the supervisor does not restart a node that ends with this
_SWITCH_INTERVAL_S = 0.0002
REPLACE_HOST = (
    "This replica's log is not the one that it voted and acknowledged with, so it may not take part under its old identity. "
    "Remove the member and add it again as a new one, with an empty data directory"
)


class Fatal(Exception):
    """This replica must not go on, and starting it again would not help."""


def make_node(
    settings: NodeSettings, loop: asyncio.AbstractEventLoop, status: StatusSink | None = None,
) -> Node:
    """The node that these settings ask for; not started. ``status``: see ``Node``."""
    if settings.common.shard_count == 1:
        return Node(settings, loop, status)
    return OrderNode(settings, loop, status) if settings.shard == 0 else ShardNode(settings, loop, status)


def sealed_node(
    settings: NodeSettings, loop: asyncio.AbstractEventLoop, status: StatusSink | None = None,
) -> Node:
    """As :func:`make_node`, in a directory that must be what its seal says (H10). Raises ``SealBroken``."""
    seal.check(settings.data_dir, settings.common.member_id, settings.incarnation)
    node = make_node(settings, loop, status)
    seal.begin(settings.data_dir, settings.incarnation)  # a node sends nothing before it is started
    return node


async def _run(settings: NodeSettings, others: set[int]) -> int:
    loop = asyncio.get_running_loop()
    node = sealed_node(settings, loop)
    stop = asyncio.Event()
    loop.set_exception_handler(crash_handler(node.settings.shard, node.status))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    node.fatal.add_done_callback(lambda _: stop.set())
    node.start()
    if settings.shard == 0:
        node.peers.round_trips.start()
    turns.watch(loop)
    keep_aside(loop, others)
    settle_memory()
    give_back_freed(loop)
    await stop.wait()
    await end(node)
    return 0


async def end(node: Node) -> None:
    """Stop a node in order; Fatal if it must not go on."""
    if node.fatal.done():
        raise Fatal(node.fatal.result())
    log.info("stopping", shard=node.settings.shard)
    await node.stop()


def fatal_reason(error: BaseException | None) -> str:
    """What to tell the operator if starting this node again would not help; else nothing."""
    if isinstance(error, StorageCorruption | DirectoryLocked | DiskFull | LibraryRefused | NewerRecord | seal.SealBroken | Fatal):
        return str(error)
    if isinstance(error, LogContradiction):  # H10: a heartbeat may tell an emptied host before its hello is refused
        return f"{error}. {REPLACE_HOST}"
    return ""


def crash_handler(shard: int, status: StatusSink) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """Whatever nobody expected ends the process: the supervisor starts it again, the log tells why. A disk that
    cannot be trusted any more is not tried again."""

    def crash(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if reason := fatal_reason(error):
            refuse(shard, reason, status)
            os._exit(FATAL_EXIT)
        log.error("this node crashed", error=context.get("message"), exc_info=error)
        os._exit(1)

    return crash


def refuse(shard: int, reason: str, status: StatusSink) -> None:
    """Last words: to the operator, and to the supervisor, which stops the host and says why."""
    log.error("this node cannot run", shard=shard, error=reason)
    status.say("fatal", shard=shard, error=reason)


def main() -> int:
    """Run with the settings that were handed over."""
    settings = loads(NodeSettings, *take(1))
    common = settings.common
    logs.configure("muster/node", common.log_level, common.log_format, common.log_outputs,
                   host=common.name, process=f"node-{settings.shard}")
    others = pin(common.cpu)
    short_slices()
    return guarded(settings, _run(settings, others))


def guarded(settings: NodeSettings, run: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop; what a restart would not mend becomes an exit code."""
    common = settings.common
    # a finished sync must get the interpreter soon: the usual 5 ms would be the slowest part of a commit
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        return uvloop.run(run)
    except Exception as e:
        reason = fatal_reason(e)
        if not reason and is_disk_full(e):
            reason = str(DiskFull(settings.data_dir, str(e)))
        if not reason:
            raise
        refuse(settings.shard, reason, StatusPipe(common.status_fd))
        return FATAL_EXIT
