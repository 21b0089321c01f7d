"""What a front needs of its machine besides what ``cluster.machine`` says: the loop that it runs on."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from cluster import machine
from proxy.tls.addresses import Names


class Machine(machine.Machine, Protocol):
    """The machine as a front sees it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The process's event loop; its clock is :meth:`monotonic`."""

    @property
    def names(self) -> Names:
        """Of addresses, and the other way round."""

    def keep_alive(self, listening: Any) -> None:
        """Have connections that a socket accepts end when their clients have vanished."""
