"""``--memory-mlock``: memory that is never swapped out.

The kernel locks each page at its first use (``MCL_ONFAULT``). Otherwise it would fill reserved memory too,
such as the 8 MB of each thread's stack.

No lock is inherited, so each process takes its own. The kernel takes no locked page back: freed memory goes
back only during :func:`put_aside`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK = 14
_libc = ctypes.CDLL(None, use_errno=True)
# Go's words, as in etcd's log
_WORDS = {errno.ENOMEM: "cannot allocate memory", errno.EPERM: "operation not permitted"}


class CannotLock(Exception):
    """The text is for the operator."""


def lock_memory() -> None:
    """Lock all memory of this process, present and future. CannotLock, in etcd's words."""
    number = _lock()
    if not number:
        return
    raise CannotLock(
        f"mlock error: {_WORDS.get(number, os.strerror(number).lower())}: --memory-mlock needs a limit of "
        f"locked memory (ulimit -l, LimitMEMLOCK= of systemd) that is unlimited; it is {_limit()} here")


def put_aside(work: Callable[[], object]) -> None:
    """Do something without the lock, and take it again. CannotLock."""
    _libc.munlockall()
    work()
    lock_memory()


def limit_that_ends_growth() -> int:
    """Bytes that this process may lock, and so have, at most; 0: no limit."""
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return 0 if soft == resource.RLIM_INFINITY or _may_exceed() else soft


def _lock() -> int:
    """The error number; 0: none."""
    both = _MCL_CURRENT | _MCL_FUTURE
    for flags in (both | _MCL_ONFAULT, both):  # Linux before 4.4 has the latter only
        number = ctypes.get_errno() if _libc.mlockall(flags) else 0
        if number != errno.EINVAL:
            break
    return number


def _limit() -> str:
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return "unlimited" if soft == resource.RLIM_INFINITY else f"{soft} bytes"


def _may_exceed() -> bool:
    """Whether limits do not apply to this process."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return False
    return bool(int(effective, 16) >> _CAP_IPC_LOCK & 1)
