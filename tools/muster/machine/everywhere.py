"""Addresses that mean all of this machine's: of IPv4 and of IPv6, as in Go."""

from __future__ import annotations

import errno
import socket

EVERYWHERE = ("0.0.0.0", "::", "*")


def knows_ipv6() -> bool:
    """Whether all addresses of IPv6 can be listened at."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::", 0))
    except OSError as e:
        return e.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
    return True
