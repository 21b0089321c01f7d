"""What a node or a front needs of the machine that it runs on.

Time, randomness, links, threads and lines to the operator enter by this one protocol. The real machine is
``tools.muster.machine.real``; the simulator's is ``tests/sim/world/order_machine.py``. So ``node/`` and
``proxy/`` import no socket, and a whole cluster runs in one Python process under a virtual clock without a
name being replaced.

Both have the process's event loop besides, which nothing in ``cluster/`` may know: ``node.machine``,
``proxy.machine``. A node's machine opens disks, too.
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
    """Where a part of a process says how it is: the supervisor, in the end."""

    def say(self, event: str, **facts: Any) -> None:
        """One line: ``ready``, ``leader``, ``fatal`` or ``drained``, with facts."""


class Randomness(Protocol):
    """Random numbers that nobody outside can foresee."""

    def random(self) -> float:
        """At least 0, below 1."""

    def getrandbits(self, k: int, /) -> int:
        """So many random bits."""


class Turns(Protocol):
    """How long turns of the process's event loop take."""

    late: Histogram  # looks, by how late they were
    longest_s: float
    long: int  # turns of more than 20 ms


class Traffic(Protocol):
    """Messages of all links of the process."""

    sent: int
    received: int


class FrameSocket(Protocol):
    """One end of message links. A dialler has one link; a listener has many, and names them by identity."""

    dropped: int  # frames not sent because the other side's queue was full or its link gone
    trouble: str  # of a dialler: why it has no link; "" while it has one, or nothing is known

    def send(self, parts: list[bytes]) -> bool:
        """Send without waiting; False if the frame was dropped. A listener names the other side's identity
        first."""

    def stands(self) -> bool:
        """Whether a dialler has a link, as far as this side knows."""

    def hint(self) -> str:
        """What an operator may look at while there is ``trouble``; empty if that is not known."""

    def trust(self, identity: bytes) -> None:
        """Of a listener: who connected under this identity has said who it is."""

    def drop(self, identity: bytes, reason: str) -> None:
        """Of a listener: end this link, if it is no key holder's."""

    def address(self, identity: bytes) -> str:
        """Of a listener: where this link comes from, ``host:port``; empty if that is not known."""

    def close(self) -> None:
        """Close at once; what was not sent is dropped."""


class Syncs(Protocol):
    """Syncs a log on request and reports up to which sequence number everything is on disk."""

    unserved: bool  # nobody waits for this loop, as its owner says
    took: Histogram

    @property
    def busy(self) -> bool:
        """Whether a sync is under way beside the loop."""

    def request(self, sequence: int, *, quiet: bool) -> bool:
        """Sync what is written by now. True: it is done. False: the report follows. ``quiet``: little else
        goes on."""

    def close(self) -> None:
        """End after the sync that is under way."""


class Span(Protocol):
    """What is told of one call to a collector of traces."""

    def received(self, size_bytes: int) -> None:
        """A request has come."""

    def sent(self, size_bytes: int) -> None:
        """An answer goes."""

    def end(self, status: int, message: str) -> None:
        """The call has ended, with gRPC's status."""


class Tracer(Protocol):
    """Makes spans of calls, and sends them to a collector, beside the loop."""

    def begin(self, path: bytes, field: Callable[[bytes], bytes], peer: str) -> Span | None:
        """The span of a call to ``/package.Service/Method`` by ``peer`` (``host:port``), a child of the one
        that the call's fields name. None: it is not sampled."""

    async def close(self) -> None:
        """Send what is left, for a moment."""


class Machine(Protocol):
    """The machine as one process of muster sees it."""

    @property
    def status(self) -> StatusSink:
        """Where this process says how it is."""

    @property
    def random(self) -> Randomness:
        """Random numbers."""

    @property
    def turns(self) -> Turns:
        """How long the loop's turns take."""

    @property
    def traffic(self) -> Traffic:
        """What went over this process's links."""

    # -- clocks, in seconds unless the name says otherwise

    def monotonic(self) -> float:
        """A clock that never goes back."""

    def now_ms(self) -> int:
        """The same in whole milliseconds: the only clock that the protocols see."""

    def wall_time(self) -> float:
        """Since 1970. It jumps; nothing but names may hang on it."""

    def perf_counter(self) -> float:
        """A fine clock, for how long a slice of work may take."""

    def random_bytes(self, size: int) -> bytes:
        """So many random bytes."""

    # -- links

    def listen(
        self,
        endpoint: str,
        receive: Receive,
        *,
        keyed: bool,
        hwm: int,
        silence_s: float = 0.0,
        strangers: bool = False,
        gone: Callable[[bytes], None] | None = None,
    ) -> FrameSocket:
        """Take links at ``ipc://PATH`` or ``tcp://HOST:PORT``. ``keyed``: from holders of the cluster's key,
        where it has one. ``hwm``: messages kept for a side that does not read. ``silence_s``: so long nothing
        may pass on a link (0: for ever). ``strangers``: whoever connects is one until
        :meth:`FrameSocket.trust`. ``gone(identity)``: a link has ended."""

    def dial(
        self,
        endpoint: str,
        identity: bytes,
        receive: Receive,
        *,
        keyed: bool,
        hwm: int,
        silence_s: float = 0.0,
        opened: Callable[[], None] | None = None,
        lost: Callable[[str], None] | None = None,
        redials: bool = True,
    ) -> FrameSocket:
        """Make a link, again and again; without ``redials`` once. ``opened``: it stands. ``lost(reason)``: it
        stands no more, or does not come about. Nothing is kept for a side that is not there."""

    # -- threads

    def thread(self, name: str) -> Executor:
        """One thread for long work; its owner shuts it down."""

    def syncs(self, sync: Callable[[], None], done: Callable[[int], None]) -> Syncs:
        """What syncs a log: ``done(sequence)`` is called on the loop."""

    def poller(self) -> Callable[[int], list[tuple[int, int]]] | None:
        """Looks whether anything waits for the loop, without sleeping (``poll(0)``); None where that cannot
        be told."""

    # -- the process

    def tracer(self, settings: Tracing) -> Tracer:
        """Sends spans to a collector."""

    def client_descriptors(self) -> int:
        """How many connections of clients this process can take."""

    def resident_bytes(self) -> int:
        """What this process has in memory."""

    def cpu_s(self) -> float:
        """The CPU time that this process has used."""

    def close(self) -> None:
        """Give back what links need besides their sockets; all of those are closed by now."""
