"""A process's links: ZMTP of this package."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster.machine import FrameSocket, Receive
from tools.muster.machine.zmtp.curve.keys import CurveKeys
from tools.muster.machine.zmtp.dealer import Dealer
from tools.muster.machine.zmtp.lookups import LookUps
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
        self._newer: set[str] = set()
        self._look_ups = LookUps()

    def _options(self, keyed: bool, hwm: int, silence_s: float, shard: int | None = None) -> LinkOptions:
        if not keyed:
            return LinkOptions(hwm, silence_s)
        return LinkOptions(
            hwm, silence_s, self._tls, self._local, self._own_user, self._keys, shard, self._older,
            self._newer, self._look_ups)

    def listen(
        self, endpoint: str, receive: Receive, *, keyed: bool, hwm: int, silence_s: float = 0.0,
        strangers: bool = False, gone: Callable[[bytes], None] | None = None,
    ) -> FrameSocket:
        """See ``cluster.machine.Machine``."""
        options = self._options(keyed, hwm, silence_s)
        return Router(self._loop, endpoint, receive, options, strangers=strangers, gone=gone)

    def dial(
        self, endpoint: str, identity: bytes, receive: Receive, *, shard: int | None, hwm: int,
        silence_s: float = 0.0, opened: Callable[[], None] | None = None,
        lost: Callable[[str], None] | None = None,
    ) -> FrameSocket:
        """See ``cluster.machine.Machine``."""
        options = self._options(shard is not None, hwm, silence_s, shard)
        return Dealer(
            self._loop, endpoint, identity, receive, options, opened=opened, lost=lost, redials=lost is None)
