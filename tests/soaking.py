"""How much a soak does: it takes an hour and more on two CPUs, with ``MUSTER_SOAK_TIMES=3`` three times as
many seeds, kills and seconds."""

from __future__ import annotations

import os
from typing import TypeVar

SOAK = os.environ.get("MUSTER_SOAK") == "1"
TIMES = int(os.environ.get("MUSTER_SOAK_TIMES", "1"))

Number = TypeVar("Number", int, float)


def amount(usual: Number, soak: Number) -> Number:
    """How many, or for how many seconds: ``usual`` in CI, ``soak`` in one soak."""
    return soak * TIMES if SOAK else usual
