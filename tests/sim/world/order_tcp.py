"""Connections as TCP makes them, for plans that ask for it: what the network drops is sent again after 0.2,
0.4, 0.8 ... s, so that a connection stays silent for about as long as it was cut, unless a side ends it and
dials anew.

* Each side has its own belief whether the connection stands. A side whose partner's end, or power, went in
  silence sends on until an answer tells it, or until its kernel ends the connection
  (``tools.muster.machine.zmtp.silence``: nothing acknowledged for ``silence_s``).
* A partner that does not read takes ``buffer`` frames; then ``send`` says False, as
  ``tools.muster.machine.zmtp.Stream`` does.
* A dial is a SYN, sent again after 1 and 3 s; it is given up as ``tools.muster.machine.zmtp.Dealer`` gives it
  up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tests.sim.world.order_world import Connection, Dealer, Process, Router
from tools.muster.machine.zmtp.silence import dial_s

RTO_S = 0.2  # the kernel's least
_SYNS_S = (0.0, 1.0, 3.0)
_PAUSES_S = (0.05, 0.5)  # between dials: tools.muster.machine.zmtp.Dealer
_NEVER_S = 900.0  # what the kernel itself waits


class Stream:
    """One direction of a connection."""

    def __init__(self) -> None:
        self.sent = 0  # frames
        self.unacked: deque[tuple[int, float, list[bytes]]] = deque()  # number, when it was sent first, frame
        self.came = 0  # frames that the other kernel has, in order
        self.later: dict[int, list[bytes]] = {}  # that came before what stands before them
        self.unread = 0
        self.full_since = 0.0
        self.rto_s = 0.0  # not 0: the timer runs


class TcpConnection(Connection):
    """See the module. ``stands``: by direction, whether its sender believes that there is a connection."""

    def __init__(self, dealer: TcpDealer, router: Router, silence_s: float, buffer: int) -> None:
        super().__init__(dealer, router)
        self.stands = {True: True, False: True}
        self._silence_s = silence_s
        self._buffer = buffer
        self._streams = {True: Stream(), False: Stream()}
        # when this side's kernel heard the other
        self._heard_at = {True: self.world.now, False: self.world.now}
        if silence_s and dealer.process.host != router.process.host:
            self.world.at(silence_s, None, self._keep_alive)

    def _open(self, forward: bool) -> bool:
        """Whether packets pass in this direction."""
        source, target = self._ends[forward]
        return (source.host, target.host) not in self.world.blocked

    # -- frames

    def push(self, forward: bool, parts: list[bytes]) -> bool:
        """As ``tools.muster.machine.zmtp.Stream.send``."""
        stream = self._streams[forward]
        if not self.stands[forward]:
            return False
        if len(stream.unacked) + stream.unread >= self._buffer:
            stream.full_since = stream.full_since or self.world.now
            if self._silence_s and self.world.now - stream.full_since >= self._silence_s:
                self._end(forward)  # nobody reads: what is sent stays unacknowledged
            return False
        stream.full_since = 0.0
        stream.sent += 1
        stream.unacked.append((stream.sent, self.world.now, parts))
        self._fly(forward, stream.sent, parts)
        return True

    def _fly(self, forward: bool, number: int, parts: list[bytes]) -> None:
        source, target = self._ends[forward]
        delay = self.world.delay(self._random, source.host == target.host)
        arrival = max(self.world.now + delay, self._last[forward] + 1e-7)
        self._last[forward] = arrival
        self.world.at_network(
            arrival - self.world.now, target, lambda: self._land(forward, number, parts)
        )

    def _land(self, forward: bool, number: int, parts: list[bytes]) -> None:
        stream = self._streams[forward]
        if not self._open(forward):
            self._again(forward)
            return
        if not self.stands[not forward]:
            self._reset(forward)
            return
        self._heard_at[not forward] = self.world.now
        if number > stream.came:
            stream.later[number] = parts
        while (found := stream.later.pop(stream.came + 1, None)) is not None:
            stream.came += 1
            self._deliver(forward, found)
        if not self._open(not forward):
            self._again(forward)  # the acknowledgement is lost
            return
        self._heard_at[forward] = self.world.now
        while stream.unacked and stream.unacked[0][0] <= stream.came:
            stream.unacked.popleft()

    def _deliver(self, forward: bool, parts: list[bytes]) -> None:
        stream, socket = self._streams[forward], self.router if forward else self.dealer
        stream.unread += 1

        def read() -> None:
            stream.unread -= 1
            if not socket.closed and (forward or self.dealer.connection is self):
                socket.receive([self.dealer.identity, *parts] if forward else parts)

        socket.process.happens(self, read)

    def _again(self, forward: bool) -> None:
        """Something was lost: the sender's timer runs."""
        stream = self._streams[forward]
        if not stream.rto_s and stream.unacked:
            stream.rto_s = RTO_S
            self._wait(forward)

    def _wait(self, forward: bool) -> None:
        stream = self._streams[forward]
        left = stream.unacked[0][1] + (self._silence_s or _NEVER_S) - self.world.now
        self.world.at(max(min(stream.rto_s, left), 0.001), None, lambda: self._resend(forward))

    def _resend(self, forward: bool) -> None:
        stream = self._streams[forward]
        if not self.stands[forward] or not stream.unacked:
            stream.rto_s = 0.0
            return
        if self.world.now - stream.unacked[0][1] >= (self._silence_s or _NEVER_S) - 0.001:
            self._end(forward)
            return
        for number, _, parts in list(stream.unacked):
            if number > stream.came:
                self._fly(forward, number, parts)
            elif self._open(forward) and self._open(not forward):
                stream.unacked.popleft()  # it was there before, now that is known
        if not stream.unacked:
            stream.rto_s = 0.0
            return
        stream.rto_s *= 2
        self._wait(forward)

    # -- the end

    def _keep_alive(self) -> None:
        """Each kernel asks a partner that it has not heard for long."""
        if not any(self.stands.values()):
            return
        for side in (True, False):
            if not self.stands[side]:
                continue
            if self._open(side) and self._open(not side):
                if not self.stands[not side]:
                    self._end(side)
                self._heard_at[side] = self.world.now
            elif self.world.now - self._heard_at[side] >= 2 * self._silence_s:
                self._end(side)
        self.world.at(self._silence_s, None, self._keep_alive)

    def _end(self, side: bool) -> None:
        """A side's kernel gives the connection up; the other learns of it if it can."""
        if self.stands[side]:
            self._gone(side)
            if self._open(side) and self.stands[not side]:
                self._reset(not side)

    def _reset(self, side: bool) -> None:
        """A side is told that there is no connection, if that reaches it."""
        if self._open(not side):
            self.world.at(0.001, None, lambda: self._gone(side))

    def _gone(self, side: bool) -> None:
        if self.stands[side]:
            self.stands[side] = False
            (self.dealer if side else self.router).lost(self)

    def closed(self, side: bool, tries: int = 8) -> None:
        """A side closed its socket, or died: its kernel says so, again and again."""
        self.stands[side] = False
        if not self.stands[not side] or self._ends[side][0].host in self.world.dark:
            return
        if self._open(side):
            self.world.at(0.001, None, lambda: self._gone(not side))
        elif tries:
            self.world.at(RTO_S * 2 ** (8 - tries), None, lambda: self.closed(side, tries - 1))

    def break_(self) -> None:
        """Both ends notice."""
        self._gone(True)
        self._gone(False)


