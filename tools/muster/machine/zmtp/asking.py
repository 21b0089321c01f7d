"""One question to a peer port by a blocking socket, as a joining host asks it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial

from tools.muster.machine.zmtp import own_user as owners
from tools.muster.machine.zmtp.codec import REMOTE, Broken, Decoder, frame_head
from tools.muster.machine.zmtp.curve.keys import CurveKeys
from tools.muster.machine.zmtp.curve.mechanism import CurveDecoder
from tools.muster.machine.zmtp.hints import NO_ANSWER, NO_KEY

_READ_BYTES = 65_536


def _in_clear() -> Decoder:
    return Decoder(b"DEALER")


class NotOwn(Exception):
    """Another user's process listens there, or refuses this user's."""


class Untrusted(Exception):
    """What listens there is no peer of this host, or refuses it: why; of TLS in Go's words."""


def asked(sock: socket.socket, question: bytes, deadline: float, decoder: Decoder | None = None) -> bytes:
    """The last frame of the first answer; b"" if there is none. OSError, Broken."""
    decoder = decoder or Decoder(b"DEALER")
    sock.sendall(decoder.greeting)
    asked = False
    while (left_s := deadline - time.monotonic()) > 0:
        sock.settimeout(left_s)
        data = sock.recv(_READ_BYTES)
        if not data:
            break
        messages = decoder.feed(data)
        if decoder.pongs:
            sock.sendall(decoder.pongs)
            decoder.pongs.clear()
        if decoder.ready and not asked:
            asked = True
            seal = decoder.seal
            sock.sendall(seal(0, question) if seal else frame_head(len(question), False) + question)
        for parts in messages:
            if parts[-1][:1] == question[:1]:
                return parts[-1]
    return b""


def asked_in_clear(
    host: str, port: int, question: bytes, limit_s: float, local: str = "", own_user: bool = False,
    decoder: Callable[[], Decoder] = _in_clear,
) -> bytes:
    """By TCP, or a Unix socket where ``host`` is a path and the port 0. ``local``, ``own_user``: as of
    ``LinkOptions``. b"": nobody listens. NotOwn, Untrusted."""
    deadline = time.monotonic() + limit_s
    try:
        ends = _ends(host, port)
    except (OSError, ValueError):
        return b""
    trouble = ""
    for family, end in ends:
        near = own_user and port != 0 and owners.is_near(end)
        path = owners.path_of(end, port) if near else ""
        tries = [(socket.AF_UNIX, path)] if path and owners.may_dial(path) else []
        for kind, address in (*tries, (family, end)):
            checks = near and kind != socket.AF_UNIX
            try:
                with _connected(kind, address, port, deadline, local) as sock:
                    trouble = NO_ANSWER
                    found = asked(sock, question, deadline, decoder())
                    if found and checks and (reason := owners.foreign(sock)):
                        if owners.NOT_OWN in reason:
                            raise NotOwn(reason)
                        continue
                if found:
                    return found
            except Broken as e:
                trouble = str(e)
                if owners.NOT_OWN in trouble:
                    raise NotOwn(trouble) from None
            except (OSError, ValueError, OverflowError):
                pass
    if trouble:
        raise Untrusted(trouble)
    return b""


def _ends(host: str, port: int) -> list[tuple[int, str]]:
    """OSError, ValueError."""
    return [(socket.AF_UNIX, host)] if not port else [
        (family, str(address[0]))
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def asked_with_keys(
    host: str, port: int, keys: CurveKeys, question: bytes, limit_s: float, local: str = ""
) -> bytes:
    """As :func:`asked_in_clear`, of holders of a key file. They may serve with any of its keys: the limit is
    for all."""
    deadline = time.monotonic() + limit_s
    trouble = ""
    for key in keys.all:
        left_s = deadline - time.monotonic()
        decoder = partial(CurveDecoder, b"DEALER", keys, key)
        try:
            if left_s > 0 and (found := asked_in_clear(host, port, question, left_s, local, decoder=decoder)):
                return found
        except Untrusted as e:
            trouble = NO_KEY if str(e).startswith(REMOTE) else str(e)
    if trouble:
        raise Untrusted(trouble)
    return b""


def _connected(family: int, address: str, port: int, deadline: float, local: str) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        if local and family != socket.AF_UNIX and (":" in local) == (family == socket.AF_INET6):
            sock.bind((local, 0))
        sock.connect(address if family == socket.AF_UNIX else (address, port))
    except BaseException:
        sock.close()
        raise
    return sock
