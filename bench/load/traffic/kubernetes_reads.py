"""The lists and watches of a Kubernetes cluster's API servers (``bench.load.traffic.kubernetes``)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from time import perf_counter_ns

from bench.client import Client, RpcError, Status
from bench.client.connection import Callback
from bench.load.loops import Caller
from bench.load.spec import Spec
from bench.load.traffic.stepwise import Stepwise
from bench.load.traffic.streams import WATCH, Awaited, prefix_end
from bench.load.traffic.workloads import RANGE
from cluster.pb import rpc_pb2 as pb
from cluster.wire.protobuf import read_varint, varint

PODS = b"/registry/pods/"
LEASES = b"/registry/leases/"
_USUAL = (  # "pods" and "leases" are written to
    *("pods", "leases", "events", "configmaps", "secrets", "services/specs", "services/endpoints"),
    *("endpointslices", "minions", "deployments", "replicasets", "statefulsets", "daemonsets", "jobs"),
    *("cronjobs", "namespaces", "serviceaccounts", "roles", "rolebindings", "clusterroles"),
    *("clusterrolebindings", "persistentvolumes", "persistentvolumeclaims", "priorityclasses"),
)
STAMP = slice(4, 12)  # of an object: the intended time of its update
SLOTS = 8  # lists under way at a time
_QUESTIONS = 50  # progress requests, likewise
BEHIND = "events of a revision that a progress answer had passed"

#: A kind of request: the callers that its loop has, one for each client.
Kind = tuple[str, Sequence[Caller], str]


def kinds_of(count: int) -> list[bytes]:
    """Prefixes of ``count`` kinds of objects: pods and leases, other usual ones, then custom resources."""
    usual = [f"/registry/{name}/".encode() for name in _USUAL[:count]]
    return [*usual, *(b"/registry/example.com/kind-%03d/" % i for i in range(count - len(usual)))]


class List(Stepwise):
    """Reads all pods, ``page`` at a time and all pages at the revision of the first; 0: in one request."""

    def __init__(self, spec: Spec, client: Client, place: int, page: int, pages_us: list[int]) -> None:
        super().__init__(client, place)
        self._spec = spec
        self._page = page
        self._pages_us = pages_us

    def call(self, path: str, body: bytes, callback: Callback) -> int:
        self._ask(PODS, 0, 0, callback, self.begin())
        return 1

    def _ask(self, key: bytes, revision: int, before: int, callback: Callback, turn: int) -> None:
        sent = perf_counter_ns()

        def then(body: bytes) -> None:
            self._pages_us.append((perf_counter_ns() - sent) // 1000)
            at, rows, last, more = outline(body)
            if more:
                self._ask(last + b"\0", revision or at, before + rows, callback, turn)
            elif before + rows < self._spec.pods:
                callback(RpcError(Status.DATA_LOSS, f"{before + rows} of {self._spec.pods} pods listed"), b"")
            else:
                callback(None, body)

        request = pb.RangeRequest(key=key, range_end=prefix_end(PODS), limit=self._page, revision=revision)
        self.step(turn, RANGE, request.SerializeToString(), callback, then)


def outline(body: bytes) -> tuple[int, int, bytes, bool]:
    """Of a RangeResponse: its revision, the number of rows, the last key, whether there are more.

    Parsing 30 MB of rows would take this process tens of milliseconds.
    """
    revision, rows, last, more = 0, 0, b"", False
    at, end = 0, len(body)
    row = (0, 0)
    while at < end:
        tag = body[at]
        value, at = read_varint(body, at + 1)
        if tag == 0x0A:
            revision = pb.ResponseHeader.FromString(body[at : at + value]).revision
            at += value
        elif tag == 0x12:
            rows += 1
            row = at, at + value
            at += value
        elif tag == 0x18:
            more = bool(value)
    if rows:
        last = pb.RangeResponse.FromString(b"\x12" + varint(row[1] - row[0]) + body[slice(*row)]).kvs[0].key
    return revision, rows, last, more


class Watches(Awaited):
    """Every kind's prefix watched by every API server, a stream for each."""

    def __init__(self, spec: Spec, client: Client, extra_us: dict[str, list[int]]) -> None:
        super().__init__(spec.timeout_s)
        self.errors: Counter[str] = Counter()
        self.events_us: list[int] = []
        self.created_us: list[int] = []
        self.received = 0
        self.streams: list[_Watch] = []
        self._spec = spec
        self._client = client
        self._extra_us = extra_us
        self._asked = -1

    async def create(self) -> list[Kind]:
        spec = self._spec
        self._extra_us |= {"event": self.events_us, "watch created": self.created_us}
        prefixes = kinds_of(spec.kinds)
        for i in range(spec.watches):
            self.streams.append(_Watch(self, self._client, i, prefixes[i % len(prefixes)]))
        if not await self.until(lambda: len(self.created_us) >= spec.watches or bool(self.errors)):
            raise RuntimeError(
                f"{len(self.created_us)} of {spec.watches} watches created within the time limit")
        if self.errors:
            raise RuntimeError(f"watches were not created: {dict(self.errors)}")
        return [("progress", [_Progress(self) for _ in range(_QUESTIONS)], "")]

    def following(self) -> _Watch | None:
        """The next stream that has no progress request under way."""
        for _ in self.streams:
            self._asked = (self._asked + 1) % len(self.streams)
            if self.streams[self._asked].asked is None:
                return self.streams[self._asked]
        return None

    async def wait_for(self, writes: int) -> None:
        expected = writes * (self._spec.watches // self._spec.kinds)
        if not await self.until(lambda: self.received >= expected):
            self.errors["events not delivered"] += expected - self.received

    def close(self) -> None:
        for stream in self.streams:
            stream.stream.cancel()


class _Watch:
    """One watch of one kind on a stream of its own; checks that revisions come once and ascending."""

    def __init__(self, owner: Watches, client: Client, place: int, prefix: bytes) -> None:
        self.asked: Callback | None = None  # of the progress request under way
        self._owner = owner
        self._last = 0  # revision of the last event
        self._passed = 0  # up to which a progress answer says that all events came
        self._began_ns = perf_counter_ns()
        connection = client.connections[place % len(client.connections)]
        self.stream = connection.stream(WATCH, self._message, self._end)
        create = pb.WatchCreateRequest(key=prefix, range_end=prefix_end(prefix), prev_kv=True,
                                       progress_notify=True)
        self.stream.send(pb.WatchRequest(create_request=create).SerializeToString())

    def ask(self, callback: Callback) -> None:
        """Request its progress."""
        self.asked = callback
        self.stream.send(pb.WatchRequest(progress_request=pb.WatchProgressRequest()).SerializeToString())

    def _message(self, body: bytes) -> None:
        now = perf_counter_ns()
        owner, response = self._owner, pb.WatchResponse.FromString(body)
        if response.canceled:
            owner.errors[f"watch cancelled: {response.cancel_reason}"] += 1
        elif response.created:
            owner.created_us.append((now - self._began_ns) // 1000)
        elif not response.events:
            self._passed = max(self._passed, response.header.revision)
            callback, self.asked = self.asked, None
            if callback is not None:
                callback(None, body)
        for event in response.events:
            revision = event.kv.mod_revision
            if revision <= self._last:
                owner.errors["events out of order"] += 1
            elif revision <= self._passed:
                owner.errors[BEHIND] += 1
            self._last = revision
            stamp_ns = int.from_bytes(event.kv.value[STAMP], "big")
            if stamp_ns:  # 0: put before the run
                owner.received += 1
                owner.events_us.append((now - stamp_ns) // 1000)
        owner.changed()

    def _end(self, error: RpcError | None) -> None:
        self._owner.errors[f"watch stream ended: {error or 'OK'}"] += 1
        callback, self.asked = self.asked, None
        if callback is not None:
            callback(error or RpcError(Status.UNAVAILABLE, "watch stream ended"), b"")
        self._owner.changed()


class _Progress:
    """A client that requests the progress of one watch after the other."""

    def __init__(self, owner: Watches) -> None:
        self._owner = owner
        self._stream: _Watch | None = None

    def call(self, path: str, body: bytes, callback: Callback) -> int:
        self._stream = self._owner.following()
        if self._stream is None:
            error = RpcError(Status.RESOURCE_EXHAUSTED, "every watch is being asked")
            asyncio.get_running_loop().call_soon(callback, error, b"")
            return 0
        self._stream.ask(callback)
        return 1

    def cancel(self, stream_id: int) -> None:
        if self._stream is not None:
            self._stream.asked = _drop


def _drop(error: RpcError | None, body: bytes) -> None:
    """The answer to a request that was given up."""
