"""How much a soak does: it takes an hour and more on two CPUs, with ``MUSTER_SOAK_TIMES=3`` three times as
many seeds, kills and seconds."""

from __future__ import annotations

import os

SOAK = os.environ.get("MUSTER_SOAK") == "1"
TIMES = int(os.environ.get("MUSTER_SOAK_TIMES", "1"))


def often(usual: int, soak: int) -> int:
    """How many: ``usual`` in CI, ``soak`` in one soak."""
    return soak * TIMES if SOAK else usual


def lasting(usual_s: float, soak_s: float) -> float:
    """For how many seconds: ``usual_s`` in CI, ``soak_s`` in one soak."""
    return soak_s * TIMES if SOAK else usual_s
