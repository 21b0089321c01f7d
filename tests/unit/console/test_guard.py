"""Who may ask the console, and what its pages may load."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import InvalidState

from tools.console.guard import DOORS, LOOPBACK, MOST_BODY_BYTES, POLICY, Guard, Message, Receive, Scope, Send
from tools.console.sockets import Sockets

HERE = "127.0.0.1:8378"


async def _inner(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": repr(dict(scope["headers"])).encode()})


def asked(
    kind: str = "http",
    names: tuple[str, ...] = LOOPBACK,
    path: str = "/",
    secure: bool = False,
    **headers: str,
) -> list[Message]:
    """What the guard sends for a request."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {}

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": kind, "headers": pairs, "path": path}
    asyncio.run(Guard(_inner, names, secure=secure)(scope, receive, send))
    return sent


@pytest.mark.parametrize("host", [HERE, "localhost:8378", "LOCALHOST", "[::1]:8378"])
def test_its_own_names_are_served(host: str) -> None:
    assert asked(host=host)[0]["status"] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8378", "", "[", "localhost@evil.example"]
)
def test_a_name_that_is_pointed_here_is_refused(host: str) -> None:
    assert asked(host=host)[0]["status"] == 403


def test_another_name_is_served_where_it_is_allowed() -> None:
    assert asked(host="console.example", names=("console.example",))[0]["status"] == 200
    assert asked(host="console.example", names=("*",))[0]["status"] == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:9999", "null", "http://localhost:8378", "http://["]
)
def test_another_site_is_refused(origin: str) -> None:
    assert asked(host=HERE, origin=origin)[0]["status"] == 403
    assert asked("websocket", host=HERE, origin=origin)[0]["type"] == "websocket.close"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_leads_to_views_and_begins_no_session(site: str) -> None:
    for door in DOORS:
        assert asked(host=HERE, path=door, sec_fetch_site=site)[0]["status"] == 403
        assert asked(host=HERE, path=door, sec_fetch_site="same-origin")[0]["status"] == 200
    assert asked(host=HERE, path="/keys/a", sec_fetch_site=site)[0]["status"] == 200


@pytest.mark.parametrize("size", ["9" * 5000, str(MOST_BODY_BYTES + 1), "x", "", f"{10**12:040}"])
def test_a_body_has_a_bound(size: str) -> None:
    assert asked(host=HERE, content_length=size)[0]["status"] == 403
    assert asked(host=HERE, transfer_encoding="chunked")[0]["status"] == 403
    assert asked(host=HERE, content_length=str(MOST_BODY_BYTES))[0]["status"] == 200


def test_its_own_pages_are_served() -> None:
    assert asked(host=HERE, origin=f"http://{HERE}")[0]["status"] == 200


def test_a_page_without_tls_is_another_site_s_where_the_console_has_it() -> None:
    assert asked(host=HERE, origin=f"http://{HERE}", secure=True)[0]["status"] == 403
    assert asked("websocket", host=HERE, origin=f"http://{HERE}", secure=True)[0]["code"] == 1008
    assert asked(host=HERE, origin=f"https://{HERE}", secure=True)[0]["status"] == 200
    assert asked(host=HERE, origin=f"https://{HERE}")[0]["status"] == 200, "TLS ends before the console"


def test_pages_load_nothing_from_elsewhere() -> None:
    headers = dict(asked(host=HERE)[0]["headers"])
    assert headers[b"content-security-policy"].decode() == POLICY
    assert not re.search(r"https?:|\*", POLICY)
    assert headers[b"referrer-policy"] == b"no-referrer"


def test_a_request_does_not_choose_the_path_of_scripts() -> None:
    body = asked(host=HERE, x_forwarded_prefix="/evil", accept="x")[1]["body"]
    assert b"evil" not in body
    assert b"accept" in body


def test_a_websocket_that_its_browser_is_closing_ends_with_the_console(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[None] = []
    socket: Any = Sockets.__new__(Sockets)
    socket.transport = SimpleNamespace(close=lambda: closed.append(None))

    def shutdown(self: object) -> None:
        raise InvalidState("connection is closing")

    monkeypatch.setattr(Sockets.__base__, "shutdown", shutdown)
    socket.shutdown()
    assert closed
