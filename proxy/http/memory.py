"""What clients' connections hold of this front's memory: counted for each, bounded in all.

A connection holds what it has sent and what has not been answered, what it has been answered and has not
taken, and its open streams. Once all together are beyond the limit, those beyond their share (the limit
divided by those that hold something) are *crowded*: they get no further requests in until they, or others,
hold less. Whatever the sizes are, somebody is beyond his share then, and who asks for little never is.
"""

from __future__ import annotations

from typing import Protocol

# what an open stream counts for: its call, its request on the way, and a request of SMALL_BYTES
STREAM_BYTES = 2048
SMALL_BYTES = 1024  # smaller requests count by their streams alone
STEP_BYTES = 16_384  # what a connection has changed by when it is counted anew
TOO_MANY = "etcdserver: too many requests"


class Holder(Protocol):
    """A connection. ``counted`` is this module's: what it held when it was last counted."""

    counted: int


class Memory:
    """What all connections of a front hold, in bytes."""

    __slots__ = ("holders", "limit_bytes", "refused", "used")

    def __init__(self, limit_bytes: int = 1 << 62) -> None:
        self.limit_bytes = limit_bytes
        self.used = 0
        self.holders = 0  # connections that hold something
        self.refused = 0  # requests, for want of room

    def count(self, holder: Holder, size: int) -> None:
        """It holds so much now; 0 when it has gone."""
        was = holder.counted
        self.used += size - was
        self.holders += (size > 0) - (was > 0)
        holder.counted = size

    def crowded(self, holder: Holder) -> bool:
        """Whether there is too much in all, and this connection holds more than its share."""
        return self.used > self.limit_bytes and holder.counted * self.holders > self.limit_bytes
