"""Read-only transactions of single keys over several shards: read at one revision, evaluated here, in steps
where they are large. No lock, no order record, no work for a leader but the read index (decision 27)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from cluster.evaluate.before import Before
from cluster.evaluate.reading.ranges import Row
from cluster.evaluate.steps import STEP_BYTES, Steps, finish
from cluster.evaluate.txns import plain_txn, transactions
from cluster.evaluate.txns.plain_txn import Plain
from cluster.pb import rpc_pb2
from cluster.wire.messages import Method
from cluster.wire.protobuf import varint
from proxy.routing.router import MethodStats
from proxy.shared.context import Call, Context
from proxy.spanning.gather import InPieces
from proxy.spanning.sorted_ranges import range_rows


class Rows(Before):
    """The view of a store at a revision of which some keys have been read."""

    compact_revision = 0  # asked only by reads of the past, which go another way

    def __init__(self, revision: int, rows: Mapping[bytes, bytes | None]) -> None:
        self.revision = revision
        self._rows = rows

    def get(self, key: bytes) -> bytes | None:
        """KeyError for a key that was not read."""
        return self._rows[key]

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[Row]:
        raise NotImplementedError("single keys at the latest revision only")


def is_read(plain: Plain) -> bool:
    return plain.read_only and not plain.of_the_past


def read_txn(context: Context, call: Call, data: bytes, plain: Plain, stats: MethodStats) -> None:
    """``plain``: what ``data`` says."""
    router, placement = context.router, context.placement
    keys = list(dict.fromkeys(plain.keys()))

    def answer(call: Call, revision: int, term: int, tails: list[list[bytes]]) -> None:
        large = sum(len(piece) for tail in tails for piece in tail) > STEP_BYTES
        steps = put_together(call, revision, term, tails, large)
        if large:
            context.stepped.start(call, steps, partial(context.refuse, call, stats))
        else:
            finish(steps)

    def put_together(
        call: Call, revision: int, term: int, tails: list[list[bytes]], large: bool
    ) -> Steps[None]:
        rows: dict[bytes, bytes | None] = {}
        read = 0  # bytes of rows in this step
        for place, key in enumerate(keys):
            tail = b"".join(tails[place])
            found, _ = range_rows(tail)
            rows[key] = found[0][1] if found else None
            read += len(tail)
            tails[place] = []  # it is held once
            if read > STEP_BYTES:
                read = 0
                yield
        view = Rows(revision, rows)
        if large:
            pieces = yield from transactions.read_txn(view, rpc_pb2.TxnRequest.FromString(data))
        else:
            pieces = [plain_txn.run(view, plain)[1](revision)]
        stats.ok += 1
        call.reply(router.header(revision, term), *pieces)

    def ask(revision: int) -> list[tuple[int, bytes]]:
        return [
            (shard, b"\x0a%b%b" % (varint(len(key)), key))
            for key in keys for shard in placement.shards_at(key, b"", revision)]

    InPieces(router, call, Method.RANGE, ask, plain.serializable, stats, answer, context.refuse).start()
