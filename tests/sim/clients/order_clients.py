"""Clients: one request at a time each, of every kind; they remember what they asked and what they were
told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from cluster.grain import Grain
from cluster.pb import rpc_pb2 as pb
from proxy.grpc.calls import BACKLOG_BYTES
from proxy.grpc.wire import split_messages
from tests.sim.clients.order_streams import Stream, Watch, WatchClients

if TYPE_CHECKING:
    from tests.sim.world.order_host import FrontProcess
    from tests.sim.world.order_sim import Simulation

RESPONSES: dict[str, Any] = {
    "Put": pb.PutResponse, "Range": pb.RangeResponse, "DeleteRange": pb.DeleteRangeResponse,
    "Txn": pb.TxnResponse, "Compact": pb.CompactionResponse, "LeaseGrant": pb.LeaseGrantResponse,
    "LeaseRevoke": pb.LeaseRevokeResponse, "LeaseKeepAlive": pb.LeaseKeepAliveResponse,
    "LeaseTimeToLive": pb.LeaseTimeToLiveResponse, "LeaseLeases": pb.LeaseLeasesResponse,
    "HashKV": pb.HashKVResponse,
}
WRITES = frozenset(("Put", "DeleteRange", "Txn", "LeaseRevoke", "LeaseGrant", "Compact"))
_SURE = (  # errors that say for certain that nothing was logged, besides those that an evaluation gave
    "etcdserver: too many requests", "context deadline exceeded", "etcdserver: no leader",
    "etcdserver: rpc not supported for learner")
_OPEN = ("etcdserver: request timed out", "etcdserver: server stopped", "context canceled", "the front died",
         "its client gave up")


@dataclass(eq=False)
class Operation:
    """One request. Times are the world's."""

    number: int
    method: str
    request: Any
    front: int
    asked_at: float
    low: int  # the highest revision that any client had been shown by then
    answered_at: float = 0.0
    response: Any = None
    error: str | None = None
    low_here: int = 0  # the highest revision that this front had shown to anybody by then
    alive_until: float = 0.0  # so long its lease was promised to live by then

    @property
    def ok(self) -> bool:
        return self.response is not None

    @property
    def open(self) -> bool:
        """Nobody knows what became of it."""
        return self.response is None and (self.error is None or self.error.startswith(_OPEN))

    @property
    def refused(self) -> bool:
        """A verdict of the store."""
        return self.error is not None and not self.open and not self.error.startswith(_SURE)

    def __repr__(self) -> str:
        said = self.error if self.response is None else str(self.response).replace("\n", " ")
        return (f"#{self.number} {self.method}({str(self.request).strip()!r}) by front {self.front} at "
                f"{self.asked_at:.4f}, answered {self.answered_at:.4f}: {said}")


class Call:
    """``proxy.grpc.calls.Call`` as handlers use it."""

    def __init__(self, told: Callable[[bytes], None], ended: Callable[[int, str], None]) -> None:
        self.metadata: dict[bytes, bytes] = {}
        self.deadline: float | None = None
        self.closed = False
        self.gone = False  # the client has closed it: what the front says then goes nowhere
        self.context: Any = None
        self.principal: Any = None
        self.on_drain: Callable[[], None] | None = None
        self.unread = 0
        self.reads = True
        self.connection: object = self
        self.room_to_gather = self.takes = self.large_answers = True
        self.progress = self.gathered = 0
        self.beyond_all_room = False
        self._told = told
        self._ended = ended

    def costs(self, units: int) -> None:
        """Connections have no turns here."""

    def reply(self, *parts: bytes) -> None:
        assert self.gone or not self.closed, "I23: answered twice"
        self.closed = True
        if not self.gone:
            self._told(b"".join(parts))
            self._ended(0, "")

    def send(self, *parts: bytes) -> None:
        if not self.closed:
            data = b"".join(parts)
            if not self.reads:
                self.unread += len(data)
            self._told(data)

    def send_framed(self, data: bytes) -> None:
        for message in split_messages(bytearray(data), 1 << 30):
            self.send(message)

    def finish(self, status: int = 0, message: str = "") -> None:
        assert self.gone or not self.closed, "I23: answered twice"
        self.closed = True
        if not self.gone:
            self._ended(status, message)

    def pending_bytes(self) -> int:
        return self.unread

    def field(self, name: bytes) -> bytes:
        return self.metadata.get(name, b"")

    def gather(self, size: int) -> None:
        """It has room for everything."""
        self.gathered += size
        assert self.gathered >= 0, "more is let go than has come"

    def pause(self) -> None: ...

    def read_on(self) -> None: ...

    def backlog_bytes(self) -> int:
        return BACKLOG_BYTES

    def read_all(self) -> None:
        self.reads, self.unread = True, 0
        if self.on_drain is not None:
            self.on_drain()


