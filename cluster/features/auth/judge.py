"""Whether a client may do what it asks for: the one place where that is decided.

:func:`judge` is called where a request is evaluated: at the leader that logs a write, at the replica that
answers a read, with the users and roles as they are there. What a method needs stands in ``_NEEDS``. Fronts
and nodes ask the other methods for themselves, a client never does.

| client | may |
|---|---|
| without credentials | nothing that is judged (UserEmpty) |
| an unknown token, or one older than its user's password or the last disabling | nothing (InvalidAuthToken) |
| a web token that names an older auth revision | no keys (AuthOldRevision: its client logs in again) |
| a user with the role root | everything |
| any other user | keys as its roles' ranges say, and what shows no keys |
| a certificate of no user | what shows no keys |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, cast

from google.protobuf.message import DecodeError

from cluster import errors
from cluster.errors import EtcdError
from cluster.faults import answered
from cluster.features.auth.changes import Change
from cluster.features.auth.permissions import EVERYTHING, NOTHING, Ranges
from cluster.features.auth.principal import INVALID, Kind, Principal
from cluster.features.auth.reads import LEASE, RANGE, Show
from cluster.features.auth.state import AuthState, User
from cluster.features.auth.tokens import verify
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method


class Leases(Protocol):
    """What hangs on a lease, where it is judged."""

    def lease_keys(self, lease: int, limit: int = 0, *, but: Ranges | None = None) -> Iterable[bytes]:
        """Its keys. Those within ``but`` may be left out, and of the others all beyond ``limit`` (0: none):
        a client may have few ranges, and a lease many keys."""


class AllLeases(Leases, Protocol):
    """And those of all leases, where they are listed."""

    def leased_keys(self, but: Ranges) -> Iterable[bytes]:
        """The keys on any lease that are not within ``but``. There may be very many: b"" now and then."""


@answered
def judge(state: AuthState, principal: Principal, method: int, body: bytes, leases: Leases) -> None:
    """EtcdError: this client may not have this request evaluated, or it is malformed: a front passes puts on
    unread, and no request may end the node that judges it."""
    if not state.enabled:
        return
    needs = _NEEDS.get(method)
    if needs is None or principal.kind == Kind.FRONT:
        return
    asked = _Asked(state, _checked(state, principal), leases)
    try:
        parse, judged = needs
        judged(asked, parse(body))
    except DecodeError:
        raise errors.MALFORMED_REQUEST.error(reason="unexpected EOF") from None


class _NoLeases:
    """Where nothing is known of what hangs on them yet."""

    def lease_keys(self, lease: int, limit: int = 0, *, but: Ranges | None = None) -> Iterable[bytes]:
        return ()


_NO_LEASES = _NoLeases()


@answered
def judge_ahead(state: AuthState, principal: Principal, method: int, body: bytes | None) -> None:
    """:func:`judge` before anything is locked: what this refuses is refused whatever hangs on its leases.
    ``body`` None: only who asks for keys is judged, since the request is long."""
    if body is not None:
        judge(state, principal, method, body, _NO_LEASES)
    elif state.enabled and principal.kind != Kind.FRONT:
        _Asked(state, _checked(state, principal), _NO_LEASES).valid()


def may_list(state: AuthState, principal: Principal, leases: AllLeases) -> Iterator[None]:
    """:func:`judge` for a list of all leases, in steps: there may be very many."""
    if state.enabled and principal.kind != Kind.FRONT:
        yield from _Asked(state, _checked(state, principal), leases).reads_any()


def _checked(state: AuthState, principal: Principal) -> Principal:
    """The principal, its token verified."""
    if principal.kind == Kind.UNVERIFIED:
        token = verify(state.secret, principal.user)
        principal = INVALID if token is None else Principal(Kind.SIMPLE, token.user, token.revision)
    if principal.kind == Kind.INVALID:
        raise EtcdError(errors.INVALID_AUTH_TOKEN)
    if principal.kind == Kind.SIMPLE:
        user = state.users.get(principal.user)
        if user is None or principal.revision < max(user.since, state.meta.epoch):
            raise EtcdError(errors.INVALID_AUTH_TOKEN)
    return principal


class _Asked:
    """One request, while it is judged. Each method raises EtcdError where the client may not."""

    __slots__ = ("_principal", "_state", "_written", "leases")

    def __init__(self, state: AuthState, principal: Principal, leases: Leases) -> None:
        self._state = state
        self._principal = principal
        self._written: set[int] = set()  # leases of which it may write each key
        self.leases = leases

    def _user(self) -> User:
        principal = self._principal
        user = self._state.users.get(principal.user)
        if user is None or not principal.user:
            self.named()
            raise EtcdError(errors.PERMISSION_DENIED)
        return user

    def fresh(self) -> None:
        if self._principal.kind == Kind.JWT and 0 < self._principal.revision < self._state.revision:
            raise EtcdError(errors.AUTH_OLD_REVISION)

    def valid(self) -> User:
        """The user, for what concerns keys. A web token of revision 0 names none for them, as at etcd."""
        if self._principal.kind == Kind.JWT:
            self.fresh()
            if not self._principal.revision:
                raise EtcdError(errors.USER_EMPTY)
        return self._user()

    def named(self) -> None:
        """A certificate names somebody by being one, as at etcd: its common name may be empty."""
        if not self._principal.user and self._principal.kind != Kind.CERTIFICATE:
            raise EtcdError(errors.USER_EMPTY)

    def known(self) -> None:
        """For what shows no keys: a certificate may name a user that does not exist, as at etcd."""
        if self._principal.kind != Kind.CERTIFICATE:
            self._user()

    def root(self) -> None:
        """A user that does not exist gets etcd's own answer here, and only here."""
        if not self._principal.user:
            raise EtcdError(errors.USER_EMPTY)
        if self._principal.user not in self._state.users:
            raise EtcdError(errors.USER_NOT_FOUND)
        if not self._state.is_root(self._user()):
            raise EtcdError(errors.PERMISSION_DENIED)

    def is_named(self, name: str) -> bool:
        """A client without credentials has the empty name, which no user has: etcd says so."""
        return self._principal.user == name

    def has_role(self, name: str) -> bool:
        user = self._state.users.get(self._principal.user)
        return user is not None and name in user.roles

    def reads(self, key: bytes, range_end: bytes = b"") -> None:
        if not self._state.may_read(self.valid(), key, range_end):
            raise EtcdError(errors.PERMISSION_DENIED)

    def writes(self, key: bytes, range_end: bytes = b"") -> None:
        if not self._state.may_write(self.valid(), key, range_end):
            raise EtcdError(errors.PERMISSION_DENIED)

    def reads_all(self, leases: Iterable[int]) -> None:
        """Each key of the leases; with no key: a name suffices."""
        self._each(self.reads, 0, leases)

    def writes_all(self, leases: Iterable[int]) -> None:
        """Likewise, to write them. Each lease is looked at once."""
        fresh = [lease for lease in leases if lease not in self._written]
        self._each(self.writes, 1, fresh)
        self._written.update(fresh)

    def _each(self, judged: Callable[[bytes], None], which: int, leases: Iterable[int]) -> None:
        held = self._held(which)
        if not held.everything:
            for lease in leases:
                for key in self.leases.lease_keys(lease, 1, but=held):  # the first one outside refuses
                    judged(key)

    def _held(self, which: int) -> Ranges:
        """The keys that need not be looked at."""
        self.named()
        user = self._state.users.get(self._principal.user)
        if user is not None and self._state.is_root(user):  # whatever its token's age
            return EVERYTHING
        try:
            return self._state.rights(self.valid())[which]
        except EtcdError:  # which any key says
            return NOTHING

    def reads_any(self) -> Iterator[None]:
        """Each key on any lease."""
        held = self._held(0)
        if not held.everything:
            for key in cast(AllLeases, self.leases).leased_keys(held):
                if key:
                    self.reads(key)
                yield


