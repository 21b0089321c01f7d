"""What a replica can never fall below: a member that does has lost what it acknowledged (H10).

An ack of a leader's term ``T`` up to ``index`` leaves after the sync of both (I2). So that member's disk has
term ``T`` from then on. While its term is still ``T``, its log reaches up to ``index``: a leader's entries
are replaced in a later term only. What of them is committed stays in its log in every term. A member that
says hello with less came back with an old copy of its disk, or without the end of it. It may not vote again.

Promises are joined by the greater ack and the greater commit: each is true by itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_ROW = struct.Struct("<QQQQ")  # member, term, index, committed


class Promise(NamedTuple):
    """Of one member."""

    term: int  # of the leader that it acknowledged last
    index: int  # type: ignore[assignment]  # it did so up to there; hides tuple.index
    committed: int  # of what it has ever acknowledged

    def joined(self, other: Promise) -> Promise:
        """Both."""
        return Promise(*max(self[:2], other[:2]), max(self.committed, other.committed))

    def is_kept(self, term: int, last_index: int) -> bool:
        """Whether a disk with this term and a log that ends there may be that member's."""
        return last_index >= self.committed and (term, last_index) >= (self.term, 0) and (
            term > self.term or last_index >= self.index)


def join(known: dict[int, Promise], more: Mapping[int, Promise]) -> None:
    """Add what else is known, by member."""
    for member, promise in more.items():
        known[member] = promise.joined(known[member]) if member in known else promise


def encode(promises: Mapping[int, Promise]) -> bytes:
    """For a frame, and for the disk."""
    return b"".join(_ROW.pack(member, *promise) for member, promise in sorted(promises.items()))


def decode(data: bytes) -> dict[int, Promise]:
    """What :func:`encode` made. ValueError."""
    if len(data) % _ROW.size:
        raise ValueError("promises are cut short")
    rows: Iterable[tuple[int, int, int, int]] = _ROW.iter_unpack(data)
    return {member: Promise(*promise) for member, *promise in rows}
