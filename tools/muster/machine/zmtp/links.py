"""A process's links: ZMTP of this package, or libzmq's where peers have a key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cached_property

import zmq

from cluster.endpoints import dialled_from, older_endpoint
from cluster.machine import FrameSocket, Receive
from tools.muster.machine.zmtp.curve.keys import CurveKeys
from tools.muster.machine.zmtp.curve.sockets import DealtOnce, Gatekeeper, LoopSocket, Nowhere, dealer, router
from tools.muster.machine.zmtp.dealer import Dealer
from tools.muster.machine.zmtp.options import LinkOptions
from tools.muster.machine.zmtp.router import Router
from tools.muster.machine.zmtp.tls import PeerCredentials


class Links:
    """Opens sockets; the ``keyed`` ones, between hosts, with ``keys``, or ``tls``, ``local`` and ``own_user``
    of :class:`LinkOptions`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, keys: CurveKeys | None = None,
        tls: PeerCredentials | None = None, local: str = "", own_user: bool = False,
    ) -> None:
        self._loop = loop
        self._keys = keys
        self._tls = tls
        self._local = local
        self._own_user = own_user
        self._older: set[str] = set()
        self.gatekeeper: Gatekeeper | None = None

    @cached_property
    def _libzmq(self) -> zmq.Context[zmq.Socket[bytes]]:
        return zmq.Context(io_threads=1)

    def _options(self, keyed: bool, hwm: int, silence_s: float, shard: int | None = None) -> LinkOptions:
        if not keyed:
            return LinkOptions(hwm, silence_s)
        return LinkOptions(hwm, silence_s, self._tls, self._local, self._own_user, shard, self._older)

    def listen(
        self, endpoint: str, receive: Receive, *, keyed: bool, hwm: int, silence_s: float = 0.0,
        strangers: bool = False, gone: Callable[[bytes], None] | None = None,
    ) -> FrameSocket:
        """See ``cluster.machine.Machine``. With keys a stranger is a connection that has not proved to hold
        one, and ``gone`` is not called."""
        options = self._options(keyed, hwm, silence_s)
        if self._keys is None or not keyed:
            return Router(self._loop, endpoint, receive, options, strangers=strangers, gone=gone)
        if self.gatekeeper is None:
            self.gatekeeper = Gatekeeper(self._loop, self._libzmq, self._keys)
        made = LoopSocket(self._loop, router(self._libzmq, endpoint, options, self._keys), receive)
        if strangers:
            made.monitor_router(endpoint)
        made.socket.bind(endpoint)
        return made

    def dial(
        self, endpoint: str, identity: bytes, receive: Receive, *, shard: int | None, hwm: int,
        silence_s: float = 0.0, opened: Callable[[], None] | None = None,
        lost: Callable[[str], None] | None = None,
    ) -> FrameSocket:
        """See ``cluster.machine.Machine``."""
        loop, redials = self._loop, lost is None
        options = self._options(shard is not None, hwm, silence_s, shard)
        if self._keys is None or shard is None:
            return Dealer(
                loop, endpoint, identity, receive, options, opened=opened, lost=lost, redials=redials)
        endpoint = dialled_from(older_endpoint(endpoint, shard), self._local)
        socket = dealer(self._libzmq, endpoint, identity, options, self._keys, redials)
        made: LoopSocket
        if lost is not None:
            made = DealtOnce(loop, socket, endpoint, receive, opened, lost, self._keys)
        else:
            made = LoopSocket(loop, socket, receive)
            made.monitor_dealer(endpoint, opened, self._keys)
        try:
            socket.connect(endpoint)  # only now: each event is reported once
        except (zmq.ZMQError, ValueError, OverflowError):
            made.close()
            return Nowhere(loop, endpoint, lost)
        return made

    def close(self) -> None:
        if self.gatekeeper is not None:
            self.gatekeeper.close()
        if "_libzmq" in self.__dict__:
            self._libzmq.destroy(linger=0)
