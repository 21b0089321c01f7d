"""etcdserverpb.Auth. A password goes no further than here: nodes and logs get its hash. Authenticate consists
of reads: it reads the hash, compares, and reads again. If the hash has changed meanwhile it compares anew, so
that no token rests on a replaced password. The token names the auth revision of the last read."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.changes import SECRET_BYTES, Change
from cluster.features.auth.reads import Login, Show, read_login
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import HEAD, Method, Status
from proxy.auth.passwords import check_length
from proxy.auth.shown import SimpleTokens
from proxy.routing.router import MethodStats
from proxy.routing.waiting import Waiting
from proxy.shared.context import Call, Context, Registry, Serve

SERVICE = "etcdserverpb.Auth"
_SHARD = 0
_TRIES = 10  # of a login, while its password changes

_CHANGES: tuple[tuple[str, Change, Any], ...] = (
    ("AuthEnable", Change.ENABLE, pb.AuthEnableRequest),
    ("AuthDisable", Change.DISABLE, pb.AuthDisableRequest),
    ("UserDelete", Change.USER_DELETE, pb.AuthUserDeleteRequest),
    ("UserGrantRole", Change.USER_GRANT_ROLE, pb.AuthUserGrantRoleRequest),
    ("UserRevokeRole", Change.USER_REVOKE_ROLE, pb.AuthUserRevokeRoleRequest),
    ("RoleAdd", Change.ROLE_ADD, pb.AuthRoleAddRequest),
    ("RoleDelete", Change.ROLE_DELETE, pb.AuthRoleDeleteRequest),
    ("RoleGrantPermission", Change.ROLE_GRANT_PERMISSION, pb.AuthRoleGrantPermissionRequest),
    ("RoleRevokePermission", Change.ROLE_REVOKE_PERMISSION, pb.AuthRoleRevokePermissionRequest),
)
_SHOWS: tuple[tuple[str, Show, Any], ...] = (
    ("AuthStatus", Show.STATUS, pb.AuthStatusRequest),
    ("UserGet", Show.USER_GET, pb.AuthUserGetRequest),
    ("UserList", Show.USER_LIST, pb.AuthUserListRequest),
    ("RoleGet", Show.ROLE_GET, pb.AuthRoleGetRequest),
    ("RoleList", Show.ROLE_LIST, pb.AuthRoleListRequest),
)
# with a password, and when there is one to hash
_PASSWORDS: tuple[tuple[str, Change, Any, Callable[[Any], bool]], ...] = (
    ("UserAdd", Change.USER_ADD, pb.AuthUserAddRequest, lambda request: not request.options.no_password),
    ("UserChangePassword", Change.USER_CHANGE_PASSWORD, pb.AuthUserChangePasswordRequest,
     lambda request: bool(request.password)),
)


def register(registry: Registry, context: Context) -> None:
    for name, change, kind in _CHANGES:
        context.unary(registry, SERVICE, name, kind, _change(context, bytes((change,))))
    for name, shown, kind in _SHOWS:
        context.unary(registry, SERVICE, name, kind, _show(context, shown))
    for name, change, kind, hashes in _PASSWORDS:
        context.unary(registry, SERVICE, name, kind, _with_password(context, change, hashes))

    def authenticate(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        _LoginOf(context, call, request, stats).ask()

    context.unary(registry, SERVICE, "Authenticate", pb.AuthenticateRequest, authenticate)


def _show(context: Context, shown: Show) -> Serve:
    head = bytes((shown,))

    def serve(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        context.router.read(call, Method.AUTH_SHOW, head + data, _SHARD, False, stats)

    return serve


def _change(context: Context, head: bytes) -> Serve:
    def serve(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        context.check_size(data)
        _write(context, call, head + data, stats)

    return serve


def _write(context: Context, call: Call, body: bytes, stats: MethodStats) -> None:
    """Serializable reads go by the users that this host's replicas have applied."""
    context.change(call, Method.AUTH_CHANGE, body, stats, everywhere=True)


