"""How soon the kernel runs a thread that has something to answer.

Linux lets a running thread finish its time slice, 0.7 to 2.8 ms, and checks that only at its tick, 4 ms with
HZ=250. A request pays that in each process on its way. A thread with shorter slices takes the CPU from one
with longer slices as it wakes, within its share (EEVDF, Linux 6.12; older kernels ignore it). Shares and
costs stay the same.

A thread of 0.3 ms work every 2.3 ms beside a busy one woke after 3.3 to 3.8 ms (p99) with slices of 0.7 to
1.3 ms, and after 0.08 ms with 0.1 and 0.4 ms.
"""

from __future__ import annotations

import ctypes
import os
import sys

SHORT_S = 0.0004

# sched_setattr, sched_getattr; glibc has them from 2.41
_SYSCALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}


class _Attributes(ctypes.Structure):
    """struct sched_attr, the first version."""

    _fields_ = [
        ("size", ctypes.c_uint32), ("policy", ctypes.c_uint32), ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32), ("priority", ctypes.c_uint32), ("runtime_ns", ctypes.c_uint64),
        ("deadline_ns", ctypes.c_uint64), ("period_ns", ctypes.c_uint64),
    ]


def short_slices() -> bool:
    """For this thread and those that it starts. Whether the kernel does so."""
    return set_slice(0, SHORT_S)


def set_slice(thread: int, seconds: float) -> bool:
    """Set the time slice of a thread of this process (0: the caller); 0 s: the usual one. False: the kernel
    does not know the thread, or its policy is not the usual one."""
    found = _get(thread)
    if found is None or found.policy != os.SCHED_OTHER:
        return False
    before, found.runtime_ns = found.runtime_ns, round(seconds * 1e9)
    if _call(0, thread, ctypes.byref(found), 0):
        return False
    after = _get(thread)
    return after is not None and bool(before) and (after.runtime_ns == found.runtime_ns or not seconds)


def slice_s(thread: int = 0) -> float:
    """A thread's time slice; 0 where the kernel does not tell."""
    found = _get(thread)
    return found.runtime_ns / 1e9 if found is not None else 0.0


def _get(thread: int) -> _Attributes | None:
    found = _Attributes(size=ctypes.sizeof(_Attributes))
    return None if _call(1, thread, ctypes.byref(found), ctypes.sizeof(found), 0) else found


def _call(which: int, *arguments: object) -> int:
    numbers = _SYSCALLS.get(os.uname().machine) if sys.platform == "linux" else None
    return ctypes.CDLL(None).syscall(numbers[which], *arguments) if numbers is not None else -1
