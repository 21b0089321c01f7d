"""Keys, values and the request bodies of unary runs.

Hot path: ``body`` runs once per operation and splices ready wire form (0.5 us).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

from bench.load.spec import STAMP_BYTES, Spec
from cluster.pb import rpc_pb2 as pb
from cluster.wire.protobuf import varint

PUT = "/etcdserverpb.KV/Put"
RANGE = "/etcdserverpb.KV/Range"
TXN = "/etcdserverpb.KV/Txn"

_ZIPF_CYCLE = 1 << 16

#: ``body(intended_ns)``: the next request, to be sent at that time of ``perf_counter_ns``.
Body = Callable[[int], bytes]


def numbers(spec: Spec) -> Callable[[], int]:
    """A source of key numbers in ``[0, key_space)``.

    Zipf: key k is drawn in proportion to ``1 / (k + 1) ** exponent``, by 65,536 draws that repeat.
    """
    space = spec.key_space
    rng = random.Random(spec.seed)
    if spec.distribution == "sequential":
        position = itertools.count(spec.first_key)
        return lambda: next(position) % space
    if spec.distribution == "zipf":
        draws = [_zipf(rng, space, spec.zipf_exponent) for _ in range(_ZIPF_CYCLE)]
        return itertools.cycle(draws).__next__
    uniform = rng.random
    return lambda: int(uniform() * space)


def _zipf(rng: random.Random, space: int, exponent: float) -> int:
    """Rejection-inversion sampling (Hörmann and Derflinger 1996), exact for any exponent > 0."""
    if exponent == 1.0:
        exponent = 1.0 + 1e-9

    def integral(x: float) -> float:
        return (math.exp((1 - exponent) * math.log(x)) - 1) / (1 - exponent)

    def inverse(y: float) -> float:
        return math.exp(math.log1p(max(y * (1 - exponent), -1 + 1e-15)) / (1 - exponent))

    low, high = integral(1.5) - 1, integral(space + 0.5)
    while True:
        point = low + rng.random() * (high - low)
        rank = min(max(1, round(inverse(point))), space)
        if point >= integral(rank + 0.5) - rank ** -exponent:
            return rank - 1


def key_format(spec: Spec) -> Callable[[int], bytes]:
    """Key number to key: the prefix, then decimal digits up to the key size."""
    template = spec.key_prefix.replace("%", "%%").encode() + b"%0" + str(
        spec.key_size_bytes - len(spec.key_prefix.encode())).encode() + b"d"
    return lambda number: template % number


def value_of(spec: Spec) -> bytes:
    """The value of every put of a run: incompressible, by the seed."""
    return random.Random(spec.seed).randbytes(spec.val_size_bytes)


def put_body(spec: Spec, *, stamped: bool = False) -> Body:
    """Puts; a stamped value opens with the intended time of its put."""
    number, key = numbers(spec), key_format(spec)
    value = value_of(spec)
    head = b"\x0a" + varint(spec.key_size_bytes)
    middle = b"\x12" + varint(len(value))
    tail = middle + value if value else b""
    if stamped:
        rest = value[STAMP_BYTES:]
        return lambda now: b"".join((head, key(number()), middle, now.to_bytes(STAMP_BYTES, "big"), rest))
    return lambda now: head + key(number()) + tail


def range_body(spec: Spec) -> Body:
    """Ranges: the one asked for, or of one key of the key space each."""
    options = pb.RangeRequest(limit=spec.limit, serializable=spec.serializable, keys_only=spec.keys_only,
                              count_only=spec.count_only, range_end=spec.range_end.encode())
    if spec.range_key:
        options.key = spec.range_key.encode()
        whole = options.SerializeToString()
        return lambda now: whole
    number, key = numbers(spec), key_format(spec)
    head, tail = b"\x0a" + varint(spec.key_size_bytes), options.SerializeToString()
    return lambda now: head + key(number()) + tail


def txn_body(spec: Spec) -> Body:
    """Transactions of ``txn_ops`` puts on neighbouring keys, without compares."""
    number, key = numbers(spec), key_format(spec)
    value, space, ops = value_of(spec), spec.key_space, spec.txn_ops
    tail = b"\x12" + varint(len(value)) + value if value else b""
    head = b"\x0a" + varint(spec.key_size_bytes)
    put_size = len(head) + spec.key_size_bytes + len(tail)
    request_put = b"\x12" + varint(put_size) + head  # RequestOp.request_put
    operation = b"\x12" + varint(len(request_put) - len(head) + put_size) + request_put  # TxnRequest.success

    def body(now: int) -> bytes:
        first = number()
        return b"".join([operation + key((first + i) % space) + tail for i in range(ops)])

    return body


def compare_body(spec: Spec) -> Body:
    """Transactions of one key: if it was ever put, put it and get it; else get it. 0.4 us; as messages 6."""
    number, key = numbers(spec), key_format(spec)
    value = value_of(spec)
    size = spec.key_size_bytes
    head = b"\x0a" + varint(size)
    tail = b"\x12" + varint(len(value)) + value if value else b""
    compare = _field(b"\x0a", b"\x08\x01\x1a" + varint(size), size + 2)  # GREATER; VERSION is target 0
    put = _field(b"\x12", _field(b"\x12", head, size + len(tail)), size + len(tail))
    get = _field(b"\x12", _field(b"\x0a", head, size), size)
    otherwise = _field(b"\x1a", _field(b"\x0a", head, size), size)
    after_compare, after_put = b"\x20\x00" + put, tail + get  # version 0

    def body(now: int) -> bytes:
        name = key(number())
        return b"".join((compare, name, after_compare, name, after_put, name, otherwise, name))

    return body


def _field(tag: bytes, beginning: bytes, rest: int) -> bytes:
    """A length-delimited field up to the ``rest`` bytes that its owner puts behind it."""
    return tag + varint(len(beginning) + rest) + beginning


def unary(spec: Spec) -> tuple[str, Body]:
    """Path and bodies of a unary command."""
    if spec.command == "put":
        return PUT, put_body(spec)
    if spec.command == "range":
        return RANGE, range_body(spec)
    if spec.command == "txn-put":
        return TXN, txn_body(spec)
    assert spec.command == "txn-compare"
    return TXN, compare_body(spec)
