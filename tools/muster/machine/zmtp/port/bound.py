"""Sockets that listen, and what accepts at them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Sequence

import structlog

from tools.muster.machine.everywhere import EVERYWHERE, knows_ipv6
from tools.muster.machine.zmtp import own_user as owners
from tools.muster.machine.zmtp.options import split

log = structlog.get_logger("zmtp")

_BACKLOG = 1024
_ACCEPTS = 64  # in one go
_TRIES = 5
_PAUSE_S = 0.5  # without file descriptors there is nothing to accept with
Accepted = Callable[[socket.socket, socket.socket], None]  # a connection, and the socket that listens


class Bound:
    """What listens at one endpoint: a socket, and at loopback with ``own_user`` a Unix socket besides. An
    address that means all of IPv4 or of IPv6 means both, as in Go: a socket each. OSError."""

    def __init__(self, endpoint: str, *, own_user: bool) -> None:
        transport, host, port = split(endpoint)
        self._path = host if transport == "ipc" else ""
        self._near = ""  # the path of the Unix socket besides
        self.sockets = [_bound_unix(host)] if transport == "ipc" else _bound_tcp(host, port)
        try:
            if own_user and transport == "tcp" and owners.is_near(str(self.sockets[0].getsockname()[0])):
                self._listen_near()
            else:
                for one in self.sockets:
                    one.listen(_BACKLOG)
        except OSError:
            for listener in self.sockets:
                listener.close()
            raise

    def _listen_near(self) -> None:
        """At the port, and at a Unix socket besides. OSError."""
        port = self.sockets[0]
        host, number = port.getsockname()[:2]
        path = owners.path_of(host, number)
        near = _bound_near(path)
        try:
            port.listen(_BACKLOG)  # of two processes that have bound it, one may: the path is its
            if near is not None and _moved(path):
                self._near = path
                self.sockets.append(near)
        finally:
            if near is not None and not self._near:
                owners.remove(_made(path))
                near.close()

    @property
    def port(self) -> int:
        return int(self.sockets[0].getsockname()[1])

    def close(self) -> None:
        if self._near:  # while the port is held: the port's next holder makes its own
            owners.remove(self._near)
        for listener in self.sockets:
            listener.close()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


class Acceptor:
    """Accepts at sockets of others until :meth:`close`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, listeners: Sequence[socket.socket], accepted: Accepted
    ) -> None:
        self._loop = loop
        self._listeners = listeners
        self._accepted = accepted
        self._timer: asyncio.TimerHandle | None = None
        self._begin()

    def _begin(self) -> None:
        self._timer = None
        for listener in self._listeners:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as e:
                log.warning("cannot accept a connection", error=str(e))
                if self._timer is None:
                    self._remove_readers()
                    self._timer = self._loop.call_later(_PAUSE_S, self._begin)
                return
            sock.setblocking(False)
            self._accepted(sock, listener)

    def _remove_readers(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())

    def close(self) -> None:
        """Before the sockets are closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._remove_readers()


def _bound_unix(path: str) -> socket.socket:
    return bound_at(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path)


def bound_at(sock: socket.socket, path: str) -> socket.socket:
    """A Unix socket of this user alone, in place of what is there. OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of a process that ended without closing it
    made = _bound(sock, path)
    os.chmod(path, 0o600)
    return made


def _bound_near(path: str) -> socket.socket | None:
    """A listening socket, to be moved to the path; None, and a log line, if there can be none."""
    for tries_left in reversed(range(_TRIES)):
        try:
            if not path:
                raise OSError(errno.ENXIO, "the network namespace is not known", "/proc/self/ns/net")
            owners.prepare(path)
            near = _bound_unix(_made(path))
            near.listen(_BACKLOG)
            return near
        except OSError as e:
            if not tries_left or e.errno != errno.ENOENT:  # the folder went with the last one to use it
                _tell_none(path, e)
                break
    return None


def _moved(path: str) -> bool:
    try:
        os.replace(_made(path), path)
    except OSError as e:
        _tell_none(path, e)
        return False
    return True


def _tell_none(path: str, e: OSError) -> None:
    log.warning("cannot listen at a Unix socket: this user's hosts reach this one by its port",
                path=path if e.filename == _made(path) else e.filename or path, reason=e.strerror or str(e))


def _made(path: str) -> str:
    """The socket's path until this process has the port."""
    return f"{path}.{os.getpid()}"


def _bound_tcp(host: str, port: int) -> list[socket.socket]:
    if host not in EVERYWHERE:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return [_bound(_tcp_socket(found[0][0]), found[0][4])]
    first = _bound(_tcp_socket(socket.AF_INET), ("0.0.0.0", port))
    if not knows_ipv6():
        return [first]
    try:
        second = _tcp_socket(socket.AF_INET6)
        second.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return [first, _bound(second, ("::", first.getsockname()[1]))]
    except OSError:
        first.close()
        raise


def _tcp_socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def _bound(sock: socket.socket, address: object) -> socket.socket:
    sock.setblocking(False)
    try:
        sock.bind(address)  # type: ignore[arg-type]
    except OSError as e:
        sock.close()
        if isinstance(address, str):
            raise OSError(e.errno, e.strerror, address) from None
        raise
    return sock
