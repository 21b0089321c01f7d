"""Runs over streams: watchers that catch up, lease keep-alives."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from time import perf_counter_ns

from bench.client import Client, RpcError, Status, Stream
from bench.client.connection import Callback
from bench.load.spec import Spec
from cluster.pb import rpc_pb2 as pb

WATCH = "/etcdserverpb.Watch/Watch"
KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
GRANT = "/etcdserverpb.Lease/LeaseGrant"
REVOKE = "/etcdserverpb.Lease/LeaseRevoke"

_AT_ONCE = 100


class CatchUps:
    """Watchers that start from an old revision, until each has ``events`` events."""

    def __init__(self, client: Client, request: pb.WatchCreateRequest, events: int, *, streams: int = 1,
                 watchers: int = 1) -> None:
        self.errors: Counter[str] = Counter()
        self.received = 0
        self.caught_up_us: list[int] = []
        self._expected = events
        self._watchers = watchers
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._got: dict[tuple[int, int], int] = {}
        self._began_ns = perf_counter_ns()
        self._streams: list[Stream] = []
        body = pb.WatchRequest(create_request=request).SerializeToString()
        for i in range(streams):
            connection = client.connections[i % len(client.connections)]
            stream = connection.stream(WATCH, self._message_of(i), self._end)
            self._streams.append(stream)
            for _ in range(i, watchers, streams):
                stream.send(body)

    async def wait(self, limit_s: float) -> bool:
        """Wait for all watchers; False at the limit, or if one was refused."""
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.shield(self._done)
        except TimeoutError:
            self.errors["watchers that did not catch up"] += self._watchers - len(self.caught_up_us)
        return not self.errors

    def close(self) -> None:
        for stream in self._streams:
            stream.cancel()

    def _message_of(self, place: int) -> Callable[[bytes], None]:
        def message(body: bytes) -> None:
            response = pb.WatchResponse.FromString(body)
            if response.canceled:
                compacted = response.compact_revision
                reason = response.cancel_reason or (f"compacted up to {compacted}" if compacted else "")
                self._fail(f"watch cancelled: {reason}")
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


class Awaited:
    """Something that messages of streams change, and a run waits for."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Wake the run."""
        if not self._changed.is_set():
            self._changed.set()

    async def until(self, reached: Callable[[], bool]) -> bool:
        """Wait for it; False if nothing changed for a time limit."""
        while not reached():
            self._changed.clear()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                return reached()
        return True


async def revoke(client: Client, leases: list[int]) -> None:
    """Take leases off the list and revoke them, a hundred at a time, as far as that works.

    They would expire in the next run. Those that are granted meanwhile are revoked, too.
    """
    while leases:
        some = leases[:_AT_ONCE]
        del leases[:_AT_ONCE]
        answers = await asyncio.gather(
            *(client.unary(REVOKE, pb.LeaseRevokeRequest(ID=lease), pb.LeaseRevokeResponse, connection=i)
              for i, lease in enumerate(some)),
            return_exceptions=True)
        if all(isinstance(answer, TimeoutError) for answer in answers):
            return


class KeepAlives:
    """The leases of one client process, and one keep-alive stream per client.

    Each call of one of ``callers`` keeps the next of its leases alive.
    """

    def __init__(self, spec: Spec, client: Client) -> None:
        self.spec = spec
        self.extra_us: dict[str, list[int]] = {"grant_100": []}
        self.leases: list[int] = []
        self.callers: list[_KeepAlive] = []
        self._client = client

    async def create(self) -> None:
        """Grant the leases and open the streams. RpcError or TimeoutError if a grant fails."""
        request, spec = pb.LeaseGrantRequest(TTL=self.spec.lease_ttl_s), self.spec
        for first in range(0, spec.leases, _AT_ONCE):
            started = perf_counter_ns()
            granted = await asyncio.gather(
                *(self._client.unary(GRANT, request, pb.LeaseGrantResponse, connection=i,
                                     timeout_s=spec.timeout_s)
                  for i in range(first, min(first + _AT_ONCE, spec.leases))))
            self.leases += [answer.ID for answer in granted]
            self.extra_us["grant_100"].append((perf_counter_ns() - started) // 1000)
        for i in range(spec.clients):
            mine = self.leases[i :: spec.clients] or [self.leases[i % len(self.leases)]]
            self.callers.append(_KeepAlive(self._client, i, mine))

    async def close(self) -> None:
        for caller in self.callers:
            caller.close()
        await revoke(self._client, self.leases)


class _KeepAlive:
    """One keep-alive stream that answers like a connection: a call is one message, answered by the next."""

    def __init__(self, client: Client, place: int, leases: list[int]) -> None:
        self._client = client
        self._place = place % len(client.connections)
        self._requests = deque(pb.LeaseKeepAliveRequest(ID=lease).SerializeToString() for lease in leases)
        self._waiting: deque[Callback | None] = deque()
        self._stream: Stream | None = None

    def call(self, path: str, body: bytes, callback: Callback) -> int:
        """Keep the next lease alive; ``body`` is not read."""
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
