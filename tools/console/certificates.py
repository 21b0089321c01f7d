"""Certificates of visitors, and what the console shows the cluster for their users.

A browser proves that it has a certificate's key, but the console cannot pass that proof on. So an operator
gives it certificates of users of its own (``--user-certs``). A visitor whose certificate is valid acts by the
one of the same user, and by no other: the common name decides on both sides, never a file's name. A user
without one logs in by password. A reader of that folder can act as its users, so ``root`` is better not
in it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from cluster.settings import Tls
from proxy.tls import certified, contexts
from proxy.tls.certified import Certificate
from tools.console.bounds import CONNECTIONS, MOST_HEAD_BYTES, SILENT_S, Bound
from tools.console.guard import App, Receive, Scope, Send

_SCOPE = "muster.certificates"
_KEY = "-key.pem"
_END = "-----END CERTIFICATE-----"
_TOLD_S = 2.0
log = logging.getLogger("tools.console")


@dataclass(frozen=True, slots=True)
class Pair:
    """Files of a certificate and its key."""

    cert: str
    key: str


class Listening(contexts.Credentials):
    """What the console shows browsers, and what it asks of theirs. A changed file counts from the next
    connection on, as at hosts."""

    def __init__(self, settings: Tls, *, required: bool) -> None:
        """``required``: browsers must show a certificate. ValueError: a file cannot be used."""
        self._known: tuple[object, ...] | None = None  # stamps of the files that were loaded last
        super().__init__(settings, lambda reason: log.warning("cannot use a changed file: %s", reason))
        self.first = self._of_browsers(contexts.make_context(settings))
        if not required and settings.trusted_ca_file:
            self.first.verify_mode = ssl.CERT_OPTIONAL  # a connection keeps it when its context changes
        self.first.sni_callback = self._renew  # called for each connection, also for one without a name

    def _load(self) -> ssl.SSLContext:
        begun_s = time.time()
        context = super()._load()
        if self._stamps != self._known:  # a file whose time is new is loaded more than once
            self._known, self._loaded_s = self._stamps, begun_s
        return context

    def _renew(self, tls: ssl.SSLObject | ssl.SSLSocket, _: str | None, __: ssl.SSLContext) -> int | None:
        tls.context = self._of_browsers(self.context())
        # a session of TLS 1.2 is of ``first``, so it does not end with the authorities that it was begun by
        if self.made > 1 and tls.session_reused:
            begun = tls.session
            if begun is None or begun.time < self._loaded_s:
                return ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE
        return None

    @staticmethod
    def _of_browsers(context: ssl.SSLContext) -> ssl.SSLContext:
        context.set_alpn_protocols(["http/1.1"])
        return context


class Certified(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """An HTTP connection whose requests tell which certificates its browser has shown. One that showed a
    revoked certificate, or one that cannot be read, ends. So does one beyond the bounds."""

    def __init__(self, listening: Listening | None, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._listening = listening
        self._seen: object = None  # the request that was the last one when it was looked
        self._look_again: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # of a request whose head is not whole
        self._in_head = self._is_refused = False

    def connection_made(self, transport: Any) -> None:
        others = [one.client[0] for one in self.connections if one.client]
        super().connection_made(transport)
        bound = CONNECTIONS
        if self.config.forwarded_allow_ips:  # those of all browsers may come from one proxy
            bound = Bound(CONNECTIONS.in_all, CONNECTIONS.in_all)
        if self.client and bound.is_reached(self.client[0], others):
            self._refuse("503 Service Unavailable", "too many connections are open")
            return
        self._look_again = self.loop.call_later(SILENT_S, self._look)
        if self._listening is None:
            return
        tls = transport.get_extra_info("ssl_object")
        if reason := certified.refusal_of(tls, self._listening.refusal):
            log.warning("refused a browser: %s", reason)
            transport.abort()
        elif found := certified.shown(tls):
            self.app: App = _telling(self.app, found)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look_again is not None:
            self._look_again.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._in_head else 0
        if self._head_bytes > MOST_HEAD_BYTES:
            self._refuse("431 Request Header Fields Too Large", "the request's head is too large")

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def _refuse(self, status: str, reason: str) -> None:
        self._is_refused = True
        answer = f"HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
        answer += f"content-length: {len(reason) + 1}\r\n\r\n{reason}\n"
        self.transport.write(answer.encode())
        self.transport.close()
        self.loop.call_later(_TOLD_S, self.transport.abort)  # with TLS it would wait for the other end

    def _look(self) -> None:
        """Where it has been silent since the last time, it ends: uvicorn waits for the rest of a request
        for as long as it takes."""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return  # it is a page's socket now
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self.cycle is self._seen:
            self.transport.close()
            return
        self._seen = self.cycle
        self._look_again = self.loop.call_later(SILENT_S, self._look)


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
    """Files, read at each log-in: a new certificate or revocation counts from then on. A pair that cannot be
    used is left out, and the log names it.

    ``folder``: ``NAME.pem`` with ``NAME-key.pem`` of each user. ``revoked``: a list of visitors' certificates
    that are not valid any more; empty: none."""

    folder: str
    revoked: str = ""
    _told: set[str] = field(default_factory=set, compare=False, repr=False)

    def pairs(self) -> tuple[dict[str, Pair], list[str]]:
        """By the user that each certificate names; and why others cannot be used."""
        found: dict[str, Pair] = {}
        broken: list[str] = []
        for cert in sorted(Path(self.folder).glob("*.pem")):
            if cert.name.endswith(_KEY):
                continue
            try:
                user, pair = _used(cert)
                if user in found:
                    raise ValueError(f"{cert} names the same user as {found[user].cert}")
                found[user] = pair
            except ValueError as error:
                broken.append(str(error))
        return found, broken

    def check(self) -> None:
        """ValueError: no pair can be used. ValueError, OSError: the list of revoked ones cannot."""
        found, broken = self.pairs()
        if broken and not found:
            raise ValueError(broken[0])
        if not found:
            raise ValueError(f"{self.folder} has no certificate NAME.pem with NAME-key.pem")
        self._tell(broken)
        self._serials()

    def _usable(self) -> dict[str, Pair]:
        """Those that can be used. What cannot is logged once, until it changes."""
        found, broken = self.pairs()
        self._tell(broken)
        return found

    def _tell(self, broken: Sequence[str]) -> None:
        for one in broken:
            if one not in self._told:
                log.warning("cannot use a user's certificate: %s", one)
        self._told.intersection_update(broken)
        self._told.update(broken)

    def _serials(self) -> frozenset[int]:
        return certified.revoked_serials(Path(self.revoked).read_bytes()) if self.revoked else frozenset()

    def _judge(self, shown: Sequence[Certificate]) -> tuple[str, Pair | None]:
        user = shown[0].common_name
        if reason := certified.refusal(shown, self._serials(), (), (), time.time()):
            raise ValueError(reason)
        return user, self._usable().get(user) if user else None

    async def of(self, shown: Sequence[Certificate]) -> tuple[str, Pair | None]:
        """The user that a visitor's certificates name, and what the console shows the cluster for it.
        ValueError: it is refused. OSError: a file cannot be read."""
        return await asyncio.to_thread(self._judge, shown)


def _used(cert: Path) -> tuple[str, Pair]:
    """The user of a certificate, with its files. ValueError: they cannot be used. It names them, and tells
    nothing of what is in them."""
    key = cert.with_name(cert.stem + _KEY)
    try:
        # a key with a password would be asked for at the terminal
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password="")
        pem = cert.read_text(encoding="ascii")
        end = pem.index(_END) + len(_END)
        user = certified.read(ssl.PEM_cert_to_DER_cert(pem[:end].lstrip())).common_name
    except ssl.SSLError as error:
        raise ValueError(f"{cert} with {key.name}: {error.reason or 'no certificate with its key'}") from None
    except OSError as error:
        raise ValueError(f"{cert} with {key.name}: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{cert} begins with no certificate") from None
    if not user:
        raise ValueError(f"{cert} names no user")
    return user, Pair(str(cert), str(key))
