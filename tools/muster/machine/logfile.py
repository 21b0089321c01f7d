"""A log file that several processes append to, and that may be renamed or removed at any time."""

from __future__ import annotations

import contextlib
import os


class LogFile:
    """Appends whole lines to ``path``, to a new file once it is renamed or removed.

    OSError if it cannot be opened at first. Later, lines go to the file that was open.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pending: list[str] = []
        self._fd = self._open()
        self._identity = self._of(os.fstat(self._fd))

    def write(self, text: str) -> None:
        """Text leaves with the next flush."""
        self._pending.append(text)

    def flush(self) -> None:
        """One system call, so that lines of several processes do not mix. A full disk loses the line."""
        self._follow()
        data = "".join(self._pending).encode(errors="backslashreplace")
        self._pending.clear()
        with contextlib.suppress(OSError):
            os.write(self._fd, data)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

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
            fd = self._open()
        except OSError:
            return
        os.close(self._fd)
        self._fd, self._identity = fd, self._of(os.fstat(fd))
