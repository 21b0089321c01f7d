"""What clients show, and the principal that a request carries for it. A simple token is valid for
``--auth-token-ttl`` after its last use here, by the monotonic clock; for its first use here, after it was
given, by the wall clock. Hot path: a token is looked at once per connection and method; a request then costs
two compares and an append."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import islice
from typing import Any, Protocol

from cluster.features.auth.principal import FRONT, INVALID, Kind, Principal
from cluster.features.auth.tokens import Token, sign, unsigned, verify

_KNOWN, _SLIDING = 10_000, 100_000  # tokens that are kept: web tokens, and those whose last use counts
_LOOKS = 2  # at those kept longest, for each new one: so at most half of them have ended
_LONGEST = 4096  # characters of a token that is kept: names, and the padding of web tokens, have no bound
_INVALID = INVALID.encode()
_FRONT = FRONT.encode()
_BEARER = b"Bearer "
_REFUSED_S = 1.0  # that a token which does not count is not looked at again


class Tokens(Protocol):
    def give(self, user: str, revision: int) -> str:
        """A token for a user that has shown the password. EtcdError: there is none."""

    def read(self, text: str, now_s: float) -> tuple[Principal, float]:
        """The principal, and until when it is valid, by the clock of ``now_s``: monotonic if tokens slide."""


class SimpleTokens:
    slides = True  # valid from its last use

    def __init__(self, ttl_s: float, wall_s: Callable[[], float] = time.time) -> None:
        self.ttl_s = ttl_s
        self.secret = b""
        self._wall_s = wall_s

    def give(self, user: str, revision: int) -> str:
        # in whole seconds: rounded down, a TTL of a second might be none
        return sign(self.secret, Token(user, revision, math.ceil(self._wall_s())))

    def read(self, text: str, now_s: float) -> tuple[Principal, float]:
        # before this front knows the secret, nodes verify tokens
        token = verify(self.secret, text) if self.secret else unsigned(text)
        if token is None or self._wall_s() >= token.given_s + self.ttl_s:
            return INVALID, now_s
        if not self.secret:
            return Principal(Kind.UNVERIFIED, text), now_s  # read again the next time
        return Principal(Kind.SIMPLE, token.user, token.revision), now_s + self.ttl_s


class Shown:
    __slots__ = ("_encoded", "_known", "_name", "_refused_s", "_text", "_twin", "_until_s")

    def __init__(self, known: Principals, text: str, principal: Principal | None = None) -> None:
        self._known = known
        self._text = text
        self._encoded = b"" if principal is None else principal.encode()
        self._until_s = 0.0 if principal is None else float("inf")  # 0: it is read at its next use
        self._name = "" if principal is None else principal.user
        self._refused_s = float("-inf")  # when it was read last and did not count
        self._twin: Shown | None = None  # the one that is kept of its token, unless it is this one

    def user(self) -> str:
        """The user's name, if it was ever valid: after a token expires it still names the user of a watch.
        Empty: none."""
        if not self._name:
            self.said()
        return self._name

    def said(self) -> bytes:
        """The principal of a request sent now."""
        now_s = self._known.now_s()
        if now_s >= self._until_s:
            self._look(now_s)
        elif self._known.slides and self._until_s != float("inf"):
            self._until_s = now_s + self._known.ttl_s
        return self._encoded

    def forget(self) -> None:
        """Its token is read anew at its next use."""
        self._encoded, self._until_s, self._refused_s = b"", 0.0, float("-inf")

    def ended(self, now_s: float) -> bool:
        return now_s >= self._until_s or self._encoded == _INVALID

    def _look(self, now_s: float) -> None:
        if self._twin is not None:
            self._encoded = self._twin.said()
            return
        if self._encoded and self._known.slides and self._until_s > 0:
            self._encoded, self._until_s = _INVALID, float("inf")  # unused for too long
            return
        if 0 <= now_s - self._refused_s < _REFUSED_S:  # a wall clock may be set back
            return
        principal, until_s = self._known.tokens.read(self._text, now_s)
        self._encoded = principal.encode()
        if principal.kind == Kind.UNVERIFIED or principal.kind == Kind.INVALID:
            self._until_s = 0.0
            if principal.kind == Kind.INVALID:
                self._refused_s = now_s
        else:
            self._until_s, self._name = until_s, principal.user
            kept = self._known.keep(self._text, self)
            if kept is not self:
                self._twin, self._until_s, self._encoded = kept, 0.0, kept.said()


class Principals:
    def __init__(self, tokens: Any, now_s: Callable[[], float] | None = None) -> None:
        self.tokens: Tokens = tokens
        self.slides: bool = getattr(tokens, "slides", False)
        self.now_s: Callable[[], float] = now_s or (time.monotonic if self.slides else time.time)
        self.ttl_s: float = getattr(tokens, "ttl_s", 0.0)
        self.enabled = False  # as this host's node has applied it
        self.revision = 0  # auth revision, likewise
        self.changed: list[Callable[[], None]] = []  # called when users or roles change while auth is on
        self.order_index = -1  # of the last news
        self._shown: dict[str, Shown] = {}

    def judged(self, call: Any) -> bool:
        """Whether a call's requests are judged, as far as this front knows."""
        return self.enabled or getattr(call, "principal", None) is not None

    def of(self, token: bytes | None, common_name: str | None) -> Shown | None:
        """What a client shows by its metadata or certificate, or None. An empty token is an invalid one, as
        in etcd."""
        if token is not None:
            token = token.partition(b",")[0]  # the first of several, as in etcd
            text = (token[len(_BEARER) :] if token.startswith(_BEARER) else token).decode("latin-1")
            found = self._shown.pop(text, None)
            if found is None:
                return Shown(self, text)
            self._shown[text] = found  # the least recently used go first
            return found
        if common_name is not None:  # empty: a certificate without one, of no user
            return Shown(self, "", Principal(Kind.CERTIFICATE, common_name))
        return None

    def give(self, user: str, revision: int) -> str:
        """A token for a user that has shown the password. EtcdError: there is none."""
        text = self.tokens.give(user, revision)
        # a login in the same second, of before the wall clock was set back, gave the same text
        if (given := self._shown.get(text)) is not None:
            given.forget()
        return text

    def keep(self, text: str, shown: Shown) -> Shown:
        """Keep a valid token. Returns the one that is kept: a token has one time. Invalid ones are not
        kept: a client can send any number of them. Long ones are read again on each connection, and count
        from when they were given. One in use is not dropped for those that came later."""
        if len(text) > _LONGEST:
            return shown
        known, now_s = self._shown, self.now_s()
        kept = known.setdefault(text, shown)
        for oldest in tuple(islice(known, _LOOKS)):
            found = known.pop(oldest)
            if not found.ended(now_s) or self.tokens.read(oldest, now_s)[0].kind != Kind.INVALID:
                known[oldest] = found  # one from a clock that is ahead counts once, not anew
        if len(known) > (_SLIDING if self.slides else _KNOWN):
            del known[next(iter(known))]
        return kept

    def said(self, principal: Any, waiting: Any) -> bytes:
        """The principal before a request: of its call, or, if ``principal`` is self, of the client that it is
        made for, else of this front. Empty: none."""
        if principal is not self:
            return principal.said()  # type: ignore[no-any-return]
        client = waiting.client
        if client is not None:
            shown = getattr(client, "principal", None)
            return shown.said() if shown is not None else b""
        return _FRONT if self.enabled else b""

    def heard(self, order_index: int, enabled: bool, revision: int, secret: bytes) -> None:
        """A node has reported its auth state; nodes of several shards do, each at its time."""
        if order_index <= self.order_index:
            return
        self.order_index = order_index
        news = (enabled, revision) != (self.enabled, self.revision)
        self.enabled, self.revision = enabled, revision
        if secret and isinstance(self.tokens, SimpleTokens):
            self.tokens.secret = secret
        if news and enabled:
            for then in self.changed:
                then()
