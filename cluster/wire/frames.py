"""The kinds of frames between replicas, and the versions that links speak. docs/design/frames.md says what
each kind carries, which process answers, and what its loss costs.

A link speaks the highest version that both sides know. Each side names the lowest in its hello, and the range
in what follows (``VERSIONS``, or the spare field of a front's hello), which version 7, the oldest, passes
over. A kind is sent only on links of its version or a higher one. What changes the meaning of a kind raises
``HIGHEST``. ``LOWEST`` rises when no host of that version can be met any more, so that hosts of two
neighbouring versions always work together.
"""

from __future__ import annotations

import struct
from enum import IntEnum

LOWEST, HIGHEST = 7, 12  # versions that this program speaks
ROWS_SINCE = 8  # the oldest version whose programs keep rows of features that they do not know
PROMISES_SINCE = 9
PASSED_SINCE = 9  # the oldest version that may be fed records that are passed over
PREPARE_SAYS_WHEN = 9  # the oldest version whose prepares say when they were sent
GROWTH_SINCE = 10  # the oldest version that knows of growth: a cluster that grew speaks no other
BIRTHS_SINCE = 11  # the oldest version whose programs run nodes of shards that are born
MOVES_SINCE = 12  # the oldest version whose nodes copy what moves
LOADS_SINCE = 12  # the oldest version that tells its load, for the policy of growth


class PeerKind(IntEnum):
    """First byte of a frame between the replicas of one shard."""

    HELLO = ord("H")
    VERSIONS = ord("W")
    RAFT = ord("R")
    SNAPSHOT = ord("S")
    PUBLISH = ord("P")
    ALARM = ord("A")
    FLOORS = ord("D")
    PROMISES = ord("B")
    SPACE = ord("V")
    HAND_OVER = ord("L")
    STATE_WANTED = ord("N")
    LEAVING = ord("G")
    ASKED_WHEN = ord("T")
    ANSWERED_WHEN = ord("t")
    FRONT = ord("F")
    WHO = ord("?")
    REFUSED = ord("X")
    JOIN = ord("J")
    SPEAKS = ord("K")
    LOAD = ord("l")

    @property
    def byte(self) -> bytes:
        """Its byte in a frame."""
        return bytes((self,))


STATE_WANTED = PeerKind.STATE_WANTED.byte
ORDER_INDEX = struct.Struct("<Q")  # follows it: how far the peer has applied the order


#: What a peer sends after its hello.
PEER_FRAMES = frozenset(map(int, PeerKind)) - {
    PeerKind.HELLO, PeerKind.FRONT, PeerKind.WHO, PeerKind.REFUSED, PeerKind.JOIN,
}


def agreed(lowest: int, highest: int) -> int | None:
    """The version of a link with a side that speaks these; None: there is none."""
    common = min(highest, HIGHEST)
    return common if common >= max(lowest, LOWEST) else None
