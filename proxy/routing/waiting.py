"""A request on its way, and the counters of its method: records that the router and the services share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from cluster import errors
from cluster.errors import ErrorKind
from cluster.faults import HANDLER_MISTAKES, faults
from cluster.wire.messages import READ, Method, Status

WRITE, ASK, READ_ANY = 0, 1, 2  # routes: to the leader and never again (I23); to the leader; to a replica
# what an answer may be, as it is compared in hot paths
OK, PARTIAL, MOVED = map(int, (Status.OK, Status.PARTIAL, Status.MOVED))
SERIALIZABLE = READ.pack(0, 0)  # what stands before a read of a replica as far as that is


@dataclass(slots=True, eq=False)
class MethodStats:
    """What has become of one gRPC method's calls, for /metrics."""

    started: int = 0
    ok: int = 0
    codes: dict[int, int] = field(default_factory=dict)  # gRPC code -> calls, other than OK
    received: int = 0  # messages of a stream of requests; other calls count theirs by started
    sent: int = 0  # answers of a stream; unary calls count theirs by ok

    def failed(self, code: int) -> None:
        self.codes[code] = self.codes.get(code, 0) + 1


class Waiting:
    """One request between its client and a node.

    ``then(waiting, status, body)``, where it is set, takes the answers: PARTIAL ones first, OK or ERROR last.
    ERROR also stands for UNKNOWN, time limits and lost links; ``body`` is an encoded EtcdError. Without
    ``then`` the answer is spliced into ``call``.
    """

    __slots__ = (
        "began", "body", "call", "context", "key", "limit_s", "method", "pieces", "prefix", "rid", "route",
        "shard", "started", "stats", "then",
    )

    def __init__(self, call: Any, method: int, body: bytes, shard: int, route: int, started: float,
                 limit_s: float, stats: MethodStats) -> None:
        self.call = call  # proxy.grpc.calls.Call, or None
        self.method = method
        self.body = body
        self.shard = shard
        self.route = route
        self.started = self.began = started
        self.limit_s = limit_s
        self.stats = stats
        self.then: Then | None = None
        self.context: Any = None
        self.prefix = b""  # READ of a replica's read
        self.key: bytes | None = None  # of a read of one key's newest version and nothing else
        self.pieces: list[bytes] | None = None
        self.rid = 0  # it was sent under, at a link; 0: not yet, or certainly not logged there (I23)

    def calls(self, then: Then | None, context: Any = None, prefix: bytes = b"") -> Self:
        """Set these three; this request."""
        self.then, self.context, self.prefix = then, context, prefix
        return self

    @property
    def client(self) -> Any:
        return self.call

    @property
    def left(self) -> bool:
        """Its client has gone, or its call has ended otherwise."""
        return self.call is not None and self.call.closed

    def tell(self, status: int, body: bytes) -> None:
        """Hand an answer to ``then``. A fault of this program there ends that call alone: the link serves
        others too."""
        assert self.then is not None
        try:
            self.then(self, status, body)
        except HANDLER_MISTAKES as error:
            faults.met(f"answering {Method(self.method).name}", error)
            client = self.client
            if client is not None and not client.closed:
                self.stats.failed(errors.INTERNAL_FAULT.code)
                client.finish(errors.INTERNAL_FAULT.code, errors.INTERNAL_FAULT.text)

    def begins_anew(self, now: float) -> bool:
        """Whether a question may be asked again, as its link has ended. What has come of a large answer is
        dropped: nothing of it has gone on. It is asked no later than its time limit, for an answer may be
        what ends links. Where ``pieces`` is empty, no other node's answer counts."""
        if self.pieces and now - self.began <= self.limit_s:
            self.pieces, self.started = None, now
        return self.pieces is None

    def waited(self, now: float) -> None:
        """It is sent only now: the node may take what is left of the time limit it came with. After that its
        client has been told that the outcome is unknown."""
        self.limit_s = max(self.limit_s - (now - self.started), 0.001)
        self.started = now


Then = Callable[[Waiting, int, bytes], None]


def why_ended(call: Any, now: float) -> ErrorKind:
    """Of a call that nothing here has ended: its deadline has passed, or its client has gone."""
    late = call.deadline is not None and call.deadline <= now
    return errors.CONTEXT_DEADLINE_EXCEEDED if late else errors.CONTEXT_CANCELED


def ended_with(call: Any, now: float) -> int | None:
    """The code of a call that its handler has not ended; None: nor has anything else."""
    refused: int | None = getattr(call, "refused", None)
    return why_ended(call, now).code if refused is None and call.closed else refused


class PartWaiting(Waiting):
    """A request that a front makes for a part of a client's."""

    __slots__ = ("_client",)

    def __init__(self, client: Any, *args: Any) -> None:
        super().__init__(None, *args)
        self._client = client

    @property
    def client(self) -> Any:
        return self._client

    @property
    def left(self) -> bool:
        return self._client is not None and self._client.closed

    def begins_anew(self, now: float) -> bool:
        """All parts begin again, at one revision (``proxy.spanning.gather``)."""
        return self.pieces is None


class Loop(Protocol):
    def time(self) -> float: ...
    def call_soon(self, callback: Callable[[], object]) -> object: ...
    def call_later(self, delay_s: float, callback: Callable[[], object]) -> object: ...
