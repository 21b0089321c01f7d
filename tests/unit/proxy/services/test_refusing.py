"""A client that may not read hears nothing of a store's revisions."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.features.auth.principal import SAID
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method, Status
from proxy.services.table import register_all
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.served import Methods


@pytest.mark.parametrize("error", [None, errors.PERMISSION_DENIED, errors.USER_EMPTY])
@pytest.mark.parametrize("method", ["Range", "RangeStream"])
def test_a_future_revision_over_several_shards_is_told_to_a_client_that_may_read(
    method: str, error: ErrorKind | None
) -> None:
    """By it anybody could find the newest revision."""
    net = Net(shards=3).started()
    net.context.principals.enabled = True
    methods, call = Methods(), FakeCall(None)
    register_all(methods, net.context)
    request = pb.RangeRequest(key=b"\0", range_end=b"\0", revision=999).SerializeToString()
    if method == "Range":
        methods.handlers[method](call, request)
    else:
        methods.handlers[method].message(call, request)
    questions: list[int] = []
    while not call.closed:
        net.run()
        taken = net.nodes[1].take()
        assert taken, "it waits for nothing"
        for asked in taken:
            if asked.method & ~SAID == Method.READ_INDEX:
                net.nodes[1].index(asked, 3, 9)
                continue
            questions.append(asked.method & ~SAID)
            if error is None:
                net.nodes[1].ok(asked, 9)
            else:
                net.nodes[1].answer(asked.rid, Status.ERROR, EtcdError(error).encode())
        net.run()
    told = error or errors.FUTURE_REV
    assert call.status == (told.code, told.text)
    assert questions == [Method.AUTH_SHOW]
