"""Version 2's users: HTTP Basic, or a certificate's name. Nodes judge (``cluster.features.v2.users``). The
front compares a password once, which takes long. It then shows the fingerprint of the hash, and keeps it for
further requests with the same name and password."""

from __future__ import annotations

import binascii
import hashlib
import os
from base64 import b64decode
from collections.abc import Callable

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.v2.requests import MOST_NAME_BYTES, Who
from cluster.features.v2.users import fingerprint
from proxy.auth.passwords import Passwords
from proxy.http.requests import HttpRequest
from proxy.shared.warnings import Warnings

_NOBODY = Who(b"")
_MOST_KEPT = 10_000
_MOST_PROOFS = 3  # of one request, while its password changes


class Credentials:
    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords
        self._warnings = Warnings()
        self._salt = os.urandom(32)
        self._proofs: dict[bytes, int] = {}  # fingerprints of hashes, by name and password

    def of(self, request: HttpRequest) -> Who | None:
        """The user of a request; None: it names none."""
        header = request.headers.get("authorization")
        if not header:
            return Who(_bytes(request.peer_name), 0, True) if request.peer_name else None
        found = basic(header)
        if found is None:
            return _NOBODY
        return Who(found[0], self._proofs.get(self._key(*found), 0))

    def prove(self, request: HttpRequest, known: bytes, before: int, then: Callable[[Who], None],
              refuse: Callable[[EtcdError], None]) -> None:
        """Compare a request's password with a hash, after ``before`` earlier comparisons. ``then`` gets the
        user that may ask again, ``refuse`` PERMISSION_DENIED or that too many comparisons wait."""
        found = basic(request.headers.get("authorization", ""))
        if found is None or before >= _MOST_PROOFS:
            refuse(EtcdError(errors.PERMISSION_DENIED))
            return
        name, password = found

        def compared(right: bool) -> None:
            if request.closed:
                return
            if not right:
                self._warnings.tell("incorrect password", user=_text(name))
                refuse(EtcdError(errors.PERMISSION_DENIED))
                return
            if len(self._proofs) >= _MOST_KEPT:
                self._proofs.clear()
            proof = self._proofs[self._key(name, password)] = fingerprint(known)
            then(Who(name, proof))

        try:
            self._passwords.check(request, password, known, compared)
        except EtcdError as error:
            refuse(error)

    def tell_denied(self, request: HttpRequest, event: str = "invalid access for user on key") -> None:
        """Log that a node denied what a request asks."""
        who = self.of(request)
        if who == _NOBODY:
            self._warnings.tell("malformed basic auth encoding")
        else:
            path = request.path.removeprefix("/v2/keys")
            self._warnings.tell(event, user=_text(who.name) if who is not None else "", key=path)

    def _key(self, name: bytes, password: bytes) -> bytes:
        made = hashlib.blake2b(b"%d:" % len(name) + name + password, digest_size=32, key=self._salt)
        return made.digest()


def basic(header: str) -> tuple[bytes, bytes] | None:
    """Name and password of an Authorization field as Go reads it, or None."""
    if header[:6].lower() != "basic ":
        return None
    if len(header) % 4 != 2 or header.endswith("==="):  # Python's reader takes any padding
        return None
    try:
        name, colon, password = b64decode(header[6:].encode("latin-1"), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if colon and len(name) <= MOST_NAME_BYTES and b"/" not in name else None


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")[:MOST_NAME_BYTES]
