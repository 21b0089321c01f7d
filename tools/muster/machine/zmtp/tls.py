"""TLS between hosts with certificates instead of a peer key.

A :class:`Handshake` comes before the :class:`Stream`, which gets a :class:`TlsSocket`. What hosts show each
other is etcd's (:class:`cluster.settings.PeerTls`).

Allowed names and revocation lists apply to both sides. OpenSSL's handshake knows neither: it succeeds, and
the refusing side then sends an ERROR of ZMTP, with Go's words for etcd's alert.

A dialling peer has to come from an address of its certificate (``proxy.tls.addresses``). Looking up its names
counts into the handshake's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from cluster.settings import PeerTls, Tls
from proxy.tls.addresses import by_name, by_number
from proxy.tls.certified import refusal_of, shown
from proxy.tls.contexts import Credentials, bound, read
from proxy.tls.layer import words
from proxy.tls.records import Records
from tools.muster.machine.names import NAMES
from tools.muster.machine.zmtp import own_user as owners
from tools.muster.machine.zmtp.asking import Untrusted, asked
from tools.muster.machine.zmtp.codec import GREETING, REMOTE, Broken, Decoder, error_command
from tools.muster.machine.zmtp.stream import CLOSED, LATE

HANDSHAKE_S = 5.0
BAD_CERTIFICATE = "tls: bad certificate"
STEPS_S = 0.001  # of a turn of the loop, for all handshakes of peers that dial; one step may exceed it
_HANDSHAKE_BYTES = 16_384
_PIECE = 262_144  # encrypted in one go
_READ_BYTES = 65_536
# Records without data, for so many bytes of data. Hosts send none: Python's ssl updates no keys. 256
# strangers at once hold the loop for 60 ms by them, and may not send enough data for more
_MOST_EMPTY = 16
_WORTH_BYTES = 65_536


class PeerCredentials:
    """What this host shows its peers, and asks of them. Changed files count from the next connection on.
    ValueError if the first ones cannot be used."""

    def __init__(self, settings: PeerTls, failed: Callable[[str], object] = lambda reason: None) -> None:
        self._settings = settings
        self._served = Credentials(
            Tls(
                cert_file=settings.cert_file, key_file=settings.key_file,
                client_cert_auth=settings.client_cert_auth, trusted_ca_file=settings.trusted_ca_file,
                crl_file=settings.crl_file, allowed_cns=settings.allowed_cns,
                allowed_hostnames=settings.allowed_hostnames, cipher_suites=settings.cipher_suites,
                min_version=settings.min_version, max_version=settings.max_version),
            failed)
        self._failed = failed
        self._wrong = ""  # with the files to dial by
        self._dialling = self._made()

    def for_listening(self) -> ssl.SSLContext:
        return self._served.context()

    def for_dialling(self) -> ssl.SSLContext:
        """Made again each time, since hosts dial seldom; the previous one while files do not fit together."""
        self._served.context()  # revocation counts from the next connection on
        wrong = ""
        try:
            self._dialling = self._made()
        except (ValueError, OSError) as error:
            wrong = str(error)
            if wrong != self._wrong and self._settings.client_cert_file:  # of others it is told above
                self._failed(wrong)
        self._wrong = wrong
        return self._dialling

    def _made(self) -> ssl.SSLContext:
        """ValueError, OSError."""
        settings = self._settings
        cert = settings.client_cert_file or settings.cert_file
        key = settings.client_key_file or settings.key_file
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.hostname_checks_common_name = False  # as Go: a user's may be a host's name
        bound(context, settings)
        if not settings.verifies:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif settings.trusted_ca_file:
            read(settings.trusted_ca_file)  # its error names the file
            # as Go, trust each certificate of the file
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            try:
                context.load_verify_locations(settings.trusted_ca_file)
            except ssl.SSLError as error:
                raise ValueError(
                    f"certificate authorities {settings.trusted_ca_file}: {error.reason}") from None
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        for path in (cert, key):
            read(path)
        try:
            context.load_cert_chain(cert, key, password=lambda: b"")
        except ssl.SSLError as error:
            raise ValueError(f"certificate {cert} and key {key}: {error.reason}") from None
        return context

    def refusal(self, tls: ssl.SSLObject | ssl.SSLSocket, listens: bool) -> str:
        """Why a peer is refused after the handshake; "" if it is not. ``listens``: the peer has dialled."""
        if not listens and not self._settings.verifies:
            return ""
        return refusal_of(tls, self._served.refusal)

    def judges(self, tls: ssl.SSLObject, address: str) -> Coroutine[Any, Any, str] | str:
        """Why a peer that dials from there is refused, "" if it is not; or a look-up of that. :meth:`refusal`
        has read its certificate."""
        certificates = shown(tls) if self._settings.by_address else []
        if not certificates:
            return ""
        found = by_number(certificates[0], address)
        return by_name(certificates[0], address, NAMES) if found is None else found


class TlsSocket:
    """What :class:`Stream` needs of a non-blocking socket, after the handshake."""

    def __init__(
        self, raw: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        self._raw = raw
        self._tls = tls
        self._records = Records(tls, incoming, _MOST_EMPTY, _WORTH_BYTES)
        self._out = outgoing
        self._pending = b""  # encrypted, and not taken by the kernel
        self._ahead = 0  # bytes of the next ``send`` that are among these
        self.family = raw.family

    def fileno(self) -> int:
        return self._raw.fileno()

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self._raw.setsockopt(level, option, value)

    def recv(self, size: int) -> bytes:
        """What whole records hold that have come; b"" at the end. BlockingIOError, OSError. It leaves nothing
        readable behind: the loop watches the raw socket only, and tells of an error once."""
        pieces: list[bytes] = []
        records, waits, ended = self._records, False, False
        while not (pieces or waits or ended):  # a record may come in parts
            data = b""
            try:
                data = self._raw.recv(size)
                ended = not data
            except (BlockingIOError, InterruptedError):
                waits = True
            try:
                pieces = records.read(data, _READ_BYTES)
            except ssl.SSLError as error:
                raise OSError(errno.EPROTO, words(error)) from None
            ended = ended or records.ended
        if pieces or ended:
            return b"".join(pieces)
        raise BlockingIOError

    def send(self, data: bytes | memoryview) -> int:
        """How much was taken; the rest is to be given again. One byte of the rest may be encrypted already:
        it stands for what the kernel has not taken, and is not sent twice."""
        self._flush()
        if self._pending:
            raise BlockingIOError
        view, done = memoryview(data), self._ahead
        self._ahead = 0
        while done < len(view):
            done += self._tls.write(view[done : done + _PIECE])
            self._flush()
            if self._pending:
                self._ahead = 1
                return done - 1
        return done

    def _flush(self) -> None:
        self._pending += self._out.read()
        if self._pending:
            with contextlib.suppress(BlockingIOError, InterruptedError):
                self._pending = self._pending[self._raw.send(self._pending) :]

    def close(self) -> None:
        self._raw.close()


class Steps:
    """Steps of handshakes share turns of the loop, first come, first served. Anybody may ask for one, which
    costs up to a millisecond: what 256 strangers had sent was answered in one turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: deque[Callable[[], None]] = deque()

    def add(self, step: Callable[[], None]) -> None:
        self._due.append(step)
        if len(self._due) == 1:
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        due, until = self._due, time.perf_counter() + STEPS_S
        while due:
            due[0]()
            due.popleft()
            if time.perf_counter() >= until:
                break
        if due:
            self._loop.call_soon(self._turn)


