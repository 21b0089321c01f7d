"""The console as an ASGI app: one page for every address, a door for sessions, and the guard in front."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from muster_client import MusterError
from nicegui import Client, core, ui
from starlette.background import BackgroundTask

from tools.console import certificates
from tools.console.bounds import PAGES, PAGES_OF_USERS, SOCKETS
from tools.console.guard import App, Guard, Receive, Scope, Send
from tools.console.sessions import COOKIE, Sessions, Target
from tools.console.spool import Refused
from tools.console.views import shell

STATIC = Path(__file__).parent / "static"
_ICON = (STATIC / "icon.svg").read_text(encoding="utf-8")
_SOCKETS_AT = "/_nicegui_ws/"
_FULL = "too many sessions are open"
_TOLD_S = 1.0  # until a page of a session that has ended is gone
_RECONNECT_S = 30.0  # a browser that comes back within it goes on where it was


@dataclass(slots=True)
class Console:
    """A console of one cluster."""

    target: Target
    sessions: Sessions

    async def root(self) -> Response | None:
        """Build the page of whatever address a browser opens. An answer: there is none."""
        browser = ui.context.client
        request, secret = browser.request, _secret(browser.request)
        others = [one.ip for one in Client.instances.values() if one is not browser]
        bound = PAGES if self.sessions.of(secret) is None else PAGES_OF_USERS
        if bound.is_reached(browser.ip, others):
            browser.delete()
            return PlainTextResponse(shell.words_of(request)("pages") + "\n", 503, {"Retry-After": "60"})
        identity = await self.sessions.admitted(secret)
        if identity is None:
            user, pair = await self.sessions.visitor(certificates.visitor(request.scope))
            shell.login_page(self.sessions, request, user, by_certificate=pair is not None)
            return None
        browser.on_delete(self.sessions.with_session(secret, lambda: _end(browser)))
        await shell.build(self.target, identity, request)
        return None


def _cookie(request: Request) -> str:
    """The name of a session's cookie. Cookies know no ports: another console of the same host has its own.
    Over TLS browsers take one of this prefix from this host alone: servers of other names in its domain, and
    any without TLS, could give visitors a session of another user."""
    port = request.headers.get("host", "").rpartition(":")[2]
    name = f"{COOKIE}-{port}" if port.isdecimal() else COOKIE
    return f"__Host-{name}" if request.scope.get("scheme") == "https" else name


def _secret(request: Request) -> str | None:
    return request.cookies.get(_cookie(request))


def _end(browser: Client) -> None:
    """Have a browser ask for a name, and a moment later take nothing more from the page that it has."""

    def delete() -> None:
        if not browser.is_deleted:
            browser.delete()

    browser.open("/")
    asyncio.get_running_loop().call_later(_TOLD_S, delete)


def made(target: Target) -> Console:
    """A console that has not opened any connection."""
    return Console(target, Sessions(target))


def asgi(console: Console, names: Iterable[str], *, secure: bool = False) -> App:
    """The app of a console. ``secure``: browsers speak TLS with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(console.sessions.spool.clean)
        console.sessions.recorder.start()
        sweep = asyncio.create_task(console.sessions.end_old_ones())
        yield
        sweep.cancel()
        await console.sessions.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    add_doors(app, console.sessions, secure=secure)
    ui.run_with(
        app,
        root=console.root,
        title="muster",
        favicon=_ICON,
        dark=None,
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=_RECONNECT_S,
    )
    return Guard(_bounded(app), names, secure=secure)


def _bounded(app: App) -> App:
    """An app that begins so many sessions of pages' sockets: each takes some 50 KB, also without a page."""

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        is_socket = scope["type"] != "lifespan" and scope["path"].startswith(_SOCKETS_AT)
        if is_socket and "sid" not in parse_qs(scope["query_string"].decode("latin-1")):
            others = [environ["asgi.scope"]["client"] for environ in core.sio.environ.values()]
            client = scope["client"]
            if client and SOCKETS.is_reached(client[0], [other[0] for other in others if other]):
                if scope["type"] == "websocket":  # an answer would be a line of uvicorn's log each time
                    await send({"type": "websocket.close", "code": 1013, "reason": _FULL})
                else:
                    await PlainTextResponse(f"{_FULL}\n", 503)(scope, receive, send)
                return
        await app(scope, receive, send)

    return asked


def add_doors(app: FastAPI, sessions: Sessions, *, secure: bool) -> None:
    """The addresses where a session begins and ends: only an answer over HTTP can set a cookie that scripts
    do not see. And ``/snapshot``, a file of the store."""

    @app.get("/enter")
    async def enter(request: Request, ticket: str, to: str = "/") -> Response:
        secret = await sessions.redeem(ticket)
        answer = RedirectResponse(to if to.startswith("/") and not to.startswith(("//", "/\\")) else "/", 303)
        if secret is not None:
            # lax: a link on a page of another site leads to a view. The guard keeps such pages from the rest
            name = _cookie(request)
            safe = secure or name.startswith("__Host-")  # behind a proxy that has TLS, as it says
            answer.set_cookie(name, secret, httponly=True, samesite="lax", secure=safe, path="/")
        return answer

    @app.get("/certificate")
    async def certificate(request: Request, to: str = "/") -> Response:
        try:
            ticket = await sessions.log_in_by_certificate(certificates.visitor(request.scope))
        except MusterError as error:
            return PlainTextResponse(f"{shell.words_of(request).reason(str(error))}\n", 403)
        return await enter(request, ticket, to)

    @app.get("/snapshot")
    async def snapshot(request: Request) -> Response:
        identity = await sessions.admitted(_secret(request))
        if identity is None:
            return RedirectResponse("/cluster", 303)
        try:
            return await sessions.spool.download(identity.client)
        except Refused as error:
            words = shell.words_of(request)
            return PlainTextResponse(f"{words(error.text, **error.values)}\n", 503 if error.busy else 507)
        except (MusterError, OSError) as error:
            return PlainTextResponse(f"{error}\n", 502)

    @app.get("/leave")
    async def leave(request: Request) -> Response:
        # Behind the answer: a page that is told to go elsewhere waits for it no more, and keeps the cookie
        end_pages = BackgroundTask(sessions.forget(_secret(request)))
        answer = RedirectResponse("/", 303, background=end_pages)
        name = _cookie(request)
        answer.delete_cookie(name, path="/", secure=name.startswith("__Host-"))  # or browsers keep it
        return answer
