"""Long answers of transactions, made in slices beside the loop: of read-only ones at the applied revision; of
those that write once they are applied, at the revision before them.

What a write did is logged and does not depend on the rows that it shows, so nothing waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.before import Before
from cluster.evaluate.reading.ranges import Row
from cluster.evaluate.steps import Steps
from cluster.evaluate.txns import transactions as txn_eval
from cluster.evaluate.txns.transactions import DueAnswer
from cluster.evaluate.validate import check_txn, checking_txn, parse
from cluster.pb import rpc_pb2
from cluster.placement.owned import Shown
from cluster.raft import Raft
from cluster.wire.messages import HEAD, Status
from node.links.fronts import FrontLink
from node.serving.reads import Reads, reader_at
from node.serving.streams import PIECE_BYTES, Streams, with_signs
from node.slicing.slicer import Slices
from node.storage import Reader, StateStore

_LOOK = 1000  # rows passed over in a step
_SIGN_STEPS = 16  # behind so many the front hears that the work goes on: some ms
_LONG_BYTES = 4096  # of a transaction that is checked in steps: some 500 operations


class PastView(Before):
    """A pinned revision as a view of ``cluster.evaluate.requests``, read in steps."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.revision = reader.revision
        self.compact_revision = reader.position.compact_revision

    def get(self, key: bytes) -> bytes | None:
        for _, kv in self._reader.scan(key, b""):
            return kv
        return None

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[Row]:
        return self._reader.scan(start, end, _LOOK, revision)


class Past:
    def __init__(
        self, store: StateStore, raft: Raft, reads: Reads, streams: Streams,
        mark_dirty: Callable[[FrontLink], None], *, max_txn_ops: int,
    ) -> None:
        self._store = store
        self._raft = raft
        self._reads = reads
        self._streams = streams
        self._mark_dirty = mark_dirty
        self._max_txn_ops = max_txn_ops

    def read_txn(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices | None:
        """A read-only transaction, at a revision (0: the latest): at once if it takes one step. EtcdError."""
        limit = self._max_txn_ops
        message = parse(rpc_pb2.TxnRequest.FromString, body)
        many = len(body) > _LONG_BYTES
        if not many:
            check_txn(message, limit)
        reader = reader_at(self._store, revision)
        steps = _checked_txn(reader, message, limit) if many else txn_eval.read_txn(PastView(reader), message)
        work = self._work(link, rid, steps, reader.revision, self._raft.term)
        if many or _long(message):
            return work
        ended = next(work, True)
        return None if ended else work

    def shown(self) -> Shown:
        """What a request shows that is evaluated now."""
        return Shown(self._store.owned)

    def answer(self, link: FrontLink, rid: int, due: DueAnswer, term: int) -> None:
        """A request whose answer shows many rows was applied in this turn."""
        view = PastView(self._store.reader_before(due.before, due.shown))
        work = self._work(link, rid, due.late.pieces(view), due.revision, term, written=True)

        def fetched(there: bool) -> None:
            if there:
                self._reads.start(link, rid, work)
            else:
                link.answer(rid, Status.UNKNOWN, EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL).encode())
                self._mark_dirty(link)

        if due.late.fetch is None:
            fetched(True)
        else:
            due.late.fetch(fetched)

    def deliver(self, link: FrontLink, rid: int, status: int, body: bytes | DueAnswer, term: int) -> None:
        """An answer as a shard's leader gives it."""
        if isinstance(body, DueAnswer):
            self.answer(link, rid, body, term)
        else:
            link.answer(rid, status, body)

    def _work(
        self, link: FrontLink, rid: int, steps: Steps[list[bytes]], revision: int, term: int, *,
        written: bool = False,
    ) -> Slices:
        answer = self._streams.answer(link, rid, [HEAD.pack(revision, term)], written=written)
        pieces = yield from with_signs(steps, _SIGN_STEPS, answer.sign) if link.watches else steps
        if link.watches and len(pieces) > 1 and sum(map(len, pieces)) > PIECE_BYTES:
            yield from answer.run(answer.last(pieces))
        else:
            answer.end(pieces)


def _checked_txn(reader: Reader, message: rpc_pb2.TxnRequest, limit: int) -> Steps[list[bytes]]:
    yield from checking_txn(message, limit)
    return (yield from txn_eval.read_txn(PastView(reader), message))


def _long(request: rpc_pb2.TxnRequest) -> bool:
    return any(compare.range_end for compare in request.compare) or any(
        op.request_range.range_end for ops in (request.success, request.failure) for op in ops)
