"""Kinds of requests and frames, by the part of a node that takes them.

Plain integers: comparing enum members costs three times as much.
"""

from __future__ import annotations

from operator import itemgetter

from cluster.evaluate.feature_table import WRITES as FEATURES
from cluster.wire.frames import PeerKind
from cluster.wire.messages import Method

# a lease's keys are read before it is revoked
WRITES = frozenset(map(int, (Method.PUT, Method.DELETE_RANGE, Method.TXN, *FEATURES))) - {
    int(Method.LEASE_REVOKE)}
METHOD = itemgetter(1)  # of a request
QUESTIONS = frozenset(map(int, (
    Method.READ_INDEX, Method.LEASE_KEEPALIVE, Method.LEASE_KEEPALIVES, Method.LEASE_TTL)))
FRONT = PeerKind.FRONT.byte
RAFT, SNAPSHOT = int(PeerKind.RAFT), int(PeerKind.SNAPSHOT)
# housekeeping's
TOLD = frozenset(map(int, (PeerKind.ALARM, PeerKind.PUBLISH, PeerKind.SPACE, PeerKind.SPEAKS,
                               PeerKind.LOAD)))