class TcpDealer(Dealer):
    """A connecting socket over such connections."""

    def __init__(
        self,
        process: Process,
        endpoint: str,
        identity: bytes,
        *,
        reconnects: bool = True,
        silence_s: float = 0.0,
        buffer: int = 10_000,
    ) -> None:
        self._silence_s = silence_s
        self._buffer = buffer
        self._pause_s = _PAUSES_S[0]
        super().__init__(process, endpoint, identity, reconnects=reconnects)

    def _connect(self) -> None:
        self._dial(0, self.process.world.now)

    def _dial(self, attempt: int, began: float) -> None:
        if self.closed or self.connection is not None or not self.process.alive:
            return
        world = self.process.world
        router = world.bound.get(self.endpoint)
        host = (
            int(self.endpoint.split("/")[4])
            if self.endpoint.startswith("ipc")
            else int(self.endpoint[7:].partition(":")[0])
        )
        if not world.reachable(self.process.host, host) or host in world.dark:
            limit = dial_s(self._silence_s)
            later = [s for s in _SYNS_S[attempt + 1 :] if s < limit]
            if later:
                world.at(began + later[0] - world.now, self.process, lambda: self._dial(attempt + 1, began))
            else:
                world.at(began + limit - world.now, self.process, self._in_vain)
        elif router is None:
            self._in_vain()
        else:
            self._pause_s = _PAUSES_S[0]
            self.connection = TcpConnection(self, router, self._silence_s, self._buffer)
            router.accept(self.connection)
            self.connected()

    def _in_vain(self) -> None:
        if self.closed or self.connection is not None:
            return
        if not self._reconnects:
            self.broken()
            return
        self.process.world.at(self._pause_s, self.process, self._connect)
        self._pause_s = min(2 * self._pause_s, _PAUSES_S[1])

    def send(self, parts: list[bytes]) -> bool:
        connection = self.connection
        return isinstance(connection, TcpConnection) and not self.closed and connection.push(True, parts)

    def close(self) -> None:
        super().close()
        if isinstance(self.connection, TcpConnection):
            self.connection.closed(True)

    die = close


class TcpRouter(Router):
    """A bound socket over such connections."""

    def accept(self, connection: Connection) -> None:
        old = self.connections.get(connection.dealer.identity)
        if isinstance(old, TcpConnection):
            old.closed(False)
        self.connections[connection.dealer.identity] = connection

    def send(self, parts: list[bytes]) -> bool:
        connection = self.connections.get(parts[0])
        return isinstance(connection, TcpConnection) and connection.push(False, parts[1:])

    def close(self) -> None:
        if not self.closed:
            super().close()
            for connection in list(self.connections.values()):
                if isinstance(connection, TcpConnection):
                    connection.closed(False)

    die = close


def sockets(tcp: bool) -> tuple[Callable[..., Dealer], Callable[..., Router]]:
    """How sockets are opened in a plan."""
    if tcp:
        return TcpDealer, TcpRouter
    return lambda *given, silence_s=0.0, buffer=0, **named: Dealer(*given, **named), Router
