"""In a host's process: leases live by the machine's clock and what a file adds to it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from cluster.features.lessor import Lessor

_AHEAD = os.environ["TESTING_CLOCK_OF_MUSTER"]  # a file of milliseconds, replaced as a whole


def _ahead_ms() -> int:
    try:
        with open(_AHEAD, encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


def _clocked(method: Callable[..., Any], at: int) -> Callable[..., Any]:
    """``now_ms`` is the argument of that number, self not counted."""

    @functools.wraps(method)
    def call(lessor: Lessor, *args: Any) -> Any:
        return method(lessor, *args[:at], args[at] + _ahead_ms(), *args[at + 1 :])

    return call


# Every door by which time comes in: tests/unit/testing/test_clock.py says that there is no other
DOORS = {"granted": 2, "promote": 0, "renew": 1, "due": 0, "due_checkpoints": 0, "time_to_live": 1}
for _name, _at in DOORS.items():
    setattr(Lessor, _name, _clocked(getattr(Lessor, _name), _at))
