"""Rotation of the log file: ``--enable-log-rotation`` and ``--log-rotation-config-json`` (lumberjack's keys).

The supervisor checks the file's size once a second and renames a large one; every process then opens a new
file (``tools.muster.machine.logfile``). So a file may exceed ``maxsize`` by what a second brings.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import gzip
import json
import math
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.muster.config.parse import ConfigError

_LOOK_S = 1.0
_LONGEST_PAUSE_S = 600.0  # a failing try takes up to a second of CPU time for 100 MB: 0.2 % of a CPU
_SPARE_BYTES = 16 << 20  # compression leaves this to lines of the log and to others on the disk
_CHUNK_BYTES = 1 << 20  # it looks at the disk before each
_LEVEL = 6  # the default of gzip's program: a quarter of the time of 9, which Python's takes
_DEFAULT_MEGABYTES = 100  # lumberjack's, for 0
_MOST_DAYS = datetime.timedelta.max.days
_STAMP = "%Y-%m-%dT%H-%M-%S"
_STAMP_CHARACTERS = len("2026-11-21T07-40-00.000")
_KINDS = {"maxsize": int, "maxage": int, "maxbackups": int, "localtime": bool, "compress": bool}


@dataclass(slots=True, frozen=True)
class Rotation:
    """When the log file is rotated, and which old files stay; 0: no bound."""

    path: Path
    max_bytes: int
    max_age_days: int
    max_backups: int
    local_time: bool
    compress: bool


def rotation_of(outputs: Sequence[str], text: str) -> Rotation:
    """The flags' settings. ConfigError in etcd's words."""
    files = [o for o in outputs if o not in ("default", "stderr", "stdout", "systemd/journal", "/dev/null")]
    if len(files) != 1:
        raise ConfigError(
            "--log-outputs requires a single file path when --log-rotate-config-json is defined")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"improperly formatted log rotation config: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError("invalid log rotation config: not a map of settings")
    for name, value in found.items():
        kind = _KINDS.get(name)
        if kind is None:
            raise ConfigError(f"invalid log rotation config: unknown setting {name}")
        if type(value) is not kind or (isinstance(value, int) and value < 0):
            raise ConfigError(f"invalid log rotation config: {name} is not of its kind: {json.dumps(value)}")
    return Rotation(
        Path(files[0]), (found.get("maxsize") or _DEFAULT_MEGABYTES) << 20,
        min(found.get("maxage", 0), _MOST_DAYS),
        found.get("maxbackups", 0), found.get("localtime", False), found.get("compress", False),
    )  # fmt: skip


async def rotating(rotation: Rotation | None, failed: Callable[[str], object], work: Awaitable[int]) -> int:
    """Do ``work`` while the log file rotates. ``failed`` gets the first of consecutive errors."""
    if rotation is None:
        return await work
    looks = asyncio.get_running_loop().create_task(_keep_rotating(rotation, failed))
    try:
        return await work
    finally:
        looks.cancel()


async def _keep_rotating(rotation: Rotation, failed: Callable[[str], object]) -> None:
    rotator, threads = Rotator(rotation), True
    while True:
        try:
            told, threads = await asyncio.to_thread(rotator.look, time.monotonic()), True
        except RuntimeError as error:  # this process may have no more threads
            told, threads = str(error) if threads else "", False
        if told:
            failed(told)
        await asyncio.sleep(_LOOK_S)


class Rotator:
    """Looks at the log file. A try to compress that fails costs CPU time and disk space: the next one follows
    after a second, and the pause doubles."""

    def __init__(self, rotation: Rotation) -> None:
        self._rotation = rotation
        self._fine = True
        self._pause_s = 0.0
        self._compresses_at = -math.inf

    def look(self, at: float) -> str:
        """At a time in seconds. The first of consecutive errors; else \"\"."""
        due = at >= self._compresses_at
        try:
            rotate(self._rotation, compresses=due)
        except OSError as error:
            if due:
                self._pause_s = min(max(2 * self._pause_s, _LOOK_S), _LONGEST_PAUSE_S)
                self._compresses_at = at + self._pause_s
            told = str(error) if self._fine else ""
            self._fine = False
            return told
        if due:
            self._fine, self._pause_s = True, 0.0
        return ""


def rotate(rotation: Rotation, now: datetime.datetime | None = None, *, compresses: bool = True) -> None:
    """Rename the file if it is too large; remove and compress old ones. OSError.

    A file is compressed a look after its rotation, when no process writes to it, and last: on a full disk
    that fails, while all else makes room.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    kept, failed = _remove_old(rotation, now)
    with contextlib.suppress(FileNotFoundError):
        if rotation.path.stat().st_size >= rotation.max_bytes:
            shown = now.astimezone() if rotation.local_time else now
            stamp = f"{shown.strftime(_STAMP)}.{shown.microsecond // 1000:03d}"
            os.rename(
                rotation.path, rotation.path.with_name(f"{rotation.path.stem}-{stamp}{rotation.path.suffix}")
            )
    for path in kept:
        if rotation.compress and compresses and path.suffix != ".gz":
            _compress(path)
    if failed is not None:
        raise failed


def _remove_old(rotation: Rotation, now: datetime.datetime) -> tuple[list[Path], OSError | None]:
    """Remove what is too much or too old; the rest, and why one of these could not be removed."""
    failed: OSError | None = None
    aside, kept = sorted(_set_aside(rotation), reverse=True), []  # the newest first
    for place, (when, path) in enumerate(aside):
        too_many = rotation.max_backups and place >= rotation.max_backups
        too_old = rotation.max_age_days and now - when > datetime.timedelta(days=rotation.max_age_days)
        if not (too_many or too_old):
            kept.append(path)
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # another user's, say: the log is rotated all the same
            failed = error
    return kept, failed


def _set_aside(rotation: Rotation) -> list[tuple[datetime.datetime, Path]]:
    """Files with this log's name and a time."""
    found = []
    stem, suffix = f"{rotation.path.stem}-", rotation.path.suffix
    for path in rotation.path.parent.iterdir():
        name = path.name.removesuffix(".gz")
        if not (name.startswith(stem) and name.endswith(suffix)):
            continue
        stamp = name[len(stem) : len(name) - len(suffix)]
        if len(stamp) != _STAMP_CHARACTERS:
            continue
        with contextlib.suppress(ValueError):
            when = datetime.datetime.strptime(stamp, f"{_STAMP}.%f")
            found.append(
                (when.astimezone() if rotation.local_time else when.replace(tzinfo=datetime.UTC), path))
    return found


def _compress(path: Path) -> None:
    """OSError, also before the disk is full."""
    spare = min(_SPARE_BYTES, path.stat().st_size)
    part = path.with_name(path.name + ".part")
    try:
        with open(path, "rb") as source, gzip.open(part, "wb", _LEVEL) as target:
            while chunk := source.read(_CHUNK_BYTES):
                if shutil.disk_usage(path.parent).free < spare:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
                target.write(chunk)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    os.chmod(part, path.stat().st_mode & 0o777)
    os.rename(part, path.with_name(path.name + ".gz"))
    path.unlink()
