"""What a request adds to the store at most, as etcd's quota.go estimates it."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from cluster.features.v2.requests import grows
from cluster.pb import rpc_pb2
from cluster.wire.messages import Method

PUT_COST = 256  # what a put takes besides key and value
_LEASE_COST = 64


def cost(method: int, body: bytes) -> int:
    """Bytes; a malformed request adds none, for it is refused as such.

    A put in a transaction's transaction counts like any other, where etcd forgets it.
    """
    try:
        if method == Method.PUT:
            return _of_put(rpc_pb2.PutRequest.FromString(body))
        if method == Method.TXN:
            return _of_txn(rpc_pb2.TxnRequest.FromString(body))
        if method == Method.V2_WRITE and grows(body):
            return PUT_COST + 2 * len(body)  # a node and an event
    except DecodeError:
        return 0
    return _LEASE_COST if method == Method.LEASE_GRANT else 0


def _of_put(put: rpc_pb2.PutRequest) -> int:
    return PUT_COST + len(put.key) + len(put.value)


def _of_txn(txn: rpc_pb2.TxnRequest) -> int:
    return max(sum(
        _of_put(op.request_put) if op.HasField("request_put") else
        _of_txn(op.request_txn) if op.HasField("request_txn") else 0 for op in branch)
        for branch in (txn.success, txn.failure))
