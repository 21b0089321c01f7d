"""The control socket: one JSON object a line, both ways."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tools.muster.host import control


@pytest.fixture
def short_path(tmp_path: Path) -> str:
    path = tmp_path / "s"
    assert len(str(path)) < 100
    return str(path)


async def echo(request: dict[str, Any]) -> dict[str, Any]:
    return {"got": request["do"]}


def serving(path: str, talk: Callable[[], Any]) -> Any:
    async def main() -> Any:
        server = await control.listen(path, echo)
        try:
            return await asyncio.to_thread(talk)
        finally:
            server.close()

    return asyncio.run(main())


def test_a_question_is_answered(short_path: str) -> None:
    assert serving(short_path, lambda: control.ask(short_path, {"do": "status"})) == {"got": "status"}


def test_a_bad_question_is_told_and_the_next_is_answered(short_path: str) -> None:
    def talk() -> list[dict[str, Any]]:
        with socket.socket(socket.AF_UNIX) as s, s.makefile("rw", encoding="utf-8") as lines:
            s.settimeout(10)
            s.connect(short_path)
            lines.write('rubbish\n{}\n[]\n{"do": "x"}\n')
            lines.flush()
            return [json.loads(lines.readline()) for _ in range(4)]

    answers = serving(short_path, talk)
    assert all("bad request" in answer["error"] for answer in answers[:3])
    assert answers[3] == {"got": "x"}


def test_a_long_answer_arrives_whole(short_path: str) -> None:
    async def long(_request: dict[str, Any]) -> dict[str, Any]:
        return {"text": "x" * 500_000}

    async def main() -> dict[str, Any]:
        server = await control.listen(short_path, long)
        try:
            return await asyncio.to_thread(control.ask, short_path, {"do": "it"})
        finally:
            server.close()

    assert len(asyncio.run(main())["text"]) == 500_000


def test_a_socket_left_by_a_killed_process_is_replaced(short_path: str) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(short_path)
    with pytest.raises(control.Unreachable):
        control.ask(short_path, {"do": "status"})
    assert serving(short_path, lambda: control.ask(short_path, {"do": "status"})) == {"got": "status"}


def test_nobody_there(short_path: str) -> None:
    with pytest.raises(control.Unreachable):
        control.ask(short_path, {"do": "status"})


@pytest.fixture
def listened(short_path: str) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(short_path)
        s.listen()
        yield short_path


def test_whether_a_process_shares_a_namespace(listened: str) -> None:
    assert control.shares(listened, "net")
    assert not control.shares(listened + "2", "net"), "nobody is there"


@pytest.mark.parametrize("seen", [False, PermissionError("the process is another user's")])
def test_a_namespace_that_is_another_or_unknown_is_not_shared(
    listened: str, seen: bool | OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = Mock(side_effect=[seen])
    monkeypatch.setattr("os.path.samefile", same)
    assert not control.shares(listened, "net")
    same.assert_called_once_with(f"/proc/{os.getpid()}/ns/net", "/proc/self/ns/net")


def test_a_process_of_a_foreign_pid_namespace_shares_nothing(
    listened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells 0 for it."""
    monkeypatch.setattr("struct.unpack_from", lambda *_: (0,))
    assert not control.shares(listened, "net")
