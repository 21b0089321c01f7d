"""DEALER and ROUTER, as far as muster uses them.

- A DEALER has one connection. Nothing is kept for a partner that is not there, and nothing old is sent after
  a reconnect (ZeroMQ's IMMEDIATE, with linger 0): ``send`` says False instead.
- A ROUTER knows its partners by the identity that they gave. A newcomer with the same identity takes over
  (HANDOVER), what is for nobody is refused (MANDATORY): ``send`` says False.
- A partner that does not read makes ``send`` say False once ``hwm`` messages, or ``stream.MOST_BYTES``, wait
  for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable

import structlog

from cluster.endpoints import tcp_endpoint
from cluster.repeats import Repeats
from tools.muster.machine.zmtp.http import QUESTION
from tools.muster.machine.zmtp.silence import dial_s, end_when_silent
from tools.muster.machine.zmtp.stream import CLOSED, LATE, Receive, Socket, Stream, traffic
from tools.muster.machine.zmtp.tls import Handshake, PeerCredentials, TlsSocket

log = structlog.get_logger("zmtp")

AGAIN_S = (0.05, 0.5)  # shortest and longest pause between dials
HELLO_S = 5.0  # so long a stranger may take until it has said who it is; a partner takes a round trip
# Beyond so many strangers the one that has been quiet longest goes: to keep a partner out, an enemy has to
# fill them anew within the partner's round trip. What they hold is some megabytes in all.
MOST_STRANGERS = 256
# libzmq's way to say that it wants another mechanism
_ENDED = (CLOSED, os.strerror(errno.ECONNRESET), os.strerror(errno.EPIPE))
# of libzmq (``tools.muster.machine.zmtp.curve``)
NO_KEY = "the handshake failed: it holds another peer key, or none"
NO_PEER = "it answered, but not as a peer"
NO_ANSWER = "it takes connections, and does not answer as a peer"
_NOT_TRIED = "not tried yet"
_BACKLOG = 1024
_ACCEPTS = 64  # in one go
_PAUSE_S = 0.5  # without file descriptors there is nothing to accept with


def split(endpoint: str) -> tuple[str, str, int]:
    """``ipc://PATH`` or ``tcp://HOST:PORT`` as (transport, path or host, port)."""
    transport, _, rest = endpoint.partition("://")
    if transport == "ipc":
        return transport, rest, 0
    host, _, port = rest.rpartition(":")
    return transport, host.strip("[]"), int(port)


def fields(address: str, trouble: str) -> dict[str, str]:
    """Fields of a log line about a connection that ended, without those of which nothing is known."""
    known = {"address": address, "reason": trouble, "hint": hint_of(trouble)}
    return {name: value for name, value in known.items() if value}


def hint_of(trouble: str) -> str:
    """What an operator may look at, who reads of a connection that could not be made."""
    if "CURVE" in trouble or trouble in _ENDED:
        return "a host with --peer-key-file and one without cannot talk"
    if trouble == NO_KEY:
        return "every host needs the same --peer-key-file"
    if trouble.startswith("x509: certificate is valid for") or "does not match any of DNSNames" in trouble:
        return (
            "the peer dials from an address that its certificate is not for: see the names and addresses in "
            "it, or --peer-skip-client-san-verification")
    if trouble.startswith(("tls: ", "remote error: tls: ")):
        return "see --peer-cert-file, --peer-trusted-ca-file and the host's name in its peer URL"
    if trouble.startswith(("client certificate authentication failed", "transport: certificate serial")):
        return "see --peer-cert-allowed-cn, --peer-cert-allowed-hostname and --peer-crl-file"
    if "does not speak ZMTP" in trouble or trouble in (NO_PEER, NO_ANSWER, LATE):
        return "a peer port and another one were taken for each other"
    return ""


