"""How much of the console visitors hold, before any log-in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from tools.console import app, certificates
from tools.console.bounds import Bound
from tools.console.certificates import Certified
from tools.console.sessions import Sessions, Target

_LIMIT_S = 30.0  # a limit that a busy machine keeps
_REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


class Console:
    """One of plain HTTP, that answers once it may."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.port = 0
        self._ends = contextlib.AsyncExitStack()

    async def _answers(self, scope: Any, _: Any, send: Any) -> None:
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    @contextlib.asynccontextmanager
    async def serving(self, proxies: str = "") -> AsyncIterator[Console]:
        config = uvicorn.Config(
            self._answers, interface="asgi3", log_level="error", forwarded_allow_ips=proxies)
        config.load()
        made = partial(Certified, None, config=config, server_state=uvicorn.Server(config).server_state,
                       app_state={})  # fmt: skip
        server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(_LIMIT_S), server, self._ends:
            yield self

    async def visitor(self, address: str = "127.0.0.1") -> Visitor:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))
        self._ends.callback(writer.close)
        return Visitor(reader, writer)

    async def is_open_to(self, address: str = "127.0.0.1") -> bool:
        """Whether it serves another visitor, who then goes."""
        one = await self.visitor(address)
        answer = await one.answer(_REQUEST)
        one.writer.close()
        assert answer in ("200", "503")
        return answer == "200"


class Visitor:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self, sent: bytes) -> str:
        """The status of the next answer."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(sent)
            await self.writer.drain()
        head = await self.reader.readuntil(b"\r\n\r\n")
        return head.split()[1].decode()


def run(step: Callable[[Console], Awaitable[None]], proxies: str = "") -> None:
    async def main() -> None:
        async with Console().serving(proxies) as console:
            await step(console)

    asyncio.run(main())


def test_an_address_has_so_many_connections_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opened as many as the console has descriptors kept everybody else out."""
    monkeypatch.setattr(certificates, "CONNECTIONS", Bound(in_all=10, of_one=2))

    async def step(console: Console) -> None:
        silent = [await console.visitor() for _ in range(2)]
        assert await silent[0].answer(_REQUEST) == "200"  # and stays
        assert not await console.is_open_to()
        assert await console.is_open_to("127.0.0.2")
        silent[0].writer.close()
        while not await console.is_open_to():
            pass

    run(step)


def test_all_have_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "CONNECTIONS", Bound(in_all=2, of_one=2))

    async def step(console: Console) -> None:
        for address in ("127.0.0.1", "127.0.0.2"):
            assert await (await console.visitor(address)).answer(_REQUEST) == "200"
        assert not await console.is_open_to("127.0.0.3")

    run(step)


def test_a_named_proxy_has_the_connections_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "CONNECTIONS", Bound(in_all=2, of_one=1))

    async def step(console: Console) -> None:
        for _ in range(2):
            assert await (await console.visitor()).answer(_REQUEST) == "200"
        assert not await console.is_open_to()

    run(step, "127.0.0.1")


