"""Who is asked for a user."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from muster_client import AuthenticationFailed, MusterError, PermissionDenied, ServerError, Tls, Unavailable

from tools.console import sessions
from tools.console.sessions import Sessions, Target
from tools.console.store.access.model import Access
from tools.console.store.access.version3 import Version3, are_enabled

Code = grpc.StatusCode
UNKNOWN = ServerError(Code.UNIMPLEMENTED, "unknown method AuthStatus for service etcdserverpb.Auth")
NOT_ENABLED = ServerError(Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled")
WRONG = AuthenticationFailed(
    Code.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password"
)
DENIED = PermissionDenied(Code.PERMISSION_DENIED, "etcdserver: permission denied")
NO_USER = PermissionDenied(Code.INVALID_ARGUMENT, "etcdserver: user name is empty")
AWAY = Unavailable(Code.UNAVAILABLE, "no answer")
CERT = Tls("ca.pem", "user.pem", "user-key.pem")


class Store:
    """A cluster's answers: to a count, and to whether it has users. ``logged_in``: of etcd 3.4."""

    def __init__(
        self, counted: MusterError | None, status: MusterError | bool, logged_in: MusterError = NOT_ENABLED
    ) -> None:
        self.counted, self.said, self.logged_in = counted, status, logged_in
        self.auth, self.raw = self, self

    async def count(self, key: bytes, *, timeout: float) -> int:
        if self.counted is not None:
            raise self.counted
        return 0

    async def status(self) -> Any:
        if isinstance(self.said, MusterError):
            raise self.said
        return SimpleNamespace(enabled=self.said)

    async def call(self, method: Any, request: Any, **_: object) -> None:
        assert method.path.endswith("Auth/Authenticate")
        raise self.logged_in

    async def users(self) -> list[str]:
        return []

    async def roles(self) -> list[str]:
        return []


@pytest.mark.parametrize(
    ("tls", "log_in", "store", "asked"),
    [
        (None, True, Store(None, False), False),
        (None, True, Store(NO_USER, True), True),
        (None, True, Store(DENIED, True), True),  # behind a proxy with a certificate of its own
        (CERT, True, Store(None, True), True),
        (CERT, True, Store(DENIED, True), True),
        (CERT, True, Store(None, False), False),
        (CERT, True, Store(None, UNKNOWN, NOT_ENABLED), False),
        (CERT, True, Store(None, UNKNOWN, WRONG), True),
        (CERT, False, Store(None, True), False),
        (CERT, False, Store(DENIED, True), False),
        (CERT, False, Store(NO_USER, True), True),
    ],
)
def test_who_is_asked_for_a_user(
    monkeypatch: pytest.MonkeyPatch, tls: Tls | None, log_in: bool, store: Store, asked: bool
) -> None:
    async def close() -> None:
        return

    monkeypatch.setattr(sessions, "Identity", lambda *_: SimpleNamespace(client=store, close=close))

    async def main() -> None:
        made = Sessions(Target(("127.0.0.1:1",), tls, log_in=log_in))
        assert await made.needs_login() == asked
        assert (await made.admitted(None) is None) == asked
        await made.close()

    asyncio.run(main())


def test_etcd_3_4_tells_its_users() -> None:
    async def main() -> None:
        for answer, enabled in ((NOT_ENABLED, False), (WRONG, True)):
            store: Any = Store(None, UNKNOWN, answer)
            assert await Version3(store, "").read() == Access(enabled, (), ())
        for status, answer in ((AWAY, WRONG), (UNKNOWN, AWAY)):
            store = Store(None, status, answer)
            with pytest.raises(Unavailable):
                await are_enabled(store)

    asyncio.run(main())
