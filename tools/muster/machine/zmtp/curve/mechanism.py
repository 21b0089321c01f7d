"""CurveZMQ (https://rfc.zeromq.org/spec/26/) as bytes, by libsodium: what libzmq says with a key.

The dialling side proves its long-term key by a vouch, the listening side by opening the first box. Both have
a key for this connection only. A message's nonce is a number that rises: a repeated frame opens nothing.
"""

from __future__ import annotations

import os

from nacl import bindings
from nacl.exceptions import CryptoError

from tools.muster.machine.zmtp.codec import (
    COMMAND,
    LONG,
    MORE,
    Broken,
    Decoder,
    error_command,
    frame_head,
    greeting,
    metadata,
)
from tools.muster.machine.zmtp.curve.keys import CurveKeys
from tools.muster.machine.zmtp.hints import NO_KEY

_HELLO, _WELCOME, _INITIATE, _READY, _MESSAGE = (
    bytes((len(name),)) + name for name in (b"HELLO", b"WELCOME", b"INITIATE", b"READY", b"MESSAGE"))
_HELLO_BYTES, _WELCOME_BYTES, _COOKIE_BYTES = 200, 168, 96
_KEY, _MAC, _NONCE, _LONG_NONCE = 32, 16, 8, 16
_VOUCH_BYTES = _LONG_NONCE + _MAC + 2 * _KEY
_HEAD = len(_MESSAGE) + _NONCE
_MORE, _SEALED_COMMAND = 1, 2  # flags inside a sealed frame
_MOST = (1 << 64) - 1
_seal, _unseal = bindings.crypto_box_easy_afternm, bindings.crypto_box_open_easy_afternm


