"""The connecting side of a link (ZeroMQ's DEALER).

A dealer has one connection. It keeps nothing for a partner without one, and sends nothing old after a
reconnect (ZeroMQ's IMMEDIATE, with linger 0): ``send`` returns False instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from functools import partial

from cluster.endpoints import older_endpoint, tcp_endpoint
from tools.muster.machine.zmtp import own_user as owners
from tools.muster.machine.zmtp.codec import REMOTE, Decoder
from tools.muster.machine.zmtp.curve.mechanism import CurveDecoder
from tools.muster.machine.zmtp.hints import NO_ANSWER, NO_KEY, hint_of
from tools.muster.machine.zmtp.lookups import NO_NAME, Addresses, Found
from tools.muster.machine.zmtp.options import LinkOptions, split
from tools.muster.machine.zmtp.port.knock import Answer, Knock
from tools.muster.machine.zmtp.silence import dial_s, end_when_silent
from tools.muster.machine.zmtp.stream import CLOSED, ENDED, Events, Receive, Socket, Stream, traffic
from tools.muster.machine.zmtp.tls import Handshake, TlsSocket

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5  # between dials
_NOT_TRIED = "not tried yet"


class Dealer:
    """``opened()``: there is a connection. ``lost(reason)``: there is none, or none any more. Without
    ``redials`` the dealer connects once.

    A host that answers without knowing the preamble (``port``) is dialled as an older one, until that fails.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, endpoint: str, identity: bytes, receive: Receive,
        options: LinkOptions, *, opened: Callable[[], None] | None = None,
        lost: Callable[[str], None] | None = None, redials: bool = True,
    ) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._transport, self._host, self._port = split(endpoint)
        self._identity = identity
        self._receive = receive
        self._options = options
        self._opened = opened
        self._lost = lost
        self._redials = redials
        self._pause_s = _FIRST_PAUSE_S
        self.trouble = _NOT_TRIED  # why there is no connection; "" while there is one
        self.closed = False
        self.dropped = 0  # messages that were not sent
        self._stream: Stream | None = None
        self._connecting: socket.socket | None = None
        self._knock: Knock | None = None
        self._handshake: Handshake | None = None
        self._decoder: Decoder | None = None
        self._as_older = False  # this attempt goes to a port of before, without a preamble
        self._place = endpoint, options.shard
        self._key = b""  # the one that the host is expected to have
        self._keys_tried = 0
        self._foreign: Callable[[], str] | None = None  # why the connection's other end is another user's
        self._addresses: asyncio.Future[Found] | None = None  # a look-up under way
        self._known: Addresses = []  # addresses of the name, the next one to be tried first
        self._timer: asyncio.TimerHandle | None = loop.call_later(0, self._connect)

    def send(self, parts: list[bytes]) -> bool:
        stream = self._stream
        if stream is not None and stream.send(parts):
            traffic.sent += 1
            return True
        self.dropped += 1
        return False

    def stands(self) -> bool:
        return self._stream is not None

    def unfinished(self) -> int:
        return self._decoder.unfinished if self._stream is not None and self._decoder is not None else 0

    def close(self) -> None:
        """Close at once, without callbacks; what was not sent is dropped."""
        self.closed = True
        self._forget_older()  # it may be closed because another shard's node was there
        if self._timer is not None:
            self._timer.cancel()
        if self._addresses is not None:
            self._addresses.cancel()
        if self._stream is not None:
            self._stream.close()
        if self._knock is not None:
            self._knock.close()
        if self._handshake is not None:
            self._handshake.close()
        self._stop_connecting()

    def hint(self) -> str:
        return hint_of(self.trouble, tls=self._options.tls is not None)

    def trust(self, identity: bytes) -> None:
        """Nothing: a dealer knows its partner."""

    def drop(self, identity: bytes, reason: str) -> None:
        """End the connection as if it were lost: the name's next address is dialled."""
        if self._stream is not None and not self.closed:
            self._stream.close()
            self._failed(reason)

    def address(self, identity: bytes) -> str:
        return tcp_endpoint(self._host, self._port).removeprefix("tcp://")

    # -- connecting

    def _forget_older(self) -> None:
        if self._as_older:
            self._options.older.discard(self._endpoint)

    def _connect(self) -> None:
        self._timer = None
        # decided once for port and preamble: other dealers change the set while this one connects
        self._as_older = self._options.shard is not None and self._endpoint in self._options.older
        shard = self._options.shard if self._as_older else None
        _, self._host, self._port = split(older_endpoint(self._endpoint, shard) if shard else self._endpoint)
        if self._transport == "ipc":
            self._connect_to(socket.AF_UNIX, self._host)
            return
        for family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError, ValueError):  # the latter: not even a text of C's
                socket.inet_pton(family, self._host)
                break
        else:
            self._look_up()
            return
        self._connect_to(family, self._host)

    def _look_up(self) -> None:
        if self._addresses is None:
            try:
                self._addresses = self._options.look_ups.of(self._loop, self._host)
            except RuntimeError as e:  # this process may have no more threads
                self._connect_to_known(str(e))
                return
            self._addresses.add_done_callback(self._looked_up)
        # the name server may be cut off too: the known addresses are tried meanwhile
        self._timer = self._loop.call_later(
            dial_s(self._options.silence_s), self._connect_to_known, "no address in time")

    def _looked_up(self, future: asyncio.Future[Found]) -> None:
        self._addresses = None
        if self.closed or future.cancelled():
            return
        found = future.result()
        if isinstance(found, list):
            if set(found) != set(self._known):
                self._known = list(found)  # others have it, too
        elif isinstance(found, socket.gaierror) and found.errno in NO_NAME:
            self._known = []  # its last address may be another member's by now
        if self._connecting is None and self._stream is None and self._timer is not None:
            self._timer.cancel()
            self._connect_to_known(str(found))

    def _connect_to_known(self, otherwise: str) -> None:
        """Try the name's next address, as nothing may listen at some of them."""
        self._timer = None
        if not self._known:
            self._failed(otherwise)
            return
        address = self._known.pop(0)
        self._known.append(address)
        self._connect_to(*address)

    def _connect_to(self, family: int, host: str) -> None:
        tcp = family != socket.AF_UNIX
        near = self._options.own_user and tcp and owners.is_near(host)
        path = owners.path_of(host, self._port) if near else ""
        if path and owners.may_dial(path) and self._connects(socket.AF_UNIX, path, again=False):
            return
        self._connects(family, host, checks=near)

    def _connects(self, family: int, host: str, *, again: bool = True, checks: bool = False) -> bool:
        """Begin to connect. Without ``again`` an attempt that fails at once is undone: False. ``checks``: the
        other end has to be this user's."""
        try:
            sock = self._connecting = socket.socket(family, socket.SOCK_STREAM)
            self._foreign = partial(owners.foreign, sock) if checks else None
            sock.setblocking(False)
            local = self._options.local
            if local and family == (socket.AF_INET6 if ":" in local else socket.AF_INET):
                sock.bind((local, 0))
            sock.connect(host if family == socket.AF_UNIX else (host, self._port))
        except BlockingIOError:
            if family == socket.AF_UNIX:  # its queue of connections is full
                self._failed("the other side does not accept")
            else:
                self._loop.add_writer(sock.fileno(), self._tried)
                self._timer = self._loop.call_later(dial_s(self._options.silence_s), self._hung)
        except OSError as e:
            if not again:
                self._stop_connecting()
                return False
            self._failed(e.strerror or str(e))
        except (ValueError, OverflowError) as e:  # no such path, or port
            self._failed(str(e))
        else:
            self._tried()
        return True

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
        end_when_silent(sock, self._options.silence_s)
        self.trouble = NO_ANSWER
        if self._options.shard is None or self._as_older:
            self._let_in(sock)
        else:
            self._knock = Knock(self._loop, sock, self._options.shard, self._taken, self._turned_away)

    def _turned_away(self, reason: str, answer: Answer) -> None:
        self._knock = None
        if answer == Answer.NEWER:
            self._options.newer.add(self._endpoint)
        # TLS and libzmq may end silently, and so does a new host that is stopped
        secured = self._options.tls is not None or self._options.keys is not None
        silent = secured and reason in ENDED and self._endpoint not in self._options.newer
        if answer == Answer.OLDER or (answer == Answer.NONE and silent):
            self._options.older.add(self._endpoint)
            self._timer = self._loop.call_later(0, self._connect)
        else:
            self._failed(reason)

    def _taken(self, sock: socket.socket) -> None:
        self._knock = None
        self._options.newer.add(self._endpoint)
        self._let_in(sock)

    def _let_in(self, sock: socket.socket) -> None:
        if self._options.tls is None or sock.family == socket.AF_UNIX:
            self._talk(sock)
            return
        try:
            self._handshake = Handshake(
                self._loop, sock, self._options.tls, self._host, self._shaken, self._not_shaken)
        except (ValueError, OSError) as error:  # the certificate's files are being changed
            sock.close()
            self._failed(str(error))

    def _talk(self, sock: Socket) -> Stream:
        events = Events(self._is_open, self._came, self._is_lost)
        self._decoder = self._new_decoder()
        self._stream = Stream(self._loop, sock, self._decoder, self._options.hwm, events)
        return self._stream

    def _new_decoder(self) -> Decoder:
        keys = self._options.keys
        if keys is None:
            return Decoder(b"DEALER", self._identity)
        self._key = keys.served_by(self._place)
        return CurveDecoder(b"DEALER", keys, self._key, self._identity)

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
        self._pause_s = _FIRST_PAUSE_S  # it has waited long enough
        self._failed("no connection in time")

    def _failed(self, reason: str) -> None:
        self.trouble = reason
        self._stop_connecting()
        self._stream = None
        self._forget_older()
        if self._redials:
            self._timer = self._loop.call_later(self._pause_s, self._connect)
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        if self._lost is not None:
            self._lost(reason)

    def _is_open(self, stream: Stream) -> None:
        if self._foreign is not None and (reason := self._foreign()):
            stream.close()
            self._failed(reason)
            return
        self.trouble = ""
        self._pause_s = _FIRST_PAUSE_S
        self._keys_tried = 0
        if self._opened is not None:
            self._opened()

    def _came(self, stream: Stream, parts: list[bytes]) -> None:
        self._receive(parts)

    def _is_lost(self, stream: Stream, reason: str) -> None:
        if stream is not self._stream or self.closed:
            return
        keys, decoder = self._options.keys, self._decoder
        if keys is None or decoder is None or not decoder.greeted or decoder.ready:
            self._failed(reason)
            return
        self._keys_tried += 1  # the host may serve with another key of the file
        if self._keys_tried <= keys.failed(self._place, self._key):
            self._stream = None
            self._timer = self._loop.call_later(0, self._connect)
        else:
            self._keys_tried = 0
            self._failed(NO_KEY if reason == CLOSED or reason.startswith(REMOTE) else reason)
