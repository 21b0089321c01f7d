"""Two clusters that a test's copy has, and the copy beside it."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from types import MappingProxyType
from typing import Any

import grpc
from muster_client.pb import kv_pb2, rpc_pb2
from muster_client.wire import engine

from tests.unit.library.scripted import scripted
from tools.client.channels import Config
from tools.musterctl.client import Client
from tools.musterctl.command import Exit
from tools.musterctl.commands.data.copied_leases import Leases
from tools.musterctl.commands.data.copier import Copier

LEASE, EVERYTHING = 7, (b"\0", b"\0")
Code = grpc.StatusCode


class Ending(Client):
    """What it runs beside all else ends with it."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._begun: list[Future[None]] = []

    def begin(self, step: Coroutine[Any, Any, None]) -> None:
        self._begun.append(engine.submit(step))

    def close(self) -> None:
        for one in self._begun:
            one.cancel()
        super().close()


class Store:
    """Keys and leases behind some endpoints. Tests change what it answers."""

    def __init__(self, **values: bytes) -> None:
        self.revision = 10
        self.kvs = {key.encode(): kv_pb2.KeyValue(key=key.encode(), value=value)
                    for key, value in values.items()}
        self.leases: set[int] = set()
        self.granted: list[int] = []
        self.told: queue.Queue[rpc_pb2.WatchResponse] = queue.Queue()
        self.watched_from = 0
        self.compacted = 0

    @contextlib.contextmanager
    def served(self, own: Mapping[str, Callable[..., Any]] = MappingProxyType({})) -> Iterator[str]:
        """By an endpoint. ``own``: what it does itself."""
        ours: dict[str, Callable[..., Any]] = {
            "KV/Range": self._range, "KV/Txn": self.txn, "Lease/LeaseGrant": self.grant,
            "Lease/LeaseRevoke": self._revoked,
            "Lease/LeaseTimeToLive": self.time_to_live, "Lease/LeaseLeases": self._listed,
            "Lease/LeaseKeepAlive": self._renewed, "Watch/Watch": self._watched}
        with scripted(ours | dict(own)) as address:
            yield address

    def values(self) -> dict[bytes, bytes]:
        return {key: kv.value for key, kv in self.kvs.items()}

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        """By a client of the source."""
        self.revision += 1
        self.kvs[key] = kv_pb2.KeyValue(key=key, value=value, lease=lease, mod_revision=self.revision)
        self._tell(kv_pb2.Event(type=kv_pb2.Event.PUT, kv=self.kvs[key]))

    def delete(self, key: bytes) -> None:
        self.revision += 1
        del self.kvs[key]
        gone = kv_pb2.KeyValue(key=key, mod_revision=self.revision)
        self._tell(kv_pb2.Event(type=kv_pb2.Event.DELETE, kv=gone))

    def _tell(self, event: kv_pb2.Event) -> None:
        header = rpc_pb2.ResponseHeader(revision=self.revision)
        self.told.put(rpc_pb2.WatchResponse(header=header, events=[event]))

    def end_lease(self) -> None:
        self.leases.discard(LEASE)
        self.kvs = {key: kv for key, kv in self.kvs.items() if kv.lease != LEASE}

    def txn(self, request: rpc_pb2.TxnRequest, context: grpc.ServicerContext) -> rpc_pb2.TxnResponse:
        if {op.request_put.lease for op in request.success} - {0} - self.leases:
            context.abort(Code.NOT_FOUND, "etcdserver: requested lease not found")
        for op in request.success:
            if op.HasField("request_put"):
                put = op.request_put
                self.kvs[put.key] = kv_pb2.KeyValue(key=put.key, value=put.value, lease=put.lease)
            else:
                self.kvs.pop(op.request_delete_range.key, None)
        return rpc_pb2.TxnResponse(succeeded=True)

    def grant(self, request: Any, context: grpc.ServicerContext) -> rpc_pb2.LeaseGrantResponse:
        if request.ID in self.leases:
            context.abort(Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
        lease = request.ID or 1000 + len(self.granted)
        self.granted.append(lease)
        self.leases.add(lease)
        return rpc_pb2.LeaseGrantResponse(ID=lease, TTL=request.TTL)

    def _range(self, request: rpc_pb2.RangeRequest, context: Any) -> rpc_pb2.RangeResponse:
        if 0 < request.revision < self.compacted:
            context.abort(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
        if request.revision > self.revision:
            context.abort(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
        found = [kv for key, kv in sorted(self.kvs.items()) if request.range_end or key == request.key]
        return rpc_pb2.RangeResponse(header=rpc_pb2.ResponseHeader(revision=self.revision), kvs=found)

    def _revoked(self, request: Any, context: Any) -> rpc_pb2.LeaseRevokeResponse:
        self.leases.remove(request.ID)
        return rpc_pb2.LeaseRevokeResponse()

    def time_to_live(self, request: Any, context: Any) -> rpc_pb2.LeaseTimeToLiveResponse:
        if request.ID not in self.leases:
            return rpc_pb2.LeaseTimeToLiveResponse(ID=request.ID, TTL=-1)
        keys = [kv.key for kv in self.kvs.values() if kv.lease == request.ID and request.keys]
        return rpc_pb2.LeaseTimeToLiveResponse(ID=request.ID, TTL=60, grantedTTL=60, keys=keys)

    def _listed(self, request: Any, context: Any) -> rpc_pb2.LeaseLeasesResponse:
        return rpc_pb2.LeaseLeasesResponse(leases=[rpc_pb2.LeaseStatus(ID=lease) for lease in self.leases])

    def _renewed(self, requests: Iterator[Any], context: Any) -> Iterator[rpc_pb2.LeaseKeepAliveResponse]:
        for request in requests:
            ttl_s = 1 if request.ID in self.leases else 0
            yield rpc_pb2.LeaseKeepAliveResponse(ID=request.ID, TTL=ttl_s)

    def _watched(self, requests: Iterator[Any], context: Any) -> Iterator[rpc_pb2.WatchResponse]:
        self.watched_from = next(requests).create_request.start_revision
        if self.watched_from < self.compacted:
            yield rpc_pb2.WatchResponse(created=True, canceled=True, compact_revision=self.compacted)
            return
        yield rpc_pb2.WatchResponse(created=True)
        while not (told := self.told.get()).canceled:
            yield told
        yield told


@contextlib.contextmanager
def following(
    source: Store, from_: str, *to: str, imports: bool = True, since: int = 0
) -> Iterator[Copier]:
    """A copy that goes on beside what a test does, and must have met no error by its end."""
    origin, target = (Ending(Config(names), names) for names in ((from_,), to))
    leases = Leases(origin, target) if imports else None
    copier = Copier(origin, target, EVERYTHING, 128, lambda key: key, leases)
    ended: list[Exception] = []

    def run() -> None:
        try:
            copier.base(since)
            copier.follow()
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        until(lambda: source.watched_from or ended)
        yield copier
    finally:
        source.told.put(rpc_pb2.WatchResponse(canceled=True, compact_revision=1))
        thread.join(10)
        target.close()
        origin.close()
    assert [type(error) for error in ended] == [Exit], ended


def until(holds: Callable[[], object]) -> None:
    """Ten seconds at most."""
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    assert holds()


def renewed(requests: Iterator[Any], context: Any) -> Iterator[rpc_pb2.LeaseKeepAliveResponse]:
    """Whatever is asked for; transactions tell of ends."""
    for request in requests:
        yield rpc_pb2.LeaseKeepAliveResponse(ID=request.ID, TTL=60)


def leased(**values: bytes) -> Store:
    """A source whose keys are on one lease."""
    source = Store()
    source.leases.add(LEASE)
    for key, value in values.items():
        source.put(key.encode(), value, LEASE)
    source.told = queue.Queue()
    return source
