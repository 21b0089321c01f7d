"""etcdserverpb.Auth. A password goes no further than here: nodes and logs get its hash.

Changes go to the sequencer, what shows users and roles is a linearizable read. Authenticate is made of reads
alone: it asks what the password is compared with, compares, and asks again; if users and roles have changed
meanwhile it starts over, so that no token rests on a password that was replaced before.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.features.auth.changes import SECRET_BYTES, Change
from cluster.features.auth.reads import Login, Show, read_login
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import HEAD, Method, Status
from proxy.auth.shown import SimpleTokens
from proxy.routing.router import MethodStats
from proxy.routing.waiting import Waiting
from proxy.shared.context import Call, Context, Registry, UnaryHandler

SERVICE = "etcdserverpb.Auth"
_SHARD = 0
_TRIES = 10  # of a login, while users and roles change

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


def register(registry: Registry, context: Context) -> None:
    """Register the service's methods."""
    for name, change, kind in _CHANGES:
        registry.unary(f"/{SERVICE}/{name}", _change(context, name, change, kind.FromString))
    for name, shown, asked in _SHOWS:
        registry.unary(f"/{SERVICE}/{name}", _show(context, name, shown, asked.FromString))
    registry.unary(
        f"/{SERVICE}/UserAdd",
        _with_password(
            context,
            "UserAdd",
            Change.USER_ADD,
            pb.AuthUserAddRequest.FromString,
            lambda request: not request.options.no_password,
        ),
    )
    registry.unary(
        f"/{SERVICE}/UserChangePassword",
        _with_password(
            context,
            "UserChangePassword",
            Change.USER_CHANGE_PASSWORD,
            pb.AuthUserChangePasswordRequest.FromString,
            lambda request: bool(request.password),
        ),
    )
    registry.unary(f"/{SERVICE}/Authenticate", _authenticate(context))


def _change(context: Context, name: str, change: Change, parse: Callable[[bytes], Any]) -> UnaryHandler:
    stats = context.method("unary", SERVICE, name)
    head = bytes((change,))

    def handler(call: Call, data: bytes) -> None:
        stats.started += 1
        if not context.no_leader(call, stats) and not context.malformed(call, stats, parse, data):
            context.router.write(call, Method.AUTH_CHANGE, head + data, _SHARD, stats)

    return handler


def _show(context: Context, name: str, shown: Show, parse: Callable[[bytes], Any]) -> UnaryHandler:
    stats = context.method("unary", SERVICE, name)
    head = bytes((shown,))

    def handler(call: Call, data: bytes) -> None:
        stats.started += 1
        if not context.no_leader(call, stats) and not context.malformed(call, stats, parse, data):
            context.router.read(call, Method.AUTH_SHOW, head + data, _SHARD, False, stats)

    return handler


def _with_password(
    context: Context, name: str, change: Change, parse: Callable[[bytes], Any], hashes: Callable[[Any], bool]
) -> UnaryHandler:
    """A change that brings a password, which is hashed first."""
    stats = context.method("unary", SERVICE, name)
    head = bytes((change,))

    def send(call: Call, request: Any) -> None:
        request.password = ""
        context.router.write(call, Method.AUTH_CHANGE, head + request.SerializeToString(), _SHARD, stats)

    def hashed(call: Call, request: Any, found: bytes) -> None:
        if call.closed:
            return
        if not found:
            context.refuse(call, stats, errors.INTERNAL_FAULT)
            return
        request.hashedPassword = base64.b64encode(found).decode()
        send(call, request)

    def handler(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        try:
            request = validate.parse(parse, data)
            if hashes(request):
                context.passwords.hash(request.password, partial(hashed, call, request))
                return
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        send(call, request)

    return handler


def _authenticate(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "Authenticate")

    def handler(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        try:
            request = validate.parse(pb.AuthenticateRequest.FromString, data)
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        _LoginOf(context, call, request, stats).ask()

    return handler


class _LoginOf:
    """One client that logs in."""

    def __init__(self, context: Context, call: Call, request: Any, stats: MethodStats) -> None:
        self._context = context
        self._call = call
        self._request = request
        self._stats = stats
        self._left = _TRIES
        self._checked: Login | None = None  # what the password was compared with, and is right for

    def ask(self) -> None:
        """What is the password compared with?"""
        if self._call.closed:
            return
        self._left -= 1
        if self._left < 0:
            self._fail(EtcdError(errors.TIMEOUT))
            return
        body = bytes((Show.LOGIN,)) + self._request.name.encode()
        # of this front, and not of the client: who logs in may show a token that has gone
        self._context.router.read(
            None, Method.AUTH_SHOW, body, _SHARD, False, self._context.router.quiet, self._known
        )

    def _known(self, waiting: Waiting, status: int, body: bytes) -> None:
        if status != Status.OK:
            self._fail(EtcdError.decode(body))
            return
        revision, term = HEAD.unpack_from(body)
        login, checked = read_login(body[HEAD.size :]), self._checked
        if checked is not None and (checked.revision, checked.password_hash) == (
            login.revision,
            login.password_hash,
        ):
            self._reply(revision, term, login)
            return
        try:
            self._context.passwords.check(
                self._request.password, login.password_hash, partial(self._compared, login)
            )
        except EtcdError as e:
            self._fail(e)

    def _compared(self, login: Login, right: bool) -> None:
        if not right:
            self._fail(EtcdError(errors.AUTH_FAILED))
            return
        self._checked = login
        tokens = self._context.principals.tokens
        if isinstance(tokens, SimpleTokens) and not login.secret:
            body = bytes((Change.SECRET,)) + os.urandom(SECRET_BYTES)
            self._context.router.write(
                None, Method.AUTH_CHANGE, body, _SHARD, self._context.router.quiet, self._agreed
            )
        else:
            self.ask()

    def _agreed(self, waiting: Waiting, status: int, body: bytes) -> None:
        """The cluster has a secret now: this one, or another front's."""
        if status == Status.OK:
            self.ask()
        elif status != Status.PARTIAL:
            self._fail(EtcdError.decode(body))

    def _reply(self, revision: int, term: int, login: Login) -> None:
        call, tokens = self._call, self._context.principals.tokens
        if call.closed:
            return
        if isinstance(tokens, SimpleTokens):
            tokens.secret = login.secret
        try:
            token = tokens.give(self._request.name, login.revision)
        except EtcdError as e:
            self._fail(e)
            return
        self._stats.ok += 1
        call.reply(
            self._context.router.header(revision, term),
            pb.AuthenticateResponse(token=token).SerializeToString(),
        )

    def _fail(self, error: EtcdError) -> None:
        if not self._call.closed:
            self._context.refuse(self._call, self._stats, error)
