"""What the scripts for the Python clients share: named checks, one "ok NAME" line each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable

_DIRECTORY = f"/python/{time.time_ns()}/"
# with -apart each key is in a directory of its own, so that they lie on all shards of a server that has
# several
PREFIX = _DIRECTORY.replace("/", "-") if "-apart" in sys.argv else _DIRECTORY
LIMIT_S = 30.0


def addresses() -> list[tuple[str, int]]:
    """The hosts named on the command line."""
    pairs = [word.rsplit(":", 1) for word in sys.argv[1].split(",")]
    return [(host, int(port)) for host, port in pairs]


def equal(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{what}: got {found!r}, expected {expected!r}")


def refused(call: Callable[[], object], error: type[Exception], what: str) -> None:
    try:
        found = call()
    except error:
        return
    raise AssertionError(f"{what} was not refused: {found!r}")


def until(condition: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> float:
    """Wait for something to be true; how long it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit_s:
            raise AssertionError(f"{what}: not within {limit_s} s")
        time.sleep(0.05)
    return time.monotonic() - began


def take(iterator: Iterable[object], count: int) -> list[object]:
    """The first items of something endless."""
    found = []
    for item in iterator:
        found.append(item)
        if len(found) == count:
            break
    return found
