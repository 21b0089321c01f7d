"""How a link notices a silent network.

TCP repeats lost packets after 0.2, 0.4, 0.8 ... s, so after a silence the next attempt may be as far away as
the silence was long. An idle side never notices. So the kernel ends a connection when sent data stays
unacknowledged for ``silence_s``, and probes the other kernel after as long without a packet. The dialling
side then dials again. A busy or stopped process is not silent: its kernel goes on acknowledging.
"""

from __future__ import annotations

import math
import socket

from tools.muster.machine.silence import probe

LONGEST_DIAL_S = 5.0


def dial_s(silence_s: float) -> float:
    """How long an attempt to connect may take, in seconds: half of ``silence_s``; 0: the usual limit. A lost
    SYN is repeated after a second: another dial is sooner."""
    return min(silence_s / 2 or LONGEST_DIAL_S, LONGEST_DIAL_S)


def end_when_silent(sock: socket.socket, silence_s: float) -> None:
    """Have the kernel end a TCP connection (ETIMEDOUT) after ``silence_s`` without a packet; 0: never.

    An idle one ends after up to twice that, and after two seconds at least: keep-alives count in seconds.
    """
    if not silence_s or sock.family == socket.AF_UNIX:
        return
    seconds = max(1, math.ceil(silence_s))
    probe(sock, (("TCP_KEEPIDLE", seconds), ("TCP_KEEPINTVL", seconds), ("TCP_KEEPCNT", 1),
                 ("TCP_USER_TIMEOUT", int(silence_s * 1000))))
