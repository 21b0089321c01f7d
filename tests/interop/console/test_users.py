"""Logging in: who may ask what, and where the secrets are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import muster_client as m
import nicegui
import pytest
from fastapi import FastAPI
from muster_client import Client
from muster_client.pb import auth_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire.calls import Method

from tests.cluster.local_cluster import until
from tests.interop.console.conftest import one_muster
from tests.interop.console.visitor import Visitor, secret_of, visit
from tests.ports import free_ports
from tools.console.app import add_doors
from tools.console.sessions import COOKIE, Sessions, Target
from tools.console.store import raw


async def _users(client: Client) -> None:
    """``root``, and ``reader`` that may read /open/ alone."""

    async def ask(name: str, request: Any) -> None:
        await raw.call(
            client, Method(f"Auth/{name}", getattr(pb, f"Auth{name.removeprefix('Auth')}Response")), request
        )

    await ask("RoleAdd", pb.AuthRoleAddRequest(name="opened"))
    permission = auth_pb2.Permission(permType=auth_pb2.Permission.READ, key=b"/open/", range_end=b"/open0")
    await ask("RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name="opened", perm=permission))
    await ask("RoleAdd", pb.AuthRoleAddRequest(name="root"))
    for user, role in (("root", "root"), ("reader", "opened")):
        await ask("UserAdd", pb.AuthUserAddRequest(name=user, password=secret_of(user)))
        await ask("UserGrantRole", pb.AuthUserGrantRoleRequest(user=user, role=role))
    await client.put("/open/key", "open")
    await client.put("/closed/key", "closed")
    await ask("AuthEnable", pb.AuthEnableRequest())


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a store with users."""
    with one_muster(tmp_path_factory.mktemp("users"), "--bcrypt-cost=4") as address:

        async def prepare() -> None:
            async with Client(address) as client:
                await _users(client)

        asyncio.run(prepare())
        yield address


def test_nobody_sees_a_key_without_a_name(guarded: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/keys/open/key")
        await user.sees("This cluster has users")
        assert "open" not in user.seen().replace("/open/key", "")
        user.type("User", "root")
        user.type("Password", "wrong")
        await user.click("Sign in")
        await user.sees("The name or the password is wrong.")
        await user.log_in("root")
        await user.open("/keys/closed/key")
        await user.sees("closed", nicegui.ui.codemirror)
        sessions, page = user.console.sessions, user.user.client
        assert page is not None
        other = await sessions.redeem(await sessions.log_in("root", secret_of("root")))
        await user.open("/leave")
        await user.until(lambda: page.is_deleted)
        assert sessions.of(other) is not None, "the same user, in another browser"
        assert COOKIE not in user.user.http_client.cookies
        await user.sees("This cluster has users")

    visit(guarded, steps, user="root")


def test_a_user_sees_what_it_may_and_the_store_refuses_the_rest(guarded: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/")
        await user.log_in("reader")
        await user.open("/keys")
        await user.sees("You may not list all keys")
        await user.open("/keys?search=/open/")
        await user.sees("/open/key")
        user.pick("/open/key")
        await user.sees("History")
        for name in ("Edit", "Delete", "Rename…", "New key", "Delete below /open/…"):
            assert name not in user.seen().splitlines()
        async with Client(guarded, user="reader", password=secret_of("reader")) as reader:
            with pytest.raises(m.PermissionDenied):
                await reader.delete("/open/key")
        await user.kv("/open/key")

    visit(guarded, steps, user="root")


def test_a_link_to_a_key_that_a_user_may_read_shows_it(guarded: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/")
        await user.log_in("reader")
        await user.open("/keys/open/key")
        await user.sees("open", nicegui.ui.codemirror)
        assert user.tree() == ["/open/key"]
        await user.open("/keys/closed/key")
        await user.sees("You may not list all keys")

    visit(guarded, steps, user="root")


def test_no_secret_key_or_value_is_logged(guarded: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def steps(user: Visitor) -> None:
        await user.open("/keys/closed/key")
        await user.log_in("root")
        await user.open("/keys/closed/key")
        await user.sees("closed", nicegui.ui.codemirror)

    visit(guarded, steps, user="root")
    ours = [one for one in caplog.records if not one.name.startswith(("httpx", "httpcore", "asyncio"))]
    told = "\n".join(one.getMessage() for one in ours)
    assert "secret" not in told
    assert "closed" not in told


def test_a_host_serves_its_own_console(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    flags = ("--console", f"--console-listen=http://127.0.0.1:{port}")
    with one_muster(tmp_path, *flags), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

        def shown() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return "muster" in client.get("/keys").text
            return False

        until(shown)
        assert client.get("/keys", headers={"host": "evil.example"}).status_code == 403


def test_a_ticket_is_good_once_and_for_a_short_time(guarded: str) -> None:
    async def main() -> None:
        now_s = 0.0
        sessions = Sessions(Target((guarded,)), lambda: now_s)
        ticket = await sessions.log_in("root", secret_of("root"))
        secret = await sessions.redeem(ticket)
        assert sessions.of(secret) is not None
        assert await sessions.redeem(ticket) is None
        second = await sessions.redeem(await sessions.log_in("root", secret_of("root")))
        assert second != secret
        assert sessions.of(second) is sessions.of(secret), "browsers of one user share connections"
        late = await sessions.log_in("reader", secret_of("reader"))
        now_s = 31.0
        assert await sessions.redeem(late) is None
        await sessions.log_out(secret)
        assert sessions.of(secret) is None
        assert sessions.of(second) is not None
        now_s = 13 * 3600.0
        assert sessions.of(second) is None
        with pytest.raises(m.AuthenticationFailed):
            await sessions.log_in("root", "wrong")
        with pytest.raises(m.AuthenticationFailed):
            await sessions.log_in("", "")
        await sessions.close()

    asyncio.run(main())


def test_those_who_guess_get_few_answers(guarded: str) -> None:
    """Whatever the number of pages; and what nobody redeems is not kept."""

    async def main() -> None:
        now_s = 0.0
        sessions = Sessions(Target((guarded,)), lambda: now_s, guess_s=0.5)
        began = time.monotonic()
        met = await asyncio.gather(
            *(sessions.log_in("root", f"guess {at}") for at in range(12)), return_exceptions=True
        )
        assert all(isinstance(one, m.AuthenticationFailed) for one in met)
        assert time.monotonic() - began >= 1.5, "four at a time, each for half a second"
        late = await sessions.log_in("root", secret_of("root"))
        now_s = 31.0
        await sessions.log_in("root", secret_of("root"))
        assert late not in sessions._tickets
        await sessions.close()

    asyncio.run(main())


@pytest.mark.parametrize("to", ["//evil.example", "/\\evil.example", "https://evil.example", "evil"])
def test_logging_in_leads_to_the_console_alone(guarded: str, to: str) -> None:
    async def main() -> None:
        sessions = Sessions(Target((guarded,)))
        app = FastAPI()
        add_doors(app, sessions, secure=True)
        ticket = await sessions.log_in("root", secret_of("root"))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            answer = await client.get("/enter", params={"ticket": ticket, "to": to})
        assert answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"].lower()
        assert all(word in cookie for word in ("httponly", "samesite=lax", "secure"))
        await sessions.close()

    asyncio.run(main())
