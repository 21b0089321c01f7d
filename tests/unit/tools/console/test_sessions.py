"""Sessions that are over."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from fastapi import FastAPI
from muster_client import AuthenticationFailed, PermissionDenied, Tls, Unavailable
from nicegui import ui
from nicegui.testing import UserInteraction, user_simulation

from tools.console import sessions as module
from tools.console.app import add_doors
from tools.console.sessions import COOKIE, Sessions, Target, _Session
from tools.console.views.shell import login_page


def _sessions(closed: list[str]) -> Sessions:
    def identity(name: str) -> Any:
        async def close() -> None:
            await asyncio.sleep(0)
            closed.append(name)

        return SimpleNamespace(close=close)

    made = Sessions(Target(("localhost:1",)), now_s=lambda: 100.0)
    made._tickets["old"] = identity("ticket"), 0.0, 200.0
    made._tickets["older"] = identity("second ticket"), 0.0, 200.0
    made._sessions["over"] = _Session(identity("over"), 100.0, ends_at=99.0)
    made._sessions["over, too"] = _Session(identity("over, too"), 100.0, ends_at=99.0)
    made._sessions["open"] = _Session(identity("open"), 100.0, ends_at=200.0)
    return made


def test_two_that_end_old_sessions_at_once_end_each_once() -> None:
    async def run() -> None:
        closed: list[str] = []
        sessions = _sessions(closed)
        await asyncio.gather(sessions.end_old(), sessions.end_old())
        assert sorted(closed) == ["over", "over, too", "second ticket", "ticket"]
        assert list(sessions._sessions) == ["open"]

    asyncio.run(run())


def test_a_session_ends_though_nobody_logs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        closed: list[str] = []
        sessions = _sessions(closed)
        monkeypatch.setattr(module, "_SWEEP_S", 0.001)
        sweep = asyncio.create_task(sessions.end_old_ones())
        async with asyncio.timeout(5):
            while len(closed) < 4:
                await asyncio.sleep(0.001)
        sweep.cancel()
        assert list(sessions._sessions) == ["open"]

    asyncio.run(run())


def test_the_pages_of_a_session_end_with_it_though_its_user_has_another_one() -> None:
    async def run() -> None:
        closed: list[str] = []
        ended: list[str] = []
        sessions = _sessions(closed)
        sessions._sessions["over"].identity = sessions._sessions["open"].identity
        sessions.with_session("over", lambda: ended.append("over"))
        sessions.with_session("open", lambda: ended.append("open"))
        sessions.with_session("over", lambda: ended.append("closed before"))()
        sessions.with_session(None, lambda: ended.append("nobody's"))
        await sessions.end_old()
        assert (ended, "open" in closed) == (["over"], False)

    asyncio.run(run())


def test_an_identity_stays_open_for_a_session_that_begins_as_its_last_one_ends() -> None:
    async def run() -> None:
        closed: list[str] = []
        sessions = Sessions(Target(("localhost:1",)), now_s=lambda: 100.0)

        def identity(name: str) -> Any:
            async def close() -> None:
                await asyncio.sleep(0)
                closed.append(name)

            return SimpleNamespace(user="ann", same_secret=lambda other: True, close=close)

        sessions._sessions["before"] = _Session(identity("shared"), 100.0)
        sessions._tickets["ticket"] = identity("spare"), 100.0, 200.0
        secret, _ = await asyncio.gather(sessions.redeem("ticket"), sessions.log_out("before"))
        assert (closed, list(sessions._sessions)) == (["spare"], [secret])

    asyncio.run(run())


def test_the_page_that_leaves_has_its_answer_before_it_ends() -> None:
    async def run() -> None:
        told: list[str] = []
        sessions = _sessions([])
        sessions.with_session("open", lambda: told.append("ends"))
        app = FastAPI()
        add_doors(app, sessions, secure=False)

        async def send(message: Any) -> None:
            assert sessions.of("open") is None
            told.append(message["type"])

        scope = {"type": "http", "method": "GET", "path": "/leave", "query_string": b"",
                 "headers": [(b"cookie", f"{COOKIE}=open".encode())]}  # fmt: skip
        await app(scope, lambda: asyncio.sleep(0, {"type": "http.request"}), send)
        assert told == ["http.response.start", "http.response.body", "ends"]

    asyncio.run(run())


def test_pages_of_before_the_users_end_though_nobody_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        closed = asyncio.Event()
        answers = [
            Unavailable(grpc.StatusCode.UNAVAILABLE, "no answer"),
            PermissionDenied(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied"),
        ]

        async def count(*_: object, **__: object) -> int:
            raise answers.pop(0)

        async def close() -> None:
            closed.set()

        monkeypatch.setattr(module, "_SWEEP_S", 0.001)
        sessions = Sessions(Target(("localhost:1",), Tls("ca.pem", "console.pem", "console-key.pem")))
        sessions._own = SimpleNamespace(client=SimpleNamespace(count=count))  # type: ignore[assignment]
        sessions._nobody = SimpleNamespace(close=close)  # type: ignore[assignment]
        sweep = asyncio.create_task(sessions.end_old_ones())
        async with asyncio.timeout(5):
            await closed.wait()
        sweep.cancel()
        assert (sessions._nobody, answers) == (None, [])

    asyncio.run(run())


def test_who_guesses_passwords_keeps_nobody_else_from_logging_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 wrong passwords kept everybody out for ten seconds."""

    async def run() -> None:
        asked: list[str] = []

        def identity(target: Target, recorder: object, user: str, password: str) -> Any:
            async def count(*_: object, **__: object) -> int:
                asked.append(user)
                if password == "wrong":
                    raise AuthenticationFailed(grpc.StatusCode.INVALID_ARGUMENT, "wrong")
                return 0

            return SimpleNamespace(client=SimpleNamespace(count=count), close=lambda: asyncio.sleep(0))

        monkeypatch.setattr(module, "Identity", identity)
        sessions = Sessions(Target(("localhost:1",)), guess_s=3600.0)
        guesses = [asyncio.create_task(sessions.log_in("guess", "wrong", "192.0.2.1")) for _ in range(102)]
        async with asyncio.timeout(60):
            done, waiting = await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
            assert await sessions.log_in("ann", "right", "192.0.2.2") in sessions._tickets
        assert (len(waiting), asked) == (100, [*["guess"] * 4, "ann"])
        assert {str(one.exception()) for one in done} == {"etcdserver: too many requests"}
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
        assert await sessions.log_in("ann", "right", "192.0.2.1") in sessions._tickets

    asyncio.run(run())


def test_a_key_that_is_held_down_logs_in_once() -> None:
    async def run() -> None:
        asked: list[tuple[str, ...]] = []
        answer = asyncio.Event()

        async def log_in(*told: str) -> str:
            asked.append(told)
            await answer.wait()
            raise AuthenticationFailed(grpc.StatusCode.INVALID_ARGUMENT, "wrong")

        made: Any = SimpleNamespace(target=Target(("localhost:1",)), log_in=log_in)

        def page() -> None:
            login_page(made, ui.context.client.request, "ann", by_certificate=False)

        async with user_simulation(page) as user:
            await user.open("/")
            [password] = [one for one in user.find(ui.input).elements if one.props.get("type") == "password"]
            for _ in range(3):
                UserInteraction(user, {password}, None).trigger("keydown.enter")
            async with asyncio.timeout(60):
                while not asked:
                    await asyncio.sleep(0)
            answer.set()
            await user.should_see("The name or the password is wrong.")
        assert asked == [("ann", "", "127.0.0.1")]

    asyncio.run(run())