def _with_password(context: Context, change: Change, hashes: Callable[[Any], bool]) -> Serve:
    head = bytes((change,))

    def send(call: Call, request: Any, stats: MethodStats) -> None:
        request.password = ""
        _write(context, call, head + request.SerializeToString(), stats)

    def hashed(call: Call, request: Any, stats: MethodStats, found: bytes) -> None:
        if context.given_up(call, stats):
            return
        if not found:
            context.refuse(call, stats, errors.INTERNAL_FAULT)
            return
        request.hashedPassword = base64.b64encode(found).decode()
        send(call, request, stats)

    def judged(waiting: Waiting, status: int, body: bytes) -> None:
        call, request, stats = waiting.call, waiting.context, waiting.stats
        if status != Status.OK:
            context.refuse(call, stats, context.router.ended_as_in_etcd(waiting, body))
            return
        if context.given_up(call, stats):
            return
        try:
            context.passwords.hash(call, request.password, partial(hashed, call, request, stats))
        except EtcdError as e:
            context.refuse(call, stats, e)

    def serve(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        context.check_size(data)
        if not hashes(request):
            send(call, request, stats)
        elif context.principals.judged(call):
            check_length(request.password)  # as in etcd, before who asks is looked at
            # it needs the same permission, and costs no 50 ms of a thread
            status = bytes((Show.STATUS,))
            context.router.read(call, Method.AUTH_SHOW, status, _SHARD, False, stats, judged, request)
        else:
            context.passwords.hash(call, request.password, partial(hashed, call, request, stats))

    return serve


@dataclass(slots=True)
class _LoginOf:
    context: Context
    call: Call
    request: Any
    stats: MethodStats
    left: int = _TRIES
    checked: Login | None = None  # what the password is right for

    def ask(self) -> None:
        if self.context.given_up(self.call, self.stats):
            return
        self.left -= 1
        if self.left < 0:
            self._fail(EtcdError(errors.TIMEOUT))
            return
        body = bytes((Show.LOGIN,)) + self.request.name.encode()
        # in this front's name: the client may show a token that has expired
        router = self.context.router
        router.read(None, Method.AUTH_SHOW, body, _SHARD, False, router.quiet, self._known)

    def _known(self, waiting: Waiting, status: int, body: bytes) -> None:
        if status != Status.OK:
            self._fail(EtcdError.decode(body))
            return
        revision, term = HEAD.unpack_from(body)
        login, checked = read_login(body[HEAD.size :]), self.checked
        known = login.password_hash
        if checked is not None and checked.password_hash == known:
            self._reply(revision, term, login)
            return
        try:
            self.context.passwords.check(
                self.call, self.request.password, known, partial(self._compared, login))
        except EtcdError as e:
            self._fail(e)

    def _compared(self, login: Login, right: bool) -> None:
        if not right:
            self._fail(EtcdError(errors.AUTH_FAILED))
            return
        self.checked = login
        tokens = self.context.principals.tokens
        if isinstance(tokens, SimpleTokens) and not login.secret:
            body = bytes((Change.SECRET,)) + os.urandom(SECRET_BYTES)
            router = self.context.router
            router.write(None, Method.AUTH_CHANGE, body, _SHARD, router.quiet, self._agreed)
        else:
            self.ask()

    def _agreed(self, waiting: Waiting, status: int, body: bytes) -> None:
        if status == Status.OK:
            self.ask()
        elif status != Status.PARTIAL:
            self._fail(EtcdError.decode(body))

    def _reply(self, revision: int, term: int, login: Login) -> None:
        call, principals = self.call, self.context.principals
        if self.context.given_up(call, self.stats):
            return
        if isinstance(principals.tokens, SimpleTokens):
            principals.tokens.secret = login.secret
        try:
            token = principals.give(self.request.name, login.revision)
        except EtcdError as e:
            self._fail(e)
            return
        self.stats.ok += 1
        response = pb.AuthenticateResponse(token=token)
        call.reply(self.context.router.header(revision, term), response.SerializeToString())

    def _fail(self, error: EtcdError) -> None:
        self.context.refuse(self.call, self.stats, error)
