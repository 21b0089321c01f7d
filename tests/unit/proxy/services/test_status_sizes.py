"""Status has the sizes of all shards."""

from __future__ import annotations

import json

import pytest

from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from proxy.services.table import register_all
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.served import Methods


@pytest.mark.parametrize("own", [1, 0])
def test_at_a_host_and_at_a_proxy(own: int) -> None:
    """A proxy, which has no nodes of its own, told those of shard 0 alone."""
    net = Net(own=own, shards=3).started()
    methods = Methods()
    register_all(methods, net.context)
    call = FakeCall()
    methods.handlers["Status"](call, b"")
    for _ in range(2):
        net.run()
        for (shard, _member), node in net.every.items():
            for request in node.take():
                if request.method == Method.STATUS:
                    node.ok(request, 3, pb.StatusResponse(dbSize=100, dbSizeInUse=10).SerializeToString())
                elif request.method == Method.FACTS:
                    facts = {"shard": shard, "size_bytes": 200 * shard, "size_in_use_bytes": 20 * shard}
                    node.ok(request, 3, json.dumps(facts).encode())
    net.run()
    response = pb.StatusResponse.FromString(call.replies[0])
    assert (response.dbSize, response.dbSizeInUse) == (700, 70)
