"""Processes, a clock and a network in one Python process, from one seed.

A :class:`Process` is what an operating system process with an event loop is to the code that runs in it: it
has the loop's methods that nodes and fronts use, it can be killed, and it can be paused for long (a zombie:
what arrives meanwhile waits, and then comes in any order that keeps each connection's own). Sockets are
ZeroMQ's DEALER and ROUTER as far as nodes and fronts can tell: a connection delivers in order or breaks;
nothing is queued for a peer that is not there; a frame that was sent may arrive after its sender closed the
socket and opened another. Partitions hold frames back or break the connections.

Every connection draws its delays from its own generator, so that the order in which a process happens to go
through a set of links changes nothing: a seed means the same run everywhere.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any


class Violation(AssertionError):
    """A rule is broken; ``rule`` is its name."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


class PowerCut(BaseException):
    """The process that runs dies here and now."""


class DiskBroke(OSError):
    """There is no room, or the device says no."""


class Handle:
    """A call to come, which can be cancelled."""

    __slots__ = ("args", "callback", "cancelled")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def run(self) -> None:
        if not self.cancelled:
            self.callback(*self.args)


class Future:
    """What nodes use of ``asyncio.Future``."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._callbacks: list[Callable[[Future], None]] = []
        self.finished = False
        self._result: Any = None
        self._exception: BaseException | None = None

    def done(self) -> bool:
        return self.finished

    def cancelled(self) -> bool:
        return False

    def result(self) -> Any:
        if self._exception is not None:
            raise self._exception
        return self._result

    def exception(self) -> BaseException | None:
        return self._exception

    def set_result(self, result: Any) -> None:
        self._result, self.finished = result, True
        self._call()

    def set_exception(self, error: BaseException) -> None:
        self._exception, self.finished = error, True
        self._call()

    def add_done_callback(self, callback: Callable[[Future], None]) -> None:
        self._callbacks.append(callback)
        if self.finished:
            self._call()

    def _call(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._process.call_soon(callback, self)


class Process:
    """One process and its event loop. Times of the loop are seconds, as asyncio's."""

    def __init__(self, world: World, host: int, name: str) -> None:
        self.world = world
        self.host = host
        self.name = name
        self.alive = True
        self.paused = False
        self.random = Random(f"{world.seed}/{name}/{world.next_life(name)}")
        self.clock_offset = self.random.uniform(0, 1000)
        self.clock_rate = world.clock_rate(host)  # its seconds in one of the world's
        self.sockets: list[Router | Dealer] = []
        self.busy_s = 0.0002  # how long the loop is at something else before it comes to what is ready
        self._ready: deque[Handle] = deque()
        self._scheduled = False
        self._inbox: list[tuple[object, Callable[[], object]]] = []

    # -- as an event loop

    def time(self) -> float:
        return self.world.now * self.clock_rate + self.clock_offset

    def wall_time(self) -> float:
        """Seconds of the clock on the wall, which jumps."""
        return self.world.wall_time(self)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> Handle:
        handle = Handle(callback, args)
        self._ready.append(handle)
        if not self._scheduled:
            self._scheduled = True
            self.world.at(self.random.random() * self.busy_s, self, self._drain)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Handle:
        handle = Handle(callback, args)
        self.world.at(delay_s / self.clock_rate, self, handle.run)
        return handle

    def create_future(self) -> Future:
        return Future(self)

    def run_in_executor(self, executor: object, work: Callable[..., Any], *args: Any) -> Future:
        """In the other thread it takes a while, and happens at once somewhere in it. What finishes a snapshot
        takes what its ``takes_s`` says."""
        future = Future(self)
        takes_s = work.__self__.takes_s if getattr(work, "__name__", "") == "finish" else 0.0  # type: ignore[attr-defined]

        def run() -> None:
            try:
                result = work(*args)
            except Exception as e:
                error = e
                self.world.at(0.001, self, lambda: future.set_exception(error))
            else:
                self.world.at(self.random.uniform(0.0005, 0.02), self, lambda: future.set_result(result))

        self.world.at(takes_s + self.random.uniform(0.0001, 0.02), self, run)
        return future

    def _drain(self) -> None:
        self._scheduled = False
        ready = self._ready
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled:
                handle.callback(*handle.args)
        if ready and not self._scheduled:
            self._scheduled = True
            self.world.at(self.random.random() * self.busy_s, self, self._drain)

    # -- as a process

    def happens(self, source: object, event: Callable[[], object]) -> None:
        """Something comes to this process: now, after its pause, or never."""
        if self.paused:
            self._inbox.append((source, event))
        elif self.alive:
            self.world.current = self
            event()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        """It finds what has come meanwhile: any socket first, each socket's frames in their order."""
        self.paused = False
        streams: dict[object, deque[Callable[[], object]]] = {}
        for source, event in self._inbox:
            streams.setdefault(source, deque()).append(event)
        self._inbox = []
        queues = list(streams.values())
        while queues and self.alive:
            queue = self.random.choice(queues)
            self.happens(None, queue.popleft())
            if not queue:
                queues.remove(queue)

    def kill(self) -> None:
        self.alive = self.paused = False
        self._ready.clear()
        self._inbox = []
        for socket in list(self.sockets):
            socket.die()


