"""Snapshots on their way to browsers. Each is whole before a browser gets any of it, so it lies on the disk.

There are few at a time, none takes the disk's last bytes, and none waits for ever for its browser. They lie
in a folder that the console locks while it runs, and removes at its end. Folders of consoles that were killed
go when another one starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi.responses import FileResponse
from muster_client import Client, MusterError
from starlette.types import Receive, Scope, Send

MOST = 2  # copies; each is as large as the store
SPARE_BYTES = 256 * 1024 * 1024  # of the disk, for everybody else
TAKEN_S = 3600.0  # until a browser has its copy
_PREFIX = "muster-console-"


class Refused(MusterError):
    """No copy is made. ``text``: the name of what the console says; ``busy``: it may be made later."""

    def __init__(self, text: str, *, busy: bool, **values: str) -> None:
        super().__init__(text)
        self.text, self.busy, self.values = text, busy, values


class Spool:
    """Copies of one console, below a folder of temporary files."""

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent or Path(tempfile.gettempdir())
        self._folder: Path | None = None
        self._lock = -1
        self._count = 0
        self._one = asyncio.Lock()

    def clean(self) -> None:
        """Remove what consoles left that run no more."""
        for folder in self._parent.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):  # another user's, or no folder, or one that is in use
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    if os.fstat(lock).st_uid == os.getuid():
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os.close(lock)

    def close(self) -> None:
        """Remove all copies, those as well that a browser has not got yet."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
            self._folder = None

    async def download(self, client: Client) -> Download:
        """An answer with a copy of the store, which goes with it. Refused, MusterError, OSError."""
        if self._count >= MOST:
            raise Refused("snapshot.busy", busy=True, count=str(MOST))
        self._count += 1
        try:
            async with self._one:
                folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._own()))
                try:
                    saved = await client.maintenance.snapshot(
                        folder / "snapshot.db", on_progress=lambda _, left: self._look(left)
                    )
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
        except BaseException:
            self._count -= 1
            raise
        return Download(saved.path, lambda: self._remove(folder))

    def _own(self) -> Path:
        if self._folder is not None and not _is_at(self._folder, self._lock):  # a cleaner of /tmp removed it
            os.close(self._lock)
            self._folder = None
        while self._folder is None:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                self._folder, self._lock = folder, lock
            else:  # a console that was starting took it for one that is not used
                os.close(lock)
        return self._folder

    def _look(self, left: int) -> None:
        """Go on only while the rest fits, too. Refused."""
        free = shutil.disk_usage(self._parent).free
        if left + SPARE_BYTES > free:
            raise Refused("snapshot.full", busy=False, free=_mebibytes(free), left=_mebibytes(left))

    async def _remove(self, folder: Path) -> None:
        try:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        finally:
            self._count -= 1


def _is_at(folder: Path, opened: int) -> bool:
    """Whether the folder that was opened is the one there."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.lstat(folder), os.fstat(opened))
    return False


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


class Download(FileResponse):
    """A copy as a file. It is removed once it is sent, or cut off because its browser takes too long."""

    def __init__(self, path: Path, remove: Callable[[], Awaitable[None]]) -> None:
        super().__init__(path, filename=path.name)
        self._remove = remove

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(TAKEN_S):
                await super().__call__(scope, receive, send)
        finally:
            await self._remove()
