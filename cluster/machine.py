"""What a node or a front needs of its machine: time, randomness, links, threads, the operator.

The real machine is ``tools.muster.machine.real``; the simulator's is ``tests/sim/world/order_machine.py``. So
``node/`` and ``proxy/`` import no socket, and a whole cluster runs in one process under a virtual clock. Both
have the process's event loop besides: ``node.machine``, ``proxy.machine``. A node's machine opens disks, too.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Protocol

from cluster.histogram import Histogram

if TYPE_CHECKING:
    from cluster.settings import Tracing

Receive = Callable[[list[bytes]], None]


class StatusSink(Protocol):
    def say(self, event: str, **facts: Any) -> None:
        """One line: ``ready``, ``leader``, ``fatal`` or ``drained``, with facts."""


class Randomness(Protocol):
    def random(self) -> float: ...  # in [0, 1)
    def getrandbits(self, k: int, /) -> int: ...


class Turns(Protocol):
    late: Histogram  # looks, by how late they were
    longest_s: float
    long: int  # turns of more than 20 ms


class Traffic(Protocol):
    sent: int
    received: int


class FrameSocket(Protocol):
    """One end of message links. A dialler has one link; a listener has many, and names them by identity."""

    dropped: int  # frames not sent because the other side's queue was full or its link gone
    trouble: str  # of a dialler: why it has no link; "" while it has one, or nothing is known

    def send(self, parts: list[bytes]) -> bool:
        """Send without waiting; False if the frame was dropped. A listener puts the identity first."""

    def stands(self) -> bool:
        """Whether a dialler has a link, as far as this side knows."""

    def unfinished(self) -> int:
        """Of a dialler: bytes of a frame that has not all come. A large one takes its time."""

    def hint(self) -> str:
        """What an operator may look at while there is ``trouble``; empty if that is not known."""

    def trust(self, identity: bytes) -> None:
        """Of a listener: this peer has said what it is."""

    def drop(self, identity: bytes, reason: str) -> None:
        """End this link. A dialler, which needs no identity, makes another one."""

    def address(self, identity: bytes) -> str:
        """Of a listener: where this link comes from, ``host:port``; empty if that is not known."""

    def close(self) -> None: ...


class Syncs(Protocol):
    """Syncs a log on request and reports up to which sequence number everything is on disk."""

    unserved: bool  # the loop's owner says that no client waits
    took: Histogram

    @property
    def busy(self) -> bool: ...  # a sync is under way beside the loop

    def request(self, sequence: int, *, quiet: bool) -> bool:
        """Sync what is written. True: done. False: the report follows. ``quiet``: little else goes on."""

    def again(self) -> None:
        """Sync once more, beside the loop, unless a sync is under way."""

    def close(self) -> None: ...


class Span(Protocol):
    def received(self, size_bytes: int) -> None: ...
    def sent(self, size_bytes: int) -> None: ...
    def end(self, status: int, message: str) -> None: ...  # with gRPC's status


class Tracer(Protocol):
    """Makes spans of calls, and sends them to a collector, beside the loop."""

    def begin(self, path: bytes, field: Callable[[bytes], bytes], peer: str) -> Span | None:
        """The span of a call to ``/package.Service/Method`` by ``peer`` (``host:port``), a child of that in
        the call's fields. None: it is not sampled."""

    async def close(self) -> None:
        pass


class Machine(Protocol):
    """The machine as one process of muster sees it. Times are in seconds unless the name says otherwise."""

    @property
    def status(self) -> StatusSink: ...
    @property
    def random(self) -> Randomness: ...
    @property
    def turns(self) -> Turns: ...
    @property
    def traffic(self) -> Traffic: ...

    def monotonic(self) -> float: ...
    def now_ms(self) -> int: ...  # the same: the only clock that the protocols see
    def wall_time(self) -> float: ...  # since 1970; it jumps, and nothing but names may depend on it
    def perf_counter(self) -> float: ...  # a fine clock, for how long a slice of work may take
    def random_bytes(self, size: int) -> bytes: ...

    def listen(
        self, endpoint: str, receive: Receive, *, keyed: bool, hwm: int, silence_s: float = 0.0,
        strangers: bool = False, gone: Callable[[bytes], None] | None = None,
    ) -> FrameSocket:
        """Take links at ``ipc://PATH`` or ``tcp://HOST:PORT``, or what is handed on at ``handed://PATH``.
        ``keyed``: from holders of the cluster's key, where it has one. ``hwm``: messages kept for a side that
        does not read. ``silence_s``: how long a link may be silent (0: for ever). ``strangers``: a peer is
        one until :meth:`FrameSocket.trust`. ``gone(identity)``: a link has ended."""

    def dial(
        self, endpoint: str, identity: bytes, receive: Receive, *, shard: int | None, hwm: int,
        silence_s: float = 0.0, opened: Callable[[], None] | None = None,
        lost: Callable[[str], None] | None = None,
    ) -> FrameSocket:
        """Make a link, again and again; with ``lost`` once. ``shard``: of another host, whose peer port is
        dialled for that shard's node; None: the endpoint is a node's of this host. ``opened``: it stands.
        ``lost(reason)``: it ended, or could not be made. Nothing is kept for a side that is not there."""

    def thread(self, name: str) -> Executor:
        """One thread for long work; its owner shuts it down."""

    def syncs(self, sync: Callable[[], None], done: Callable[[int], None]) -> Syncs:
        """For a log: ``done(sequence)`` is called on the loop."""

    def poller(self) -> Callable[[int], list[tuple[int, int]]] | None:
        """Whether anything waits for the loop, without sleeping (``poll(0)``); None where that is unknown."""

    def tracer(self, settings: Tracing) -> Tracer: ...
    def client_descriptors(self) -> int: ...  # connections of clients that this process can take
    def resident_bytes(self) -> int: ...
    def cpu_s(self) -> float: ...  # that this process has used

    def cpus_scarce(self) -> bool:
        """Whether the loop often waits for a CPU (``cluster.pacing.scarcity``)."""