class Handshake:
    """``done(socket)`` or ``failed(reason)`` once, unless :meth:`close` was called. ``name``: the dialled
    host, "": this side listens. ``address``: the other side's, if it dialled. ``steps``: it waits for turns
    there."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, credentials: PeerCredentials, name: str,
        done: Callable[[TlsSocket], None], failed: Callable[[str], None], address: str = "",
        steps: Steps | None = None,
    ) -> None:  # fmt: skip
        self._loop = loop
        self._socket = sock
        self._fd = sock.fileno()
        self._credentials = credentials
        self._listens = not name
        self._address = address
        self._looked_up: asyncio.Task[str] | None = None  # what that is called
        self._done = done
        self._failed = failed
        self._steps = steps
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._pending = b""
        self._closed = False
        context = credentials.for_dialling() if name else credentials.for_listening()
        checked = name.strip("[]").removesuffix(".") if name else None
        self._tls = context.wrap_bio(self._in, self._out, server_side=not name, server_hostname=checked)
        # only now: a handshake that cannot begin leaves nothing behind
        self._timer = loop.call_later(HANDSHAKE_S, self._fail, LATE)
        loop.add_reader(self._fd, self._readable)
        if name:
            loop.call_soon(self._step)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_HANDSHAKE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error.strerror or str(error))
            return
        if not data:
            self._fail(CLOSED)
            return
        self._in.write(data)
        if self._steps is None:
            self._step()
        else:
            self._loop.remove_reader(self._fd)  # nothing more meanwhile
            self._steps.add(self._turn)

    def _turn(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._fd, self._readable)
            self._step()

    def _step(self) -> None:
        if self._closed:
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._flush()  # the alert for the other side
            self._fail(words(error))
            return
        verdict: Coroutine[Any, Any, str] | str = self._credentials.refusal(self._tls, self._listens)
        if not verdict and self._address:
            verdict = self._credentials.judges(self._tls, self._address)
        if isinstance(verdict, str):
            self._decide(verdict)
            return
        self._flush()
        self._loop.remove_reader(self._fd)
        self._looked_up = self._loop.create_task(verdict)
        self._looked_up.add_done_callback(self._told)

    def _told(self, found: asyncio.Task[str]) -> None:
        if not self._closed:
            self._decide(found.result())

    def _decide(self, reason: str) -> None:
        """After the handshake; ``reason`` "": the peer may stay."""
        if reason:
            reason = self._with_theirs(reason)
            with contextlib.suppress(ssl.SSLError):
                self._tls.write(GREETING + error_command(BAD_CERTIFICATE))
            self._flush()
            self._fail(reason)
            return
        self._flush()
        if self._pending:  # a handshake's kilobytes fit into a new connection's buffer
            self._fail("it takes no handshake")
            return
        self._end()
        self._done(TlsSocket(self._socket, self._tls, self._in, self._out))

    def _with_theirs(self, reason: str) -> str:
        """The reason to refuse the peer, and the peer's reason to refuse this side, if it has come."""
        try:
            Decoder(b"ROUTER" if self._listens else b"DEALER").feed(self._tls.read(_READ_BYTES))
        except Broken as said:
            if str(said).startswith(REMOTE):
                return f"{reason}, and {said}"
        except ssl.SSLError:
            pass
        return reason

    def _flush(self) -> None:
        self._pending += self._out.read()
        if self._pending:
            with contextlib.suppress(OSError):
                self._pending = self._pending[self._socket.send(self._pending) :]

    def _end(self) -> None:
        self._closed = True
        self._timer.cancel()
        self._loop.remove_reader(self._fd)
        if self._looked_up is not None:
            self._looked_up.cancel()

    def _fail(self, reason: str) -> None:
        if not self._closed:
            self.close()
            self._failed(reason)

    def close(self) -> None:
        if not self._closed:
            self._end()
            self._socket.close()


def asked_by_tls(
    host: str, port: int, credentials: PeerCredentials, question: bytes, limit_s: float, local: str = "",
    own_user: bool = False,
) -> bytes:
    """The last frame of the first answer of a peer port, by a blocking socket; b"" if there is none.
    ``local``, ``own_user``: as of ``LinkOptions``. Untrusted."""
    deadline = time.monotonic() + limit_s
    source = (local, 0) if local and (":" in local) == (":" in host) else None
    try:
        with (
            socket.create_connection((host, port), limit_s, source) as raw,
            credentials.for_dialling().wrap_socket(raw, server_hostname=host.removesuffix(".")) as sock,
        ):
            if reason := credentials.refusal(sock, listens=False):
                raise Untrusted(reason)
            found = asked(sock, question, deadline)
            here = own_user and owners.is_near(str(sock.getpeername()[0]))
            return b"" if here and owners.foreign(sock) else found
    except ssl.SSLError as e:
        if e.reason and not isinstance(e, ssl.SSLEOFError):  # else it has just closed
            raise Untrusted(words(e)) from None
    except (OSError, ValueError, Broken) as e:
        if isinstance(e, Broken) or str(e).startswith(REMOTE):
            raise Untrusted(str(e)) from None
    return b""
