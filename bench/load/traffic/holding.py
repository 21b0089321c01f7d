"""Many connections and watches of one process, for ``bench.load.crowd``.

Unlike :class:`bench.client.Client` it opens none again: refused and lost ones are counted as errors.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import itertools
import resource
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import perf_counter_ns

from bench.client import Endpoint, RpcError, Stream
from bench.client.connection import Connection
from bench.load.traffic.streams import WATCH
from bench.load.traffic.workloads import PUT, RANGE
from cluster.pb import rpc_pb2 as pb

_SPARE = 256  # descriptors of this process beside the connections
_KINDS = 20  # of errors that are told apart
_SOURCES = 64  # addresses of one process
_OF_A_SOURCE = 20_000  # connections to one endpoint: one address of loopback has 28,000 ports for them


def key_of(watch: int, share: int = 0) -> bytes:
    """The key of a process's watch; no two share one."""
    return b"/crowd/%03d/%07d" % (share, watch)


def parts(total: int, number: int) -> list[int]:
    """So many as equal parts as there are."""
    return [total // number + (i < total % number) for i in range(number)]


def source_of(host: str, number: int, share: int = 0) -> str | None:
    """The own address of a process's connection to an endpoint; None leaves it to the system.

    Connections from one address to one endpoint share its ports. Loopback has more addresses.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    nth = share * _SOURCES + number // _OF_A_SOURCE
    if not nth or address.version != 4 or not address.is_loopback:
        return None
    return str(ipaddress.ip_address("127.0.0.1") + nth)


def allow_descriptors(connections: int) -> int:
    """Raise the soft limit of open files to the hard one, and return it; ValueError if that is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if connections + _SPARE > hard:
        raise ValueError(f"{connections:,} connections need {connections + _SPARE:,} open files; "
                         f"the hard limit here is {hard:,} (ulimit -Hn)")
    return hard


class Crowd:
    """The connections and watches of one run, made in steps, ``at_once`` under way at a time.

    Each step counts failures in ``errors``."""

    def __init__(self, endpoints: Sequence[Endpoint], at_once: int, timeout_s: float, share: int = 0) -> None:
        self.endpoints = endpoints
        self.share = share  # of several processes' crowds: their keys and addresses differ
        self.connections: list[Connection] = []
        self.watches = 0  # that were created
        self.errors: Counter[str] = Counter()
        self._at_once = at_once
        self._timeout_s = timeout_s
        self._streams: list[_Stream] = []
        self._awaited: dict[bytes, asyncio.Future[int]] = {}  # keys whose event is to come, once
        self._closing = False

    async def open(self, count: int, progress: Callable[[int], None]) -> list[int]:
        """Open connections to the endpoints in turn; the microseconds of each, to its settings."""
        took_us: list[int] = []

        async def one(i: int) -> None:
            endpoint = self.endpoints[i % len(self.endpoints)]
            source = source_of(endpoint.host, i // len(self.endpoints), self.share)
            began = perf_counter_ns()
            try:
                made = await Connection.open(endpoint.host, endpoint.port, timeout_s=self._timeout_s,
                                             on_lost=functools.partial(self._lost, endpoint), source=source)
            except (OSError, TimeoutError) as error:
                self.count(f"connection to {endpoint}: {str(error) or type(error).__name__}")
                return
            took_us.append((perf_counter_ns() - began) // 1000)
            self.connections.append(made)
            progress(len(took_us))

        await self._each(range(count), one)
        return took_us

    async def serve(self, progress: Callable[[int], None]) -> list[int]:
        """A put and a get of one key on each connection; the microseconds of each."""
        took_us: list[int] = []

        async def one(i: int) -> None:
            connection, key = self.connections[i], b"/crowd-served/%03d/%07d" % (self.share, i)
            for path, request in ((PUT, pb.PutRequest(key=key, value=b"%d" % i)),
                                  (RANGE, pb.RangeRequest(key=key))):
                began = perf_counter_ns()
                body = await self._answer(connection, path, request.SerializeToString())
                if body is None:
                    return
                took_us.append((perf_counter_ns() - began) // 1000)
                if path == RANGE and [k.value for k in pb.RangeResponse.FromString(body).kvs] != [b"%d" % i]:
                    self.count(f"{connection.authority}: a get does not return what was put")
            progress(len(took_us))

        await self._each(range(len(self.connections)), one)
        return took_us

    async def watch(self, count: int, streams: int, progress: Callable[[int], None]) -> None:
        """Create watches, each on a key of its own, on the first connections, a stream each."""
        chosen = self.connections[:streams]
        of_each = parts(count, len(chosen))
        first = list(itertools.accumulate(of_each, initial=0))

        async def one(i: int) -> None:
            stream = _Stream(self, chosen[i], first[i], of_each[i])
            self._streams.append(stream)
            try:
                async with asyncio.timeout(self._timeout_s):
                    await stream.created
            except TimeoutError:
                self.count(f"{chosen[i].authority}: watches not created in time", of_each[i] - stream.alive)
            self.watches += stream.alive
            progress(self.watches)

        await self._each([i for i, watches in enumerate(of_each) if watches], one)

    async def deliver(self, watches: Iterable[int], progress: Callable[[int], None]) -> list[int]:
        """Put on the keys of these watches; the microseconds from each put's sending to its event."""
        took_us: list[int] = []

        async def one(i: int) -> None:
            key = key_of(i, self.share)
            seen = self._awaited[key] = asyncio.get_running_loop().create_future()
            began = perf_counter_ns()
            connection = self.connections[i % len(self.connections)]
            request = pb.PutRequest(key=key, value=b"seen").SerializeToString()
            if await self._answer(connection, PUT, request) is None:
                return
            try:
                async with asyncio.timeout(self._timeout_s):
                    took_us.append((await seen - began) // 1000)
            except TimeoutError:
                self.count("an event was not delivered in time")
            progress(len(took_us))

        await self._each(list(watches), one)
        return took_us

    def end_watches(self) -> None:
        """End the streams."""
        for stream in self._streams:
            stream.stream.cancel()
        self._streams.clear()

    async def close(self) -> None:
        """Close all connections at once."""
        self._closing = True
        for connection in self.connections:
            connection.close()
        await asyncio.gather(*(connection.wait_closed(10.0) for connection in self.connections))
        self.connections.clear()

    def count(self, what: str, times: int = 1) -> None:
        self.errors[what if what in self.errors or len(self.errors) < _KINDS else "others"] += times

    def event(self, expected: bytes, key: bytes) -> None:
        """An event came at the watch of ``expected``."""
        seen = self._awaited.pop(key, None)
        if key != expected or seen is None:
            self.count("an event for another watch" if key != expected else "an event twice, or of no put")
        elif not seen.done():
            seen.set_result(perf_counter_ns())

    def _lost(self, endpoint: Endpoint, connection: Connection, error: RpcError) -> None:
        if not self._closing:
            self.count(f"connection to {endpoint} lost: {error.message}")

    async def _answer(self, connection: Connection, path: str, body: bytes) -> bytes | None:
        """One call; None if it fails, which is counted."""
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

        def done(error: RpcError | None, body: bytes) -> None:
            if error is not None:
                self.count(f"{connection.authority}: {error.name}: {error.message}")
            if not answer.done():
                answer.set_result(None if error is not None else body)

        call = connection.call(path, body, done)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError:
            connection.cancel(call)
            self.count(f"{connection.authority}: no answer in time")
            return None

    async def _each(self, items: Sequence[int], work: Callable[[int], Awaitable[None]]) -> None:
        left = iter(items)

        async def worker() -> None:
            for item in left:
                await work(item)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._at_once, len(items))):
                    group.create_task(worker())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None


class _Stream:
    """One watch stream. Servers number its watches in the order in which they are asked for."""

    def __init__(self, crowd: Crowd, connection: Connection, first: int, count: int) -> None:
        self.alive = 0
        self.created: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._crowd = crowd
        self._connection = connection
        self._first = first
        self._count = count
        self.stream: Stream = connection.stream(WATCH, self._message, self._end)
        for watch in range(first, first + count):
            self.stream.send(pb.WatchRequest(
                create_request=pb.WatchCreateRequest(key=key_of(watch, crowd.share))).SerializeToString())

    def _message(self, body: bytes) -> None:
        response = pb.WatchResponse.FromString(body)
        if response.canceled:
            self._crowd.count(f"{self._connection.authority}: watch cancelled: {response.cancel_reason}")
            self._count -= 1
        elif response.created:
            self.alive += 1
        for event in response.events:
            self._crowd.event(key_of(self._first + response.watch_id, self._crowd.share), event.kv.key)
        self._settle()

    def _end(self, error: RpcError | None) -> None:
        self._crowd.count(f"{self._connection.authority}: watch stream ended: {error or 'OK'}")
        self._count = self.alive
        self._settle()

    def _settle(self) -> None:
        if self.alive >= self._count and not self.created.done():
            self.created.set_result(None)