class Connection:
    """One TCP or ipc connection: two streams of frames, in order, until it breaks."""

    def __init__(self, dealer: Dealer, router: Router) -> None:
        self.dealer = dealer
        self.router = router
        self.world: World = dealer.process.world
        self.up = True  # as the network sees it
        self.held: dict[bool, list[list[bytes]]] = {True: [], False: []}
        self._random = Random(f"{dealer.process.world.seed}/{dealer.process.name}/{dealer.serial}")
        self._last = {True: 0.0, False: 0.0}
        forward, back = (dealer.process, router.process), (router.process, dealer.process)
        self._ends = {True: forward, False: back}  # whose frames go to whom

    def send(self, forward: bool, parts: list[bytes]) -> None:
        """``forward``: from the dealer to the router."""
        world = self.world
        source, target = self._ends[forward]
        now = world.now
        arrival = now + world.delay(self._random, source.host == target.host)
        after = self._last[forward] + 1e-7
        if arrival < after:
            arrival = after
        self._last[forward] = arrival
        # the network delivers even when the sender is gone; only the receiver must be there
        world.at_network(arrival - now, target, partial(self._arrive, forward, parts))

    def _arrive(self, forward: bool, parts: list[bytes]) -> None:
        if not self.up:
            return
        source, target = self._ends[forward]
        blocked = self.world.blocked
        if self.held[forward] or (blocked and (source.host, target.host) in blocked):
            self.held[forward].append(parts)
        elif forward:
            if not self.router.closed:
                target.happens(self, partial(self._read, self.router, [self.dealer.identity, *parts]))
        elif not self.dealer.closed and self.dealer.connection is self:
            target.happens(self, partial(self._read, self.dealer, parts))

    @staticmethod
    def _read(socket: Dealer | Router, parts: list[bytes]) -> None:
        if not socket.closed:
            socket.receive(parts)

    def healed(self) -> None:
        """The partition is over: TCP sends again what was held back, or gives up."""
        for forward in (True, False):
            source, target = self._ends[forward]
            if self.held[forward] and (source.host, target.host) not in self.world.blocked:
                frames, self.held[forward] = self.held[forward], []
                for parts in frames:
                    if self.up:
                        self.send(forward, parts)

    def break_(self) -> None:
        """Both ends notice."""
        if self.up:
            self.up = False
            self.router.lost(self)
            self.dealer.lost(self)


class Dealer:
    """A connecting socket."""

    trouble = ""
    dropped = 0

    def __init__(self, process: Process, endpoint: str, identity: bytes, *, reconnects: bool = True) -> None:
        self.process = process
        self.endpoint = endpoint
        self.identity = identity
        self.serial = process.world.next_life(f"{process.name} sockets")
        self.connection: Connection | None = None
        self.closed = False
        self.receive: Callable[[list[bytes]], None] = lambda parts: None
        self.connected: Callable[[], None] = lambda: None
        self.broken: Callable[[], None] = lambda: None
        self._reconnects = reconnects
        process.sockets.append(self)
        process.world.at(process.random.uniform(0.0001, 0.002), process, self._connect)

    def _connect(self) -> None:
        if self.closed or self.connection is not None:
            return
        world = self.process.world
        router = world.bound.get(self.endpoint)
        if router is None or not world.reachable(self.process.host, router.process.host):
            if self._reconnects:
                world.at(self.process.random.uniform(0.05, 0.3), self.process, self._connect)
            return
        self.connection = Connection(self, router)
        router.accept(self.connection)
        self.connected()

    def send(self, parts: list[bytes]) -> bool:
        if self.connection is None or self.closed:
            return False
        self.connection.send(True, parts)
        return True

    def stands(self) -> bool:
        return self.connection is not None

    def unfinished(self) -> int:
        return 0

    def hint(self) -> str:
        """Nobody reads the log."""
        return ""

    def drop(self, identity: bytes, reason: str) -> None:
        """Another member's end is there."""
        if self.connection is not None:
            self.connection.break_()

    def lost(self, connection: Connection) -> None:
        if self.connection is connection and not self.closed:
            self.connection = None
            process = self.process
            if process.alive:
                process.world.at(0.0005, process, self._noticed)

    def _noticed(self) -> None:
        if not self.closed:
            self.broken()
            if self._reconnects:
                self.process.world.at(self.process.random.uniform(0.05, 0.3), self.process, self._connect)

    def close(self) -> None:
        """What was sent may still arrive; nothing comes back."""
        if not self.closed:
            self.closed = True
            self.process.sockets.remove(self)

    def die(self) -> None:
        self.close()
        if self.connection is not None:
            self.connection.break_()


