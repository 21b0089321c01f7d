"""Clients that do more than send one ready request: reads and writes mixed, paged scans, leases granted.

Each answers like a connection (:class:`bench.load.loops.Caller`): a call is an operation of one or more
requests. The body that its loop gives is the intended time, which reads and writes mixed count from.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Protocol

from bench.client import Client, RpcError
from bench.client.connection import Callback
from bench.load.loops import Caller
from bench.load.spec import Spec
from bench.load.traffic.stepwise import Stepwise
from bench.load.traffic.streams import GRANT, KEEP_ALIVE, KeepAlives, prefix_end, revoke
from bench.load.traffic.workloads import PUT, RANGE, TXN, Body, put_body
from cluster.pb import rpc_pb2 as pb
from cluster.wire.protobuf import varint


class Actors(Protocol):
    """The clients of one process."""

    @property
    def callers(self) -> Sequence[Caller]: ...

    @property
    def extra_us(self) -> dict[str, list[int]]:
        """Further latencies, by name."""

    async def create(self) -> None:
        """Make what the first operation needs."""

    async def close(self) -> None:
        """Remove what was made, as far as that works."""


class Mixed:
    """Reads and writes in a ratio: as requests of their own (``mixed``), or each in a transaction.

    Without a range ``mixed`` reads single keys of the key space, and ``txn-mixed`` all of it, at most
    ``limit`` keys, as etcd's tool does.
    """

    def __init__(self, spec: Spec, client: Client) -> None:
        self.extra_us: dict[str, list[int]] = {"read": [], "write": []}
        self.callers: list[_Mixed] = []
        self._spec = spec
        self._client = client

    async def create(self) -> None:
        spec = self._spec
        path, read, write = mixed_bodies(spec)
        rng = random.Random(spec.seed + 1)
        part = spec.rw_ratio / (1 + spec.rw_ratio)
        for i in range(spec.clients):
            self.callers.append(_Mixed(self._client, i, path, read, write, rng, part, self.extra_us))

    async def close(self) -> None:
        return


def mixed_bodies(spec: Spec) -> tuple[tuple[str, str], Body, Body]:
    """Paths and bodies of reads and writes."""
    put = put_body(spec)
    options = pb.RangeRequest(limit=spec.limit, serializable=spec.serializable)
    if spec.range_key or spec.command == "txn-mixed":
        options.key = spec.range_key.encode() or b"\0"
        options.range_end = spec.range_end.encode() or (b"" if spec.range_key else b"\0")
        whole = options.SerializeToString()

        def read(now: int) -> bytes:
            return whole
    else:
        tail = options.SerializeToString()
        head = b"\x0a" + varint(spec.key_size_bytes)
        end = len(head) + spec.key_size_bytes

        def read(now: int) -> bytes:
            return put(now)[:end] + tail  # its key: a put opens with it

    if spec.command == "mixed":
        return (RANGE, PUT), read, put

    def in_txn(field: bytes, body: Body) -> Body:
        def wrapped(now: int) -> bytes:
            inner = body(now)
            operation = field + varint(len(inner)) + inner
            return b"\x12" + varint(len(operation)) + operation  # TxnRequest.success

        return wrapped

    return (TXN, TXN), in_txn(b"\x0a", read), in_txn(b"\x12", put)


class _Mixed:
    def __init__(self, client: Client, place: int, paths: tuple[str, str], read: Body, write: Body,
                 rng: random.Random, part: float, samples_us: dict[str, list[int]]) -> None:
        self._client = client
        self._place = place % len(client.connections)
        self._kinds = ((paths[0], read, samples_us["read"]), (paths[1], write, samples_us["write"]))
        self._random = rng.random
        self._part = part

    def call(self, path: str, body: bytes, callback: Callback) -> int:
        path, make, samples_us = self._kinds[self._random() >= self._part]
        intended = int.from_bytes(body, "big")

        def done(error: RpcError | None, answer: bytes) -> None:
            if error is None:
                samples_us.append((perf_counter_ns() - intended) // 1000)
            callback(error, answer)

        return self._client.connections[self._place].call(path, make(intended), done)

    def cancel(self, stream_id: int) -> None:
        self._client.connections[self._place].cancel(stream_id)


class Scan:
    """Reads a range, ``page`` keys at a time (0: all) and at the revision of the first page."""

    def __init__(self, spec: Spec, client: Client) -> None:
        self.extra_us: dict[str, list[int]] = {"page": []}
        self.keys_read = 0
        self.callers = [_Scan(self, spec, client, i) for i in range(spec.clients)]

    async def create(self) -> None:
        return

    async def close(self) -> None:
        return


class _Scan(Stepwise):
    def __init__(self, owner: Scan, spec: Spec, client: Client, place: int) -> None:
        super().__init__(client, place)
        self._owner = owner
        key = spec.range_key.encode()
        end = spec.range_end.encode() or (prefix_end(key) if key else b"\0")
        self._first = pb.RangeRequest(key=key or b"\0", range_end=end, limit=spec.page,
                                      keys_only=spec.keys_only, serializable=spec.serializable)

    def call(self, path: str, body: bytes, callback: Callback) -> int:
        self._ask(pb.RangeRequest.FromString(self._first.SerializeToString()), callback, self.begin())
        return 1

    def _ask(self, request: pb.RangeRequest, callback: Callback, turn: int) -> None:
        sent = perf_counter_ns()

        def then(body: bytes) -> None:
            answer = pb.RangeResponse.FromString(body)
            self._owner.extra_us["page"].append((perf_counter_ns() - sent) // 1000)
            self._owner.keys_read += len(answer.kvs)
            if not answer.more:
                callback(None, body)
                return
            request.key = answer.kvs[-1].key + b"\0"
            request.revision = request.revision or answer.header.revision
            self._ask(request, callback, turn)

        self.step(turn, RANGE, request.SerializeToString(), callback, then)


class Grants:
    """Leases granted one after the other, each client its own; all revoked afterwards."""

    def __init__(self, spec: Spec, client: Client) -> None:
        self.extra_us: dict[str, list[int]] = {}
        self.leases: list[int] = []
        self.callers = [_Grant(self, spec, client, i) for i in range(spec.clients)]
        self._client = client

    async def create(self) -> None:
        return

    async def close(self) -> None:
        await revoke(self._client, self.leases)


class _Grant:
    def __init__(self, owner: Grants, spec: Spec, client: Client, place: int) -> None:
        self._owner = owner
        self._client = client
        self._place = place % len(client.connections)
        self._body = pb.LeaseGrantRequest(TTL=spec.lease_ttl_s).SerializeToString()

    def call(self, path: str, body: bytes, callback: Callback) -> int:
        def done(error: RpcError | None, answer: bytes) -> None:
            if error is None:
                self._owner.leases.append(pb.LeaseGrantResponse.FromString(answer).ID)
            callback(error, answer)

        return self._client.connections[self._place].call(GRANT, self._body, done)

    def cancel(self, stream_id: int) -> None:
        self._client.connections[self._place].cancel(stream_id)


def actors(spec: Spec, client: Client) -> tuple[str, Actors]:
    """The path for the loop, and the clients, of one of :data:`bench.load.spec.ACTED`."""
    from bench.load.traffic.recipes import Locks, Stms

    kinds: dict[str, type[Actors]] = {
        "mixed": Mixed, "txn-mixed": Mixed, "scan": Scan, "lease-grant": Grants,
        "lease-keepalive": KeepAlives, "stm": Stms, "lock": Locks,
    }
    made = kinds[spec.command](spec, client)  # type: ignore[call-arg]  # a Protocol has no constructor
    return KEEP_ALIVE if spec.command == "lease-keepalive" else "", made
