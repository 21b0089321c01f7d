"""ZMTP 3.0 as bytes: greeting, READY, messages. Pure.

Each side sends a greeting of 64 bytes, then a READY command with its socket's type and identity, then
messages of one or more frames. https://rfc.zeromq.org/spec/23/
"""

from __future__ import annotations

from collections.abc import Callable

MORE, LONG, COMMAND = 1, 2, 4  # flags of a frame
_FLAGS = frozenset((0, MORE, LONG, MORE | LONG, COMMAND, COMMAND | LONG))
_WHOLE = (0, LONG)  # of a message of one frame, or the last frame of several
_SIGNATURE = b"\xff\0\0\0\0\0\0\0\x01\x7f"
_GREETING_BYTES = 64


def greeting(mechanism: bytes, *, as_server: bool = False) -> bytes:
    return _SIGNATURE + b"\x03\0" + mechanism.ljust(20, b"\0") + bytes((as_server,)) + bytes(31)


GREETING = greeting(b"NULL")
MAX_MESSAGE_BYTES = 1 << 30
REMOTE = "remote error: "  # before the other side's reason to refuse this one
_MAX_COMMAND_BYTES = 4096
_MAX_CONTEXT_BYTES = 16  # of a PING
_MOST_REASON_BYTES = 200

# the only pairs that muster uses (ROUTER with ROUTER would be legal ZeroMQ)
_PARTNER = {b"DEALER": b"ROUTER", b"ROUTER": b"DEALER"}


class Broken(Exception):
    """The other side speaks another protocol, or is no partner: close the connection."""


def ready(kind: bytes, identity: bytes) -> bytes:
    body = b"\x05READY" + metadata(kind, identity)
    return bytes((COMMAND, len(body))) + body


def metadata(kind: bytes, identity: bytes) -> bytes:
    return _property(b"Socket-Type", kind) + _property(b"Identity", identity)


def error_command(reason: str) -> bytes:
    said = reason.encode()[:_MOST_REASON_BYTES]
    body = b"\x05ERROR" + bytes((len(said),)) + said
    return bytes((COMMAND, len(body))) + body


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value


def _word(data: bytes) -> str:
    """A stranger's word, in a form for logs."""
    text = data.decode("ascii", "replace")
    return text if text.isprintable() else repr(text)


def frame_head(size: int, more: bool) -> bytes:
    if size < 256:
        return bytes((MORE if more else 0, size))
    return bytes((MORE | LONG if more else LONG,)) + size.to_bytes(8, "big")


