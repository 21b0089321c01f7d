"""Changes of a v2 tree by chance, most of which mean something there."""

from __future__ import annotations

import random
from collections.abc import Sequence

from cluster.features.v2.refusals import V2Error
from cluster.features.v2.requests import Op, Write
from cluster.features.v2.tree import KEYS, Tree

S = 10**9
NOW_NS = 1_800_000_000 * S
WRAPS_S = 9_999_999_999  # a TTL that ends before 1970, in 64 bits: many mean for ever by it
_NAMES = (b"a", b"b", b"c", b"_h", b"\xc3\xa4<&>", b"x y")
_VALUES = (b"", b"1", b"2", b'<&>"\\\n\t\x01\x7f', b"\xff\xe2\x28", "\u2028\ufffd".encode())


def moment(now_ns: int, ttl_s: int) -> int:
    """When such a TTL ends; what does not fit 64 bits wraps, as Go's."""
    return (now_ns + ttl_s * S + 2**63) % 2**64 - 2**63


def random_path(rng: random.Random) -> bytes:
    """Some path below the keys, or their root."""
    return KEYS + b"".join(b"/" + rng.choice(_NAMES) for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 2, 3))))


def random_write(
    rng: random.Random, tree: Tree, now_ns: int = NOW_NS, ttls: Sequence[int] = (1, 30)
) -> Write:
    """Some change."""
    op = rng.choice(list(Op) + [Op.SET] * 4)
    path = random_path(rng)
    removes = op in (Op.DELETE, Op.COMPARE_AND_DELETE)
    value = rng.choice(_VALUES)
    refresh = op in (Op.SET, Op.UPDATE, Op.COMPARE_AND_SWAP) and rng.random() < 0.2
    directory = rng.random() < (0.3 if removes else 0.1) and not refresh
    expires_ns = moment(now_ns, rng.choice(ttls)) if refresh or rng.random() < 0.2 else 0
    prev_value, prev_index = b"", 0
    if op in (Op.COMPARE_AND_SWAP, Op.COMPARE_AND_DELETE):
        try:
            node = tree.find(path)
            likely_value, likely_index = node.value, node.modified
        except V2Error:
            likely_value, likely_index = b"", 0
        if rng.random() < 0.6:
            prev_value = rng.choice((likely_value, b"2", b"other"))
        if not prev_value or rng.random() < 0.4:
            prev_index = rng.choice((likely_index, tree.index)) or 1
        directory = False
    return Write(
        op,
        path,
        b"" if refresh or directory or removes else value,
        directory,
        prev_value,
        prev_index,
        0 if removes else expires_ns,
        refresh,
        op == Op.DELETE and rng.random() < 0.3,
        now_ns,
    )
