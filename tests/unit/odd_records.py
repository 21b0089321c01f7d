"""Records as a leader would write them, and what a mistake could make of them."""

from __future__ import annotations

import struct

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from cluster.effects import records
from cluster.effects.later_puts import LaterPuts
from cluster.effects.records import ITEM, PENDING_REVISION
from cluster.order.log import Attempt, Cut, Multi, Part, encode_cut, encode_multi, revisions_of, skip
from cluster.pb import kv_pb2, rpc_pb2

KEYS = (b"a", b"b/c", b"\0", b"k" * 127, b"long" * 40)


def count_revisions(data: bytes) -> int:
    """Of all items that ``data`` holds."""
    return sum(revisions_of(data, kind, at, to) for kind, at, to in records.items(data))


def _kv(key: bytes, revision: int) -> bytes:
    return kv_pb2.KeyValue(
        key=key, create_revision=revision, mod_revision=revision, version=1, value=b"v").SerializeToString()


#: Every kind of item, sound. Puts of PUTS stand at revision 2.
EXAMPLES: tuple[bytes, ...] = (
    records.put(b"a", 0, 1, b"v", 0),
    records.put(b"b/c", 0, 1, b"", 5),
    records.put(b"a", 2, 2, b"w" * 200, -3),
    records.put(b"long" * 40, PENDING_REVISION, 2, b"w", 0),
    records.delete(b"a"),
    records.txn([]),
    records.txn([records.put(b"a", 0, 1, b"v", 0), records.delete(b"b/c")]),
    records.txn([records.put(b"zz", 0, 1, b"v", 7), records.delete_range(b"a", b"c", 2)]),
    records.delete_range(b"a", b"\0", 5000),
    records.lease_grant(5, 60), records.lease_grant(-1, -(1 << 63)),
    records.lease_revoke(5, []), records.lease_revoke(5, [b"a", b"b/c"]),
    records.lease_checkpoint(5, 30),
    records.compact(1), records.compact(1 << 62),
    records.bootstrap(1, 3, 1), records.bootstrap(9, 1 << 16, 7),
    records.publish(rpc_pb2.Member(ID=1 << 63, name="h1", clientURLs=["http://x"]).SerializeToString()),
    records.alarm(True, 1, 7), records.alarm(True, 255, 1 << 63), records.incarnation(1, 2),
    records.downgrade("3.4.0"), records.downgrade(""),
    records.puts(2, [b"a", b"k" * 127], [_kv(b"a", 2), _kv(b"k" * 127, 3)], [True, True]),
    LaterPuts([b"a", b"q"], [b"\x0a\x01a", b"\x0a\x01q"], [b"\x20\x01", b"\x20\x01\x2a\x01v"], [True, True]).encode(),
    encode_cut({1: Cut(3, 1, 2), 2: Cut(5, 1, 9)}),
    encode_multi(Multi(Attempt(1, 2), 2, {0: 1, 1: 1}, [
        Part(0, 0, 0, records.put(b"a", 0, 1, b"v", 0)), Part(0, 1, 1, records.delete(b"b/c")),
        Part(1, 1, 0, records.delete_range(b"a", b"c", 2))])),
    skip(3),
)


@st.composite
def mutated(draw: DrawFn) -> bytes:
    """An item that something has happened to, in a frame that says its length or another one."""
    item = bytearray(draw(st.sampled_from(EXAMPLES)))
    kind, body = item[0], item[ITEM.size :]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        what = draw(st.sampled_from(("byte", "cut", "insert", "number", "wide")))
        if what == "byte" and at < len(body):
            body[at] = draw(st.integers(0, 255))
        elif what == "cut":
            del body[at:]
        elif what == "insert":
            body[at:at] = draw(st.binary(max_size=9))
        elif what == "number":
            body[at : at + 4] = struct.pack("<I", draw(st.sampled_from((0, 1, 1 << 31, (1 << 32) - 1))))
        elif what == "wide":
            body[at : at + 8] = struct.pack("<Q", draw(st.sampled_from((0, 1 << 31, 1 << 63, (1 << 64) - 1))))
    if draw(st.integers(0, 5)) == 0:
        kind = draw(st.integers(0, max(records.Item)))
    length = len(body) if draw(st.integers(0, 9)) else draw(st.integers(0, 300))
    return ITEM.pack(kind, length) + bytes(body)


#: A record of a few items, some of them odd.
odd_records = st.lists(st.one_of(st.sampled_from(EXAMPLES), mutated(), mutated()), max_size=5).map(b"".join)