class Dealer:
    """The connecting side. ``again_s``: shortest and longest pause before it tries again, None: never; then
    ``lost`` is how its owner hears of the end. ``silence_s``: so long nothing may pass
    (``tools.muster.machine.zmtp.silence``); 0: for ever. ``local``: the address of this machine that it dials
    from, where that is one of the same kind; "": any."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, endpoint: str, identity: bytes, receive: Receive, *, hwm: int,
        again_s: tuple[float, float] | None = AGAIN_S, opened: Callable[[], None] | None = None,
        lost: Callable[[str], None] | None = None, silence_s: float = 0.0, tls: PeerCredentials | None = None,
        local: str = "",
    ) -> None:
        self._tls = tls
        self._local = local
        self._handshake: Handshake | None = None
        self._loop = loop
        self._transport, self._host, self._port = split(endpoint)
        self._identity = identity
        self._receive = receive
        self._hwm = hwm
        self._again_s = again_s
        self._pause_s = again_s[0] if again_s is not None else 0.0
        self.trouble = _NOT_TRIED  # why there is no connection; "" while there is one
        self._opened = opened
        self._lost = lost
        self._silence_s = silence_s
        self._stream: Stream | None = None
        self._connecting: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._addresses: asyncio.Future[list[tuple[int, str]]] | None = None  # a look-up under way
        self._known: list[tuple[int, str]] = []  # addresses of the name, the next one to be tried first
        self.closed = False
        self.dropped = 0  # messages that were not sent
        self._timer = loop.call_later(0, self._connect)

    def send(self, parts: list[bytes]) -> bool:
        """Send without waiting; False if the message was dropped."""
        stream = self._stream
        if stream is not None and stream.send(parts):
            traffic.sent += 1
            return True
        self.dropped += 1
        return False

    def stands(self) -> bool:
        """Whether there is a connection, as far as this side knows."""
        return self._stream is not None

    def close(self) -> None:
        """Close at once; what was not sent is dropped. Nothing is called back any more."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._addresses is not None:
            self._addresses.cancel()
        if self._stream is not None:
            self._stream.close()
        if self._handshake is not None:
            self._handshake.close()
        self._stop_connecting()

    def hint(self) -> str:
        """What an operator may look at while there is trouble."""
        return hint_of(self.trouble)

    def trust(self, identity: bytes) -> None:
        """Nothing: whom a dealer dialled, it knows."""

    def drop(self, identity: bytes, reason: str) -> None:
        """Nothing: it has one connection, which :meth:`close` ends."""

    def address(self, identity: bytes) -> str:
        """What it dials."""
        return tcp_endpoint(self._host, self._port).removeprefix("tcp://")

    # -- connecting

    def _connect(self) -> None:
        self._timer = None
        if self._transport == "ipc":
            self._connect_to(socket.AF_UNIX, self._host)
            return
        for family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError, ValueError):  # the latter: not even a text of C's
                socket.inet_pton(family, self._host)
                self._connect_to(family, self._host)
                return
        if self._addresses is None:
            self._addresses = self._loop.run_in_executor(None, _look_up, self._host)
            self._addresses.add_done_callback(self._looked_up)
        # who answers look-ups may be cut off too: what the name meant before is tried meanwhile
        self._timer = self._loop.call_later(
            dial_s(self._silence_s), self._connect_to_known, "no address in time"
        )

    def _looked_up(self, found: asyncio.Future[list[tuple[int, str]]]) -> None:
        self._addresses = None
        if self.closed or found.cancelled():
            return
        error = found.exception()
        if error is None:
            new = found.result()
            if set(new) != set(self._known):
                self._known = new
        if self._connecting is None and self._stream is None and self._timer is not None:
            self._timer.cancel()
            self._connect_to_known(str(error))

    def _connect_to_known(self, otherwise: str) -> None:
        """Try the next address of the name; a name may have some where nobody listens."""
        self._timer = None
        if not self._known:
            self._failed(otherwise)
            return
        address = self._known.pop(0)
        self._known.append(address)
        self._connect_to(*address)

    def _connect_to(self, family: int, host: str) -> None:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        self._connecting = sock
        try:
            if self._local and family == (socket.AF_INET6 if ":" in self._local else socket.AF_INET):
                sock.bind((self._local, 0))
            sock.connect(host if family == socket.AF_UNIX else (host, self._port))
        except BlockingIOError:
            if family == socket.AF_UNIX:  # its queue of connections is full
                self._failed("the other side does not accept")
                return
            self._loop.add_writer(sock.fileno(), self._tried)
            self._timer = self._loop.call_later(dial_s(self._silence_s), self._hung)
        except OSError as e:
            self._failed(e.strerror or str(e))
        except (ValueError, OverflowError) as e:  # no such path, or port
            self._failed(str(e))
        else:
            self._tried()

    def _tried(self) -> None:
        sock = self._connecting
        assert sock is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._failed(os.strerror(error))
            return
        self._loop.remove_writer(sock.fileno())
        self._connecting = None
        end_when_silent(sock, self._silence_s)
        self.trouble = NO_ANSWER
        if self._tls is None or sock.family == socket.AF_UNIX:
            self._talk(sock)
            return
        try:
            self._handshake = Handshake(
                self._loop, sock, self._tls, self._host, self._shaken, self._not_shaken)
        except (ValueError, OSError) as error:  # files of certificates do not fit together just now, or go
            sock.close()
            self._failed(str(error))

    def _talk(self, sock: Socket) -> Stream:
        self._stream = Stream(
            self._loop, sock, b"DEALER", self._identity, self._hwm, self._is_open, self._came, self._is_lost)
        return self._stream

    def _shaken(self, sock: TlsSocket) -> None:
        self._handshake = None
        self._loop.call_soon(self._talk(sock).look)

    def _not_shaken(self, reason: str) -> None:
        self._handshake = None
        self._failed(reason)

    def _stop_connecting(self) -> None:
        if self._connecting is not None:
            self._loop.remove_writer(self._connecting.fileno())
            self._connecting.close()
            self._connecting = None

    def _hung(self) -> None:
        if self._again_s is not None:
            self._pause_s = self._again_s[0]  # it has waited long enough
        self._failed("no connection in time")

    def _failed(self, reason: str) -> None:
        self.trouble = reason
        self._stop_connecting()
        self._stream = None
        if self._again_s is not None:
            self._timer = self._loop.call_later(self._pause_s, self._connect)
            self._pause_s = min(self._pause_s * 2, self._again_s[1])
        if self._lost is not None:
            self._lost(reason)

    def _is_open(self, stream: Stream) -> None:
        self.trouble = ""
        if self._again_s is not None:
            self._pause_s = self._again_s[0]
        if self._opened is not None:
            self._opened()

    def _came(self, stream: Stream, parts: list[bytes]) -> None:
        self._receive(parts)

    def _is_lost(self, stream: Stream, reason: str) -> None:
        if stream is self._stream and not self.closed:
            self._failed(reason)


