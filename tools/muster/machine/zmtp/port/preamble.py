"""What a dialler says in clear before anything else: which shard's node it wants. Pure.

Eight bytes each way: magic, version, code, shard. The magic begins no greeting of ZMTP (0xFF), no record of
TLS (0x14 to 0x17), and no method of HTTP. A connection that begins otherwise is for shard 0.
"""

from __future__ import annotations

import struct
from enum import IntEnum

MAGIC = b"\x8dmst"
_FORM = struct.Struct(">4sBBH")
SIZE = _FORM.size
VERSION = 1
MOST_SHARDS = 1 << 16
_ZMTP, _TLS = 0xFF, (0x15, 0x16)  # what hosts say that know no preamble


class Code(IntEnum):
    ASKS = 0
    TAKEN = 1
    NOT_RUNNING = 2
    NO_SHARD = 3
    VERSION = 4


WHY = {
    Code.NOT_RUNNING: "the host runs, but its node of this shard takes no connections",
    Code.NO_SHARD: "the host has no such shard",
    Code.VERSION: "the host does not know this version of the peer port",
}
NOT_AT_ALL = "it does not speak ZMTP"


def wants(shard: int) -> bytes:
    return _FORM.pack(MAGIC, VERSION, Code.ASKS, shard)


def answer(code: Code, shard: int) -> bytes:
    return _FORM.pack(MAGIC, VERSION, code, shard)


def begins(data: bytes) -> bool:
    """Whether it may be the beginning of a preamble; ``data`` has a byte at least."""
    return MAGIC.startswith(data[: len(MAGIC)])


def wanted(data: bytes) -> tuple[int, Code]:
    """The shard of a whole preamble, and what is wrong with it (``ASKS``: nothing)."""
    magic, version, code, shard = _FORM.unpack(data)
    good = magic == MAGIC and version == VERSION and code == Code.ASKS
    return shard, Code.ASKS if good else Code.VERSION


def refusal(data: bytes) -> str:
    """Why the other side refuses, by its whole answer; "": it has taken the link."""
    code = _FORM.unpack(data)[2]
    return "" if code == Code.TAKEN else WHY.get(code, NOT_AT_ALL)


def is_older(data: bytes) -> bool:
    """Whether what came instead of an answer is that of a host without preambles."""
    return data[0] == _ZMTP or data[0] in _TLS
