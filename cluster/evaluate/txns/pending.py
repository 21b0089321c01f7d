"""What a running transaction has done so far, as a view over the state that it began with."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from itertools import chain

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate.reading.ranges import Row
from cluster.evaluate.reading.rows import merged
from cluster.evaluate.spans import Intervals, Span, keys_in
from cluster.evaluate.steps import STEP_OPS, Steps
from cluster.evaluate.view import Current, Outcome, Version, View

# of values that a transaction's puts keep, and of keys in ranges that it deletes: they are logged, though its
# request does not hold them. A leader that sends more at once falls, and a follower cannot take an entry
# above 1 GiB at all
MOST_KEPT_BYTES = 32 << 20


class Pending:
    """See the module."""

    __slots__ = ("_keys", "base", "deleted", "items", "kept_bytes", "ranges", "revision", "writes", "written")

    def __init__(self, base: View) -> None:
        self.base = base
        self.revision = base.revision + 1  # of the transaction, if it changes anything
        self.items: list[bytes] = []
        self.writes: list[tuple[bytes, Version | None]] = []
        self.written: dict[bytes, Version | None] = {}
        self.ranges: list[Span] = []  # deleted whole; none holds a key that was written before
        self.deleted = Intervals()  # the same
        self.kept_bytes = 0  # of items whose values are those from before, and of keys that are found
        self._keys: list[bytes] | None = None  # the written keys, sorted, once a range is asked for

    @property
    def header_revision(self) -> int:
        """What an operation's own header says: the transaction's revision once it has changed something."""
        return self.revision if self.items else self.base.revision

    @property
    def compact_revision(self) -> int:
        return self.base.compact_revision

    def lease_exists(self, lease: int) -> bool:
        return self.base.lease_exists(lease)

    def lease_keys(self, lease: int) -> list[bytes]:
        raise NotImplementedError("a transaction revokes no lease")

    def current(self, key: bytes) -> Current | Version | None:
        if key in self.written:
            return self.written[key]
        if self.ranges and key in self.deleted:
            return None
        return self.base.current(key)

    def get(self, key: bytes) -> bytes | None:
        if key in self.written:
            version = self.written[key]
            return None if version is None else version.kv
        if self.ranges and key in self.deleted:
            return None
        return self.base.get(key)

    def _written_in(self, span: Span) -> Sequence[bytes]:
        """The keys of a span that were written, in order."""
        if not self.written:
            return ()
        if self._keys is None:
            self._keys = sorted(self.written)
        return keys_in(self._keys, span)

    def _left_of(self, span: Span) -> list[Span]:
        return self.deleted.without(span) if self.ranges else [span]

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[Row]:
        """At a revision: the state before the transaction. Without: with what it wrote."""
        if revision or not (self.written or self.ranges):
            return self.base.scan(start, end, revision)
        span = (start, end)
        rows = chain.from_iterable([self.base.scan(*piece) for piece in self._left_of(span)])
        return merged(rows, self._written_in(span), self.written.__getitem__)

    def count(self, start: bytes, end: bytes) -> int:
        span = (start, end)
        found = sum([self.base.count(*piece) for piece in self._left_of(span)])
        for key in self._written_in(span):
            found += self.written[key] is not None
            found -= key not in self.deleted and self.base.current(key) is not None
        return found

    def untouched(self, span: Span) -> Steps[list[tuple[bytes, bytes, int]]]:
        """What of a range this transaction has neither deleted nor written yet, with its number of keys."""
        written, found = Intervals(), []
        for key in self._written_in(span):
            written.add_span((key, b""))
        pieces = [piece for left in self._left_of(span) for piece in written.without(left)]
        for place, piece in enumerate(pieces, 1):
            if count := self.base.count(*piece):
                found.append((*piece, count))
            if not place % STEP_OPS:
                yield
        return found

    def put_in(self, span: Span) -> list[bytes]:
        """The keys of a span that it has put."""
        return [key for key in self._written_in(span) if self.written[key] is not None]

    def write(self, key: bytes, version: Version | None, item: bytes) -> None:
        self.items.append(item)
        self.writes.append((key, version))
        if self._keys is not None and key not in self.written:
            insort(self._keys, key)
        self.written[key] = version

    def keeps(self, size: int) -> None:
        """So much of what is logged is not in the request. EtcdError: too much."""
        self.kept_bytes += size
        if self.kept_bytes > MOST_KEPT_BYTES:
            raise EtcdError(errors.REQUEST_TOO_LARGE)

    def delete(self, span: Span, item: bytes) -> None:
        """All of a span, in which nothing was written before."""
        self.items.append(item)
        self.ranges.append(span)
        self.deleted.add_span(span)

    def outcome(self, tail: bytes) -> Outcome:
        """``tail``: the response after its header."""
        items = self.items
        if not items:
            return Outcome(b"", False, tail, [], self.base.revision)
        item = items[0] if len(items) == 1 else records.txn(items)
        return Outcome(item, True, tail, self.writes, self.revision, self.ranges)
