"""Few rows that are large are answered beside the loop; its turn reads little of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cluster.evaluate import requests
from cluster.evaluate.overlay import Overlay
from cluster.evaluate.steps import finish
from cluster.evaluate.txns.compares import Turn, Unlooked, holds
from cluster.evaluate.txns.plain_txn import value_of
from cluster.evaluate.view import Current, Outcome
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2 as pb
from cluster.wire.protobuf import key_value
from tests.unit.order.stores import EmptyStore

ROWS = 64
KV = key_value(b"p", 2, 5, 3, bytes(GRAIN.late_bytes // 8), 0)


class Held(EmptyStore):
    read = 0

    def current(self, key: bytes) -> Current | None:
        return Current(2, 5, 3, 0) if key.startswith(b"p") else None

    def get(self, key: bytes, revision: int = 0) -> bytes | None:
        if not key.startswith(b"p"):
            return None
        self.read += len(KV)
        return KV

    def scan(
        self, start: bytes, end: bytes, revision: int = 0, look: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        for at in range(ROWS):
            self.read += len(KV)
            yield b"p%02d" % at, KV

    def live_count(self, start: bytes, end: bytes) -> int:
        return ROWS


GET, COUNT = (
    pb.RequestOp(request_range=pb.RangeRequest(key=b"p", range_end=b"q", count_only=count))
    for count in (False, True))
DELETE = pb.DeleteRangeRequest(key=b"p", range_end=b"q", prev_kv=True)
PUT = pb.RequestOp(request_put=pb.PutRequest(key=b"a"))
PREV = [pb.RequestOp(request_put=pb.PutRequest(key=b"p%02d" % at, prev_kv=True)) for at in range(ROWS)]


def of(*ops: pb.RequestOp) -> pb.TxnRequest:
    return pb.TxnRequest(success=[*ops, PUT])


def evaluate(request: Any, store: Held, late: bool) -> Outcome:
    view: Any = Overlay(store)  # type: ignore[arg-type]
    body, weigh = request.SerializeToString(), store.live_count if late else None
    if isinstance(request, pb.DeleteRangeRequest):
        return requests.delete_range(view, body, weigh)
    return requests.txn(view, body, 128, weigh)


@pytest.mark.parametrize(("asked", "found"), [
    (DELETE, 1), (of(pb.RequestOp(request_delete_range=DELETE)), 1), (of(GET), 0), (of(COUNT), 0),
    (of(*PREV), 0), (pb.TxnRequest(success=[pb.RequestOp(request_txn=of(GET, GET))]), 0)])
def test_the_turn_reads_no_more_than_it_may_show(asked: Any, found: int) -> None:
    """256 rows of 1.5 MiB were read, joined and answered in one turn, for longer than an election timeout.
    ``found``: times that all rows are read to find the keys."""
    store = Held()
    outcome = evaluate(asked, store, late=True)
    assert outcome.late is not None
    assert outcome.tail == b""
    # each run of a transaction finds the keys
    runs = 1 if isinstance(asked, pb.DeleteRangeRequest) else 2
    assert store.read <= found * runs * ROWS * len(KV) + 2 * GRAIN.late_bytes
    whole = evaluate(asked, store, late=False)
    assert whole.late is None
    assert outcome.items == whole.items
    assert b"".join(finish(outcome.late.pieces(Overlay(store)))) == whole.tail  # type: ignore[arg-type]


def test_a_compare_of_large_rows_is_looked_at_ahead() -> None:
    store = Held()
    view: Any = Overlay(store)  # type: ignore[arg-type]
    compare: Any = pb.Compare(
        key=b"p", range_end=b"q", target=pb.Compare.VERSION, result=pb.Compare.NOT_EQUAL, version=77)
    with pytest.raises(Unlooked):
        finish(holds(view, compare, Turn()))
    assert store.read <= 2 * GRAIN.late_bytes
    assert finish(holds(view, compare, None))


@pytest.mark.parametrize("nested", [False, True])
def test_compares_of_one_value_read_it_once(nested: bool) -> None:
    """A request of 2 KB read a value of 1.4 MB 128 times."""
    store = Held()
    view: Any = Overlay(store)  # type: ignore[arg-type]
    value = bytes(GRAIN.late_bytes // 8)
    request = of()
    equal, less, greater = pb.Compare.EQUAL, pb.Compare.LESS, pb.Compare.GREATER
    for result, given in ((equal, value), (less, value + b"x"), (greater, b"")) * 8:
        request.compare.add(key=b"p", target=pb.Compare.VALUE, result=result, value=given)
    if nested:
        request = pb.TxnRequest(compare=request.compare, success=[pb.RequestOp(request_txn=request)])
    outcome = requests.txn(view, request.SerializeToString(), 128, store.live_count, Turn())
    assert outcome.changed
    assert view.read == store.read == len(KV)


@pytest.mark.parametrize(("keys", "size", "reads"), [(32, 10, 32), (64, GRAIN.late_bytes // 8, 4 * 64)])
def test_few_values_are_kept_for_other_compares(keys: int, size: int, reads: int) -> None:
    """A transaction held 128 of 1.4 MB at once; and a value that was kept emptied what was full."""
    store: Any = EmptyStore()
    found: list[bytes] = []
    store.get = lambda key, revision=0: found.append(key) or key_value(key, 2, 3, 1, bytes(size), 0)
    view, values = Overlay(store), dict[bytes, bytes | None]()
    for _ in range(4):
        for at in range(keys):
            assert value_of(view, b"p%02d" % at, values) == bytes(size)
            assert sum(len(value or b"") for value in values.values()) <= size + (1 << 20)
    assert len(found) == reads