def _plain(address: str) -> str:
    """An address as certificates have it: of IPv4, though it came by a socket of IPv6, and of no zone."""
    return address.partition("%")[0].removeprefix("::ffff:") if "." in address else address.partition("%")[0]


def _look_up(host: str) -> list[tuple[int, str]]:
    """The addresses of a name, IPv4 first, which is what a host binds that is told a name."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return sorted(
        ((int(family), str(address[0])) for family, _, _, _, address in found),
        key=lambda a: a[0] != socket.AF_INET,
    )


class Router:
    """The listening side. ``receive`` gets ``[identity, *frames]``, ``send`` takes the same.

    ``strangers``: whoever connects is one until :meth:`trust`. A stranger has ``HELLO_S``, few and small
    messages (``tools.muster.machine.zmtp.stream``), and there are ``MOST_STRANGERS`` at most.
    ``gone(identity)``: a connection that stood has ended. ``http``: a stranger may ask by HTTP who belongs to
    the cluster."""

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: str, receive: Receive, *, hwm: int,
                 silence_s: float = 0.0, strangers: bool = False, gone: Callable[[bytes], None] | None = None,
                 http: bool = False, tls: PeerCredentials | None = None) -> None:
        self._tls = tls
        self._handshakes: dict[Handshake, None] = {}  # the one that began first, first
        self._loop = loop
        self._receive = receive
        self._http = http
        self._hwm = hwm
        self._silence_s = silence_s
        self._streams: dict[bytes, Stream] = {}
        self._shaking: set[Stream] = set()  # not ready yet
        self._wary = strangers
        self._strangers: dict[Stream, asyncio.TimerHandle] = {}  # the one that came first, first
        self._gone = gone
        self._unnamed = 0
        self._complaints = Repeats()
        self._timer: asyncio.TimerHandle | None = None
        self.closed = False
        self.trouble = ""
        self.dropped = 0
        transport, host, port = split(endpoint)
        self._path = host if transport == "ipc" else ""
        self._listener = _listen_unix(host) if transport == "ipc" else _listen_tcp(host, port)
        self._fd = self._listener.fileno()
        loop.add_reader(self._fd, self._accept)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listener.getsockname()[1])

    def send(self, parts: list[bytes]) -> bool:
        """Send without waiting; False if the message was dropped."""
        stream = self._streams.get(parts[0])
        if stream is None:
            self.dropped += 1
            return False
        if stream.send(parts[1:]):
            traffic.sent += 1
            return True
        if stream.ready:
            log.warning("a connection is stuck: it does not take what is sent to it", peer=parts[0].hex())
        self.dropped += 1
        return False

    def hint(self) -> str:
        """Whoever listens has no trouble."""
        return ""

    def trust(self, identity: bytes) -> None:
        """Who connected under this identity has said who it is."""
        stream = self._streams.get(identity)
        if stream is not None and (timer := self._strangers.pop(stream, None)) is not None:
            timer.cancel()
            stream.trust()

    def drop(self, identity: bytes, reason: str) -> None:
        """End the connection of this identity."""
        stream = self._streams.get(identity)
        if stream is not None:
            self._end(stream, reason)

    def address(self, identity: bytes) -> str:
        """Where the connection of this identity comes from: ``host:port``; empty if that is not known."""
        stream = self._streams.get(identity)
        return stream.address if stream is not None else ""

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as e:
                log.warning("cannot accept a connection", error=str(e))
                self._loop.remove_reader(self._fd)
                self._timer = self._loop.call_later(_PAUSE_S, self._accept_again)
                return
            sock.setblocking(False)
            end_when_silent(sock, self._silence_s)
            name = "" if self._path else tcp_endpoint(*address[:2]).removeprefix("tcp://")
            if self._tls is None:
                self._take(sock, name)
            else:
                self._shake_hands(sock, name, self._tls, _plain(address[0]) if name else "")

    def _take(self, sock: Socket, address: str) -> Stream:
        stream = Stream(
            self._loop, sock, b"ROUTER", b"", self._hwm, self._opened, self._came, self._lost,
            stranger=self._wary, address=address, asked=self._asked if self._http else None)
        self._shaking.add(stream)
        if self._wary:
            if len(self._strangers) >= MOST_STRANGERS:
                self._end(next(iter(self._strangers)), "too many connections have not said who they are")
            self._strangers[stream] = self._loop.call_later(HELLO_S, self._end, stream, "no hello in time")
        return stream

    def _shake_hands(self, sock: socket.socket, address: str, tls: PeerCredentials, number: str) -> None:
        def done(encrypted: TlsSocket) -> None:
            self._handshakes.pop(handshake, None)
            self._loop.call_soon(self._take(encrypted, address).look)

        def failed(reason: str) -> None:
            self._handshakes.pop(handshake, None)
            self._complain(address, reason, "rejected connection on peer endpoint")  # etcd's words

        if len(self._handshakes) >= MOST_STRANGERS:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.close()
        handshake = Handshake(self._loop, sock, tls, "", done, failed, number)
        self._handshakes[handshake] = None

    def _accept_again(self) -> None:
        self._timer = None
        self._loop.add_reader(self._fd, self._accept)

    def _opened(self, stream: Stream) -> None:
        self._shaking.discard(stream)
        if not stream.identity:
            self._unnamed += 1
            # as libzmq: a name of its own begins with 0
            stream.identity = b"\0" + self._unnamed.to_bytes(8, "big")
        before = self._streams.get(stream.identity)
        if before is not None:
            before.close()
            self._forget(before)
        self._streams[stream.identity] = stream

    def _asked(self, stream: Stream) -> None:
        """By HTTP, what a host that wants to join asks. It stays a stranger."""
        self._shaking.discard(stream)
        stream.identity = b"\0http" + os.urandom(8)
        self._streams[stream.identity] = stream
        self._receive([stream.identity, QUESTION])

    def _came(self, stream: Stream, parts: list[bytes]) -> None:
        self._receive([stream.identity, *parts])

    def _end(self, stream: Stream, reason: str) -> None:
        stream.close()
        self._lost(stream, reason)

    def _lost(self, stream: Stream, reason: str) -> None:
        shaking, stranger = stream in self._shaking, stream in self._strangers
        self._forget(stream)
        if shaking or (stranger and reason != CLOSED):
            self._complain(stream.address, reason)

    def _complain(
        self, address: str, reason: str, what: str = "a connection ended before it was one"
    ) -> None:
        host = address.rpartition(":")[0]
        if self._complaints.news((host, reason), self._loop.time()):
            log.warning(what, **fields(address, reason))

    def _forget(self, stream: Stream) -> None:
        self._shaking.discard(stream)
        if (timer := self._strangers.pop(stream, None)) is not None:
            timer.cancel()
        if self._streams.get(stream.identity) is stream:
            del self._streams[stream.identity]
            if self._gone is not None:
                self._gone(stream.identity)

    def stands(self) -> bool:
        """Whether it listens."""
        return not self.closed

    def close(self) -> None:
        """Close at once; what was not sent is dropped."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._fd)
        self._listener.close()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        for stream in (*self._streams.values(), *self._shaking):
            stream.close()
        for timer in self._strangers.values():
            timer.cancel()
        for handshake in self._handshakes:
            handshake.close()
        self._handshakes.clear()
        self._streams.clear()
        self._shaking.clear()
        self._strangers.clear()


def _listen_unix(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of a process that ended without closing it
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    return _listen(sock, path)


def _listen_tcp(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(
        None if host == "*" else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return _listen(sock, address)


def _listen(sock: socket.socket, address: object) -> socket.socket:
    sock.setblocking(False)
    try:
        sock.bind(address)  # type: ignore[arg-type]
    except OSError:
        sock.close()
        raise
    sock.listen(_BACKLOG)
    return sock