class Clients:
    """All clients of a simulation."""

    def __init__(self, simulation: Simulation, count: int, think_s: float, mix: dict[str, int]) -> None:
        self.simulation = simulation
        self.random = Random(f"{simulation.seed}/clients")
        self.operations: list[Operation] = []
        self.left: list[Operation] = []  # of a run before this: nobody was answered, and they may yet be done
        self._earlier = 0  # requests of that run
        self.watching = WatchClients(self)
        self.shown = 1  # the highest revision that any client was shown
        self.waiting: dict[int, tuple[Operation, Call, FrontProcess]] = {}
        self.stopped = False
        self.patience = simulation.plan.patience
        self._think_s = think_s
        self._names = [name for name, weight in mix.items() for _ in range(weight)]
        self._leases: list[int] = []
        self._compacted = 0
        self.alive_until: dict[int, float] = {}  # lease -> promised to live until then
        self.promises: dict[int, list[tuple[Operation, float]]] = {}  # lease -> by whom, until when
        for _ in range(count):
            self._later()

    def go_on(self, before: Clients, left: list[Operation]) -> None:
        """After another run of the same store. Numbers go on, so that each value stays one request's."""
        self._earlier, self.left = len(before.operations), left

    @property
    def _asked(self) -> int:
        return self._earlier + len(self.operations)

    def _later(self) -> None:
        self.simulation.at(self.random.expovariate(1 / self._think_s), None, self._next)

    def _next(self) -> None:
        if self.stopped:
            return
        r = self.random
        fronts = [f for f in self.simulation.fronts.values() if f.alive and not f.paused]
        if not fronts:
            self._later()
            return
        front = r.choice(fronts)
        name = r.choice(self._names)
        if name == "watch":
            self.watching.open(front)
            self._later()
            return
        if name == "progress":
            self.watching.ask()
            self._later()
            return
        method, request = getattr(self, f"_{name}")()
        self.ask(front, method, request)

    # -- requests

    def _key(self) -> bytes:
        return self.random.choice(self.simulation.keys)

    def _value(self) -> bytes:
        return b"v%d" % (self._asked + 1)

    def span(self, r: Random | None = None) -> tuple[bytes, bytes]:
        """A key, a directory, everything, or something in between."""
        r, keys = r or self.random, self.simulation.keys
        what = r.random()
        if what < 0.4:
            return r.choice(keys), b""
        if what < 0.65:
            prefix = r.choice(keys).rpartition(b"/")[0]
            return prefix + b"/", prefix + b"0"
        if what < 0.85:
            return b"\0", b"\0"
        a, b = sorted(r.sample(keys, 2))
        return a, b

    def _lease(self) -> int:
        if self._leases and self.random.random() < 0.9:
            return self.random.choice(self._leases[-4:])
        return 9999

    def old(self, r: Random | None = None) -> int:
        """A revision of the past, sometimes of the future."""
        return max(1, self.shown + (r or self.random).choice((-40, -10, -5, -2, -1, 0, 0, 1)))

    def _put(self) -> tuple[str, Any]:
        r = self.random
        request = pb.PutRequest(key=self._key(), value=self._value())
        what = r.random()
        if what < 0.15:
            request.prev_kv = True
        elif what < 0.25:
            request.ignore_lease = True
        elif what < 0.3:
            request.ignore_value = True
            request.value = b""
        return "Put", request

    def _lease_put(self) -> tuple[str, Any]:
        return "Put", pb.PutRequest(key=self._key(), value=self._value(), lease=self._lease())

    def _delete(self) -> tuple[str, Any]:
        key, end = self.span()
        if end == b"\0" and self.random.random() < 0.5:
            end = b""
            key = self._key()
        return "DeleteRange", pb.DeleteRangeRequest(
            key=key, range_end=end, prev_kv=self.random.random() < 0.3
        )

    def _range(self) -> tuple[str, Any]:
        r = self.random
        key, end = self.span()
        request = pb.RangeRequest(key=key, range_end=end)
        if r.random() < 0.2:
            request.revision = self.old()
        if r.random() < 0.1:
            request.limit = r.randint(1, 3)
        if r.random() < 0.1:
            request.count_only = True
        return "Range", request

    def _serializable(self) -> tuple[str, Any]:
        key, end = self.span()
        return "Range", pb.RangeRequest(key=key, range_end=end, serializable=True)

    def _compare(self, key: bytes, end: bytes = b"") -> Any:
        r = self.random
        compare = pb.Compare(
            key=key, range_end=end, result=r.choice((0, 0, 1, 2, 3)), target=r.choice((0, 1, 2, 2, 3))
        )
        if compare.target == 0:
            compare.version = r.randint(0, 3)
        elif compare.target == 1:
            compare.create_revision = r.choice((0, self.old()))
        elif compare.target == 2:
            compare.mod_revision = r.choice((0, self.old(), self.shown + 1, self.shown + r.randint(2, 4)))
        else:
            compare.value = b"v%d" % max(1, self._asked - r.randint(0, 20))
        return compare

    def _operation(self, key: bytes, used: set[bytes]) -> Any | None:
        r = self.random
        op = pb.RequestOp()
        what = r.random()
        if what < 0.55:
            if key in used:
                return None
            used.add(key)
            op.request_put.key, op.request_put.value = key, self._value() + b"." + str(len(used)).encode()
            if r.random() < 0.15:
                op.request_put.lease = self._lease()
            op.request_put.prev_kv = r.random() < 0.2
        elif what < 0.75:
            if key in used:
                return None
            used.add(key)
            op.request_delete_range.key = key
            op.request_delete_range.prev_kv = r.random() < 0.3
            if (
                self.simulation.plan.many < Grain().many_keys and r.random() < 0.5
            ):  # a put in it: refused as etcd refuses it
                op.request_delete_range.key, op.request_delete_range.range_end = self.span()
        else:
            span = self.span() if r.random() < 0.4 else (key, b"")
            op.request_range.key, op.request_range.range_end = span
            if r.random() < 0.15:
                op.request_range.revision = self.old()
        return op

    def _transaction(self, keys: list[bytes]) -> tuple[str, Any]:
        r = self.random
        request = pb.TxnRequest()
        for _ in range(r.choice((0, 1, 1, 2))):
            request.compare.append(self._compare(r.choice(keys)))
        if self.simulation.plan.turn_rows < Grain().turn_rows:
            for _ in range(r.choice((0, 1, 2))):
                request.compare.append(
                    self._compare(min(keys), max(keys)) if r.random() < 0.7 else self._compare(*self.span())
                )
        for ops in (request.success, request.failure):
            used: set[bytes] = set()
            for _ in range(r.choice((0, 1, 2, 3)) if ops is request.failure else r.choice((1, 2, 3))):
                op = self._operation(r.choice(keys), used)
                if op is not None:
                    ops.append(op)
        return "Txn", request

    def _txn(self) -> tuple[str, Any]:
        """In one directory, so in one shard."""
        prefix = self._key().rpartition(b"/")[0]
        return self._transaction([k for k in self.simulation.keys if k.startswith(prefix + b"/")])

    def _wide(self) -> tuple[str, Any]:
        return self._transaction(self.simulation.keys)

    def _transfer(self) -> tuple[str, Any]:
        """Two keys, both compared with nothing, both written: the shape of a bank's transfer."""
        a, b = self.random.sample(self.simulation.keys, 2)
        request = pb.TxnRequest(compare=[self._compare(a)])
        for at, key in enumerate((a, b)):
            request.success.add().request_put.CopyFrom(
                pb.PutRequest(key=key, value=self._value() + b".%d" % at)
            )
            request.failure.add().request_range.CopyFrom(pb.RangeRequest(key=key))
        return "Txn", request

    def _grant(self) -> tuple[str, Any]:
        number = len(self.operations) + 10_000
        if self.simulation.plan.lease_ids:
            number = 10_000 + self.random.randrange(self.simulation.plan.lease_ids)
        return "LeaseGrant", pb.LeaseGrantRequest(TTL=self.random.choice((1, 2, 3, 60)), ID=number)

    def _revoke(self) -> tuple[str, Any]:
        return "LeaseRevoke", pb.LeaseRevokeRequest(ID=self._lease())

    def _keep(self) -> tuple[str, Any]:
        return "LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=self._lease())

    def _ttl(self) -> tuple[str, Any]:
        return "LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=self._lease(), keys=True)

    def _list(self) -> tuple[str, Any]:
        return "LeaseLeases", pb.LeaseLeasesRequest()

    def _hash(self) -> tuple[str, Any]:
        return "HashKV", pb.HashKVRequest(revision=self.random.choice((0, self.old())))

    def _compact(self) -> tuple[str, Any]:
        return "Compact", pb.CompactionRequest(revision=max(1, self.shown - self.random.randint(0, 40)))

    def _compact_away(self) -> tuple[str, Any]:
        method, request = self._compact()
        request.physical = True
        return method, request

    # -- asking

    @property
    def watches(self) -> list[Watch]:
        """All watches that were ever asked for."""
        return self.watching.watches

    @staticmethod
    def call(told: Callable[[bytes], None], ended: Callable[[int, str], None]) -> Call:
        """A call of a client."""
        return Call(told, ended)

    def ask(self, front: FrontProcess, method: str, request: Any) -> Operation:
        """Send a request and remember what becomes of it."""
        simulation = self.simulation
        operation = Operation(
            self._asked + 1, method, request, front.host, simulation.now, self.shown,
            low_here=front.shown,
        )
        if method == "LeaseTimeToLive":
            operation.alive_until = self.alive_until.get(request.ID, 0.0)
        self.operations.append(operation)
        answers: list[bytes] = []

        def ended(status: int, message: str) -> None:
            if operation.number not in self.waiting:
                return
            del self.waiting[operation.number]
            operation.answered_at = simulation.now
            if status == 0 and answers:
                operation.response = RESPONSES[method].FromString(answers[0])
                self._learn(operation, front)
            else:
                operation.error = message or "no answer"
            self._later()

        call = Call(lambda data: answers.append(data) if data else None, ended)
        self.dress(operation, call, front)
        self.waiting[operation.number] = operation, call, front

        def start() -> None:
            handler = front.handlers[method]
            data = request.SerializeToString()
            if callable(handler):
                handler(call, data)
            else:
                handler.opened(call)
                handler.message(call, data)
                handler.half_closed(call)

        def give_up() -> None:
            if operation.number in self.waiting:
                call.closed = call.gone = True
                ended(4, "its client gave up")

        # through the client's connection to its front
        simulation.at(0.0001, front, start)
        if self.random.random() >= self.patience:  # the others show whether everything is answered
            simulation.at(self.random.uniform(0.3, 1.5), None, give_up)
        return operation

    def dress(self, operation: Operation, call: Call, front: FrontProcess) -> None:
        """Before a request leaves: who asks (``order_users``)."""

    def dress_watches(self, stream: Stream) -> None:
        """The same of a stream of watches."""

    def front_died(self, front: FrontProcess) -> None:
        """Its clients' connections broke."""
        for _, call, through in list(self.waiting.values()):
            if through is front:
                call.closed = call.gone = True
                call._ended(14, "the front died")
        self.watching.front_died(front)

    def _learn(self, operation: Operation, front: FrontProcess) -> None:
        response = operation.response
        self.simulation.checker.told(operation)
        self.shown = max(self.shown, response.header.revision)
        front.shown = max(front.shown, response.header.revision)
        front.told = max(front.told, response.header.revision)
        promised = 0
        if operation.method == "LeaseGrant":
            self._leases.append(response.ID)
            promised = response.TTL
        elif operation.method == "LeaseKeepAlive":
            promised = response.TTL
        if promised > 0:
            # H7: the lease lives so long from the moment the request was made, at the least
            # its clock may be the fastest
            until = operation.asked_at + promised / (1 + self.simulation.plan.drift)
            self.alive_until[response.ID] = max(until, self.alive_until.get(response.ID, 0.0))
            self.promises.setdefault(response.ID, []).append((operation, until))