class CurveDecoder(Decoder):
    """``served_by``: the long-term key that the dialled host is expected to have; b"": this side listens."""

    __slots__ = (
        "_cookie", "_keys", "_listens", "_nonce", "_other", "_own", "_public", "_secret",
        "_seen", "_served_by", "_shared", "_to_other", "_to_own")
    _mechanism = b"CURVE"
    _has_key = "there is a peer key here"

    def __init__(self, kind: bytes, keys: CurveKeys, served_by: bytes = b"", own: bytes = b"") -> None:
        super().__init__(kind, own)
        self._keys = keys
        self._own = own
        self._listens = not served_by
        self._served_by = served_by
        self.greeting = greeting(b"CURVE", as_server=self._listens)
        # of this connection; a listener's are made once the other side has shown that it knows the served key
        self._public, self._secret = (b"", b"") if self._listens else bindings.crypto_box_keypair()
        self._other = b""  # the other side's key of this connection
        self._shared = b""
        self._cookie = b""
        self._nonce = 0  # the last one used here, and there
        self._seen = 0
        ours, theirs = (b"S", b"C") if self._listens else (b"C", b"S")
        self._to_other, self._to_own = b"CurveZMQMESSAGE" + ours, b"CurveZMQMESSAGE" + theirs
        self._slack = _HEAD + 1 + _MAC

    def _next(self) -> bytes:
        self._nonce += 1
        return self._nonce.to_bytes(_NONCE, "big")

    def _came(self, nonce: bytes) -> None:
        number = int.from_bytes(nonce, "big")
        if number <= self._seen:
            raise Broken("a frame was repeated, or is out of order")
        self._seen = number

    # -- messages

    def _seal_part(self, flags: int, part: bytes) -> bytes:
        inner = (_MORE if flags & MORE else 0) | (_SEALED_COMMAND if flags & COMMAND else 0)
        nonce = self._next()
        box = _seal(bytes((inner,)) + part, self._to_other + nonce, self._shared)
        return frame_head(_HEAD + len(box), False) + _MESSAGE + nonce + box

    def _open_part(self, flags: int, body: bytes) -> tuple[int, bytes]:
        if flags & ~LONG or not body.startswith(_MESSAGE) or len(body) < self._slack:
            raise Broken("a frame is not sealed")
        nonce = body[len(_MESSAGE) : _HEAD]
        self._came(nonce)
        try:
            opened = _unseal(body[_HEAD:], self._to_own + nonce, self._shared)
        except CryptoError:
            raise Broken("a frame was changed on its way") from None
        inner = opened[0]
        return (MORE if inner & _MORE else 0) | (COMMAND if inner & _SEALED_COMMAND else 0), opened[1:]

    def _begin(self) -> None:
        self.seal = self._seal_part
        self._open = self._open_part

    # -- the handshake

    def _greet(self, data: bytes) -> None:
        super()._greet(data)
        if not self._listens:
            nonce = self._next()
            box = bindings.crypto_box_easy(
                bytes(64), b"CurveZMQHELLO---" + nonce, self._served_by, self._secret)
            self._say(_HELLO + b"\x01\0" + bytes(72) + self._public + nonce + box)

    def _say(self, body: bytes) -> None:
        if len(body) < 256:
            self.pongs += bytes((COMMAND, len(body))) + body
        else:
            self.pongs += bytes((COMMAND | LONG,)) + len(body).to_bytes(8, "big") + body

    def _handshake(self, body: bytes) -> None:
        self._refused(body)
        try:
            if self._listens:
                self._as_server(body)
            else:
                self._as_client(body)
        except (CryptoError, ValueError, TypeError):  # the latter: of a key that is none
            if self._listens:
                self.pongs += error_command("400")  # as libzmq's
            raise Broken(NO_KEY) from None

    def _as_server(self, body: bytes) -> None:
        if not self._other and body.startswith(_HELLO) and len(body) == _HELLO_BYTES:
            self._on_hello(body)
        elif self._other and body.startswith(_INITIATE) and len(body) > (
                len(_INITIATE) + _COOKIE_BYTES + _NONCE + _MAC + _KEY + _VOUCH_BYTES):
            self._on_initiate(body[len(_INITIATE) :])
        else:
            raise Broken("it does not speak CurveZMQ")

    def _on_hello(self, body: bytes) -> None:
        if body[6:8] != b"\x01\0":
            raise Broken("it speaks another version of CurveZMQ")
        other, nonce = body[80:112], body[112:120]
        secret = self._keys.served[1]
        if bindings.crypto_box_open_easy(body[120:], b"CurveZMQHELLO---" + nonce, other, secret) != bytes(64):
            raise Broken("it does not speak CurveZMQ")
        self._came(nonce)
        self._public, self._secret = bindings.crypto_box_keypair()
        self._other = other
        self._cookie = os.urandom(_COOKIE_BYTES)
        fresh = os.urandom(_LONG_NONCE)
        box = bindings.crypto_box_easy(self._public + self._cookie, b"WELCOME-" + fresh, other, secret)
        self._say(_WELCOME + fresh + box)

    def _on_initiate(self, body: bytes) -> None:
        cookie, nonce = body[:_COOKIE_BYTES], body[_COOKIE_BYTES : _COOKIE_BYTES + _NONCE]
        if cookie != self._cookie:
            raise Broken("it does not speak CurveZMQ")
        self._came(nonce)
        self._shared = bindings.crypto_box_beforenm(self._other, self._secret)
        opened = _unseal(body[_COOKIE_BYTES + _NONCE :], b"CurveZMQINITIATE" + nonce, self._shared)
        long_term, vouch = opened[:_KEY], opened[_KEY : _KEY + _VOUCH_BYTES]
        vouched = bindings.crypto_box_open_easy(
            vouch[_LONG_NONCE:], b"VOUCH---" + vouch[:_LONG_NONCE], long_term, self._secret)
        if vouched != self._other + self._keys.served[0] or not self._keys.allows(long_term):
            raise CryptoError
        nonce = self._next()
        box = _seal(metadata(self._kind, self._own), b"CurveZMQREADY---" + nonce, self._shared)
        self._say(_READY + nonce + box)
        self._begin()
        self._is_ready(opened[_KEY + _VOUCH_BYTES :])

    def _as_client(self, body: bytes) -> None:
        if not self._other and body.startswith(_WELCOME) and len(body) == _WELCOME_BYTES:
            self._on_welcome(body[len(_WELCOME) :])
        elif self._other and body.startswith(_READY) and len(body) >= len(_READY) + _NONCE + _MAC:
            nonce = body[len(_READY) : len(_READY) + _NONCE]
            self._came(nonce)
            opened = _unseal(body[len(_READY) + _NONCE :], b"CurveZMQREADY---" + nonce, self._shared)
            self._begin()
            self._is_ready(opened)
        else:
            raise Broken("it does not speak CurveZMQ")

    def _on_welcome(self, body: bytes) -> None:
        opened = bindings.crypto_box_open_easy(
            body[_LONG_NONCE:], b"WELCOME-" + body[:_LONG_NONCE], self._served_by, self._secret)
        self._other, cookie = opened[:_KEY], opened[_KEY:]
        self._shared = bindings.crypto_box_beforenm(self._other, self._secret)
        public, secret = self._keys.shown
        fresh = os.urandom(_LONG_NONCE)
        vouch = bindings.crypto_box_easy(
            self._public + self._served_by, b"VOUCH---" + fresh, self._other, secret)
        nonce = self._next()
        box = _seal(
            public + fresh + vouch + metadata(self._kind, self._own), b"CurveZMQINITIATE" + nonce,
            self._shared)
        self._say(_INITIATE + cookie + nonce + box)
