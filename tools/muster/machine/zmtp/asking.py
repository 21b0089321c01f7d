"""One question to a peer port by a blocking socket, as a joining host asks it."""

from __future__ import annotations

import socket
import time

from tools.muster.machine.zmtp import own_user as owners
from tools.muster.machine.zmtp.codec import GREETING, Broken, Decoder, frame_head, ready

_READ_BYTES = 65_536


class NotOwn(Exception):
    """Another user's process listens there, or refuses this user's."""


def asked(sock: socket.socket, question: bytes, deadline: float) -> bytes:
    """The last frame of the first answer; b"" if there is none. OSError, Broken."""
    decoder = Decoder(b"DEALER")
    sock.sendall(GREETING + ready(b"DEALER", b""))
    asked = False
    while (left_s := deadline - time.monotonic()) > 0:
        sock.settimeout(left_s)
        data = sock.recv(_READ_BYTES)
        if not data:
            break
        messages = decoder.feed(data)
        if decoder.ready and not asked:
            asked = True
            sock.sendall(frame_head(len(question), False) + question)
        for parts in messages:
            if parts[-1][:1] == question[:1]:
                return parts[-1]
    return b""


def asked_in_clear(
    host: str, port: int, question: bytes, limit_s: float, local: str = "", own_user: bool = False
) -> bytes:
    """By TCP, or a Unix socket where ``host`` is a path and the port 0. ``local``, ``own_user``: as of
    ``LinkOptions``. NotOwn."""
    deadline = time.monotonic() + limit_s
    try:
        ends = [(socket.AF_UNIX, host)] if not port else [
            (family, str(address[0]))
            for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, ValueError):
        return b""
    for family, end in ends:
        near = own_user and port != 0 and owners.is_near(end)
        path = owners.path_of(end, port) if near else ""
        tries = [(socket.AF_UNIX, path)] if path and owners.may_dial(path) else []
        for kind, address in (*tries, (family, end)):
            checks = near and kind != socket.AF_UNIX
            try:
                if found := _asked_at(kind, address, port, question, deadline, local, checks):
                    return found
            except (OSError, ValueError, OverflowError, Broken) as e:
                if owners.NOT_OWN in str(e):
                    raise NotOwn(str(e)) from None
    return b""


def _asked_at(
    family: int, address: str, port: int, question: bytes, deadline: float, local: str, checks: bool
) -> bytes:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        if local and family != socket.AF_UNIX and (":" in local) == (family == socket.AF_INET6):
            sock.bind((local, 0))
        sock.connect(address if family == socket.AF_UNIX else (address, port))
        found = asked(sock, question, deadline)
        if found and checks and (reason := owners.foreign(sock)):
            if owners.NOT_OWN in reason:
                raise NotOwn(reason)
            return b""
        return found
