"""The keys on a lease out of several shards, put together in steps: there may be very many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import islice

from cluster.evaluate.steps import Steps
from cluster.evaluate.txns.transactions import field
from cluster.pb import rpc_pb2
from cluster.wire.protobuf import read_varint

_STEP_KEYS = 256
_KEYS = b"\x2a"  # LeaseTimeToLiveResponse.keys, its last field; those before it are numbers


def lease_keys_pieces(ttl: bytes, tails: list[bytes]) -> Steps[list[bytes]]:
    """LeaseTimeToLiveResponse after its header, in pieces, with the keys that every shard knows of, each
    shard's in order. ``ttl``: shard 0's answer, ``tails``: those of the shards."""
    sources: list[list[bytes]] = []
    begun = 0  # where the keys in shard 0's answer begin
    for tail in (ttl, *tails):
        keys: list[bytes] = []
        pos, end = 0, len(tail)
        while pos < end:
            is_key = tail[pos] == _KEYS[0]
            number, pos = read_varint(tail, pos + 1)
            if is_key:
                keys.append(tail[pos : pos + number])
                pos += number
                if len(keys) % _STEP_KEYS == 0:
                    yield
            elif not sources:
                begun = pos
        sources.append(keys)
    pieces = [ttl[:begun]]
    lives = rpc_pb2.LeaseTimeToLiveResponse.FromString(pieces[0]).TTL >= 0
    left = _each_once(merge(*sources)) if lives else iter(())
    while some := list(islice(left, _STEP_KEYS)):
        pieces.append(b"".join([field(_KEYS, key) for key in some]))
        yield
    return pieces


def _each_once(keys: Iterable[bytes]) -> Iterator[bytes]:
    """Of keys in order: two shards may know of one that moves."""
    last = None
    for key in keys:
        if key != last:
            yield key
        last = key
