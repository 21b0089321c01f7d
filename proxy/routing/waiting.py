"""A request on its way, and the counters of its method: the records that the router and the services share;
and what the router asks of those around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from cluster import errors
from cluster.faults import HANDLER_MISTAKES, faults
from cluster.wire.messages import READ, Method

if TYPE_CHECKING:
    from proxy.routing.links import Link

WRITE, ASK, READ_ANY = 0, 1, 2  # routes: to the leader and never again (I23); to the leader; to a replica
SERIALIZABLE = READ.pack(0, 0)  # what stands before a read of a replica as far as that is


class MethodStats:
    """What has become of one gRPC method's calls: plain integers, read by /metrics."""

    __slots__ = ("codes", "ok", "received", "sent", "started")

    def __init__(self) -> None:
        self.started = 0
        self.ok = 0
        self.codes: dict[int, int] = {}  # gRPC code -> calls, other than OK
        self.received = 0  # messages of streams; unary calls count theirs by started and ok
        self.sent = 0

    def failed(self, code: int) -> None:
        """A call ended with an error."""
        self.codes[code] = self.codes.get(code, 0) + 1


class Waiting:
    """One request between its client and a node.

    ``then(waiting, status, body)`` takes the answers if it is set: PARTIAL ones first, then OK or ERROR last
    (ERROR also stands for UNKNOWN, for time limits and lost links; ``body`` is an encoded EtcdError). Without
    it the answer is spliced into ``call``.
    """

    __slots__ = (
        "began", "body", "call", "context", "key", "limit_s", "method", "pieces", "prefix", "rid", "route",
        "shard", "started", "stats", "then",
    )

    def __init__(
        self, call: Any, method: int, body: bytes, shard: int, route: int, started: float, limit_s: float,
        stats: MethodStats, then: Callable[[Waiting, int, bytes], None] | None = None, context: Any = None,
        prefix: bytes = b"",
    ) -> None:
        self.call = call  # proxy.grpc.calls.Call, or None
        self.method = method
        self.body = body
        self.shard = shard
        self.route = route
        self.started = self.began = started
        self.limit_s = limit_s
        self.stats = stats
        self.then = then
        self.context = context
        self.prefix = prefix  # READ of a replica's read
        self.key: bytes | None = None  # of a read of one key's newest version and nothing else
        self.pieces: list[bytes] | None = None
        self.rid = 0  # it was sent under, at a link; 0: not yet, or certainly not logged there (I23)

    @property
    def client(self) -> Any:
        """The call behind it, or None."""
        return self.call

    def tell(self, status: int, body: bytes) -> None:
        """Who waits takes an answer, by ``then``. A fault of this program in doing so ends that call alone:
        the link that brought the answer is everybody's."""
        assert self.then is not None
        try:
            self.then(self, status, body)
        except HANDLER_MISTAKES as error:
            faults.met(f"answering {Method(self.method).name}", error)
            client = self.client
            if client is not None and not client.closed:
                self.stats.failed(errors.INTERNAL_FAULT.code)
                client.finish(errors.INTERNAL_FAULT.code, errors.INTERNAL_FAULT.text)

    def waited(self, now: float) -> None:
        """It is sent only now: its time limit stays the one it came with. What is left of it goes along, and
        is all that the node may take, whose client has been told then that the outcome is unknown."""
        self.limit_s = max(self.limit_s - (now - self.started), 0.001)
        self.started = now


class PartWaiting(Waiting):
    """A request that a front makes for a part of a client's; the client does not wait for this one by
    itself."""

    __slots__ = ("_client",)

    def __init__(self, client: Any, *args: Any) -> None:
        super().__init__(None, *args)
        self._client = client

    @property
    def client(self) -> Any:
        return self._client


class Loop(Protocol):
    """What the router needs of the event loop."""

    def time(self) -> float: ...
    def call_soon(self, callback: Callable[[], object]) -> object: ...
    def call_later(self, delay_s: float, callback: Callable[[], object]) -> object: ...


class Subscriber(Protocol):
    """The watch hub, as the router feeds it."""

    def link_up(self, link: Link) -> None: ...
    def link_down(self, link: Link) -> None: ...
    def record(self, link: Link, rid: int, status: int, body: bytes) -> None: ...
    def watermark(self, link: Link) -> None: ...
    def tick(self, now: float) -> None: ...
