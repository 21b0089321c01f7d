"""Which member a link is meant for: a part of the message before its hello, as ``X-Raft-To`` of etcd's peers.

An address may be another member's by now: its name or its member got another one while nobody was there, or
while the dialling host was down. That member would take the link for one that is meant for it, drop what the
other one should have got, and nobody would notice. Hosts of before this part pass over it, and take hellos
without one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

REASON = "to field mismatch"  # etcd's words
_FRAME = struct.Struct("<cQ")
_MARK = b"M"


def encode(member_id: int) -> bytes:
    return _FRAME.pack(_MARK, member_id)


def mismatch(parts: Iterable[bytes], own: int) -> str:
    """Why a hello after these parts is not for the member ``own``; empty: it may be."""
    for part in parts:
        if len(part) == _FRAME.size and part[:1] == _MARK:
            _, member_id = _FRAME.unpack(part)
            if member_id != own:
                return f"{REASON} (got {member_id:x} want {own:x})"
    return ""
