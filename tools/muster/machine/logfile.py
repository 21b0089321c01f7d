"""A log file that several processes append to, and that may be renamed or removed at any time."""

from __future__ import annotations

import contextlib
import os

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class LogFile:
    """Appends whole lines to ``path``, to a new file once it is renamed or removed. As with lumberjack, the
    new one has the old one's mode, and its owner where this process may give it.

    OSError if it cannot be opened at first. Later, lines go to the file that was open.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pending: list[str] = []
        self._torn = False  # it ends with a part of a line
        self._fd = os.open(path, _APPEND, 0o666)
        self._identity = self._of(os.fstat(self._fd))

    def write(self, text: str) -> None:
        """Text leaves with the next flush."""
        self._pending.append(text)

    def flush(self) -> None:
        """One system call, so that lines of several processes do not mix. A full disk loses the line, or its
        end, and none that comes once there is room."""
        self._follow()
        data = "".join(self._pending).encode(errors="backslashreplace")
        self._pending.clear()
        if self._torn:
            data = b"\n" + data
        with contextlib.suppress(OSError):
            if written := data[: os.write(self._fd, data)]:
                self._torn = len(written) < len(data) and not written.endswith(b"\n")

    def _open_again(self) -> int:
        """The file of another process, or a new one: its umask may be narrower than at the start. OSError."""
        try:
            fd = os.open(self._path, _APPEND | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(self._path, _APPEND, 0o600)
        old = os.fstat(self._fd)
        for owner, group in ((old.st_uid, -1), (-1, old.st_gid)):
            with contextlib.suppress(OSError):
                os.fchown(fd, owner, group)
        with contextlib.suppress(OSError):
            os.fchmod(fd, old.st_mode & 0o777)
        return fd

    @staticmethod
    def _of(stat: os.stat_result) -> tuple[int, int]:
        return stat.st_dev, stat.st_ino

    def _follow(self) -> None:
        """Open the file again if another one has its name, or none."""
        try:
            if self._of(os.stat(self._path)) == self._identity:
                return
        except FileNotFoundError:
            pass
        except OSError:
            return
        try:
            fd = self._open_again()
        except OSError:
            return
        os.close(self._fd)
        self._torn = False
        self._fd, self._identity = fd, self._of(os.fstat(fd))
