"""``python -m tools.muster.processes.node``: one node, with settings of
``tools.muster.machine.process.handed``."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog
import uvloop

from cluster.effects.newer import NewerRecord
from cluster.errors import EtcdError
from cluster.faults import MISTAKES
from cluster.machine import StatusSink
from cluster.raft import LogContradiction
from cluster.settings import NodeSettings, loads
from node.replica.leaving import Leaving
from node.replica.roles.made import make_node
from node.replica.server import Node
from node.storage.errors import DirectoryLocked, DiskFull, LibraryRefused, StorageCorruption, is_disk_full
from tools.muster.machine import logs
from tools.muster.machine.disk import seal
from tools.muster.machine.disk.disks import NodesMachine
from tools.muster.machine.process.crash import (
    FATAL_EXIT,
    REMOVED_EXIT,
    Handler,
    crash_handler,
    end_process,
)
from tools.muster.machine.process.handed import take
from tools.muster.machine.process.place import Place
from tools.muster.machine.process.scheduling import short_slices
from tools.muster.machine.process.setup import hold_memory, settle_memory
from tools.muster.machine.process.status import StatusPipe
from tools.muster.machine.process.trimming import give_back_freed
from tools.muster.machine.process.turns import turns

log = structlog.get_logger("node")

_SWITCH_INTERVAL_S = 0.0002
REPLACE_HOST = (
    "This replica's log is not the one that it voted and acknowledged with, so it may not take part under "
    "its old identity. Remove the member and add it again as a new one, with an empty data directory")


class Removed(Exception):
    """This host is no member any more. ``known``: its own state says so, not a peer alone, which may be of
    another cluster by now."""

    def __init__(self, reason: str, *, known: bool) -> None:
        super().__init__(reason)
        self.known = known


class Fatal(Exception):
    """Another start of this replica would not help."""


def sealed_node(settings: NodeSettings, machine: NodesMachine) -> Node:
    """A node in a directory that its seal fits (H10). ``SealBroken``."""
    seal.check(settings.data_dir, settings.common.member_id, settings.incarnation)
    node = make_node(settings, machine)
    seal.claim(settings.data_dir, node.log, settings.shard)
    seal.begin(settings.data_dir, settings.incarnation)  # a node sends nothing before it is started
    return node


async def _run(settings: NodeSettings, place: Place) -> int:
    loop = asyncio.get_running_loop()
    machine = NodesMachine(loop, settings.common)
    node = sealed_node(settings, machine)
    stop = asyncio.Event()
    loop.set_exception_handler(node_crash(settings.shard, machine.status))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    node.fatal.add_done_callback(lambda _: stop.set())
    node.start()
    if settings.shard == 0:
        node.peers.round_trips.start()
    turns.watch(loop)
    place.keep(loop)
    settle_memory()
    give_back_freed(loop, locked=settings.common.memory_mlock)
    await stop.wait()
    await end(node)
    return 0


async def end(node: Node) -> None:
    """Stop a node in order. Removed, Fatal, DiskFull."""
    if node.roster.left:
        await Leaving(node).removed()
        raise Removed(node.fatal.result(), known=node.roster.table.removed(node.raft.id))
    if node.fatal.done():
        raise Fatal(node.fatal.result())
    log.info("stopping", shard=node.settings.shard)
    try:
        await node.stop()
    except (*MISTAKES, AssertionError, EtcdError):
        raise
    except Exception as error:
        if fatal_reason(error) or is_disk_full(error):
            raise
        raise Fatal(f"{node.settings.data_dir}: cannot close the store: {error}") from error


def fatal_reason(error: BaseException | None) -> str:
    """The operator's message if another start of this node would not help; else ""."""
    if isinstance(
        error,
        StorageCorruption
        | DirectoryLocked
        | DiskFull
        | LibraryRefused
        | NewerRecord
        | seal.SealBroken
        | Fatal,
    ):
        return str(error)
    # H10: a heartbeat may come to an emptied host before its hello is refused
    if isinstance(error, LogContradiction):
        return f"{error}. {REPLACE_HOST}"
    return ""


def node_crash(shard: int, status: StatusSink, *, clients: bool = False) -> Handler:
    """For a process with a node: a disk that cannot be trusted is not tried again."""

    def fatal(error: BaseException) -> bool:
        if reason := fatal_reason(error):
            refuse(shard, reason, status)
        return bool(reason)

    return crash_handler(log, clients=clients, fatal=fatal)


def refuse(shard: int, reason: str, status: StatusSink) -> None:
    """Tell the operator, and the supervisor, which stops the host."""
    log.error("this node cannot run", shard=shard, error=reason)
    status.say("fatal", shard=shard, error=reason)


def main() -> int:
    settings = loads(NodeSettings, *take(1))
    common = settings.common
    logs.configure("muster/node", common.log_level, common.log_format, common.log_outputs,
                   host=common.name, process=f"node-{settings.shard}")
    place = Place(common.cpu, lets_go=common.cpu_lets_go)
    short_slices()
    hold_memory(common, log)
    return guarded(settings, _run(settings, place))


def guarded(settings: NodeSettings, run: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop; the exit code."""
    common = settings.common
    # a finished sync must get the interpreter soon: the usual 5 ms would be the slowest part of a commit
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        return uvloop.run(run)
    except Removed as e:
        log.warning("this node ends", shard=settings.shard, reason=str(e))
        if not e.known:  # the next start asks again
            log.warning("this host's own data do not say so: keep them, and find out which host was forced",
                        shard=settings.shard)
        else:
            try:
                Path(settings.data_dir, seal.REMOVED).write_text(f"{e}\n", encoding="utf-8")
            except OSError as error:
                log.error("cannot note that this host was removed", error=str(error))
        return REMOVED_EXIT
    except Exception as e:
        reason = fatal_reason(e)
        if not reason and is_disk_full(e):
            reason = str(DiskFull(settings.data_dir, str(e)))
        if not reason:
            raise
        refuse(settings.shard, reason, StatusPipe(common.status_fd))
        return FATAL_EXIT


if __name__ == "__main__":
    end_process(main())