@pytest.mark.parametrize("said", [b"", b"GET / HT", _REQUEST[:-2], _REQUEST + _REQUEST[:-2]])
def test_a_connection_that_falls_silent_ends(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """One that had begun a request stayed for as long as it liked."""
    monkeypatch.setattr(certificates, "SILENT_S", 0.05)

    async def step(console: Console) -> None:
        silent = await console.visitor()
        silent.writer.write(said)
        with contextlib.suppress(ConnectionError):
            await silent.reader.read()

    run(step)


def test_a_connection_that_waits_for_an_answer_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    look = Certified._look

    async def step(console: Console) -> None:
        looked = asyncio.Event()

        def counted(one: Certified) -> None:
            nonlocal looks
            looks += 1
            look(one)
            if looks == 5:
                looked.set()

        monkeypatch.setattr(Certified, "_look", counted)
        monkeypatch.setattr(certificates, "SILENT_S", 0.01)
        console.may_answer.clear()
        waits = await console.visitor()
        waits.writer.write(_REQUEST)
        await looked.wait()
        console.may_answer.set()
        assert await waits.answer(b"") == "200"

    run(step)


@pytest.mark.parametrize("begun", [b"GET /", b"GET / HTTP/1.1\r\nhost: a\r\na: ", _REQUEST + b"GET /"])
def test_a_head_has_a_bound(begun: bytes) -> None:
    """All of it was kept, for as long as it came."""
    async def step(console: Console) -> None:
        endless = await console.visitor()
        if begun.startswith(_REQUEST):
            assert await endless.answer(begun) == "200"
        else:
            endless.writer.write(begun)
        assert await endless.answer(b"a" * 200_000) == "431"

    run(step)


def test_a_body_counts_for_no_head() -> None:
    async def step(console: Console) -> None:
        one = await console.visitor()
        head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n"
        for _ in range(2):
            assert await one.answer(head + b"a" * 1_000_000) == "200"

    run(step)


@pytest.mark.parametrize(
    ("pages", "session", "built"),
    [
        (["10.0.0.1"] * 2, False, True),
        (["10.0.0.1"] * 3, False, False),  # of the address
        (["10.0.0.1"] * 3, True, False),
        ([f"10.0.0.{n}" for n in range(2, 6)], False, False),  # in all
        ([f"10.0.0.{n}" for n in range(2, 6)], True, True),
        ([f"10.0.0.{n}" for n in range(2, 8)], True, False),
    ],
)
def test_pages_have_a_bound(
    monkeypatch: pytest.MonkeyPatch, pages: list[str], session: bool, built: bool
) -> None:
    """A page stays for a minute without its browser: a loop of requests took all memory."""
    made: list[str] = []
    monkeypatch.setattr(app, "PAGES", Bound(in_all=4, of_one=3), raising=False)
    monkeypatch.setattr(app, "PAGES_OF_USERS", Bound(in_all=6, of_one=3), raising=False)
    monkeypatch.setattr(app.shell, "login_page", lambda *_, **__: made.append("login"))

    async def build(*_: object) -> None:
        made.append("views")

    async def main() -> None:
        request = app.Request({"type": "http", "headers": []})
        browser: Any = SimpleNamespace(
            ip="10.0.0.1", request=request, delete=lambda: made.append("gone"), on_delete=lambda _: None)
        open_ones = {str(n): SimpleNamespace(ip=ip) for n, ip in enumerate(pages)} | {"own": browser}
        monkeypatch.setattr(app, "Client", SimpleNamespace(instances=open_ones))
        monkeypatch.setattr(app, "ui", SimpleNamespace(context=SimpleNamespace(client=browser)))
        monkeypatch.setattr(app.shell, "build", build)
        sessions = Sessions(Target(("127.0.0.1:1",)))
        identity: Any = SimpleNamespace() if session else None

        async def admitted(_: str | None) -> Any:
            return identity

        monkeypatch.setattr(Sessions, "of", lambda *_: identity)
        monkeypatch.setattr(Sessions, "admitted", lambda _, secret: admitted(secret))
        answer = await app.Console(Target(("127.0.0.1:1",)), sessions).root()
        if built:
            assert (answer, made) == (None, ["views" if session else "login"])
        else:
            assert answer is not None
            assert (answer.status_code, made) == (503, ["gone"])
            assert b"Too many pages are open" in answer.body

    asyncio.run(main())


@pytest.mark.parametrize("query", ["EIO=4&transport=polling", "EIO=4&transport=polling&xsid=a"])
@pytest.mark.parametrize(
    ("others", "begins"), [(["10.0.0.2"] * 2, True), (["10.0.0.1"] * 2, False), (["10.0.0.2"] * 3, False)]
)
def test_sessions_of_sockets_have_a_bound(
    monkeypatch: pytest.MonkeyPatch, query: str, others: list[str], begins: bool
) -> None:
    """One that asks by polling stays for 36 s without a connection, and needs no page."""
    monkeypatch.setattr(app, "SOCKETS", Bound(in_all=3, of_one=2), raising=False)
    known = {str(n): {"asgi.scope": {"client": (ip, 1)}} for n, ip in enumerate(others)}
    monkeypatch.setattr(app.core, "sio", SimpleNamespace(environ=known))
    passed: list[str] = []

    async def inner(scope: Any, *_: object) -> None:
        passed.append(scope["query_string"].decode())

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def ask(kind: str, asked: str, path: str = "/_nicegui_ws/socket.io/") -> None:
        scope = {"type": kind, "path": path, "query_string": asked.encode(), "client": ("10.0.0.1", 2)}
        await app._bounded(inner)(scope, lambda: asyncio.sleep(0), send)

    for kind, told in (("http", ("http.response.start", 503)), ("websocket", ("websocket.close", 1013))):
        passed.clear()
        sent.clear()
        asyncio.run(ask(kind, query))
        assert passed == [query] * begins
        said = [(one["type"], one.get("status", one.get("code"))) for one in sent]
        assert said[:1] == [told] * (not begins)
        asyncio.run(ask(kind, f"sid=a&{query}"))  # of one that has begun
        asyncio.run(ask(kind, query, "/keys"))
        assert passed[-2:] == [f"sid=a&{query}", query]
