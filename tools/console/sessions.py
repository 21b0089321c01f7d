"""Users of the console, and what each has open: connections, watches. Secrets live in memory only."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from weakref import WeakValueDictionary

import grpc
from muster_client import (
    AuthenticationFailed,
    Client,
    MusterError,
    PermissionDenied,
    ServerError,
    Tls,
    Unavailable,
)
from muster_client.wire.endpoints import parsed

from proxy.auth.passwords import owner_of
from proxy.http.memory import TOO_MANY
from proxy.tls.certified import Certificate
from tools.console.certificates import Certificates, Pair
from tools.console.spool import Spool
from tools.console.store import cluster, raw
from tools.console.store.access import rights, version3
from tools.console.store.access.rights import UNLIMITED, Rights
from tools.console.store.charts.recorder import Recorder
from tools.console.store.cluster import Hosts
from tools.console.store.hub import Hub
from tools.console.store.v2.calls import Version2

_ASKED_S = 1.5  # a page waits for it
_RIGHTS_S = 5.0  # so old may be what is offered; the store decides
IDLE_S = 12 * 3600.0
MOST = 1000  # sessions; the one idle for longest ends then
_TICKET_S = 30.0
_SWEEP_S = 60.0
_GUESSES = 4  # log-ins that are asked of the cluster at a time: each costs it a slow hash
_GUESS_S = 1.0  # until a client may try the next one in that one's place, where a password was wrong
_MOST_WAITING = 100  # log-ins of a client
COOKIE = "muster-console"
_NO_USER = "etcdserver: user name is empty"
_UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster."""

    endpoints: tuple[str, ...]
    tls: Tls | None = None
    read_only: bool = False
    certificates: Certificates | None = None
    """Visitors may log in by a certificate."""
    log_in: bool = True
    """Visitors log in wherever the cluster has users; else they act as the user of ``tls``."""


class Identity:
    """A user that asks the cluster, or a visitor without a name. Browsers of one user share it. ``pair``: the
    user comes by this certificate, and without a password."""

    def __init__(
        self,
        target: Target,
        recorder: Recorder,
        user: str = "",
        password: str = "",
        pair: Pair | None = None,
    ) -> None:
        self.user, name = user, "" if pair else user
        self.tls = target.tls
        if pair is not None:
            self.tls = replace(target.tls or Tls(), cert=pair.cert, key=pair.key)
        self.recorder = recorder
        self.read_only = target.read_only
        self.client = Client(list(target.endpoints), user=name, password=password, tls=self.tls, timeout=5.0)
        if target.read_only:
            raw.make_read_only(self.client)
        self.hub = Hub(self.client)
        secure = all(at.tls for at in parsed(target.endpoints, self.tls))
        self.hosts = Hosts(name, password, self.tls, target.read_only, secure)
        self.version2 = Version2(target.endpoints, self.tls, name, password, read_only=target.read_only)
        self._password, self._pair = password, pair
        self._rights, self._rights_until_s = UNLIMITED, 0.0

    def same_secret(self, other: Identity) -> bool:
        """Whether both logged in by the same certificate or password: it may have changed between them."""
        same = secrets.compare_digest(self._password.encode(), other._password.encode())
        return same and self._pair == other._pair

    async def rights(self) -> Rights:
        """What it may do, as of a few seconds ago."""
        if time.monotonic() > self._rights_until_s:
            self._rights = await rights.of(self.client, self.user)
            self._rights_until_s = time.monotonic() + _RIGHTS_S
        return self._rights

    async def close(self) -> None:
        """End its connections and watches."""
        self.version2.close()
        await self.hub.close()
        await self.hosts.close()
        await self.client.close()


@dataclass(slots=True)
class _Session:
    """``ends_at``: with the certificate that it began with. ``pages``: what ends each open page of it."""

    identity: Identity
    used_at: float
    ends_at: float = math.inf
    pages: set[Callable[[], None]] = field(default_factory=set)


class _Client(asyncio.Semaphore):
    """An address of browsers: it has as many log-ins under way at a time as all have at the cluster."""

    def __init__(self) -> None:
        super().__init__(_GUESSES)
        self.log_ins = 0


