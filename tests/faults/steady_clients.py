"""Clients that go on through an orderly change of the cluster and take note of every request that fails.

They are gRPC's own channels over all endpoints, as etcd's clients are: what was certainly not executed (a
refused connection, a stream above the last one that GOAWAY names) they try elsewhere by themselves.
Everything else is a failure: an answer that is an error, a stream that breaks after the request was sent, no
answer in time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol

import grpc
import grpc.aio

from cluster.pb import rpc_pb2 as pb
from tests.faults.shards import keys_of

_KV = "/etcdserverpb.KV/"
_LEASE = "/etcdserverpb.Lease/"
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200), ("grpc.use_local_subchannel_pool", 1),
]
CALL_LIMIT_S = 20.0  # a front gives up by itself before
AGREE_LIMIT_S = 60.0


class Failed(Exception):
    """A request was not answered with its outcome."""


class Hosts(Protocol):
    """Where the hosts serve clients: addresses and ports."""

    endpoints: list[tuple[str, int]]


class SteadyClient:
    """One client: it alone writes its two counters, which live on different shards where there are
    several."""

    def __init__(self, hosts: Hosts, number: int, shards: int) -> None:
        self.home = number % len(hosts.endpoints)
        self._hosts = hosts
        self._own = keys_of(number % shards, shards, 1)[0] + f"-{number}"
        self._other = keys_of((number + 1) % shards, shards, 1)[0] + f"-other-{number}"
        self._gone = keys_of((number + 2) % shards, shards, 1)[0] + f"-gone-{number}"
        self._channel: grpc.aio.Channel | None = None
        self._fresh = False
        self.done = 0
        self.both = 0  # transactions over the two keys
        self.longest_s = 0.0
        self.failures: list[str] = []

    def go_home(self) -> None:
        """Connect anew before the next request, to the host that is its own if that is up."""
        self._fresh = True

    async def run(self, stop: asyncio.Event) -> None:
        """Requests, one after the other, until told to stop."""
        kinds = (
            self._put, self._get, self._both, self._put, self._compare, self._delete, self._both, self._range,
            self._lease,
        )
        at = self.home
        while not stop.is_set():
            if self._channel is None or self._fresh:
                await self.close()
                self._fresh = False
                endpoints = [*self._hosts.endpoints[self.home:], *self._hosts.endpoints[:self.home]]
                self._channel = grpc.aio.insecure_channel(
                    "ipv4:" + ",".join(f"{h}:{p}" for h, p in endpoints), options=_OPTIONS
                )
            kind = kinds[at % len(kinds)]
            at += 1
            began = time.monotonic()
            try:
                await kind()
                self.done += 1
            except grpc.aio.AioRpcError as e:
                self.failures.append(
                    f"{kind.__name__[1:]} after {time.monotonic() - began:.3f} s: "
                    f"{e.code().name}: {e.details()}"
                )
            except Failed as e:
                self.failures.append(f"{kind.__name__[1:]}: {e}")
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Give the channel back."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()

    async def _call(self, method: str, request: Any, response: Any) -> Any:
        assert self._channel is not None
        return await self._channel.unary_unary(
            method, request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=response.FromString,
        )(request, timeout=CALL_LIMIT_S, wait_for_ready=True)  # fmt: skip

    async def _put(self) -> None:
        await self._call(
            _KV + "Put", pb.PutRequest(key=self._own.encode(), value=b"%d" % self.done), pb.PutResponse
        )

    async def _get(self) -> None:
        await self._call(_KV + "Range", pb.RangeRequest(key=self._own.encode()), pb.RangeResponse)

    async def _range(self) -> None:
        await self._call(
            _KV + "Range", pb.RangeRequest(key=b"/s", range_end=b"/t", limit=20), pb.RangeResponse
        )

    async def _delete(self) -> None:
        key = self._gone.encode()
        await self._call(_KV + "Put", pb.PutRequest(key=key, value=b"x"), pb.PutResponse)
        answer = await self._call(_KV + "DeleteRange", pb.DeleteRangeRequest(key=key), pb.DeleteRangeResponse)
        if answer.deleted != 1:
            raise Failed(f"deleted {answer.deleted}, not the one key that it put")

    async def _compare(self) -> None:
        """A transaction over one shard."""
        key = self._gone.encode()
        answer = await self._call(_KV + "Txn", pb.TxnRequest(
            compare=[pb.Compare(key=key, target=pb.Compare.VERSION, version=0)],
            success=[_put_op(key, b"txn")]), pb.TxnResponse)
        if not answer.succeeded:
            raise Failed("a key that only this client puts is there")
        await self._call(_KV + "DeleteRange", pb.DeleteRangeRequest(key=key), pb.DeleteRangeResponse)

    async def _both(self) -> None:
        """A transaction over two shards: both counters go from n to n + 1, or the compare fails and something
        was done twice."""
        keys, n = (self._other.encode(), self._own.encode() + b"/n"), self.both
        compare = [pb.Compare(key=k, target=pb.Compare.VERSION, version=n) for k in keys]
        answer = await self._call(_KV + "Txn", pb.TxnRequest(
            compare=compare, success=[_put_op(k, b"%d" % n) for k in keys]), pb.TxnResponse)
        if not answer.succeeded:
            raise Failed(f"the counters are not at {n}")
        self.both += 1

    async def _lease(self) -> None:
        lease = (
            await self._call(_LEASE + "LeaseGrant", pb.LeaseGrantRequest(TTL=60), pb.LeaseGrantResponse)
        ).ID
        await self._call(
            _KV + "Put", pb.PutRequest(key=self._gone.encode() + b"/l", value=b"x", lease=lease),
            pb.PutResponse,
        )
        await self._call(_LEASE + "LeaseRevoke", pb.LeaseRevokeRequest(ID=lease), pb.LeaseRevokeResponse)


class SteadyClients:
    """So many of them on every host, from entering to leaving; :meth:`check` tells what failed."""

    def __init__(self, hosts: Hosts, shards: int, *, per_host: int = 4) -> None:
        self.clients = [SteadyClient(hosts, n, shards) for n in range(per_host * len(hosts.endpoints))]
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> SteadyClients:
        self._tasks = [asyncio.get_running_loop().create_task(c.run(self._stop)) for c in self.clients]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        done = await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self.clients:
            await client.close()
        for failure in done:
            if error is None and isinstance(failure, BaseException):
                raise failure

    async def more(self, each: int) -> None:
        """Wait until every client has done so many more requests."""
        targets = [(c, c.done + each) for c in self.clients]
        async with asyncio.timeout(AGREE_LIMIT_S):
            while any(c.done + len(c.failures) < target for c, target in targets):
                await asyncio.sleep(0.02)

    def go_home(self) -> None:
        """All clients connect anew, each to its own host."""
        for client in self.clients:
            client.go_home()

    def check(self) -> None:
        """No request failed."""
        failures = [f"client {n}: {f}" for n, c in enumerate(self.clients) for f in c.failures]
        assert not failures, f"{len(failures)} of {self.done} requests failed:\n" + "\n".join(failures[:20])

    @property
    def done(self) -> int:
        """Requests that were answered with their outcome, or failed."""
        return sum(c.done + len(c.failures) for c in self.clients)

    @property
    def longest_s(self) -> float:
        """The longest that a request took."""
        return max(c.longest_s for c in self.clients)


def _put_op(key: bytes, value: bytes) -> Any:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value))


def summary(clients: Sequence[SteadyClient]) -> str:
    """One line."""
    return (
        f"{sum(c.done for c in clients)} requests, {sum(len(c.failures) for c in clients)} failed, longest "
        f"{max(c.longest_s for c in clients):.2f} s"
    )
