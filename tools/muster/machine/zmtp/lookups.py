"""The addresses of a name, which dealers look up in a few threads of their own.

A name server that does not answer holds a thread for ten seconds and more. In the loop's own threads,
snapshots, backups and /metrics would wait for them in the very outage that one wants to see.
"""

from __future__ import annotations

import asyncio
import socket

from tools.muster.machine.names import Unawaited

Addresses = list[tuple[int, str]]  # family and address, the first one to be tried first
Found = Addresses | OSError | ValueError
# codes of socket.gaierror: there is no such name, or it has no address. Others say that nobody could tell
NO_NAME = socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)  # the second: not everywhere
_THREADS = 4  # peers whose names hang at once before another one waits; a cluster has three or five members


class LookUps:
    """Of one process. Dealers that ask for the same name meanwhile share a look-up: a host has several for
    each peer and shard."""

    def __init__(self) -> None:
        self._threads = Unawaited(_THREADS, "names")
        self._under_way: dict[str, asyncio.Future[Found]] = {}

    def of(self, loop: asyncio.AbstractEventLoop, name: str) -> asyncio.Future[Found]:
        """May be cancelled."""
        found = self._under_way.get(name)
        if found is None:
            found = self._under_way[name] = loop.run_in_executor(self._threads, _answer, name)
            found.add_done_callback(lambda _: self._under_way.pop(name))
        return asyncio.shield(found)


def _answer(name: str) -> Found:
    """An error is no exception of the future: nobody may be there any more to take it, which is a fault."""
    try:
        return _look_up(name)
    except (OSError, ValueError) as error:  # the latter: it cannot be a name
        return error


def _look_up(name: str) -> Addresses:
    """IPv4 first: a host that listens at a name binds IPv4."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return sorted(
        ((int(family), str(address[0])) for family, _, _, _, address in found),
        key=lambda a: a[0] != socket.AF_INET)
