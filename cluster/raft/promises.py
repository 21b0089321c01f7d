"""What a member acknowledged and can never fall below; one that does has lost it (H10), and must not vote.

An ack of a leader's term ``T`` up to ``index`` leaves after the sync of both (I2). While the member's term is
still ``T``, its log reaches ``index``: a leader's entries are replaced in a later term only. What of it is
committed stays in every term.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_ROW = struct.Struct("<QQQQ")  # member, term, index, committed


class Promise(NamedTuple):
    term: int  # of the leader that it acknowledged last
    index: int  # type: ignore[assignment]  # acknowledged up to there; hides tuple.index
    committed: int  # of what it has ever acknowledged

    def joined(self, other: Promise) -> Promise:
        return Promise(*max(self[:2], other[:2]), max(self.committed, other.committed))

    def is_kept(self, term: int, last_index: int) -> bool:
        """Whether a disk with this term and last index may be that member's."""
        return last_index >= self.committed and (term, last_index) >= (self.term, 0) and (
            term > self.term or last_index >= self.index)


def join(known: dict[int, Promise], more: Mapping[int, Promise]) -> None:
    for member, promise in more.items():
        known[member] = promise.joined(known[member]) if member in known else promise


def encode(promises: Mapping[int, Promise]) -> bytes:
    return b"".join(_ROW.pack(member, *promise) for member, promise in sorted(promises.items()))


def decode(data: bytes) -> dict[int, Promise]:
    if len(data) % _ROW.size:
        raise ValueError("promises are cut short")
    rows: Iterable[tuple[int, int, int, int]] = _ROW.iter_unpack(data)
    return {member: Promise(*promise) for member, *promise in rows}
