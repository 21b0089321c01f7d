"""What a front makes of the calls that change shards."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.features import births
from cluster.features.growth import LEVEL
from cluster.pb import shards_pb2 as pb
from cluster.wire.frames import BIRTHS_SINCE, GROWTH_SINCE, LOADS_SINCE
from cluster.wire.messages import Method
from tests.unit.proxy.served import Served

_UNKNOWN = "muster: the leader's version knows no data of level {}, and none above {}"


@pytest.mark.parametrize(("method", "request_", "since", "text", "asked", "body"), [
    ("EnableGrowth", pb.EnableGrowthRequest(), GROWTH_SINCE, _UNKNOWN.format(LEVEL, 0), Method.GROW, b""),
    ("EnableGrowth", pb.EnableGrowthRequest(level=1), GROWTH_SINCE, _UNKNOWN.format(1, 0), Method.GROW,
     pb.EnableGrowthRequest(level=1).SerializeToString()),
    ("AddShard", pb.AddShardRequest(), BIRTHS_SINCE, _UNKNOWN.format(2, 1), Method.SHARD_CHANGE,
     bytes((births.ADD,))),
    ("RetireShard", pb.RetireShardRequest(), BIRTHS_SINCE, _UNKNOWN.format(2, 1), Method.SHARD_CHANGE,
     bytes((births.RETIRE,))),
    ("Advice", pb.AdviceRequest(), LOADS_SINCE, "", Method.ADVICE, b""),
])
def test_a_leader_is_asked_that_knows_how(
    method: str, request_: Any, since: int, text: str, asked: Method, body: bytes
) -> None:
    served = Served()
    link = served.net.router.routes[0].leader_link
    assert link is not None
    link._end.version = since - 1
    call = served.call(method, request_)
    assert call.status is not None
    assert text in call.status[1]
    assert not served.node.take()
    link._end.version = since
    assert served.call(method, request_).status is None
    (sent,) = served.node.take()
    assert (sent.method, sent.body) == (asked, body)
