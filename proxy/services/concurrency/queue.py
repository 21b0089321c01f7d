"""The queue of keys under a prefix: the key with the lowest create revision holds."""

from __future__ import annotations

from cluster.pb import rpc_pb2
from proxy.services.concurrency.nested import Message


def prefix_end(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def first_created(prefix: bytes) -> Message:
    """Asks for the holder."""
    return rpc_pb2.RangeRequest(
        key=prefix, range_end=prefix_end(prefix), limit=1, sort_target=rpc_pb2.RangeRequest.CREATE,
        sort_order=rpc_pb2.RangeRequest.ASCEND)


def last_created(prefix: bytes, max_revision: int) -> Message:
    """Asks for the newest key up to a create revision."""
    return rpc_pb2.RangeRequest(
        key=prefix, range_end=prefix_end(prefix), limit=1, sort_target=rpc_pb2.RangeRequest.CREATE,
        sort_order=rpc_pb2.RangeRequest.DESCEND, max_create_revision=max_revision)


def created_at(key: bytes, revision: int) -> Message:
    """Compares a key's create revision; 0: there is no such key."""
    return rpc_pb2.Compare(
        key=key, target=rpc_pb2.Compare.CREATE, result=rpc_pb2.Compare.EQUAL, create_revision=revision)


def put_op(key: bytes, value: bytes, lease: int) -> Message:
    return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=value, lease=lease))


def range_op(request: Message) -> Message:
    return rpc_pb2.RequestOp(request_range=request)


def delete_op(key: bytes) -> Message:
    return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key))


def own_key(prefix: bytes, lease: int) -> bytes:
    return prefix + (b"-%x" % -lease if lease < 0 else b"%x" % lease)


def enqueue(key: bytes, value: bytes, lease: int, *reads: Message) -> Message:
    """Puts a key that is not there, or else reads it; then ``reads``."""
    own = range_op(rpc_pb2.RangeRequest(key=key))
    success = [put_op(key, value, lease), *reads]
    return rpc_pb2.TxnRequest(compare=[created_at(key, 0)], success=success, failure=[own, *reads])


def if_created(key: bytes, revision: int, op: Message) -> Message:
    return rpc_pb2.TxnRequest(compare=[created_at(key, revision)], success=[op])


def nobody(answer: Message, error: str) -> None:
    """Drops an answer."""
