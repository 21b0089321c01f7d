"""Copies of the store on the console's disk: few, short, and none without room."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tools.console import spool as module
from tools.console.app import add_doors
from tools.console.spool import Refused, Spool

WHOLE = b"the store" * 1000


class Store:
    """A client of a store that tells a snapshot in two parts."""

    def __init__(self) -> None:
        self.maintenance = self
        self.breaks = False

    async def snapshot(self, path: Path, on_progress: Callable[[int, int], None]) -> Any:
        path.write_bytes(WHOLE)
        on_progress(10, len(WHOLE) - 10)
        await asyncio.sleep(0)
        if self.breaks:
            raise OSError("the stream broke")
        on_progress(len(WHOLE), 0)
        return SimpleNamespace(path=path)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """One in a folder of its own."""
    made = Spool(tmp_path)
    yield made
    made.close()


def _run(steps: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await steps()

    asyncio.run(bounded())


def _copies(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.rglob("*") if file.is_file()]


async def _sent(download: module.Download, hold: asyncio.Event | None = None) -> bytes:
    """What a browser gets, which takes nothing before ``hold`` is set."""
    found = b""

    async def send(message: Any) -> None:
        nonlocal found
        if hold is not None:
            await hold.wait()
        found += message.get("body", b"")

    async def receive() -> Any:
        await asyncio.Event().wait()

    await download({"type": "http", "method": "GET", "headers": []}, receive, send)
    return found


def test_a_copy_goes_with_its_download(spool: Spool, tmp_path: Path) -> None:
    async def steps() -> None:
        download = await spool.download(Store())  # type: ignore[arg-type]
        assert _copies(tmp_path) == [WHOLE]
        assert await _sent(download) == WHOLE
        assert _copies(tmp_path) == []

    _run(steps)


@pytest.mark.parametrize("by_another", [False, True])
def test_a_folder_that_a_cleaner_of_temporary_files_removed_is_made_anew(
    spool: Spool, tmp_path: Path, by_another: bool
) -> None:
    """A console runs for months. Whoever makes a folder of that name meanwhile gets no copy."""

    async def steps() -> None:
        await _sent(await spool.download(Store()))  # type: ignore[arg-type]
        [folder] = tmp_path.iterdir()
        folder.rename(tmp_path / "removed")
        if by_another:
            folder.mkdir()
        download = await spool.download(Store())  # type: ignore[arg-type]
        assert Path(download.path).parent.parent not in (folder, tmp_path / "removed")
        assert await _sent(download) == WHOLE

    _run(steps)


def test_few_copies_lie_on_the_disk(spool: Spool, tmp_path: Path) -> None:
    async def steps() -> None:
        hold = asyncio.Event()
        slow = [
            asyncio.create_task(_sent(await spool.download(Store()), hold))  # type: ignore[arg-type]
            for _ in range(module.MOST)
        ]
        with pytest.raises(Refused) as told:
            await spool.download(Store())  # type: ignore[arg-type]
        assert told.value.busy
        assert _copies(tmp_path) == [WHOLE] * module.MOST
        hold.set()
        assert await asyncio.gather(*slow) == [WHOLE] * module.MOST
        assert await _sent(await spool.download(Store())) == WHOLE  # type: ignore[arg-type]

    _run(steps)


def test_a_copy_that_leaves_no_room_is_refused(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = module.SPARE_BYTES + len(WHOLE) - 11
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    async def steps() -> None:
        for _ in range(2 * module.MOST):
            with pytest.raises(Refused) as told:
                await spool.download(Store())  # type: ignore[arg-type]
            assert told.value.text == "snapshot.full"
            assert _copies(tmp_path) == []
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free + 1))
        assert await _sent(await spool.download(Store())) == WHOLE  # type: ignore[arg-type]

    _run(steps)


def test_a_copy_that_breaks_leaves_nothing(spool: Spool, tmp_path: Path) -> None:
    async def steps() -> None:
        store = Store()
        store.breaks = True
        for _ in range(2 * module.MOST):
            with pytest.raises(OSError, match="the stream broke"):
                await spool.download(store)  # type: ignore[arg-type]
        assert _copies(tmp_path) == []

    _run(steps)


def test_a_browser_that_takes_too_long_is_cut_off(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAKEN_S", 0.05)

    async def steps() -> None:
        for _ in range(2 * module.MOST):
            with pytest.raises(TimeoutError):
                await _sent(await spool.download(Store()), asyncio.Event())  # type: ignore[arg-type]
        assert _copies(tmp_path) == []

    _run(steps)


@pytest.mark.parametrize(("language", "told"), [("en", "try again"), ("zh", "正在下载")])
def test_a_refusal_is_told_in_the_browser_s_language(spool: Spool, language: str, told: str) -> None:
    async def admitted(_: object) -> Any:
        return SimpleNamespace(client=Store())

    app = FastAPI()
    add_doors(app, SimpleNamespace(spool=spool, admitted=admitted), secure=False)  # type: ignore[arg-type]

    async def steps() -> None:
        for _ in range(module.MOST):
            await spool.download(Store())  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            answer = await client.get("/snapshot", headers={"accept-language": language})
        assert answer.status_code == 503
        assert told in answer.text

    _run(steps)


def test_what_killed_consoles_left_is_removed_and_what_others_use_is_not(tmp_path: Path) -> None:
    async def steps() -> None:
        left, foreign = tmp_path / "muster-console-left", tmp_path / "muster-consoles"
        for folder in (left, foreign):
            folder.mkdir()
            (folder / "snapshot.db").write_bytes(b"old")
        (tmp_path / "muster-console-file").write_bytes(b"a file")
        (tmp_path / "muster-console-link").symlink_to(foreign)
        running, starts = Spool(tmp_path), Spool(tmp_path)
        await running.download(Store())  # type: ignore[arg-type]
        starts.clean()
        assert sorted(_copies(tmp_path)) == sorted([b"a file", b"old", WHOLE])
        assert not left.exists()
        running.close()
        starts.close()
        assert sorted(_copies(tmp_path)) == sorted([b"a file", b"old"])

    _run(steps)
