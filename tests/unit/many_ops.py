"""A transaction of very many operations."""

from __future__ import annotations

from cluster.pb import rpc_pb2 as pb


def very_many(count: int = 24 * 24 * 32) -> pb.TxnRequest:
    """Deletes and puts of single keys, in three levels."""
    def op(number: int) -> pb.RequestOp:
        key = b"t%05d" % number
        if number % 2:
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
        return pb.RequestOp(request_put=pb.PutRequest(key=key, value=b"v"))

    def level(ops: list[pb.RequestOp], size: int) -> list[pb.RequestOp]:
        parts = [ops[at : at + size] for at in range(0, len(ops), size)]
        return [pb.RequestOp(request_txn=pb.TxnRequest(success=part)) for part in parts]

    return pb.TxnRequest(success=level(level([op(n) for n in range(count)], 32), 24))
