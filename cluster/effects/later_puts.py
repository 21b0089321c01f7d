"""Plain puts of a shard other than 0, logged together: a PUTS_LATER item.

As shard 0's PUTS (``cluster.effects.records.puts``), but a cut gives their revisions later. So each KeyValue
lies there in two pieces, cut where ``mod_revision`` goes (for a new key, where both revisions go)::

    PUTS_HEAD, its revision 0 | key length and whether it is new, u8 each | head lengths, u8 each |
    tail lengths, u32 each | heads | tails

An entry is one such item or has none: an entry with anything else, or with a put of a key whose creation was
pending (PUT_REF), is made of single items.

Hot path (256 B, 200 puts an entry, without RocksDB's own work): an apply takes 0.65 us a put, reading
included, where single items take 1.05 (decision 32).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from cluster.effects.records import ITEM, PUT_FIXED, PUT_HEAD, PUTS_HEAD, Item, Puts
from cluster.wire.protobuf import varints

_NEW = 0x80  # beside a key's length


class LaterPuts(NamedTuple):
    """Such an item, read. Keys of 1 to 127 bytes, no leases."""

    keys: Sequence[bytes]
    heads: Sequence[bytes]
    tails: Sequence[bytes]
    new: Sequence[bool]

    def at(self, before: int) -> Puts:
        """The puts, in order after revision ``before``."""
        mods = varints(before + 1, len(self.keys))
        join = b"".join
        kvs = [join((head, b"\x10", mod, b"\x18", mod, tail)) if new else join((head, b"\x18", mod, tail))
               for head, tail, new, mod in zip(self.heads, self.tails, self.new, mods, strict=True)]
        return Puts(
            before + 1, list(self.keys), kvs,
            [key for key, new in zip(self.keys, self.new, strict=True) if new],
        )

    def encode(self) -> bytes:
        count = len(self.keys)
        marks = bytes(
            [len(key) | _NEW if new else len(key) for key, new in zip(self.keys, self.new, strict=True)]
        )
        sizes = [*map(len, self.tails)]
        body = b"".join((PUTS_HEAD.pack(count, 0), marks, bytes(map(len, self.heads)),
                         struct.pack(f"<{count}I", *sizes), *self.heads, *self.tails))
        return ITEM.pack(Item.PUTS_LATER, len(body)) + body

    def items(self) -> list[bytes]:
        return [single(Item.PUT_NEW if new else Item.PUT, key, head, tail)
                for key, head, tail, new in zip(self.keys, self.heads, self.tails, self.new, strict=True)]


def read(data: bytes, pos: int, end: int) -> LaterPuts:
    """The body of such an item. ValueError if its lengths do not add up."""
    try:
        count = PUTS_HEAD.unpack_from(data, pos)[0]
        at = pos + PUTS_HEAD.size
        marks, head_sizes = data[at : at + count], data[at + count : at + 2 * count]
        sizes = struct.unpack_from(f"<{count}I", data, at + 2 * count)
    except struct.error as e:
        raise ValueError("truncated puts") from e
    at += 6 * count
    heads = [data[start:stop] for start, stop in pairwise(accumulate(head_sizes, initial=at))]
    at += sum(head_sizes)
    tails = [data[start:stop] for start, stop in pairwise(accumulate(sizes, initial=at))]
    if at + sum(sizes) != end:
        raise ValueError("truncated puts")
    # a head opens with the key: a tag, a length of one byte
    return LaterPuts(
        [head[2 : 2 + (mark & 0x7F)] for head, mark in zip(heads, marks, strict=True)], heads, tails,
        [mark > _NEW for mark in marks],
    )


def single(kind: int, key: bytes, head: bytes, tail: bytes) -> bytes:
    """One such put as an item of its own: PUT, PUT_NEW or PUT_REF."""
    return PUT_HEAD.pack(kind, PUT_FIXED + len(head) + len(tail), len(key), len(head), 0) + head + tail
