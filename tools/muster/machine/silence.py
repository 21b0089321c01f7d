"""Clients that have vanished without a word: their kernel answers no probe any more."""

from __future__ import annotations

import socket
from typing import Any

_ALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 30))  # seconds, as etcd; nine probes by default: 5 min


def keep_alive(listening: Any) -> None:
    """Have the kernel probe the clients of a TCP socket: what it accepts takes these options from it."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _ALIVE:
        if (option := getattr(socket, name, None)) is not None:  # not every system has all of them
            listening.setsockopt(socket.IPPROTO_TCP, option, value)
