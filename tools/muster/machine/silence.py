"""Partners that have vanished without a word: their kernel answers no probe any more."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

_ALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 30))  # seconds, as etcd; nine probes by default: 5 min


def keep_alive(sock: Any) -> None:
    """Have the kernel probe the other side of a TCP socket, or of what it accepts: that takes these options
    from it."""
    probe(sock, _ALIVE)


def probe(sock: Any, options: Iterable[tuple[str, int]]) -> None:
    """Have the kernel probe the other side of a TCP socket. ``options``: TCP's, by name."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options:
        if (option := getattr(socket, name, None)) is not None:  # not every system has all of them
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
