"""What a shard's leader evaluated for one of its entries, and the answers that it owes.

Nearly every entry holds only plain puts, logged together (``cluster.effects.later_puts``). The leader keeps
what it evaluated, so that it need not read its own entry back (decision 32).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cluster import errors
from cluster.effects.later_puts import LaterPuts, single
from cluster.effects.records import Item
from cluster.errors import EtcdError
from cluster.evaluate.txns.transactions import DueAnswer
from cluster.evaluate.view import Late
from cluster.faults import MISTAKES, faults
from cluster.order.leading.bound import Bound
from cluster.placement.owned import Shown
from cluster.wire.messages import HEAD, Status

Answer = tuple[Any, int, bytes | DueAnswer]  # token, status, body
# token, key, the item's kind, the KeyValue before and after its revisions (``plain_put.pending``)
PendingPut = tuple[Any, bytes, int, bytes, bytes]


class Reply(NamedTuple):
    token: Any
    before: int  # changes of the same batch before it
    changed: bool
    tail: bytes | Late
    late: Callable[[int], bytes] | None  # makes the tail, given the revision before the request
    error: bytes | None  # a refusal instead

    def bind(self, base: int, term: int, shown: Shown | None) -> Answer:
        if self.error is not None:
            return self.token, Status.ERROR, self.error
        before, tail = base + self.before, self.tail
        if self.late is not None:
            try:
                tail = self.late(before)
            except (*MISTAKES, EtcdError) as error:  # what is in order stays so, and its entry is applied
                faults.met("answering what is in order", error)
                return self.token, Status.ERROR, EtcdError(errors.INTERNAL_FAULT).encode()
        if isinstance(tail, Late):
            return self.token, Status.OK, DueAnswer(tail, before, before + self.changed, shown)
        return self.token, Status.OK, HEAD.pack(before + self.changed, term) + tail


class ShardBatch:
    __slots__ = (
        "bound", "changes", "index", "items", "keys", "later", "number", "pending", "puts", "replies",
        "shown", "size", "term",
    )

    def __init__(self, number: int, pending: int, bound: Bound) -> None:
        self.number = number
        self.pending = pending  # the revision before it, as it is evaluated
        self.bound = bound  # of its leader
        self.index = self.term = 0  # of the entry, once it is logged
        self.items: list[bytes] = []
        self.size = 0  # bytes of its items, roughly
        # all of it while it is plain puts only; None: ``items``, ``keys``, ``replies`` and ``changes`` are
        self.puts: list[PendingPut] | None = []
        self.later: LaterPuts | None = None  # the same once sealed, as it is logged
        self.keys: list[bytes] = []
        self.replies: list[Reply] = []
        self.changes = 0
        # as its leader lost the term: a switch may be applied with it. None: no switch is (G4)
        self.shown: Shown | None = None

    def take(self, puts: list[PendingPut]) -> None:
        if self.puts is not None:
            self.puts += puts
            return
        for token, key, kind, head, tail in puts:
            self.items.append(single(kind, key, head, tail))
            self.keys.append(key)
            self.replies.append(Reply(token, self.changes, True, b"", None, None))
            self.changes += 1

    def mix(self) -> None:
        if self.puts is not None:
            self.replies = [
                Reply(put[0], before, True, b"", None, None) for before, put in enumerate(self.puts)]
            self.items = [single(kind, key, head, tail) for _, key, kind, head, tail in self.puts]
            self.keys = self.written()
            self.changes, self.puts = len(self.puts), None

    def seal(self) -> bytes:
        if self.puts:
            _, keys, kinds, heads, tails = zip(*self.puts, strict=True)
            if Item.PUT_REF not in kinds:
                self.later = LaterPuts(keys, heads, tails, [kind == Item.PUT_NEW for kind in kinds])
                return self.later.encode()
            self.mix()
        return b"".join(self.items)

    @property
    def grown(self) -> int:
        return self.changes if self.puts is None else len(self.puts)

    def written(self) -> list[bytes]:
        return self.keys if self.puts is None else [put[1] for put in self.puts]

    @property
    def waiting(self) -> int:
        return len(self.replies) if self.puts is None else len(self.puts)

    def owed(self) -> list[Any]:
        return [reply.token for reply in self.replies] if self.puts is None else [put[0] for put in self.puts]

    def answers(self, base: int, term: int) -> list[Answer]:
        self.bound.bind(self.pending, base)
        if self.puts is None:
            return [reply.bind(base, term, self.shown) for reply in self.replies]
        puts = enumerate(self.puts, base + 1)
        return [(put[0], Status.OK, HEAD.pack(revision, term)) for revision, put in puts]