@dataclass(slots=True)
class Sessions:
    """Users that are logged in, by the secret in each browser's cookie."""

    target: Target
    now_s: Callable[[], float] = time.monotonic
    guess_s: float = _GUESS_S
    _sessions: dict[str, _Session] = field(default_factory=dict)
    _tickets: dict[str, tuple[Identity, float, float]] = field(default_factory=dict)
    _nobody: Identity | None = None
    _own: Identity | None = None
    _guesses: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_GUESSES))
    _clients: WeakValueDictionary[str, _Client] = field(default_factory=WeakValueDictionary)
    spool: Spool = field(default_factory=Spool)
    recorder: Recorder = field(init=False)

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.target.endpoints, self.target.tls, self._hosts)

    async def _hosts(self) -> list[tuple[str, str]]:
        return await cluster.hosts(self._itself.client)

    @property
    def nobody(self) -> Identity:
        """Of browsers without a session: what a cluster without users lets everybody do."""
        if self._nobody is None:
            self._nobody = Identity(self.target, self.recorder)
        return self._nobody

    @property
    def _itself(self) -> Identity:
        """The user that asks for the console: none, or, apart from visitors, the user of its certificate."""
        if self.may_act_as_nobody:
            return self.nobody
        if self._own is None:
            self._own = Identity(self.target, self.recorder)
        return self._own

    async def needs_login(self) -> bool:
        """Whether visitors are asked for a user. MusterError: the cluster cannot be asked."""
        try:
            await self._itself.client.count(b"\0", timeout=_ASKED_S)
            if self.may_act_as_nobody or not await _has_users(self._itself.client):
                return False
        except PermissionDenied as error:
            if not self.target.log_in and error.message != _NO_USER:
                return False  # the certificate names a user, who may do less
        if self._nobody is not None and self._nobody is not self._itself:
            nobody, self._nobody = (
                self._nobody,
                None,
            )  # pages of before the users do no more by that certificate
            await nobody.close()
        return True

    @property
    def may_act_as_nobody(self) -> bool:
        """Whether a visitor without a session may, if the cluster lets it: the console's certificate may name
        another user."""
        return not (self.target.log_in and self.target.tls and self.target.tls.cert)

    async def admitted(self, secret: str | None) -> Identity | None:
        """The identity that asks, by the secret of a browser, or no user by name; None: it is to log in."""
        identity = self.of(secret)
        if identity is not None:
            return identity
        try:
            asks = await self.needs_login()
        except MusterError:  # a page says so, and goes on once the cluster answers
            asks = not self.may_act_as_nobody
        return None if asks else self.nobody

    async def log_in(self, user: str, password: str, address: str = "") -> str:
        """A ticket for one session, if the cluster knows the name and the password. AuthenticationFailed,
        after a while: a client that guesses gets so many answers in a second, whatever the number of its
        pages, and keeps no other one waiting. MusterError."""
        if not user:
            raise AuthenticationFailed(_UNAUTHENTICATED, _NO_USER)
        await self.end_old()
        client = self._clients.setdefault(owner_of(f"{address}:"), _Client())
        if client.log_ins >= _MOST_WAITING:
            raise ServerError(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MANY)
        client.log_ins += 1
        try:
            async with client:
                try:
                    async with self._guesses:
                        return self._ticket(await self._known(user, password))
                except AuthenticationFailed:
                    await asyncio.sleep(self.guess_s)
                    raise
        finally:
            client.log_ins -= 1

    def _ticket(self, identity: Identity, ends_at: float = math.inf) -> str:
        ticket = secrets.token_urlsafe(32)
        self._tickets[ticket] = (identity, self.now_s(), ends_at)
        return ticket

    async def visitor(self, shown: Sequence[Certificate]) -> tuple[str, Pair | None]:
        """The user that a browser's certificates name, and the console's own for it. Empty: no user."""
        if self.target.certificates is None or not shown:
            return "", None
        try:
            return await self.target.certificates.of(shown)
        except (ValueError, OSError):  # a page is to be shown
            return "", None

    async def log_in_by_certificate(self, shown: Sequence[Certificate]) -> str:
        """A ticket for one session, which ends with the certificate that a browser has shown.
        AuthenticationFailed, MusterError."""
        user, pair = await self.visitor(shown)
        if pair is None:
            raise AuthenticationFailed(_UNAUTHENTICATED, "the certificate names no user of the console")
        await self.end_old()
        async with self._guesses:
            identity = Identity(self.target, self.recorder, user, pair=pair)
            try:
                await identity.client.auth.user_roles(user)  # each user may ask for itself
            except BaseException:
                await identity.close()
                raise
        return self._ticket(identity, self.now_s() + shown[0].ends - time.time())

    async def _known(self, user: str, password: str) -> Identity:
        """A user whose name and password the cluster knows. AuthenticationFailed, MusterError."""
        identity = Identity(self.target, self.recorder, user, password)
        try:
            with suppress(PermissionDenied):  # of that key: the user is known
                await identity.client.count(b"\0", timeout=5.0)
        except BaseException:
            await identity.close()
            raise
        return identity

    async def redeem(self, ticket: str) -> str | None:
        """The secret of the session of a ticket, which is void from then on."""
        await self.end_old()
        if ticket not in self._tickets:
            return None
        identity, _, ends_at = self._tickets.pop(ticket)
        same = next(
            (
                one.identity
                for one in self._sessions.values()
                if one.identity.user == identity.user and one.identity.same_secret(identity)
            ),
            None,
        )
        secret = secrets.token_urlsafe(32)
        self._sessions[secret] = _Session(same or identity, self.now_s(), ends_at)
        if same is not None:  # shared from now on: the end of its other sessions does not close it
            await identity.close()
        return secret

    def of(self, secret: str | None) -> Identity | None:
        """The identity of the session with this secret."""
        session = self._sessions.get(secret or "")
        if session is None or self._is_over(session):
            return None
        session.used_at = self.now_s()
        return session.identity

    def _is_over(self, session: _Session) -> bool:
        now_s = self.now_s()
        return now_s - session.used_at > IDLE_S or now_s > session.ends_at

    def with_session(self, secret: str | None, end: Callable[[], None]) -> Callable[[], None]:
        """Call ``end`` once the session ends; call what is given back to forget it. Browsers share an
        identity: another one of the same user must not keep this one's pages at work."""
        session = self._sessions.get(secret or "")
        if session is None:
            return lambda: None
        session.pages.add(end)
        return lambda: session.pages.discard(end)

    async def log_out(self, secret: str | None) -> None:
        """End a session, and its pages."""
        await self.forget(secret)()

    def forget(self, secret: str | None) -> Callable[[], Awaitable[None]]:
        """End a session; await what is given back to end its pages, too."""
        session = self._sessions.pop(secret or "", None)

        async def end_pages() -> None:
            if session is not None:
                for end in tuple(session.pages):
                    end()
                await self._left(session.identity)

        return end_pages

    async def close(self) -> None:
        """End all of them."""
        await self.recorder.close()
        known = {
            id(one): one
            for one in (
                *(session.identity for session in self._sessions.values()),
                *(identity for identity, _, _ in self._tickets.values()),
                *filter(None, [self._nobody, self._own]),
            )
        }
        self._sessions.clear()
        self._tickets.clear()
        self._nobody = self._own = None
        await asyncio.gather(*(identity.close() for identity in known.values()))
        self.spool.close()

    async def end_old_ones(self) -> None:
        """Again and again: an open page keeps its identity, and asks for no session, nor whether there are
        users now."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            await self.end_old()
            if self._nobody is not None and not self.may_act_as_nobody:
                with suppress(MusterError):  # asked again later
                    await self.needs_login()

    async def end_old(self) -> None:
        """End sessions that are over, and with the last one of an identity what its pages ask by."""
        now_s = self.now_s()
        for ticket, (identity, since, _) in list(self._tickets.items()):
            if now_s - since > _TICKET_S and self._tickets.pop(ticket, None) is not None:
                await identity.close()
        by_age = sorted(self._sessions, key=lambda secret: self._sessions[secret].used_at)
        spare = len(by_age) - MOST + 1
        for at, secret in enumerate(by_age):
            session = self._sessions.get(secret)  # None: another call has ended it meanwhile
            if session is not None and (at < spare or self._is_over(session)):
                await self.log_out(secret)

    async def _left(self, identity: Identity) -> None:
        if all(session.identity is not identity for session in self._sessions.values()):
            await identity.close()


async def _has_users(client: Client) -> bool:
    """MusterError: it cannot be asked."""
    try:
        async with asyncio.timeout(_ASKED_S):
            return await version3.are_enabled(client)
    except TimeoutError:
        raise Unavailable(
            grpc.StatusCode.UNAVAILABLE, "the cluster does not say whether it has users"
        ) from None
    except PermissionDenied:  # only a cluster with users denies anything
        return True
