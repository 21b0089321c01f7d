"""ZMTP 3.0 as bytes: greeting, READY, messages. Pure.

Each side sends a greeting of 64 bytes, then a READY command with its socket's type and identity, then
messages of one or more frames. https://rfc.zeromq.org/spec/23/
"""

from __future__ import annotations

MORE, LONG, COMMAND = 1, 2, 4  # flags of a frame
_FLAGS = frozenset((0, MORE, LONG, MORE | LONG, COMMAND, COMMAND | LONG))
_SIGNATURE = b"\xff\0\0\0\0\0\0\0\x01\x7f"
_GREETING_BYTES = 64
GREETING = _SIGNATURE + b"\x03\0" + b"NULL".ljust(20, b"\0") + bytes(32)
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
    body = b"\x05READY" + _property(b"Socket-Type", kind) + _property(b"Identity", identity)
    return bytes((COMMAND, len(body))) + body


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
    """One connection's incoming bytes. ``kind`` is the own socket's type. ``most_bytes``: of a message; it
    may be raised between two calls. ``one_by_one``: :meth:`feed` returns one message at most, and
    ``feed(b"")`` the next: the first message may decide about it."""

    __slots__ = (
        "_greeted", "_kind", "_need", "_parts", "_parts_bytes", "_rest", "identity", "most_bytes",
        "one_by_one", "pongs", "ready")

    def __init__(self, kind: bytes, most_bytes: int = MAX_MESSAGE_BYTES, *, one_by_one: bool = False) -> None:
        self.most_bytes = most_bytes
        self.one_by_one = one_by_one
        self.ready = False  # the partner's READY has come
        self.identity = b""  # the partner's; may be empty
        self.pongs = bytearray()  # answers to its PINGs, to be sent and cleared by the owner
        self._kind = kind
        self._greeted = False
        self._rest = bytearray()  # an unfinished frame
        self._need = _GREETING_BYTES  # nothing can be done with fewer bytes
        self._parts: list[bytes] = []
        self._parts_bytes = 0

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The messages that are complete now, each a list of frames. Broken."""
        rest = self._rest
        if rest or len(data) < self._need:
            rest += data
            if len(rest) < self._need:
                if not self._greeted and rest and rest[0] != 0xFF:
                    raise Broken("it does not speak ZMTP")
                return []
            data = bytes(rest)
            rest.clear()
        pos = 0
        if not self._greeted:
            self._greet(data)
            pos = _GREETING_BYTES
        return self._frames(data, pos)

    def _greet(self, data: bytes) -> None:
        if data[0] != 0xFF or data[9] != 0x7F or data[10] < 3:
            raise Broken("it does not speak ZMTP 3")
        mechanism = data[12:32].rstrip(b"\0")
        if mechanism != b"NULL":
            raise Broken(f"it wants security mechanism {_word(mechanism)}, and there is no peer key here")
        self._greeted = True

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
            if flags not in _FLAGS:
                raise Broken("a frame has unknown flags")
            if length > self.most_bytes:
                raise Broken("a message is too large")
            if not self.ready and (not flags & COMMAND or length > _MAX_COMMAND_BYTES):
                raise Broken("it did not say READY")
            end = start + length
            if end > size:
                self._need = end - pos
                break
            pos = end
            if flags & COMMAND:
                self._command(data[start:end])
            elif flags & MORE:
                self._parts_bytes += length
                if self._parts_bytes > self.most_bytes or len(self._parts) > 64:
                    raise Broken("a message is too large")
                self._parts.append(data[start:end])
            elif self._parts:
                messages.append([*self._parts, data[start:end]])
                self._parts = []
                self._parts_bytes = 0
            else:
                messages.append([data[start:end]])
            if messages and self.one_by_one:
                break
        if pos < size:
            self._rest += data[pos:] if pos else data
        return messages

    def _command(self, body: bytes) -> None:
        if self.ready:
            # ZMTP 3.1, as libzmq's heartbeats; two bytes of time to live, then its context
            if body.startswith(b"\x04PING"):
                answer = b"\x04PONG" + body[7 : 7 + _MAX_CONTEXT_BYTES]
                self.pongs += bytes((COMMAND, len(answer))) + answer
            return
        if body.startswith(b"\x05ERROR") and len(body) > 7:
            raise Broken(f"{REMOTE}{_word(body[7 : 7 + body[6]])}")
        if not body.startswith(b"\x05READY"):
            text = body[1 : 1 + body[0]] if body else b""
            raise Broken(f"it said {text.decode('ascii', 'replace')!r} instead of READY")
        properties: dict[bytes, bytes] = {}
        pos = 6
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
