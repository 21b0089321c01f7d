"""Runs over streams: watches and their delivery, lease keep-alives.

A watched value opens with the intended time of its put, so an event's latency needs no bookkeeping and is
right across client processes of one machine (``perf_counter_ns`` is the system's monotonic clock).
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from time import perf_counter_ns

from bench.client import Client, RpcError, Status, Stream
from bench.client.connection import Callback, Connection
from bench.spec import STAMP_BYTES, Spec
from bench.workloads import key_format
from cluster.pb import rpc_pb2 as pb

WATCH = "/etcdserverpb.Watch/Watch"
KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
GRANT = "/etcdserverpb.Lease/LeaseGrant"
REVOKE = "/etcdserverpb.Lease/LeaseRevoke"

_GRANTS_AT_ONCE = 100
_RESPONSES_KEPT = 1_000


class _Put:
    """One event, as all watchers get it."""

    __slots__ = ("missing", "revision", "stamp_ns")

    def __init__(self, revision: int, stamp_ns: int, watchers: int) -> None:
        self.revision = revision
        self.stamp_ns = stamp_ns  # the intended time
        self.missing = watchers  # so many have not had it


class Watchers:
    """All watchers of one client process: ``streams`` streams with ``watchers_per_stream`` each.

    Every watcher covers every key that the run puts, so each has to see each put once and in order; with
    ``watched_keys`` as many watchers have each key, and a put is one event for each of those.
    """

    def __init__(self, spec: Spec, client: Client) -> None:
        self.spec = spec
        self.count = spec.streams * spec.watchers_per_stream
        self.per_put = self.count // (spec.watched_keys or 1)  # events of one put
        self.samples_us: list[int] = []  # delivery latencies; taken and cleared by whoever watches the run
        self.created_us: list[int] = []
        self.errors: Counter[str] = Counter()
        self.received = 0
        self.last_event_ns = 0
        self.to_all_us: list[int] = []  # for each put, until the last watcher here had it
        self._puts: dict[int, _Put] = {}  # by revision, those that some watchers have not had
        self._read: dict[bytes, list[_Put]] = {}  # the latest responses, from their events on
        self._tail = b""  # the last of them
        self._tail_puts: list[_Put] = []
        self._client = client
        self._streams: list[_WatchStream] = []
        self._changed = asyncio.Event()

    async def create(self) -> None:
        """Create all watchers. RuntimeError if some are refused or take too long."""
        requests = self._requests()
        for i in range(self.spec.streams):
            connection = self._client.connections[i % len(self._client.connections)]
            self._streams.append(_WatchStream(self, connection, requests, self.spec.watchers_per_stream))
        if not await self._until(lambda: len(self.created_us) >= self.count or bool(self.errors)):
            raise RuntimeError(f"{len(self.created_us)} of {self.count} watchers created within the time limit")
        if self.errors:
            raise RuntimeError(f"watchers were not created: {dict(self.errors)}")

    async def wait_for(self, puts: int) -> None:
        """Wait until all events of ``puts`` puts are there; gives up when none came for a time limit."""
        expected = puts * self.per_put
        if not await self._until(lambda: self.received >= expected):
            self.errors["events not delivered"] += expected - self.received
        if self.received > expected:
            self.errors["events above those expected"] += self.received - expected

    def close(self) -> None:
        """End the streams."""
        for stream in self._streams:
            stream.stream.cancel()

    def read(self, tail: bytes) -> list[_Put]:
        """The events of a response that was not seen lately; most watchers get the same."""
        if len(self._read) >= _RESPONSES_KEPT:
            self._read.clear()
        puts = []
        for event in pb.WatchResponse.FromString(tail).events:
            kv = event.kv
            put = self._puts.get(kv.mod_revision)
            if put is None:
                stamp_ns = int.from_bytes(kv.value[:STAMP_BYTES], "big")
                put = self._puts[kv.mod_revision] = _Put(kv.mod_revision, stamp_ns, self.per_put)
            puts.append(put)
        self._read[tail] = puts
        return puts

    async def _until(self, reached: Callable[[], bool]) -> bool:
        while not reached():
            self._changed.clear()
            try:
                async with asyncio.timeout(self.spec.timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                return reached()
        return True

    def _requests(self) -> list[bytes]:
        """What the watchers of a stream ask for, in turn."""
        spec = self.spec
        if spec.watched_keys:
            key = key_format(spec)
            return [pb.WatchRequest(create_request=pb.WatchCreateRequest(
                key=key(number), prev_kv=spec.prev_kv, progress_notify=spec.progress_notify)).SerializeToString()
                for number in range(spec.watched_keys)]
        create = pb.WatchCreateRequest(prev_kv=spec.prev_kv, progress_notify=spec.progress_notify)
        if spec.watch_prefix:
            create.key = spec.watch_prefix.encode()
            create.range_end = prefix_end(create.key)
        elif spec.key_space > 1:
            key = key_format(spec)
            create.key, create.range_end = key(0), key(spec.key_space - 1) + b"\x00"
        else:
            create.key = key_format(spec)(0)
        return [pb.WatchRequest(create_request=create).SerializeToString()]


class _WatchStream:
    """One watch stream; checks that each of its watchers sees revisions only once and ascending."""

    def __init__(self, owner: Watchers, connection: Connection, requests: list[bytes], watchers: int) -> None:
        self._owner = owner
        self._last: dict[int, int] = {}  # watch id -> revision of its last event
        self._asked_ns = perf_counter_ns()
        self.stream: Stream = connection.stream(WATCH, self._message, self._end)
        for i in range(watchers):
            self.stream.send(requests[i % len(requests)])

    def _message(self, body: bytes) -> None:
        now = perf_counter_ns()
        watch_id, at = _envelope(body)
        if not at:
            self._control(body, now)
            return
        owner = self._owner
        tail = body[at:]
        if tail == owner._tail:  # most often: cheaper than to hash it
            puts = owner._tail_puts
        else:
            found = owner._read.get(tail)
            puts = owner._tail_puts = owner.read(tail) if found is None else found
            owner._tail = tail
        last = self._last.get(watch_id, 0)
        for put in puts:
            if put.revision <= last:  # the puts are single: a revision twice is an event twice
                owner.errors["events out of order"] += 1
            last = put.revision
            latency_us = (now - put.stamp_ns) // 1000
            owner.samples_us.append(latency_us)
            put.missing -= 1
            if not put.missing:
                owner._puts.pop(last, None)
                owner.to_all_us.append(latency_us)
        self._last[watch_id] = last
        owner.received += len(puts)
        owner.last_event_ns = now
        if not owner._changed.is_set():
            owner._changed.set()

    def _control(self, body: bytes, now: int) -> None:
        """A response without events."""
        response = pb.WatchResponse.FromString(body)
        owner = self._owner
        if response.canceled:
            owner.errors[f"watch cancelled: {response.cancel_reason}"] += 1
        elif response.created:
            self._last[response.watch_id] = 0
            owner.created_us.append((now - self._asked_ns) // 1000)
        owner._changed.set()

    def _end(self, error: RpcError | None) -> None:
        self._owner.errors[f"watch stream ended: {error or 'OK'}"] += 1
        self._owner._changed.set()


def _envelope(body: bytes) -> tuple[int, int]:
    """The watch id of a response and where its events begin; 0 if it has none, or something before them.

    What every watcher of a key gets differs in the id alone, and reading all of it with protobuf cost four times as
    much as this: the client would have been what limits a run with 10,000 watchers.
    """
    if len(body) < 2 or body[0] != 0x0A or body[1] > 0x7F:
        return 0, 0
    at = 2 + body[1]
    watch_id = shift = 0
    if body[at : at + 1] == b"\x10":
        at += 1
        while body[at] > 0x7F:
            watch_id |= (body[at] & 0x7F) << shift
            shift += 7
            at += 1
        watch_id |= body[at] << shift
        at += 1
    return (watch_id, at) if body[at : at + 1] == b"\x5a" else (0, 0)


class CatchUps:
    """Watchers that start from an old revision: done when each has had ``events`` events."""

    def __init__(self, client: Client, request: pb.WatchCreateRequest, events: int, *, streams: int = 1,
                 watchers_per_stream: int = 1) -> None:
        self.errors: Counter[str] = Counter()
        self.received = 0
        self.caught_up_us: list[int] = []
        self._expected = events
        self._watchers = streams * watchers_per_stream
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._got: dict[tuple[int, int], int] = {}
        self._began_ns = perf_counter_ns()
        self._streams: list[Stream] = []
        body = pb.WatchRequest(create_request=request).SerializeToString()
        for i in range(streams):
            connection = client.connections[i % len(client.connections)]
            stream = connection.stream(WATCH, self._message_of(i), self._end)
            self._streams.append(stream)
            for _ in range(watchers_per_stream):
                stream.send(body)

    async def wait(self, limit_s: float) -> bool:
        """Wait for all watchers, at most so long; False if it was not enough, or if one was refused."""
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.shield(self._done)
        except TimeoutError:
            self.errors["watchers that did not catch up"] += self._watchers - len(self.caught_up_us)
        return not self.errors

    def close(self) -> None:
        """End the streams."""
        for stream in self._streams:
            stream.cancel()

    def _message_of(self, place: int) -> Callable[[bytes], None]:
        def message(body: bytes) -> None:
            response = pb.WatchResponse.FromString(body)
            if response.canceled:
                compacted = f"compacted up to {response.compact_revision}" if response.compact_revision else ""
                self._fail(f"watch cancelled: {response.cancel_reason or compacted}")
                return
            self.received += len(response.events)
            before = self._got.get((place, response.watch_id), 0)
            now = self._got[place, response.watch_id] = before + len(response.events)
            if before < self._expected <= now:
                self.caught_up_us.append((perf_counter_ns() - self._began_ns) // 1000)
                if len(self.caught_up_us) == self._watchers and not self._done.done():
                    self._done.set_result(None)

        return message

    def _end(self, error: RpcError | None) -> None:
        self._fail(f"watch stream ended: {error or 'OK'}")

    def _fail(self, reason: str) -> None:
        self.errors[reason] += 1
        if not self._done.done():
            self._done.set_result(None)


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys with ``prefix``; ``\\0`` (no end) if there is no such key."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,)) if trimmed else b"\0"


class KeepAlives:
    """The leases of one client process, and one keep-alive stream per client.

    ``callers`` are what a :class:`bench.loops.Loop` calls: each call keeps the next of its leases alive.
    """

    def __init__(self, spec: Spec, client: Client) -> None:
        self.spec = spec
        self.extra_us: dict[str, list[int]] = {"grant_100": []}
        self.leases: list[int] = []
        self.callers: list[_KeepAlive] = []
        self._client = client

    async def create(self) -> None:
        """Grant the leases and open the streams. RpcError or TimeoutError if a grant fails."""
        request = pb.LeaseGrantRequest(TTL=self.spec.lease_ttl_s)
        for first in range(0, self.spec.leases, _GRANTS_AT_ONCE):
            started = perf_counter_ns()
            for granted in await asyncio.gather(*(
                self._client.unary(GRANT, request, pb.LeaseGrantResponse, connection=i, timeout_s=self.spec.timeout_s)
                for i in range(first, min(first + _GRANTS_AT_ONCE, self.spec.leases))
            )):
                self.leases.append(granted.ID)
            self.extra_us["grant_100"].append((perf_counter_ns() - started) // 1000)
        for i in range(self.spec.clients):
            mine = self.leases[i :: self.spec.clients] or [self.leases[i % len(self.leases)]]
            self.callers.append(_KeepAlive(self._client, i, mine))

    async def close(self) -> None:
        """End the streams and revoke the leases, as far as that works."""
        for caller in self.callers:
            caller.close()
        for first in range(0, len(self.leases), _GRANTS_AT_ONCE):
            await asyncio.gather(*(
                self._client.unary(REVOKE, pb.LeaseRevokeRequest(ID=lease), pb.LeaseRevokeResponse, connection=i)
                for i, lease in enumerate(self.leases[first : first + _GRANTS_AT_ONCE])
            ), return_exceptions=True)


class _KeepAlive:
    """One keep-alive stream, shaped like a connection: a call is one message, answered by the next one back."""

    def __init__(self, client: Client, place: int, leases: list[int]) -> None:
        self._client = client
        self._place = place % len(client.connections)
        self._requests = deque(pb.LeaseKeepAliveRequest(ID=lease).SerializeToString() for lease in leases)
        self._waiting: deque[Callback | None] = deque()
        self._stream: Stream | None = None

    def call(self, path: str, body: bytes, callback: Callback) -> int:
        """Keep the next lease alive; ``body`` is not looked at."""
        if self._stream is None:
            try:
                self._stream = self._client.connections[self._place].stream(path, self._message, self._end)
            except RpcError as error:
                asyncio.get_running_loop().call_soon(callback, error, b"")
                return 0
        self._waiting.append(callback)
        self._stream.send(self._requests[0])
        self._requests.rotate(-1)
        return 1

    def cancel(self, stream_id: int) -> None:
        """Forget the call under way; its answer, if it comes, is dropped."""
        self._waiting = deque(None for _ in self._waiting)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.cancel()

    def _message(self, body: bytes) -> None:
        callback = self._waiting.popleft() if self._waiting else None
        if callback is None:
            return
        if pb.LeaseKeepAliveResponse.FromString(body).TTL > 0:
            callback(None, body)
        else:
            callback(RpcError(Status.NOT_FOUND, "lease expired or revoked"), b"")

    def _end(self, error: RpcError | None) -> None:
        self._stream = None
        waiting, self._waiting = self._waiting, deque()
        for callback in waiting:
            if callback is not None:
                callback(error or RpcError(Status.UNAVAILABLE, "keep-alive stream ended"), b"")
