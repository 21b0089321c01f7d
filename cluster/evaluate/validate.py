"""Checks of a request that need no state: a front makes them before it sends anything on, evaluation again.

The order is etcd's: fields of each operation, depth first, then the keys of the success list, then those of
the failure list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.spans import Intervals
from cluster.evaluate.steps import STEP_OPS, Steps, finish
from cluster.pb import rpc_pb2 as pb

_SORT_ORDERS = 3  # NONE, ASCEND, DESCEND
_SORT_TARGETS = 5  # KEY, VERSION, CREATE, MOD, VALUE
_STEP_KEYS = 256  # looked up in a step
# Transactions in a transaction: protobuf's library reads a message 100 deep, and an answer is one deeper than
# its request
NESTED_MOST = 48

_STREAMED = "grpc: error unmarshalling request:", "grpc: failed to unmarshal the received message"

M = TypeVar("M")
# Messages are typed Any: their classes are made at run time.
Message = Any


def parse(from_string: Callable[[bytes], M], body: bytes) -> M:
    """A message out of its wire form. EtcdError: malformed."""
    try:
        return from_string(body)
    except DecodeError as e:
        raise malformed(str(e)) from None


def parse_streamed(from_string: Callable[[bytes], M], body: bytes) -> M:
    """:func:`parse` of a message of a stream: Go has other words for it."""
    try:
        return from_string(body)
    except DecodeError as e:
        error = malformed(str(e))
        raise EtcdError(error.kind, error.text.replace(*_STREAMED)) from None


def malformed(reason: str) -> EtcdError:
    """The refusal of a body that is no such message."""
    if "MaxDepth" in reason:  # transactions alone have themselves in them
        return EtcdError(errors.TOO_MANY_OPS)
    # Go's words
    reason = "string field contains invalid UTF-8" if "UTF-8" in reason else "unexpected EOF"
    return errors.MALFORMED_REQUEST.error(reason=reason)


def check_alarm(request: Message) -> None:
    """Every number of an AlarmRequest's enums has a name. etcd keeps unknown ones; muster refuses them."""
    if (
        request.action not in pb.AlarmRequest.AlarmAction.values()
        or request.alarm not in pb.AlarmType.values()
    ):
        raise EtcdError(errors.UNKNOWN_ALARM)


def check_put(request: Message) -> None:
    if not request.key:
        raise EtcdError(errors.EMPTY_KEY)
    if request.ignore_value and request.value:
        raise EtcdError(errors.VALUE_PROVIDED)
    if request.ignore_lease and request.lease:
        raise EtcdError(errors.LEASE_PROVIDED)


def check_range(request: Message) -> None:
    if not request.key:
        raise EtcdError(errors.EMPTY_KEY)
    if not (0 <= request.sort_order < _SORT_ORDERS and 0 <= request.sort_target < _SORT_TARGETS):
        raise EtcdError(errors.INVALID_SORT_OPTION)


def check_delete_range(request: Message) -> None:
    if not request.key:
        raise EtcdError(errors.EMPTY_KEY)


def check_txn(request: Message, max_ops: int) -> None:
    """All static rules of a transaction, nested ones included."""
    finish(checking_txn(request, max_ops))


def checking_txn(request: Message, max_ops: int) -> Steps[None]:
    """As :func:`check_txn`, in steps."""
    nested = yield from _check_fields(request, max_ops)
    for ops in (request.success, request.failure):
        if nested or len(ops) > 1:
            yield from _check_keys(ops)


def _check_fields(request: Message, budget: int, depth: int = 0) -> Steps[bool]:
    """Check each operation; whether an operation is a transaction itself."""
    nested = False
    used = max(len(request.compare), len(request.success), len(request.failure))
    if used > budget or depth > NESTED_MOST:
        raise EtcdError(errors.TOO_MANY_OPS)
    for compare in request.compare:
        if not compare.key:
            raise EtcdError(errors.EMPTY_KEY)
    for ops in (request.success, request.failure):
        for place, op in enumerate(ops, 1):
            kind = op.WhichOneof("request")
            if kind == "request_range":
                check_range(op.request_range)
            elif kind == "request_put":
                check_put(op.request_put)
            elif kind == "request_delete_range":
                check_delete_range(op.request_delete_range)
            elif kind == "request_txn":
                # a nested transaction has what its parent left of the budget
                yield from _check_fields(op.request_txn, budget - used, depth + 1)
                yield
                nested = True
            else:
                raise EtcdError(errors.KEY_NOT_FOUND)
            if not place % STEP_OPS:
                yield
    return nested


def _check_keys(ops: Sequence[Message]) -> Steps[tuple[set[bytes], Intervals]]:
    """No key put twice, none both put and deleted, as far as etcd looks: (puts, deletes) of this tree.

    Deletes of this level count against the puts of nested transactions; those of a nested transaction count
    against its *later* siblings and this level's puts. A delete up to the end of the key space (range_end a
    zero byte) is taken literally here and so covers nothing: etcd's slip, which clients can rely on ("delete
    everything, then put").
    """
    deletes = Intervals()
    nested: list[Message] = []
    own_puts: list[bytes] = []
    for place, op in enumerate(ops, 1):
        kind = op.WhichOneof("request")
        if kind == "request_delete_range":
            key, end = op.request_delete_range.key, op.request_delete_range.range_end
            deletes.add(key, end or key + b"\0")
        elif kind == "request_txn":
            nested.append(op.request_txn)
        elif kind == "request_put":
            own_puts.append(op.request_put.key)
        if not place % STEP_OPS:
            yield

    puts: set[bytes] = set()
    for txn in nested:
        puts_then, deletes_then = yield from _check_keys(txn.success)
        puts_else, deletes_else = yield from _check_keys(txn.failure)
        # the two branches exclude each other: a key in both is no duplicate
        for place, key in enumerate(puts_then | puts_else, 1):
            _check_key(key, puts, deletes)
            if not place % _STEP_KEYS:
                yield
        puts = _union(puts, _union(puts_then, puts_else))
        deletes = yield from _joined(deletes, (yield from _joined(deletes_then, deletes_else)))
        yield
    for key in own_puts:
        _check_key(key, puts, deletes)
        puts.add(key)
    return puts, deletes


def _union(some: set[bytes], others: set[bytes]) -> set[bytes]:
    # the smaller into the larger: else each level of nesting would copy everything below
    if len(some) < len(others):
        some, others = others, some
    some |= others
    return some


def _joined(some: Intervals, others: Intervals) -> Steps[Intervals]:
    if len(some) < len(others):
        some, others = others, some
    for place, (begin, end) in enumerate(others.spans(), 1):
        some.add(begin, end)
        if not place % _STEP_KEYS:
            yield
    return some


def _check_key(key: bytes, puts: set[bytes], deletes: Intervals) -> None:
    if key in puts or key in deletes:
        raise EtcdError(errors.DUPLICATE_KEY)
