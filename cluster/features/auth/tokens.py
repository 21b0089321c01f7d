"""Simple tokens: signed with the cluster's secret, so that every host knows every host's tokens.

A token is ``name, auth revision and time, in base64 | . | signature``. Its age counts from its last use, at
each front by itself (its ``Tokens``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from typing import NamedTuple

_HEAD = struct.Struct(">QQ")
_MAC_BYTES = 18


class Token(NamedTuple):
    """What a token says."""

    user: str
    revision: int  # of the users and roles, when it was given
    given_s: int  # when, in seconds of the wall clock


def sign(secret: bytes, token: Token) -> str:
    """The token as a client gets it."""
    body = _HEAD.pack(token.revision, token.given_s) + token.user.encode()
    return _spelt(body, _mac(secret, body))


def verify(secret: bytes, text: str) -> Token | None:
    """What a token says; None: this cluster has not given it. It counts only as :func:`sign` spelt it:
    readers of base64 pass over any number of other characters."""
    body_text, _, mac_text = text.partition(".")
    try:
        body, mac = _bytes(body_text), _bytes(mac_text)
        if not secret or not hmac.compare_digest(mac, _mac(secret, body)):
            return None
        if text != _spelt(body, mac):
            return None
        return _read(body)
    except (binascii.Error, struct.error, ValueError):
        return None


def unsigned(text: str) -> Token | None:
    """What a token says, unverified: for a front that does not know the secret and has a node verify it."""
    try:
        return _read(_bytes(text.partition(".")[0]))
    except (binascii.Error, struct.error, ValueError):
        return None


def _read(body: bytes) -> Token:
    revision, given_s = _HEAD.unpack_from(body)
    return Token(body[_HEAD.size :].decode(), revision, given_s)


def _mac(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, b"muster simple token\0" + body, hashlib.sha256)[:_MAC_BYTES]


def _spelt(body: bytes, mac: bytes) -> str:
    return f"{_text(body)}.{_text(mac)}"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
