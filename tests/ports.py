"""Ports of this machine that no other test process takes.

Each process that runs tests has a block of 1,500 ports to itself, by a lock that ends with it: what is
free when a test looks is free when its hosts listen, however many run side by side. All lie below the
kernel's own choice.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import socket
import tempfile
from collections import deque
from pathlib import Path

_FIRST, _END, _BLOCK = 11_000, 32_000, 1500
_HOST = 100  # a host's plan: its client port, then its peer ports
# given lately, and perhaps not listened on yet: a test that asks twice gets others
_LATELY = 200
_lately: deque[int] = deque(maxlen=_LATELY)


@functools.cache
def _block() -> range:
    """This process's block; all of them, should none be left."""
    folder = Path(tempfile.gettempdir()) / f"muster-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    starts = list(range(_FIRST, _END, _BLOCK))
    random.shuffle(starts)
    for start in starts:
        lock = os.open(folder / str(start), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
        else:
            return range(start, start + _BLOCK)  # locked until this process ends
    return range(_FIRST, _END)


def free_base_port(hosts: int, shards: int = 1) -> int:
    """A base port whose whole plan of ports is free now."""
    block = _block()
    plan = [_HOST * host + port for host in range(hosts) for port in range(shards + 1)]
    for _ in range(1000):
        base = random.randrange(block.start, block.stop - plan[-1])
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in plan:
                probe = stack.enter_context(socket.socket())
                # as hosts bind: a connection that has ended keeps its port for a minute from those who do not
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", base + port))
            if len(plan) > _LATELY // 4:  # larger than it could be kept apart from others
                return base
            ports = [base + port for port in plan]
            if set(ports).isdisjoint(_lately):
                _lately.extend(ports)
                return base
    raise AssertionError("no free ports")


def free_ports(count: int) -> list[int]:
    """Single ports that are free now."""
    block, found = _block(), list[int]()
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            with contextlib.suppress(OSError):
                port = random.randrange(block.start, block.stop)
                if port in _lately:
                    continue
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(port)
    _lately.extend(found)
    return found
