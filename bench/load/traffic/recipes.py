"""Software transactional memory and locks, as etcd's ``concurrency`` package has them.

Each operation is a coroutine, at some 20 us of CPU above its requests: these loads measure conflicts between
clients, not how many requests a server takes. By ``muster_client`` they would take three times the CPU
(``docs/design/written-by-hand.tsv``).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

from bench.client import Client, RpcError, Status
from bench.client.client import M, Message
from bench.client.connection import Callback
from bench.load.loops import Caller
from bench.load.spec import Spec
from bench.load.traffic.streams import GRANT, WATCH, revoke
from bench.load.traffic.workloads import RANGE, TXN, key_format, numbers, value_of
from cluster.pb import lock_pb2
from cluster.pb import rpc_pb2 as pb

LOCK = "/v3lockpb.Lock/Lock"
UNLOCK = "/v3lockpb.Lock/Unlock"
DELETE = "/etcdserverpb.KV/DeleteRange"

_SESSION_TTL_S = 3600  # of a run without a duration; revoked at its end
_SPARE_S = 300
_MOST_TRIES = 10_000  # of one optimistic transaction


class _Turns:
    """A caller whose operation is a coroutine; one at a time."""

    def __init__(self, operation: Callable[[], Awaitable[None]]) -> None:
        self._operation = operation
        self._task: asyncio.Task[None] | None = None

    def call(self, path: str, body: bytes, callback: Callback) -> int:
        self._task = asyncio.get_running_loop().create_task(self._run(callback))
        return 1

    def cancel(self, stream_id: int) -> None:
        """Give the operation up; the end of its session releases its lock."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, callback: Callback) -> None:
        try:
            await self._operation()
        except RpcError as error:
            callback(error, b"")
        except TimeoutError:
            callback(RpcError(Status.DEADLINE_EXCEEDED, "no answer within the time limit"), b"")
        else:
            callback(None, b"")


class _Sessions:
    """A lease for each client, as a session of etcd's package has one."""

    def __init__(self, spec: Spec, client: Client) -> None:
        self.extra_us: dict[str, list[int]] = {}
        self._turns: list[_Turns] = []
        self._spec = spec
        self._client = client
        self._leases: list[int] = []

    @property
    def callers(self) -> Sequence[Caller]:
        return self._turns

    async def create(self) -> None:
        raise NotImplementedError

    async def _session(self, place: int) -> int:
        ttl_s = _SPARE_S + round(self._spec.duration_s or _SESSION_TTL_S)
        granted = await self._client.unary(GRANT, pb.LeaseGrantRequest(TTL=ttl_s), pb.LeaseGrantResponse,
                                           connection=place, timeout_s=self._spec.timeout_s)
        self._leases.append(granted.ID)
        return granted.ID

    async def close(self) -> None:
        """Revoke the sessions, and with them the locks they hold."""
        await revoke(self._client, self._leases)


class Stms(_Sessions):
    """Optimistic transactions: read keys, write a part of them, start over after a conflict."""

    async def create(self) -> None:
        for place in range(self._spec.clients):
            mutex = None
            if self._spec.locker != "stm":
                mutex = Mutex(self._client, place, await self._session(place), b"stmlock",
                              rpc=self._spec.locker == "lock-rpc", timeout_s=self._spec.timeout_s)
            self._turns.append(_Turns(_Stm(self._spec, self._client, place, mutex).run))


class _Stm:
    """One client. The four isolations are those of etcd's ``concurrency.NewSTM``, request for request."""

    def __init__(self, spec: Spec, client: Client, place: int, mutex: Mutex | None) -> None:
        self._isolation = spec.isolation
        self._client = client
        self._place = place
        self._mutex = mutex
        self._timeout_s = spec.timeout_s
        self._number, self._key = numbers(spec), key_format(spec)
        self._per_txn = spec.keys_per_txn
        self._writes = spec.keys_per_txn * spec.write_percent // 100
        self._value = value_of(spec)
        self._space = spec.key_space
        self._rng = random.Random(spec.seed * 7919 + place)

    async def run(self) -> None:
        """One operation: to its commit, under the lock if there is one."""
        if self._mutex is None:
            await self._commit()
            return
        await self._mutex.lock()
        try:
            await self._commit()
        finally:
            await self._mutex.unlock()

    async def _commit(self) -> None:
        keys = [self._key(number) for number in self._rng.sample(range(self._space), self._per_txn)]
        known: dict[bytes, tuple[int, int]] = {}  # key -> its revision, the store's when it was read
        for _ in range(_MOST_TRIES):
            reads: dict[bytes, tuple[int, int]] = {}
            first = 0  # the revision that serializable reads are at
            for key in keys:
                found = known.pop(key, None)
                if found is None:
                    get = pb.RequestOp(request_range=pb.RangeRequest(
                        key=key, revision=first, serializable=bool(first)))
                    answer = await self._txn(pb.TxnRequest(success=[get]))
                    kvs = answer.responses[0].response_range.kvs
                    found = kvs[0].mod_revision if kvs else 0, answer.header.revision
                reads[key] = found
                if self._isolation in ("s", "ss"):
                    first = first or found[1]
            written = keys[: self._writes]
            request = pb.TxnRequest(
                success=[pb.RequestOp(request_put=pb.PutRequest(key=key, value=self._value))
                         for key in written],
                failure=[pb.RequestOp(request_range=pb.RangeRequest(key=key)) for key in keys])
            if self._isolation != "c":
                request.compare.extend(
                    pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key, mod_revision=revision)
                    for key, (revision, _) in reads.items())
            if self._isolation == "ss":
                request.compare.extend(
                    pb.Compare(result=pb.Compare.LESS, target=pb.Compare.MOD, key=key, mod_revision=first + 1)
                    for key in written)
            answer = await self._txn(request)
            if answer.succeeded:
                return
            if self._isolation in ("s", "ss"):  # the answer has what the next try reads, all at one revision
                for key, response in zip(keys, answer.responses, strict=True):
                    kvs = response.response_range.kvs
                    known[key] = kvs[0].mod_revision if kvs else 0, answer.header.revision
        raise RpcError(Status.ABORTED, f"still in conflict after {_MOST_TRIES} tries")

    async def _txn(self, request: pb.TxnRequest) -> pb.TxnResponse:
        return await self._client.unary(TXN, request, pb.TxnResponse, connection=self._place,
                                        timeout_s=self._timeout_s)


