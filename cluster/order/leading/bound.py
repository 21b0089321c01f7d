"""Pending revisions and what they become: rows that a leader shows before their revisions are known.

A row is shown with its pending revisions first, and with the known ones once its reader is in order: what it
shows was logged before it, and so is in order before it.
"""

from __future__ import annotations

from collections import deque

from cluster.effects.records import PENDING_REVISION
from cluster.evaluate.view import Current, Version
from cluster.wire.protobuf import read_varint, varint


class Bound:
    """What the pending revisions of one leader became."""

    __slots__ = ("_runs",)

    def __init__(self, kept: int) -> None:
        """``kept``: how many batches may be without a place in the order. What is shown is not older: see
        ``PendingOverlay.applied_batch``."""
        # the pending revision before a batch, and what is added to those behind it; the newest last
        self._runs: deque[tuple[int, int]] = deque(maxlen=kept)

    def bind(self, pending: int, base: int) -> None:
        """A batch is in order: its first change is ``base + 1``, and was ``pending + 1``."""
        if not self._runs or self._runs[-1][1] != base - pending:
            self._runs.append((pending, base - pending))

    def known(self, revision: int) -> int:
        if revision < PENDING_REVISION:
            return revision
        for pending, more in reversed(self._runs):
            if pending < revision:
                return revision + more
        raise LookupError(f"{revision} is not in order")

    def current(self, current: Current | Version | None) -> Current | Version | None:
        if current is None or current[1] < PENDING_REVISION:
            return current
        return Current(self.known(current[0]), self.known(current[1]), current[2], current[3])

    def row(self, kv: bytes | None) -> bytes | None:
        """The KeyValue of a live key with known revisions. What is none, or a scan's PAUSE, stays."""
        if not kv:
            return kv
        key_end, create, mod, at = _revisions(kv)
        if max(create, mod) < PENDING_REVISION:
            return kv
        return b"%b\x10%b\x18%b%b" % (
            kv[:key_end], varint(self.known(create)), varint(self.known(mod)), kv[at:])


def pending_row(key: bytes, version: Version) -> bytes:
    """A pending version's KeyValue, with its pending revisions."""
    tail = version.kv
    if tail[0] == 0x0A:  # else it has no more than is behind its revisions (``plain_put.pending``)
        tail = tail[_revisions(tail)[3] :]
    return b"\x0a%b%b\x10%b\x18%b%b" % (
        varint(len(key)), key, varint(version.create), varint(version.mod), tail)


def _revisions(kv: bytes) -> tuple[int, int, int, int]:
    """Where its key ends, when it was created (0: it does not say) and modified, and where what is behind
    that begins."""
    size, at = read_varint(kv, 1)
    at = key_end = at + size
    create = 0
    if kv[at] == 0x10:
        create, at = read_varint(kv, at + 1)
    mod, at = read_varint(kv, at + 1)
    return key_end, create, mod, at
