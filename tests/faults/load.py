"""Clients on every host that write down all they do, and watchers on every host; then everything is checked.

``async with Load(hosts, "name") as load:`` runs them around the body; leaving it stops them, waits for the
watchers, reads the whole history back from each host and raises AssertionError on the first disagreement.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TypeVar

from google.protobuf.message import Message

from bench.client import Client, Endpoint, RpcError
from bench.client.stream import Stream
from cluster.pb import kv_pb2, rpc_pb2
from tests.faults.hosts import Hosts
from tests.linearizability import Event, Operation, Outcome, check_operations, check_stream, unlinearizable
from tests.linearizability.history import Pairs

_KV = "/etcdserverpb.KV/"
_LINES = 12  # of problems shown
CALL_LIMIT_S = 12.0  # a front gives up by itself before
CATCH_UP_LIMIT_S = 60.0
A = TypeVar("A", rpc_pb2.PutResponse, rpc_pb2.RangeResponse, rpc_pb2.DeleteRangeResponse, rpc_pb2.TxnResponse)


class Watcher:
    """A watch of everything on one host from a revision on, taken up again where it broke off."""

    def __init__(self, endpoint: tuple[str, int], first: int) -> None:
        self.endpoint = endpoint
        self.events: list[Event] = []
        self.problems: list[str] = []
        self.interruptions = 0
        self._next = first
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._moved = asyncio.Event()

    async def reach(self, revision: int) -> None:
        """Wait until it has seen a revision."""
        async with asyncio.timeout(CATCH_UP_LIMIT_S):
            while self._next <= revision and not self.problems:
                self._moved.clear()
                await self._moved.wait()

    async def close(self) -> None:
        """End it."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                client = await Client.open([Endpoint(*self.endpoint)], 1, timeout_s=2.0)
            except (OSError, TimeoutError):
                await asyncio.sleep(0.05)
                continue
            try:
                await self._follow(client)
            finally:
                await client.close()
            self.interruptions += 1

    async def _follow(self, client: Client) -> None:
        ended = asyncio.Event()
        try:
            stream: Stream = client.connections[0].stream(
                "/etcdserverpb.Watch/Watch", self._message, lambda _: ended.set()
            )
        except RpcError:
            return
        stream.send(rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(
            key=b"\0", range_end=b"\0", start_revision=self._next)).SerializeToString())
        await ended.wait()

    def _message(self, body: bytes) -> None:
        response = rpc_pb2.WatchResponse.FromString(body)
        if response.canceled:
            self.problems.append(f"the watch was cancelled: {response.cancel_reason}")
        for event in response.events:
            kv = event.kv
            deleted = event.type == kv_pb2.Event.DELETE
            self.events.append(
                Event(kv.mod_revision, kv.key, None if deleted else kv.value, kv.create_revision, kv.version)
            )
        if response.events:
            self._next = self.events[-1].revision + 1  # a revision comes whole in one message
        self._moved.set()