class Locks(_Sessions):
    """Acquires and releases locks; an operation is both."""

    async def create(self) -> None:
        spec = self._spec
        for place in range(spec.clients):
            name = b"benchlock/%d" % (place % spec.names)
            mutex = Mutex(self._client, place, await self._session(place), name,
                          rpc=spec.locker != "lock-client", timeout_s=spec.timeout_s)
            self._turns.append(_Turns(_both(mutex)))


def _both(mutex: Mutex) -> Callable[[], Awaitable[None]]:
    async def operation() -> None:
        await mutex.lock()
        await mutex.unlock()

    return operation


class Mutex:
    """One session's side of a lock: by the server's lock service, or by the recipe of etcd's package.

    The recipe: each session puts a key with its lease below the name. The key created first holds the lock;
    each other session waits until the key created right before its own is deleted.
    """

    def __init__(self, client: Client, place: int, lease: int, name: bytes, *, rpc: bool,
                 timeout_s: float) -> None:
        self._client = client
        self._place = place
        self._lease = lease
        self._name = name
        self._rpc = rpc
        self._timeout_s = timeout_s
        self._key = name + b"/%x" % lease

    async def lock(self) -> None:
        """Wait for the lock. RpcError or TimeoutError if that fails."""
        if self._rpc:
            asked = lock_pb2.LockRequest(name=self._name, lease=self._lease)
            answer = await self._unary(LOCK, asked, lock_pb2.LockResponse)
            self._key = answer.key
            return
        own = pb.RequestOp(request_range=pb.RangeRequest(key=self._key))
        owner = pb.RequestOp(request_range=pb.RangeRequest(
            key=self._name + b"/", range_end=self._name + b"0", limit=1, sort_order=pb.RangeRequest.ASCEND,
            sort_target=pb.RangeRequest.CREATE))
        create = pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.CREATE, key=self._key,
                            create_revision=0)
        put = pb.RequestOp(request_put=pb.PutRequest(key=self._key, lease=self._lease))
        tried = await self._unary(
            TXN, pb.TxnRequest(compare=[create], success=[put, owner], failure=[own, owner]), pb.TxnResponse)
        mine = (tried.header.revision if tried.succeeded
                else tried.responses[0].response_range.kvs[0].create_revision)
        first = tried.responses[1].response_range.kvs
        if not first or first[0].create_revision == mine:
            return
        while True:
            request = pb.RangeRequest(
                key=self._name + b"/", range_end=self._name + b"0", limit=1,
                sort_order=pb.RangeRequest.DESCEND, sort_target=pb.RangeRequest.CREATE,
                max_create_revision=mine - 1)
            before = await self._unary(RANGE, request, pb.RangeResponse)
            if not before.kvs:
                return
            await self._deleted(before.kvs[0].key, before.header.revision)

    async def unlock(self) -> None:
        if self._rpc:
            await self._unary(UNLOCK, lock_pb2.UnlockRequest(key=self._key), lock_pb2.UnlockResponse)
        else:
            await self._unary(DELETE, pb.DeleteRangeRequest(key=self._key), pb.DeleteRangeResponse)

    async def _unary(self, path: str, request: Message, response: type[M]) -> M:
        return await self._client.unary(path, request, response, connection=self._place,
                                        timeout_s=self._timeout_s)

    async def _deleted(self, key: bytes, revision: int) -> None:
        """Wait until ``key`` is deleted after ``revision``."""
        gone = asyncio.get_running_loop().create_future()

        def message(body: bytes) -> None:
            answer = pb.WatchResponse.FromString(body)
            if not gone.done() and any(event.type == event.DELETE for event in answer.events):
                gone.set_result(None)

        def end(error: RpcError | None) -> None:
            if not gone.done():
                gone.set_exception(error or RpcError(Status.UNAVAILABLE, "watch ended"))

        connections = self._client.connections
        stream = connections[self._place % len(connections)].stream(WATCH, message, end)
        stream.send(pb.WatchRequest(create_request=pb.WatchCreateRequest(
            key=key, start_revision=revision + 1, filters=[pb.WatchCreateRequest.NOPUT])).SerializeToString())
        try:
            async with asyncio.timeout(self._timeout_s):
                await gone
        finally:
            stream.cancel()
