"""IDs for leases whose clients ask for none."""

from __future__ import annotations

import random
import time


class LeaseIds:
    """Like etcd's: member, time and a counter mixed; positive, opaque to clients."""

    def __init__(self, member_id: int) -> None:
        self._member_id = member_id
        self._serial = random.SystemRandom().getrandbits(24)

    def __call__(self) -> int:
        self._serial = (self._serial + 1) & 0xFFFFFF
        low = (int(time.time() * 1000) & 0xFFFFFFFF) << 24 | self._serial
        return ((self._member_id & 0x7F) << 56 | low) or 1
