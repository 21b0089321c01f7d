"""A transaction that names a revision above the applied one: only the sequencer knows what it will be."""

from __future__ import annotations

import pytest

from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method, Status
from tests.unit.order.stores import answers, leader

PUT = pb.RequestOp(request_put=pb.PutRequest(key=b"a", value=b"v"))
EMPTY = pb.RequestOp(request_range=pb.RangeRequest(key=b"z", range_end=b"b", revision=99))
SPAN = pb.RequestOp(request_range=pb.RangeRequest(key=b"a", range_end=b"b", revision=99))
KEY = pb.RequestOp(request_range=pb.RangeRequest(key=b"a", revision=99))


@pytest.mark.parametrize("request_", [
    pb.TxnRequest(success=[EMPTY, PUT]), pb.TxnRequest(success=[SPAN, PUT]),
    pb.TxnRequest(success=[KEY, PUT]), pb.TxnRequest(success=[PUT], failure=[EMPTY]),
    pb.TxnRequest(success=[PUT, pb.RequestOp(request_txn=pb.TxnRequest(success=[EMPTY]))]),
], ids=["empty", "span", "key", "branch", "nested"])
def test_it_is_handed_on_before_anything_of_it_is_logged(request_: pb.TxnRequest) -> None:
    """An empty range was taken, for nothing read it: the answer met the revision once that was known, and
    ended the process."""
    leading = leader()
    leading.submit("a", Method.TXN, request_.SerializeToString())
    leading.run()
    assert [(token, status) for token, status, _ in answers(leading)] == [("a", Status.ELSEWHERE)]
    assert not leading.dirty
