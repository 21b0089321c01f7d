"""What the kernel counts of processes: instructions outside of it, and system calls that are no waits.

How often a process waits depends on what else the machine does; all else that it asks for does not.

Counters are opened by ``perf_event_open`` on every thread of a process; threads and children that it starts
later are counted with it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

_HARDWARE, _TRACEPOINT = 0, 2
_INSTRUCTIONS = 1
_INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HV = 1 << 1, 1 << 5, 1 << 6
_CLOEXEC = 1 << 3
_ATTR_BYTES = 112  # of Linux 4.1 and newer
_NUMBERS = {"x86_64": 298, "aarch64": 241}  # of the system call
_SET_FILTER = 0x40082406
#: poll, select, futex, sleeps, epoll and looks at the clock, by machine.
_WAITS = {"x86_64": (7, 23, 24, 35, 96, 202, 228, 230, 232, 270, 271, 281, 441),
          "aarch64": (22, 72, 73, 98, 101, 113, 115, 124, 169, 441)}
_TRACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")


def _attribute(kind: int, config: int, flags: int) -> bytes:
    return struct.pack("=IIQQQQQ", kind, _ATTR_BYTES, config, 0, 0, 0, flags).ljust(_ATTR_BYTES, b"\0")


def _attributes() -> dict[str, bytes]:
    """By name, what to open."""
    found = {"instructions": _attribute(_HARDWARE, _INSTRUCTIONS, _INHERIT | _EXCLUDE_KERNEL | _EXCLUDE_HV)}
    for folder in _TRACES:
        with suppress(OSError):
            number = int(Path(folder, "events/raw_syscalls/sys_enter/id").read_text(encoding="ascii"))
            found["syscalls"] = _attribute(_TRACEPOINT, number, _INHERIT)
            break
    return found


def _open(attribute: bytes, thread: int) -> int:
    """A file descriptor. OSError if the kernel or the machine does not count this, or not for this user."""
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(f"perf_event_open is not known on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(number, ctypes.c_char_p(attribute), thread, -1, -1, _CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if attribute[0] == _TRACEPOINT:
        text = " && ".join(f"id != {wait}" for wait in _WAITS[platform.machine()])
        if libc.ioctl(fd, ctypes.c_ulong(_SET_FILTER), ctypes.c_char_p(text.encode())):
            os.close(fd)
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


class Events:
    """Counters of some processes, until the block ends. ``missing``: by name, why one is not counted here."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.missing: dict[str, str] = {}
        self._fds: dict[str, list[int]] = {}
        threads: list[int] = []
        for pid in pids:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                threads += map(int, os.listdir(f"/proc/{pid}/task"))
        attributes = _attributes()
        if "syscalls" not in attributes:
            self.missing["syscalls"] = f"no tracepoints in {' or '.join(_TRACES)}"
        with ExitStack() as opened:
            for name, attribute in attributes.items():
                try:
                    self._fds[name] = self._opened(attribute, threads)
                except OSError as error:
                    self.missing[name] = error.strerror or str(error)
            opened.pop_all()

    @staticmethod
    def _opened(attribute: bytes, threads: Sequence[int]) -> list[int]:
        fds: list[int] = []
        try:
            for thread in threads:
                with suppress(ProcessLookupError):
                    fds.append(_open(attribute, thread))
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        return fds

    def read(self) -> dict[str, float]:
        """The counts so far, by name."""
        return {name: float(sum(struct.unpack("=Q", os.read(fd, 8))[0] for fd in fds))
                for name, fds in self._fds.items()}

    def __enter__(self) -> Events:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for fd in (fd for fds in self._fds.values() for fd in fds):
            os.close(fd)
        self._fds.clear()
