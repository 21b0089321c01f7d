"""LeaseTimeToLive's keys: very many are listed in slices, as they were when they were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from cluster.evaluate.txns.transactions import field
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, Status
from node.links.fronts import FrontLink
from node.slicing.slicer import Slices
from node.storage import StateStore

_STEP = 32  # up to 15 us each
_PIECE = 4_096  # keys that leave together: a front that hears nothing for seconds gives up
_KEYS = b"\x2a"  # LeaseTimeToLiveResponse.keys, its last field


def answer_keys(
    store: StateStore, link: FrontLink, rid: int, term: int, answer: rpc_pb2.LeaseTimeToLiveResponse,
) -> Slices | None:
    """Give the answer with the keys of its lease. None: done; else work to run in slices."""
    if store.hangs_many(answer.ID, GRAIN.lease_keys):
        head = HEAD.pack(store.revision, term)
        return _in_slices(link, rid, [head, answer.SerializeToString()], store.attached(answer.ID))
    answer.keys.extend(store.lease_keys(answer.ID))
    link.ok(rid, store.revision, term, answer.SerializeToString())
    return None


def _in_slices(link: FrontLink, rid: int, parts: list[bytes], keys: Iterator[bytes]) -> Slices:
    listed = 0
    while some := list(islice(keys, _STEP)):
        parts.append(b"".join([field(_KEYS, key) for key in some if key]))
        listed += len(some)
        if listed >= _PIECE:
            link.pieces(rid, Status.PARTIAL, parts)
            parts, listed = [], 0
        yield
    link.pieces(rid, Status.OK, parts)
