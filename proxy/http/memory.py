"""What clients' connections hold of this front's memory: counted for each, bounded in all.

A connection holds unanswered requests, untaken answers, and open streams with their header blocks. Once all
are beyond the limit, each beyond its share (the limit divided by the holders) is *crowded*: it gets no
further requests in until it, or others, hold less. A client that asks for little never is.
"""

from __future__ import annotations

from typing import Protocol

# what an open stream counts for: its call, its request on the way, and a request of SMALL_BYTES
STREAM_BYTES = 2048
SMALL_BYTES = 1024  # smaller requests count by their streams alone
HEAD_BYTES = 1024  # likewise header blocks
FIELD_BYTES = 128  # what a field of a header block takes beside its octets
STEP_BYTES = 16_384  # what a connection has changed by when it is counted again
PATIENT_BYTES = 65_536  # a larger request that is not whole may be refused for lack of room
PATIENT_IN_ALL = 256 << 10  # and each, of a connection that holds more of such requests
TOO_MANY = "etcdserver: too many requests"


class Holder(Protocol):
    """A connection. ``counted`` is this module's: what it held when it was last counted."""

    counted: int


class Memory:
    __slots__ = ("holders", "limit_bytes", "refused", "used")

    def __init__(self, limit_bytes: int = 1 << 62) -> None:
        self.limit_bytes = limit_bytes
        self.used = 0
        self.holders = 0  # connections that hold something
        self.refused = 0  # requests, for lack of room

    def count(self, holder: Holder, size: int) -> None:
        """It holds so much now."""
        was = holder.counted
        self.used += size - was
        self.holders += (size > 0) - (was > 0)
        holder.counted = size

    def crowded(self, holder: Holder) -> bool:
        """Whether all hold too much, and this one more than its share."""
        return self.used > self.limit_bytes and holder.counted * self.holders > self.limit_bytes
