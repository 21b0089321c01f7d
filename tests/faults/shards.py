"""What tests of several shards share: keys by shard, what hosts tell of their shards, and whether replicas
are equal."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from tests.faults.hosts import Hosts, until

LIMIT_S = 60.0


def keys_of(shard: int, shards: int, count: int) -> list[str]:
    """``count`` keys that live on one shard, each in a directory of its own."""
    placement, found, n = Placement(shards), [], 0
    while len(found) < count:
        key = f"/s{n}/k"
        if placement.shard_of(key.encode()) == shard:
            found.append(key)
        n += 1
    return found


class Client:
    """Blocking calls of etcd's API on one host. ``grpc.RpcError`` as they come."""

    def __init__(self, hosts: Hosts, host: int) -> None:
        self.channel = grpc.insecure_channel("{}:{}".format(*hosts.endpoints[host]))

    def call(self, method: str, request: Any, response: Any, timeout_s: float = 10.0) -> Any:
        return self.channel.unary_unary(
            f"/etcdserverpb.{method}", request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=response.FromString,
        )(request, timeout=timeout_s, wait_for_ready=True)  # fmt: skip

    def put(self, key: str, value: str) -> None:
        self.call("KV/Put", pb.PutRequest(key=key.encode(), value=value.encode()), pb.PutResponse)

    def everything(self, revision: int = 0, serializable: bool = False) -> Any:
        """A RangeResponse with all keys."""
        request = pb.RangeRequest(key=b"\0", range_end=b"\0", revision=revision, serializable=serializable)
        return self.call("KV/Range", request, pb.RangeResponse)

    def txn(self, compare: list[Any], success: list[Any]) -> Any:
        return self.call("KV/Txn", pb.TxnRequest(compare=compare, success=success), pb.TxnResponse)

    def hash_kv(self, revision: int) -> int:
        """Of the host's own replicas: it is refused while one of its nodes starts, or is behind."""

        def asked() -> Any:
            request = pb.HashKVRequest(revision=revision)
            try:
                return self.call("Maintenance/HashKV", request, pb.HashKVResponse, 30.0)
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OUT_OF_RANGE):
                    raise
                return None

        return int(until(asked, 30.0).hash)

    def close(self) -> None:
        self.channel.close()


@contextlib.contextmanager
def clients(hosts: Hosts) -> Iterator[list[Client]]:
    """One client of each host."""
    made = [Client(hosts, host) for host in range(3)]
    try:
        yield made
    finally:
        for client in made:
            client.close()


def facts(hosts: Hosts, host: int) -> list[dict[str, Any]]:
    """/muster/shards of a host, by shard."""
    address, port = hosts.endpoints[host]
    with urllib.request.urlopen(f"http://{address}:{port}/muster/shards", timeout=10) as answer:
        found = json.load(answer)["shards"]
    assert isinstance(found, list)
    return found


def order_index(hosts: Hosts, host: int, shard: int) -> int:
    """How much of the order log a node holds, as it says; -1 where it says nothing just now."""
    fact = facts(hosts, host)[shard]
    return int(fact["order_index"]) if fact["up"] else -1


class Background:
    """Functions that threads call again and again until the block ends; what they raise ends the test."""

    def __init__(self, *functions: Callable[[], None]) -> None:
        self._functions = functions
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []

    def _run(self, function: Callable[[], None]) -> None:
        while not self._ending.is_set():
            try:
                function()
            except BaseException as e:  # told by __exit__ in the test's own thread
                self.errors.append(e)
                return

    def __enter__(self) -> Background:
        self._threads = [threading.Thread(target=self._run, args=(f,), daemon=True) for f in self._functions]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(LIMIT_S)
            assert not thread.is_alive(), "a client hangs"
        if kind is None and self.errors:
            raise self.errors[0]


def assert_equal_everywhere(found: list[Client]) -> None:
    """All hosts show the same keys at the same revision, and hash to the same."""
    first = found[0].everything()
    revision = first.header.revision
    for client in found:
        other = client.everything(revision)
        assert other.header.revision >= revision
        assert list(other.kvs) == list(first.kvs)
    assert len({client.hash_kv(revision) for client in found}) == 1
    for client in found:  # every replica itself, soon
        until(lambda c=client: c.everything(serializable=True).header.revision >= revision)  # type: ignore[misc]
        assert list(client.everything(revision, serializable=True).kvs) == list(first.kvs)
