"""What ``import`` says, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

_EVERY_S = 5.0


def say(text: str) -> None:
    print(f"import: {text}", file=sys.stderr, flush=True)


def now_and_then(text: Callable[[], str]) -> Callable[[], None]:
    """Call it often: some of these calls say the text."""
    told_at = time.monotonic()

    def tell() -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _EVERY_S:
            told_at = time.monotonic()
            say(text())

    return tell
