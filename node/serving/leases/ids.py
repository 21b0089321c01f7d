"""IDs for leases whose clients ask for none."""

from __future__ import annotations

from node.machine import Machine


class LeaseIds:
    """Like etcd's: member, time and a counter mixed; positive, opaque to clients."""

    def __init__(self, machine: Machine, member_id: int) -> None:
        self._machine = machine
        self._member_id = member_id
        self._serial = machine.random.getrandbits(24)

    def __call__(self) -> int:
        self._serial = (self._serial + 1) & 0xFFFFFF
        low = (int(self._machine.wall_time() * 1000) & 0xFFFFFFFF) << 24 | self._serial
        return ((self._member_id & 0x7F) << 56 | low) or 1