class Router:
    """A bound socket."""

    def __init__(self, process: Process, endpoint: str) -> None:
        self.process = process
        self.endpoint = endpoint
        self.closed = False
        self.receive: Callable[[list[bytes]], None] = lambda parts: None
        self.connections: dict[bytes, Connection] = {}
        process.sockets.append(self)
        assert endpoint not in process.world.bound, f"{endpoint} is bound already"
        process.world.bound[endpoint] = self

    def trust(self, identity: bytes) -> None:
        """There are no strangers here."""

    def drop(self, identity: bytes, reason: str) -> None:
        """Nobody sends odd frames here."""
        raise AssertionError(reason)

    def address(self, identity: bytes) -> str:
        """Nobody reads the log."""
        return ""

    def accept(self, connection: Connection) -> None:
        old = self.connections.get(connection.dealer.identity)
        if old is not None:  # ROUTER_HANDOVER
            old.up = False
        self.connections[connection.dealer.identity] = connection

    def send(self, parts: list[bytes]) -> bool:
        connection = self.connections.get(parts[0])
        if connection is None:
            return False
        if connection.dealer.closed:
            del self.connections[parts[0]]
            return False
        connection.send(False, parts[1:])
        return True

    def lost(self, connection: Connection) -> None:
        if self.connections.get(connection.dealer.identity) is connection:
            del self.connections[connection.dealer.identity]

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.process.sockets.remove(self)
            del self.process.world.bound[self.endpoint]

    def die(self) -> None:
        connections = list(self.connections.values())
        self.close()
        for connection in connections:
            connection.break_()


class World:
    """The clock (seconds), what will happen, and the network."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now = 0.0
        self.current: Process | None = None
        self.bound: dict[str, Router] = {}
        self.blocked: set[tuple[int, int]] = set()  # (from host, to host)
        self.late = 0.0  # share of frames between hosts that take long
        self.latency_s = 0.002
        self.wall_jumps: dict[int, float] = {}  # by host
        self.wall_skew_s = 0.0  # what a wall clock is off at the most, where a plan bounds it
        self.dark: set[int] = set()  # hosts without power: they do not even say that a connection is gone
        self.events = 0
        # when, a name and a number to sort by, whose event it is (None: the world's)
        self._heap: list[tuple[float, str, int, Process | None, Callable[[], object]]] = []
        self._lives: dict[str, int] = {}

    def next_life(self, name: str) -> int:
        self._lives[name] = self._lives.get(name, 0) + 1
        return self._lives[name]

    def at(self, delay_s: float, process: Process | None, event: Callable[[], object]) -> None:
        """An event of a process (None: of the world)."""
        self.events = number = self.events + 1
        due = self.now + delay_s if delay_s > 0.0 else self.now
        heapq.heappush(self._heap, (due, "" if process is None else process.name, number, process, event))

    def at_network(self, delay_s: float, target: Process, event: Callable[[], None]) -> None:
        """Something the network does, whatever the target is at."""
        self.events = number = self.events + 1
        due = self.now + delay_s if delay_s > 0.0 else self.now
        heapq.heappush(self._heap, (due, target.name, number, None, event))

    def run_until(self, end: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Let things happen; True as soon as ``done`` (looked at every 10 ms)."""
        heap, pop = self._heap, heapq.heappop
        look = self.now
        while heap and (due := heap[0][0]) <= end:
            if due >= look:
                if done():  # what is due now stays due
                    return True
                look = due + 0.01
            self.now, _, _, process, event = pop(heap)
            if process is None:
                event()
            else:
                process.happens(None, event)
        self.now = end
        return done()

    def clock_rate(self, host: int) -> float:
        """How fast a host's clock runs."""
        return 1.0

    def wall_time(self, process: Process) -> float:
        """What the clock on the wall of a process's host says."""
        return process.time() + self.wall_jumps.get(process.host, 0.0)

    def delay(self, random: Random, local: bool) -> float:
        if local:
            return 0.00005 + (0.0005 - 0.00005) * random.random()  # as Random.uniform does it
        if self.late and random.random() < self.late:
            return random.uniform(0.05, 1.5)
        return 0.0002 + (self.latency_s - 0.0002) * random.random()

    def reachable(self, a: int, b: int) -> bool:
        return (a, b) not in self.blocked and (b, a) not in self.blocked

    def connections(self) -> list[Connection]:
        return [c for _, router in sorted(self.bound.items()) for _, c in sorted(router.connections.items())]

    def heal(self, broken: float = 0.3) -> None:
        """Partitions end; some connections have not survived them."""
        self.blocked.clear()
        for connection in self.connections():
            if any(connection.held.values()):
                if self.random.random() < broken:
                    connection.break_()
                else:
                    connection.healed()
