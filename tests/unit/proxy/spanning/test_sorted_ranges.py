"""Ranges over several shards in another order than that of their keys."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import pytest

from cluster.evaluate.reading import ranges
from cluster.pb import rpc_pb2
from cluster.wire.messages import READ, Method
from cluster.wire.protobuf import key_value
from proxy.services.table import register_all
from proxy.spanning.gather import range_requests
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.served import Methods
from tests.unit.proxy.spanning.test_spanning import answer, over, whole_of


def in_pieces(tail: bytes, random: Random) -> list[bytes]:
    """An answer cut anywhere, within rows, too."""
    cuts = sorted(random.choices(range(len(tail) + 1), k=random.choice((0, 1, 5, 20))))
    return [tail[begin:end] for begin, end in pairwise([0, *cuts, len(tail)])]


@pytest.mark.parametrize("seed", range(40))
def test_a_sorted_range_is_that_of_one_shard_wherever_its_pieces_end(seed: int) -> None:
    random = Random(seed)
    order: Any = random.choice((1, 2))
    target: Any = random.choice((0, 1, 2, 3, 4))
    request = rpc_pb2.RangeRequest(
        key=b"\0", range_end=b"\0", sort_order=order, sort_target=target,
        limit=random.choice((0, 0, 3, 400)), keys_only=random.random() < 0.2)
    rows = [(b"k%04d" % at, key_value(b"k%04d" % at, random.randrange(1, 50), random.randrange(50, 90),
                                      random.randrange(1, 4), bytes(random.choice((1, 200, 20_000))), 0))
            for at in range(random.choice((20, 700)))]
    owners = [random.randrange(3) for _ in rows]
    asked = range_requests(request, over(0, 1, 2))(0)
    tails = []
    for shard, body in asked:
        own = [row for row, owner in zip(rows, owners, strict=True) if owner == shard]
        tails.append(in_pieces(answer(rpc_pb2.RangeRequest.FromString(body), own), random))
    assert whole_of(request, tails) == answer(request, rows)


@pytest.mark.parametrize("limit", [0, 9_000])
@pytest.mark.parametrize("in_txn", [False, True])
def test_a_sorted_range_over_shards_is_put_together_in_steps(
    in_txn: bool, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows of 300,000 keys were read, merged and sorted in one turn of the front."""
    looks: list[int] = [0]  # at rows, in each turn

    class Counted(ranges.Fields):
        def __init__(self, kv: bytes) -> None:
            looks[-1] += 1
            super().__init__(kv)

    net, call, methods = Net(shards=2).started(), FakeCall(None), Methods()
    register_all(methods, net.context)
    keys = [b"k%05d" % at for at in range(10_000)]
    rows = [(key, key_value(key, 9, 9 + at * 7 % 10_000, 1, b"v", 0)) for at, key in enumerate(keys)]
    request = rpc_pb2.RangeRequest(
        key=b"\0", range_end=b"\0", sort_order=rpc_pb2.RangeRequest.ASCEND,
        sort_target=rpc_pb2.RangeRequest.MOD, limit=limit)
    body = rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_range=request)]) if in_txn else request
    methods.handlers["Txn" if in_txn else "Range"](call, body.SerializeToString())
    net.run()
    (question,) = net.nodes[1].take(Method.READ_INDEX)
    net.nodes[1].index(question, 7, 9)
    net.run()
    for node in net.every.values():
        for read in node.take(Method.READ_TXN):  # nothing is compared
            node.ok(read, 9, b"\x10\x01")
    net.run()
    for shard in (0, 1):
        (read,) = net.every[shard, 1].take(Method.RANGE)
        part = rpc_pb2.RangeRequest.FromString(read.body[READ.size :])
        net.every[shard, 1].ok(read, 9, answer(part, rows[shard::2]))
        net.every[shard, 1].flush(net.loop.now)
    monkeypatch.setattr(ranges, "Fields", Counted)
    while not call.closed:
        looks.append(0)
        net.loop.turn()
    assert len(looks) > 25  # 4 steps of 256 rows each: these come, are sorted, and go
    assert max(looks) <= 4 * 256
    assert sum(looks) >= min(limit or len(rows), len(rows))
    replied = b"".join(call.replies)
    shown = rpc_pb2.TxnResponse.FromString(replied).responses[0].response_range if in_txn else (
        rpc_pb2.RangeResponse.FromString(replied))
    shown.ClearField("header")
    monkeypatch.undo()
    assert shown.SerializeToString() == answer(request, rows)
