"""What comes from other sites is refused before anything looks at it, and pages load nothing from them.

A browser sends requests for any page that it shows. So the Host must be one of the console's own names (else
a name that an attacker points here would make its pages ours), and an Origin must be the console itself. Any
page may link to a view; none may begin or end a session, or an attacker's ticket would log a visitor in as
the attacker: browsers say that a link is another site's by https, and at localhost. Bodies are no larger than
an import.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
# Vue compiles templates in the browser, so scripts of our own pages may; nothing else is loaded from anywhere
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),  # addresses name keys
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
# where a session begins and ends, and what costs the cluster more than a page
DOORS = ("/enter", "/certificate", "/leave", "/snapshot")
MOST_BODY_BYTES = 65 * 1024 * 1024  # the largest import, in a form
_MOST_DIGITS = 20  # the parser takes zeros in front of a size, any number of them
_OTHER_SITES = ("cross-site", "same-site")
_DROPPED = (b"x-forwarded-prefix", b"x-forwarded-host")


def name_of(host: str) -> str:
    """A Host header's name, without its port."""
    try:
        found = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
    return f"[{found}]" if ":" in found else found


class Guard:
    """An ASGI app in front of another one. ``names``: of this console, as browsers write them; ``*``: any.
    ``secure``: it speaks TLS, so a page that came without it is another site's, whatever its name."""

    def __init__(self, app: App, names: Iterable[str], *, secure: bool = False) -> None:
        self._app, self._secure = app, secure
        self._names = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if reason := self._refusal(scope):
            await _refuse(scope, send, reason)
            return
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in _DROPPED]

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        await self._app(scope, receive, sent)

    def _refusal(self, scope: Scope) -> str:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "").lower()
        if "*" not in self._names and name_of(host) not in self._names:
            return "this console is not known by that name: see --allowed-hosts"
        origin = headers.get("origin")
        if origin is not None and not self._is_own(origin, host):
            return "the request comes from another site"
        if scope.get("path") in DOORS and headers.get("sec-fetch-site", "none") in _OTHER_SITES:
            return "the request comes from another site"
        length = headers.get("content-length", "0")
        whole = length.isdecimal() and len(length) <= _MOST_DIGITS
        if "transfer-encoding" in headers or not whole or int(length) > MOST_BODY_BYTES:
            return "the request is too large, or does not tell its size"
        return ""

    def _is_own(self, origin: str, host: str) -> bool:
        try:
            page = urlsplit(origin)
        except ValueError:
            return False
        return page.netloc.lower() == host and not (self._secure and page.scheme != "https")


async def _refuse(scope: Scope, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    body = f"{reason}\n".encode()
    await send(
        {
            "type": "http.response.start",
            "status": 403,
            "headers": [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(body)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