class Load:
    """See the module. ``pause_s`` is each client's mean rest between operations."""

    def __init__(self, hosts: Hosts, name: str, *, clients: int = 48, pause_s: float = 0.03, seed: int = 1,
                 value_bytes: int = 0) -> None:
        self._hosts = hosts
        self._name = name
        self._count = clients
        self._pause_s = pause_s
        self._random = random.Random(seed)
        self._pad = "x" * value_bytes
        self._serial = 0
        self._known: dict[bytes, bytes | None] = {}  # what somebody last saw: swaps then often succeed
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._first = 0
        self.operations: list[Operation] = []
        self.watchers: list[Watcher] = []
        self.errors: dict[str, int] = {}

    async def __aenter__(self) -> Load:
        self._first = await current_revision(self._hosts.endpoints) + 1
        self.watchers = [Watcher(e, self._first) for e in self._hosts.endpoints]
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._client(i, i % len(self._hosts.endpoints))) for i in range(self._count)
        ]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        self._stop.set()
        again: list[Watcher] = []
        try:
            done = await asyncio.gather(*self._tasks, return_exceptions=True)
            if error is not None:
                return
            for failure in done:
                if isinstance(failure, BaseException):
                    raise failure
            last = await current_revision(self._hosts.endpoints)
            again = [Watcher(e, self._first) for e in self._hosts.endpoints]
            for watcher in [*self.watchers, *again]:
                await watcher.reach(last)
        finally:
            await asyncio.gather(*(w.close() for w in [*self.watchers, *again]))
        await asyncio.to_thread(self._check, again, last)

    # -- conditions for the test

    async def run_for(self, seconds: float) -> None:
        """Load as usual for a while: this is the time of exposure, not a wait for something."""
        await asyncio.sleep(seconds)

    async def acknowledged(self, count: int) -> None:
        """Wait until so many more writes were acknowledged."""
        target = count + sum(bool(o.writes) and o.outcome is Outcome.OK for o in self.operations)
        async with asyncio.timeout(60.0):
            while sum(bool(o.writes) and o.outcome is Outcome.OK for o in self.operations) < target:
                await asyncio.sleep(0.02)

    async def resumed_after_s(self, since_ns: int, gone_ns: int, not_host: int = -1) -> float:
        """How long after a moment a write was acknowledged at another host that began after ``gone_ns``, when
        what was done at that moment had certainly happened."""
        async with asyncio.timeout(60.0):
            while True:
                found = [
                    o.returned_ns
                    for o in self.operations
                    if o.writes and o.outcome is Outcome.OK and o.invoked_ns > gone_ns and o.host != not_host
                ]
                if found:
                    return (min(found) - since_ns) / 1e9
                await asyncio.sleep(0.02)

    # -- clients

    async def _client(self, number: int, host: int) -> None:
        endpoint = Endpoint(*self._hosts.endpoints[host])
        client: Client | None = None
        try:
            while not self._stop.is_set():
                if client is None:
                    try:
                        client = await Client.open([endpoint], 1, timeout_s=2.0)
                    except (OSError, TimeoutError):
                        await asyncio.sleep(0.05)
                        continue
                await asyncio.sleep(self._random.uniform(0, 2 * self._pause_s))
                operation, answered = await self._operate(client)
                operation.client, operation.host = number, host
                self.operations.append(operation)
                if not answered:  # the connection is gone, or what holds it up may hold up the next one too
                    await client.close()
                    client = None
        finally:
            if client is not None:
                await client.close()

    def _key(self) -> bytes:
        # A few directories, so that with several shards each has some; new keys as time goes by, since a
        # key's part of the history has to be searched.
        age = len(self.operations) // 8000
        return f"/{self._name}/{self._random.randrange(4)}/{age}-{self._random.randrange(6)}".encode()

    def _value(self) -> bytes:
        self._serial += 1
        return f"{self._name}-{self._serial}{self._pad}".encode()

    async def _operate(self, client: Client) -> tuple[Operation, bool]:
        """One operation; its record and whether the server answered it."""
        chosen = self._random.random()
        key = self._key()
        if chosen < 0.45:
            return await self._put(client, key, prev_kv=chosen < 0.2)
        if chosen < 0.7:
            return await self._get(client, key)
        if chosen < 0.78:
            return await self._delete(client, key)
        if chosen < 0.9:
            return await self._swap(client, key)
        if chosen < 0.95:
            return await self._put_two(client, key)
        return await self._get_several(client, key)

    async def _call(
        self, client: Client, operation: Operation, method: str, request: Message, response: type[A]
    ) -> A | None:
        operation.kind = method
        operation.invoked_ns = time.monotonic_ns()
        try:
            answer = await client.unary(_KV + method, request, response, timeout_s=CALL_LIMIT_S)
        except (RpcError, TimeoutError) as error:
            certain = isinstance(error, RpcError) and not error.sent
            operation.outcome = Outcome.FAILED if certain or not operation.writes else Outcome.AMBIGUOUS
            operation.returned_ns = time.monotonic_ns()
            text = str(error) or "no answer in time"
            self.errors[text] = self.errors.get(text, 0) + 1
            return None
        operation.returned_ns = time.monotonic_ns()
        operation.revision = answer.header.revision
        return answer

    async def _put(self, client: Client, key: bytes, *, prev_kv: bool) -> tuple[Operation, bool]:
        value = self._value()
        operation = Operation(0, 0, Outcome.OK, writes=((key, value),))
        answer = await self._call(
            client, operation, "Put", rpc_pb2.PutRequest(key=key, value=value, prev_kv=prev_kv),
            rpc_pb2.PutResponse,
        )
        if answer is not None:
            self._known[key] = value
            if prev_kv:
                operation.reads = ((key, answer.prev_kv.value if answer.HasField("prev_kv") else None),)
        return operation, answer is not None

    async def _get(self, client: Client, key: bytes) -> tuple[Operation, bool]:
        operation = Operation(0, 0, Outcome.OK)
        answer = await self._call(
            client, operation, "Range", rpc_pb2.RangeRequest(key=key), rpc_pb2.RangeResponse
        )
        if answer is not None:
            operation.reads = ((key, _value_in(answer)),)
            self._known[key] = _value_in(answer)
        return operation, answer is not None

    async def _delete(self, client: Client, key: bytes) -> tuple[Operation, bool]:
        operation = Operation(0, 0, Outcome.OK, writes=((key, None),))
        answer = await self._call(
            client, operation, "DeleteRange", rpc_pb2.DeleteRangeRequest(key=key, prev_kv=True),
            rpc_pb2.DeleteRangeResponse,
        )
        if answer is not None:
            operation.reads = ((key, answer.prev_kvs[0].value if answer.deleted else None),)
            if not answer.deleted:
                operation.writes = ()
            self._known[key] = None
        return operation, answer is not None

    async def _swap(self, client: Client, key: bytes) -> tuple[Operation, bool]:
        expected, value = self._known.get(key), self._value()
        if expected is None:
            compare = rpc_pb2.Compare(
                key=key, target=rpc_pb2.Compare.VERSION, result=rpc_pb2.Compare.EQUAL, version=0
            )
        else:
            compare = rpc_pb2.Compare(
                key=key, target=rpc_pb2.Compare.VALUE, result=rpc_pb2.Compare.EQUAL, value=expected
            )
        operation = Operation(0, 0, Outcome.OK, reads=((key, expected),), writes=((key, value),))
        answer = await self._call(client, operation, "Txn", rpc_pb2.TxnRequest(
            compare=[compare], success=[_put_op(key, value)], failure=[_get_op(key)]), rpc_pb2.TxnResponse)
        if answer is not None:
            if answer.succeeded:
                self._known[key] = value
            else:
                found = _value_in(answer.responses[0].response_range)
                assert found != expected, f"a swap of {key!r} failed against the value it compared with"
                operation.reads, operation.writes = ((key, found),), ()
                self._known[key] = found
        return operation, answer is not None

    async def _put_two(self, client: Client, key: bytes) -> tuple[Operation, bool]:
        keys, value = self._others(key, 1), self._value()
        operation = Operation(0, 0, Outcome.OK, writes=tuple((k, value) for k in keys))
        answer = await self._call(client, operation, "Txn", rpc_pb2.TxnRequest(
            success=[_put_op(k, value) for k in keys]), rpc_pb2.TxnResponse)
        return operation, answer is not None

    async def _get_several(self, client: Client, key: bytes) -> tuple[Operation, bool]:
        keys = self._others(key, 3)
        operation = Operation(0, 0, Outcome.OK)
        answer = await self._call(client, operation, "Txn", rpc_pb2.TxnRequest(
            success=[_get_op(k) for k in keys]), rpc_pb2.TxnResponse)
        if answer is not None:
            found: Pairs = tuple(
                (k, _value_in(r.response_range)) for k, r in zip(keys, answer.responses, strict=True)
            )
            operation.reads = found
        return operation, answer is not None

    def _others(self, key: bytes, count: int) -> list[bytes]:
        found = {key}
        while len(found) <= count:
            found.add(self._key())
        return sorted(found)

    # -- the verdict

    def _check(self, again: list[Watcher], last: int) -> None:
        history = [e for e in again[0].events if e.revision <= last]
        problems = check_stream(history, self._first, last)
        for kind, watchers in (("watched live", self.watchers), ("read back", again)):
            for host, watcher in enumerate(watchers):
                problems += [f"{kind} at host {host}: {p}" for p in watcher.problems]
                if [e for e in watcher.events if e.revision <= last] != history:
                    found = check_stream(watcher.events, self._first, last) or ["other events"]
                    problems += [
                        f"{kind} at host {host} ({watcher.interruptions} interruptions): {p}" for p in found
                    ]
        problems += check_operations(self.operations, history)
        if not problems and (why := unlinearizable(self.operations)):
            problems = [why]
        assert not problems, f"{len(problems)} problems in {self.summary()}:\n" + "\n".join(problems[:_LINES])

    def count(self, outcome: Outcome) -> int:
        """Operations that ended so."""
        return sum(o.outcome is outcome for o in self.operations)

    def summary(self) -> str:
        """For people."""
        return (
            f"{len(self.operations)} operations, {self.count(Outcome.AMBIGUOUS)} of unknown fate, "
            f"{self.count(Outcome.FAILED)} failed, "
            f"{sum(w.interruptions for w in self.watchers)} watches interrupted; "
            f"errors {self.errors}"
        )


async def current_revision(endpoints: Sequence[tuple[str, int]]) -> int:
    """The store's revision by a linearizable read, from whoever answers."""
    async with asyncio.timeout(CATCH_UP_LIMIT_S):
        while True:
            for endpoint in endpoints:
                try:
                    client = await Client.open([Endpoint(*endpoint)], 1, timeout_s=2.0)
                except (OSError, TimeoutError):
                    continue
                try:
                    answer = await client.unary(
                        _KV + "Range", rpc_pb2.RangeRequest(key=b"\0"), rpc_pb2.RangeResponse
                    )
                    return int(answer.header.revision)
                except (RpcError, TimeoutError):
                    pass
                finally:
                    await client.close()
            await asyncio.sleep(0.1)


def _value_in(answer: rpc_pb2.RangeResponse) -> bytes | None:
    return answer.kvs[0].value if answer.kvs else None


def _put_op(key: bytes, value: bytes) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=value))


def _get_op(key: bytes) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key))