def _range(asked: _Asked, request: Any) -> None:
    asked.reads(request.key, request.range_end)


def _put(asked: _Asked, request: Any) -> None:
    asked.writes(request.key)
    if request.lease:  # a write under it may make its other keys live, or go
        asked.writes_all((request.lease,))
    if request.prev_kv:
        asked.reads(request.key)


def _delete(asked: _Asked, request: Any) -> None:
    asked.writes(request.key, request.range_end)
    if request.prev_kv:
        asked.reads(request.key, request.range_end)


def _txn(asked: _Asked, request: Any) -> None:
    """Compares, and both branches: otherwise the verdict would show what the compares saw of keys that the
    client may not read. One without any needs no user."""
    asked.fresh()
    for compare in request.compare:
        asked.reads(compare.key, compare.range_end)
    for op in (*request.success, *request.failure):
        kind = op.WhichOneof("request")
        if kind == "request_range":
            asked.reads(op.request_range.key, op.request_range.range_end)
        elif kind == "request_put":
            _put(asked, op.request_put)
        elif kind == "request_delete_range":
            _delete(asked, op.request_delete_range)
        elif kind == "request_txn":
            _txn(asked, op.request_txn)


def _known(asked: _Asked, _: Any) -> None:
    asked.known()


def _root(asked: _Asked, _: Any) -> None:
    asked.root()