class Decoder:
    """One connection's incoming bytes. ``kind``, ``own``: the own socket's type and identity. ``most_bytes``:
    of a message; it may be raised between two calls. ``one_by_one``: :meth:`feed` returns one message at
    most, and ``feed(b"")`` the next: the first message may decide about it. ``seal(flags, part)``: the bytes
    of a part that is sent once it is ``ready``; None: in clear."""

    __slots__ = (
        "_kind", "_need", "_open", "_parts", "_parts_bytes", "_rest", "_slack", "greeted", "greeting",
        "identity", "most_bytes", "one_by_one", "pongs", "ready", "seal")
    _mechanism = b"NULL"
    _has_key = "there is no peer key here"

    def __init__(self, kind: bytes, own: bytes = b"") -> None:
        self.greeting = GREETING + ready(kind, own)  # what is sent first
        self.most_bytes = MAX_MESSAGE_BYTES
        self.one_by_one = False
        self.seal: Callable[[int, bytes], bytes] | None = None
        self._open: Callable[[int, bytes], tuple[int, bytes]] | None = None  # a sealed frame
        self._slack = 0  # of a sealed frame, beyond its part
        self.ready = False  # the partner's READY has come
        self.identity = b""  # the partner's; may be empty
        self.pongs = bytearray()  # answers to its commands, to be sent and cleared by the owner
        self._kind = kind
        self.greeted = False
        self._rest = bytearray()  # an unfinished frame
        self._need = _GREETING_BYTES  # nothing can be done with fewer bytes
        self._parts: list[bytes] = []
        self._parts_bytes = 0

    @property
    def unfinished(self) -> int:
        """Bytes that have come of an unfinished frame."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The messages that are complete now, each a list of frames. Broken."""
        rest = self._rest
        if rest or len(data) < self._need:
            rest += data
            if len(rest) < self._need:
                if not self.greeted and rest and rest[0] != 0xFF:
                    raise Broken("it does not speak ZMTP")
                return []
            data = bytes(rest)
            rest.clear()
        pos = 0
        if not self.greeted:
            self._greet(data)
            pos = _GREETING_BYTES
        return self._frames(data, pos)

    def _greet(self, data: bytes) -> None:
        if data[0] != 0xFF or data[9] != 0x7F or data[10] < 3:
            raise Broken("it does not speak ZMTP 3")
        mechanism = data[12:32].rstrip(b"\0")
        if mechanism != self._mechanism:
            raise Broken(f"it wants security mechanism {_word(mechanism)}, and {self._has_key}")
        self.greeted = True

    def _frames(self, data: bytes, pos: int) -> list[list[bytes]]:
        messages: list[list[bytes]] = []
        size = len(data)
        self._need = 2
        while size - pos >= 2:
            flags = data[pos]
            if flags & LONG:
                start = pos + 9
                if start > size:
                    self._need = 9
                    break
                length = int.from_bytes(data[pos + 1 : start], "big")
            else:
                start = pos + 2
                length = data[pos + 1]
            end = start + length
            plain = flags in _WHOLE and self.ready
            if not plain or length > self.most_bytes:
                self._check(flags, length)
            if end > size:
                self._need = end - pos
                break
            pos = end
            body = data[start:end]
            if plain and self._open is None and not self._parts:
                messages.append([body])
                if self.one_by_one:
                    break
                continue
            if self._open is not None:
                flags, body = self._open(flags, body)
            if flags & COMMAND:
                self._command(body)
            elif flags & MORE:
                self._more(body)
            elif self._parts:
                messages.append([*self._parts, body])
                self._parts = []
                self._parts_bytes = 0
            else:
                messages.append([body])
            if messages and self.one_by_one:
                break
        if pos < size:
            self._rest += data[pos:] if pos else data
        return messages

    def _check(self, flags: int, length: int) -> None:
        if flags not in _FLAGS:
            raise Broken("a frame has unknown flags")
        if length > self.most_bytes + self._slack:
            raise Broken("a message is too large")
        if not self.ready and (not flags & COMMAND or length > _MAX_COMMAND_BYTES):
            raise Broken("it did not say READY")

    def _more(self, body: bytes) -> None:
        self._parts_bytes += len(body)
        if self._parts_bytes > self.most_bytes or len(self._parts) > 64:
            raise Broken("a message is too large")
        self._parts.append(body)

    def _command(self, body: bytes) -> None:
        if self.ready:
            # ZMTP 3.1, as libzmq's heartbeats; two bytes of time to live, then its context
            if body.startswith(b"\x04PING"):
                answer = b"\x04PONG" + body[7 : 7 + _MAX_CONTEXT_BYTES]
                self.pongs += (
                    self.seal(COMMAND, answer) if self.seal is not None
                    else bytes((COMMAND, len(answer))) + answer)
            return
        self._handshake(body)

    def _handshake(self, body: bytes) -> None:
        """A command before :attr:`ready`."""
        self._refused(body)
        if not body.startswith(b"\x05READY"):
            text = body[1 : 1 + body[0]] if body else b""
            raise Broken(f"it said {text.decode('ascii', 'replace')!r} instead of READY")
        self._is_ready(body[6:])

    def _refused(self, body: bytes) -> None:
        if body.startswith(b"\x05ERROR") and len(body) > 7:
            raise Broken(f"{REMOTE}{_word(body[7 : 7 + body[6]])}")

    def _is_ready(self, body: bytes) -> None:
        """``body``: the other side's metadata."""
        properties: dict[bytes, bytes] = {}
        pos = 0
        while pos < len(body):
            name_end = pos + 1 + body[pos]
            value_at = name_end + 4
            end = value_at + int.from_bytes(body[name_end:value_at], "big")
            if end > len(body):
                raise Broken("a broken READY")
            properties[body[pos + 1 : name_end].lower()] = body[value_at:end]
            pos = end
        if properties.get(b"socket-type") != _PARTNER[self._kind]:
            raise Broken("its socket is of the wrong type")
        self.identity = properties.get(b"identity", b"")
        if len(self.identity) > 255:
            raise Broken("a broken READY")
        self.ready = True
