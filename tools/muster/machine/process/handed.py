"""Settings from a supervisor to its child: lines of a file in memory, the child's standard input.

Arguments and environment are shown to every user of the machine, or outlive their use (``ps``, crash
reports). They have only what tells processes apart.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

_STDIN = 0


def hand(texts: Sequence[str]) -> int:
    """A descriptor of a file in memory with these texts, a line each; the caller closes it. No pipe: nothing
    waits until the child reads."""
    fd = os.memfd_create("muster-settings", os.MFD_CLOEXEC)
    rest = "".join(f"{text}\n" for text in texts).encode()
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def take(count: int) -> list[str]:
    """The texts handed to this process; standard input is empty from here on. ValueError if there are not
    ``count``."""
    with os.fdopen(os.dup(_STDIN), encoding="utf-8") as file:
        texts = file.read().splitlines()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, _STDIN)
    os.close(null)
    if len(texts) != count:
        raise ValueError(
            f"standard input has {len(texts)} lines of settings, not {count}: muster starts this process")
    return texts