def _lease(asked: _Asked, request: Any) -> None:
    asked.writes_all((request.ID,))


def _time_to_live(asked: _Asked, request: Any) -> None:
    asked.known()
    asked.reads_all((request.ID,) if request.keys else ())


def _all_leases(asked: _Asked, _: Any) -> None:
    for _ in asked.reads_any():
        pass


def _show(asked: _Asked, body: bytes) -> None:
    kind, request = body[0], body[1:]
    if kind == Show.MAY_WATCH:
        (length,) = RANGE.unpack_from(request)
        at = RANGE.size + length
        asked.reads(request[RANGE.size : at], request[at:])
    elif kind == Show.MAY_REVOKE:
        asked.writes_all(LEASE.unpack(request))
    elif kind == Show.MAY_LIST:
        _all_leases(asked, b"")
    elif (kind == Show.USER_GET and asked.is_named(pb.AuthUserGetRequest.FromString(request).name)) or (
        kind == Show.ROLE_GET and asked.has_role(pb.AuthRoleGetRequest.FromString(request).role)
    ):
        pass
    elif kind not in (Show.LOGIN, Show.SECRET):
        asked.root()


def _change(asked: _Asked, body: bytes) -> None:
    if body[0] != Change.SECRET:
        asked.root()


_RANGE = pb.RangeRequest.FromString, _range
_TXN = pb.TxnRequest.FromString, _txn
_TIME_TO_LIVE = pb.LeaseTimeToLiveRequest.FromString, _time_to_live
_KNOWN, _ROOT = (bytes, _known), (bytes, _root)  # whatever is asked
_NEEDS: dict[int, tuple[Callable[[bytes], Any], Callable[[_Asked, Any], None]]] = {
    Method.RANGE: _RANGE,
    Method.RANGE_STREAM: _RANGE,
    Method.RANGE_ROWS: _RANGE,
    Method.STREAM_ROWS: _RANGE,
    Method.READ_TXN: _TXN,
    Method.PUT: (pb.PutRequest.FromString, _put),
    Method.DELETE_RANGE: (pb.DeleteRangeRequest.FromString, _delete),
    Method.TXN: _TXN,
    Method.LEASE_GRANT: _KNOWN,
    Method.LEASE_REVOKE: (pb.LeaseRevokeRequest.FromString, _lease),
    Method.LEASE_KEEPALIVE: (pb.LeaseKeepAliveRequest.FromString, _lease),
    Method.LEASE_KEEPALIVES: _KNOWN,
    Method.LEASE_TTL: _TIME_TO_LIVE,
    Method.LEASE_KEYS: _TIME_TO_LIVE,
    Method.LEASE_LEASES: (bytes, _all_leases),
    Method.COMPACT: _ROOT,
    Method.SET_ALARM: _ROOT,
    Method.ALARM: _KNOWN,
    Method.MEMBER_LIST: _KNOWN,
    Method.MEMBERS: _ROOT,
    Method.GROW: _ROOT,
    Method.SHARD_CHANGE: _ROOT,
    Method.ADVICE: _ROOT,
    Method.MOVES: _ROOT,
    Method.STATUS: _KNOWN,
    Method.HASH: _ROOT,
    Method.HASH_KV: _ROOT,
    Method.SNAPSHOT: _ROOT,
    Method.TRANSFER_LEADER: _ROOT,
    Method.SET_DOWNGRADE: _ROOT,
    Method.DOWNGRADE: _ROOT,
    Method.DEFRAGMENT: _ROOT,
    Method.AUTH_CHANGE: (bytes, _change),
    Method.AUTH_SHOW: (bytes, _show),
}

#: What a front says a principal with; the two are judged as what they carry.
JUDGED = frozenset((*map(int, _NEEDS), int(Method.WIDE), int(Method.LONE)))
