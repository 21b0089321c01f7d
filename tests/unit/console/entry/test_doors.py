"""Where a session begins and ends: what cookie the browser has of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tools.console import app
from tools.console.guard import Guard
from tools.console.sessions import COOKIE


class Sessions:
    """Lets everybody in, and notes which session ends."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended: list[str | None] = []

    async def redeem(self, ticket: str) -> str:
        return f"secret of {self.name}"

    def forget(self, secret: str | None) -> Callable[[], None]:
        self.ended.append(secret)
        return lambda: None


def console(name: str) -> tuple[Any, Sessions]:
    """One that has the doors alone."""
    sessions: Any = Sessions(name)
    doors = FastAPI()
    app.add_doors(doors, sessions, secure=False)
    return Guard(doors, ["localhost"]), sessions


def asked(one: Any, url: str, cookies: dict[str, str], **headers: str) -> httpx.Response:
    """A browser asks; its cookies of that host are what it was told."""

    async def main() -> httpx.Response:
        sent = "; ".join(f'{name}="{value}"' for name, value in cookies.items())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(one)) as client:
            return await client.get(url, headers={"cookie": sent, **headers})

    answer = asyncio.run(main())
    for line in answer.headers.get_list("set-cookie"):
        for name, morsel in SimpleCookie(line).items():
            cookies[name] = morsel.value
            assert (morsel["samesite"], morsel["path"]) == ("lax", "/")
    return answer


def test_consoles_at_two_ports_of_a_host_keep_their_sessions() -> None:
    cookies: dict[str, str] = {}
    (first, of_first), (second, of_second) = console("first"), console("second")
    asked(first, "http://localhost:8378/enter?ticket=1", cookies)
    asked(second, "http://localhost:8379/enter?ticket=2", cookies)
    assert cookies == {f"{COOKIE}-8378": "secret of first", f"{COOKIE}-8379": "secret of second"}
    assert asked(second, "http://localhost:8379/leave", cookies).headers["location"] == "/"
    asked(first, "http://localhost:8378/leave", cookies)
    assert (of_first.ended, of_second.ended) == (["secret of first"], ["secret of second"])


def test_a_session_over_tls_is_this_hosts_alone() -> None:
    """A server of another name in its domain, or one without TLS, could set a cookie of the plain name."""
    one, sessions = console("one")
    tossed = {f"{COOKIE}-8378": "secret of mallory"}
    answer = asked(one, "https://localhost:8378/enter?ticket=1", tossed)
    assert tossed.pop(f"__Host-{COOKIE}-8378") == "secret of one"
    assert "secure" in answer.headers["set-cookie"].lower()
    assert "domain" not in answer.headers["set-cookie"].lower()
    asked(one, "https://localhost:8378/leave", tossed)
    left = asked(one, "https://localhost:8378/leave", {f"__Host-{COOKIE}-8378": "secret of one"})
    assert sessions.ended == [None, "secret of one"]
    assert "secure" in left.headers["set-cookie"].lower(), "browsers take nothing else under this name"


@pytest.mark.parametrize("host", ["localhost", "[::1]", "localhost:", "localhost:x"])
def test_a_host_without_a_port_has_a_cookie_too(host: str) -> None:
    request = app.Request({"type": "http", "headers": [(b"host", host.encode())]})
    assert app._cookie(request) == COOKIE


def test_a_page_of_another_site_ends_no_session() -> None:
    one, sessions = console("one")
    cookies = {f"{COOKIE}-8378": "secret of one"}
    answer = asked(one, "http://localhost:8378/leave", cookies, **{"sec-fetch-site": "cross-site"})
    assert (answer.status_code, sessions.ended) == (403, [])
