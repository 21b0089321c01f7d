"""A host's front in node 0's process: ``python -m tools.muster.joined``, with the settings of both.

This saves each request two ipc messages and wake-ups, which counts most on few CPUs (docs/benchmarks.md). In
return the two share a CPU and each other's crashes. They exchange the same frames as over ipc, by a function
call.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import structlog

from cluster.settings import Common, FrontSettings, NodeSettings, loads
from node.replica.server import Node
from proxy.machine import Machine
from proxy.main import Front
from proxy.routing.links import Connector, Link, Receiver
from tools.muster.machine import logs
from tools.muster.machine.disk.disks import NodesMachine
from tools.muster.machine.process.crash import end_process
from tools.muster.machine.process.handed import take
from tools.muster.machine.process.place import Place
from tools.muster.machine.process.scheduling import short_slices
from tools.muster.machine.process.setup import hold_memory, settle_memory
from tools.muster.machine.process.status import StatusPipe, parts
from tools.muster.machine.process.trimming import give_back_freed
from tools.muster.machine.process.turns import turns
from tools.muster.machine.real import RealMachine
from tools.muster.processes.node import end, guarded, node_crash, sealed_node

log = structlog.get_logger("host")


class InProcessTransport:
    """Frames between a front's link and the node in the same process."""

    __slots__ = ("_connector", "_identity", "_link", "_loop", "_node", "closed")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connector: JoinedConnector, node: Node, link: Link
    ) -> None:
        self._loop = loop
        self._connector = connector
        self._node = node
        self._link = link
        self._identity = b"i" + link.session.to_bytes(8, "big")
        self.closed = False

    def send(self, frame: bytes) -> bool:
        """To the node, which answers with a tick. A fault in the node is not the client's: it ends the
        process."""
        try:
            self._node.front_frame(self._identity, frame, self._deliver, self._pass_on)
        except Exception as error:
            _fault_in_node(self._loop, error)
        return True

    def unfinished(self) -> int:
        return 0

    def _deliver(self, parts: list[bytes]) -> bool:
        if self.closed:
            return False
        self._link.frame(parts[1], self._loop.time())
        self._connector.answered()
        return True

    def _pass_on(self, rid: int, status: int, parts: list[bytes]) -> None:
        if not self.closed:
            self._link.pieces(rid, status, parts)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.call_soon(self._node.front_gone, self._identity)


class NearNode:
    """The node of this process, for reads that need no frame."""

    __slots__ = ("_guard", "_node", "_reads", "_store", "generation", "get", "v2_file")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._store = node.store
        self._guard = node.guard
        self._reads = node.reads
        self.generation = 0
        self.get = node.serve.ranges.get
        self.v2_file = node.serve.v2.file

    @property
    def revision(self) -> int:
        self._catch_up()
        return self._store.revision

    @property
    def order_index(self) -> int:
        self._catch_up()
        return self._node.order_index

    @property
    def guarded(self) -> bool:
        """Whether reads are judged, or a front and this node go by other tables: then they go by a frame."""
        return self._guard.state.enabled or self.generation != self._reads.generation

    def _catch_up(self) -> None:
        """Apply what is due. Its faults are the process's, not those of the request that asks."""
        try:
            self._node.catch_up()
        except Exception as error:
            _fault_in_node(self._node.loop, error)


class JoinedConnector(Connector):
    """Links to the node of this process by a call, to all others as at any front."""

    def __init__(self, node: Node, machine: Machine, common: Common) -> None:
        super().__init__(machine, common)
        self._node = node
        # writes the clients' answers in this turn, not the next
        self.answered: Callable[[], None] = _nothing

    def __call__(self, receiver: Receiver, shard: int, member_id: int) -> Link | None:
        if (shard, member_id) != (self._node.settings.shard, self._common.member_id):
            return super().__call__(receiver, shard, member_id)
        link = Link(receiver, shard, member_id, self._new_session(), b"")
        link.seen_at = self._loop.time()
        link.attach(InProcessTransport(self._loop, self, self._node, link))
        link.near = NearNode(self._node)
        self._loop.call_soon(self._greet_open, link)
        return link

    def _greet_open(self, link: Link) -> None:
        if not link.closed:
            self._greet(link)


def _fault_in_node(loop: asyncio.AbstractEventLoop, error: Exception) -> None:
    """End the process. ``handle`` marks an OSError as no client's, see :func:`crash_handler`."""
    loop.call_exception_handler({"message": "a fault in the node", "exception": error, "handle": None})


def _nothing() -> None:
    """Before there are clients."""


def make_front(node: Node, settings: FrontSettings, machine: Machine) -> Front:
    """A front that talks to this node by calls."""
    made: list[JoinedConnector] = []

    def connector(*given: Any) -> JoinedConnector:
        made.append(JoinedConnector(node, *given))
        return made[0]

    front = Front(settings, machine, connector)
    made[0].answered = front.server.flush
    return front


async def _run(node_settings: NodeSettings, front_settings: FrontSettings, place: Place) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    draining = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, draining.set)  # from the supervisor: only the front ends yet
    of_node, of_front = parts(StatusPipe(node_settings.common.status_fd), 2)
    loop.set_exception_handler(node_crash(node_settings.shard, of_node, clients=True))
    common = node_settings.common
    node = sealed_node(node_settings, NodesMachine(loop, common, of_node))
    node.fatal.add_done_callback(lambda _: stopping.set())
    stopping_or_draining = (asyncio.ensure_future(stopping.wait()), asyncio.ensure_future(draining.wait()))
    machine = RealMachine(loop, common, of_front)
    front = make_front(node, front_settings, machine)
    node.start()
    node.peers.round_trips.start()
    starting = asyncio.ensure_future(front.start())  # which may compare data first
    await asyncio.wait((starting, *stopping_or_draining), return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
    else:
        starting.cancel()
    turns.watch(loop)
    place.keep(loop)
    settle_memory()
    give_back_freed(loop, locked=common.memory_mlock)
    await asyncio.wait(stopping_or_draining, return_when=asyncio.FIRST_COMPLETED)
    if node.roster.left or not node.fatal.done():  # the client that removed this host is still to be answered
        await front.stop()
        of_front.say("drained")
        await stopping.wait()
    await end(node)
    return 0


def main() -> int:
    of_node, of_front = take(2)
    node_settings, front_settings = loads(NodeSettings, of_node), loads(FrontSettings, of_front)
    common = node_settings.common
    logs.configure("muster/node", common.log_level, common.log_format, common.log_outputs, host=common.name,
                   process=f"node-{node_settings.shard}+front")
    place = Place(common.cpu, lets_go=common.cpu_lets_go)
    short_slices()
    hold_memory(common, log)
    return guarded(node_settings, _run(node_settings, front_settings, place))


if __name__ == "__main__":
    end_process(main())
