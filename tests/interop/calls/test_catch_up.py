"""Watches beside large answers. Of the past, large values come in one answer, as from etcd, whatever their
size. Those who take no such answer ask for fragments."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.interop.hosts import Hosts, unary

_VALUE = b"v" * (1 << 20)
_COUNT = 10
_DEFAULT_BYTES = 4 << 20  # what a client in Python takes unless told otherwise
_MESSAGE_BYTES = 1_572_864 + 524_288  # what a server takes, and about what it sends
_LIMIT_S = 60.0

pytestmark = pytest.mark.interop


@pytest.fixture
def channel(hosts: Hosts) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(hosts.endpoints[0], options=options) as channel:
        yield channel


def _watched(channel: grpc.Channel, prefix: bytes, start: int, fragment: bool) -> list[Any]:
    """The answers with events, until all have come."""
    request = pb.WatchCreateRequest(
        key=prefix, range_end=prefix + b"\xff", start_revision=start, fragment=fragment
    )
    call = channel.stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=pb.WatchResponse.FromString,
    )(iter([pb.WatchRequest(create_request=request)]), timeout=_LIMIT_S)
    found: list[Any] = []
    for answer in call:
        if answer.events:
            found.append(answer)
        if sum(len(one.events) for one in found) == _COUNT:
            break
    call.cancel()
    return found


def test_large_values_of_the_past_come_at_once_or_in_fragments(hosts: Hosts, channel: grpc.Channel) -> None:
    put = unary(channel, "KV/Put", pb.PutResponse)
    revisions = [
        put(pb.PutRequest(key=b"past/%d" % i, value=_VALUE), timeout=_LIMIT_S).header.revision
        for i in range(_COUNT)
    ]
    (whole,) = _watched(channel, b"past/", revisions[0], fragment=False)
    assert [event.kv.mod_revision for event in whole.events] == revisions
    assert not whole.fragment
    split = _watched(channel, b"past/", revisions[0], fragment=True)
    assert [event.kv.mod_revision for answer in split for event in answer.events] == revisions
    assert all(answer.ByteSize() <= _MESSAGE_BYTES for answer in split)
    assert [answer.fragment for answer in split] == [True] * (len(split) - 1) + [False]
    with grpc.insecure_channel(hosts.endpoints[0]) as small:
        with pytest.raises(grpc.RpcError, match=f"larger than max .* vs. {_DEFAULT_BYTES}"):
            _watched(small, b"past/", revisions[0], fragment=False)
        split = _watched(small, b"past/", revisions[0], fragment=True)
        assert sum(len(answer.events) for answer in split) == _COUNT


def test_a_revision_is_whole_unless_fragments_are_asked_for(channel: grpc.Channel) -> None:
    op, size = pb.RequestOp, 300 << 10
    put = unary(channel, "KV/Txn", pb.TxnResponse)
    revisions = [
        put(
            pb.TxnRequest(
                success=[op(request_put=pb.PutRequest(key=b"split/%d" % i, value=b"v" * size)) for i in some]
            ),
            timeout=_LIMIT_S,
        ).header.revision
        for some in (range(5), range(5, 10))
    ]
    whole = _watched(channel, b"split/", revisions[0], fragment=False)
    of_answers = [{event.kv.mod_revision for event in answer.events} for answer in whole]
    assert sum(map(len, of_answers)) == len(revisions), "no revision in two answers"
    split = _watched(channel, b"split/", revisions[0], fragment=True)
    told = [event.kv.mod_revision for answer in split for event in answer.events]
    assert [(revision, len(list(some))) for revision, some in groupby(told)] == [(r, 5) for r in revisions]
    assert [answer.fragment for answer in split][-1] is False
