"""What a front says of a request's client, before the request: a bit of the method's number says that it
does, so a client without credentials costs nothing. The front has checked the token's signature and age;
``judge`` checks whether the token still counts::

    kind u8 | auth revision u64 | length of the name u32 | name
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

#: Of a method's number: a principal stands before the request.
SAID = 0x80
_HEAD = struct.Struct("<BQI")
_NEWS = struct.Struct("<QBQ")  # order index, enabled, auth revision; then the secret


class Kind(IntEnum):
    """How a client has authenticated."""

    NOBODY = 0  # it has not
    INVALID = 1  # by a token that is none
    SIMPLE = 2  # by a simple token, of this auth revision
    JWT = 3  # by a JSON web token, of this auth revision
    CERTIFICATE = 4  # by the common name of its certificate
    FRONT = 5  # a front asks for itself; no client is shown the answer
    UNVERIFIED = 6  # by a simple token, given whole as the name: the front had not heard of the secret yet


class Principal(NamedTuple):
    """A client."""

    kind: int
    user: str = ""
    revision: int = 0  # that its token names

    def encode(self) -> bytes:
        """What stands before the request."""
        name = self.user.encode()
        return _HEAD.pack(self.kind, self.revision, len(name)) + name


NOBODY = Principal(Kind.NOBODY)
INVALID = Principal(Kind.INVALID)
FRONT = Principal(Kind.FRONT)


def split(body: bytes) -> tuple[Principal, bytes]:
    """The principal, and the request behind it. ValueError: there is none."""
    try:
        kind, revision, length = _HEAD.unpack_from(body)
    except struct.error as error:
        raise ValueError("no principal stands before the request") from error
    at = _HEAD.size + length
    if at > len(body):
        raise ValueError("a principal is cut short")
    return Principal(kind, body[_HEAD.size : at].decode(), revision), body[at:]


def named(method: int, body: bytes) -> tuple[Principal | None, int, bytes]:
    """The principal, if there is one, method and request."""
    if method & SAID:
        who, body = split(body)
        return who, method & ~SAID, body
    return None, method, body


def news(order_index: int, enabled: bool, revision: int, secret: bytes) -> bytes:
    """What a node tells fronts of its users and roles (``Status.AUTH``)."""
    return _NEWS.pack(order_index, enabled, revision) + secret


def read_news(body: bytes) -> tuple[int, bool, int, bytes]:
    """Order index, whether auth is on, its revision, the secret of simple tokens."""
    order_index, enabled, revision = _NEWS.unpack_from(body)
    return order_index, bool(enabled), revision, body[_NEWS.size :]
