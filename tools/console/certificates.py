"""Certificates of visitors, and what the console shows the cluster for their users.

A browser proves that it has a certificate's key, but the console cannot pass that proof on. So an operator
gives it certificates of users of its own (``--user-certs``). A visitor whose certificate is valid acts by the
one of the same user, and by no other: the common name decides on both sides, never a file's name. A user
without one logs in by password. Whoever reads that folder can act as its users, so ``root`` is better not
in it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from proxy.tls import certified
from proxy.tls.certified import Certificate
from tools.console.guard import App, Receive, Scope, Send

_SCOPE = "muster.certificates"
_KEY = "-key.pem"


@dataclass(frozen=True, slots=True)
class Pair:
    """Files of a certificate and its key."""

    cert: str
    key: str


class Certified(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """An HTTP connection whose requests tell which certificates its browser has shown."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        try:
            found = certified.shown(tls) if tls is not None else []
        except ValueError:  # as if none was shown
            found = []
        if found:
            self.app: App = _telling(self.app, found)


def _telling(app: App, found: Sequence[Certificate]) -> App:
    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        scope[_SCOPE] = found
        await app(scope, receive, send)

    return told


def visitor(scope: Scope) -> Sequence[Certificate]:
    """The certificates that a request's browser has shown, its own first. TLS has checked their signers."""
    found: Sequence[Certificate] = scope.get(_SCOPE, ())
    return found


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files, read at each log-in: a new certificate or revocation counts from then on.

    ``folder``: ``NAME.pem`` with ``NAME-key.pem`` of each user. ``revoked``: a list of visitors' certificates
    that are not valid any more; empty: none."""

    folder: str
    revoked: str = ""

    def pairs(self) -> dict[str, Pair]:
        """By the user that each certificate names. ValueError, OSError."""
        found: dict[str, Pair] = {}
        for cert in sorted(Path(self.folder).glob("*.pem")):
            if cert.name.endswith(_KEY):
                continue
            key = cert.with_name(cert.stem + _KEY)
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key)
            user = _user(cert)
            if user in found:
                raise ValueError(f"{cert}: {found[user].cert} names user {user!r}, too")
            found[user] = Pair(str(cert), str(key))
        return found

    def check(self) -> None:
        """ValueError, OSError: the files cannot be used."""
        if not self.pairs():
            raise ValueError(f"{self.folder} has no certificate NAME.pem with NAME-key.pem")
        self._serials()

    def _serials(self) -> frozenset[int]:
        return certified.revoked_serials(Path(self.revoked).read_bytes()) if self.revoked else frozenset()

    def _judge(self, shown: Sequence[Certificate]) -> tuple[str, Pair | None]:
        user = shown[0].common_name
        if reason := certified.refusal(shown, self._serials(), (), (), time.time()):
            raise ValueError(reason)
        return user, self.pairs().get(user) if user else None

    async def of(self, shown: Sequence[Certificate]) -> tuple[str, Pair | None]:
        """The user that a visitor's certificates name, and what the console shows the cluster for it.
        ValueError: it is refused. OSError: a file cannot be read."""
        return await asyncio.to_thread(self._judge, shown)


def _user(cert: Path) -> str:
    """The common name. ValueError: it has none."""
    pem = cert.read_text(encoding="ascii")
    end = "-----END CERTIFICATE-----"
    user = certified.read(ssl.PEM_cert_to_DER_cert(pem[: pem.index(end) + len(end)].lstrip())).common_name
    if not user:
        raise ValueError(f"{cert} names no user")
    return user
