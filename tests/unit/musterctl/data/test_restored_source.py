"""A copy ends where its source is no more what was copied of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from muster_client.pb import rpc_pb2

from tests.unit.musterctl.data.clusters import EVERYTHING, Code, Ending, Store
from tools.client.channels import LOOK_S, Config
from tools.musterctl.command import Exit
from tools.musterctl.commands.data.copier import Copier


def end_of(source: Store, watched: Any, asked: Any) -> str:
    """What ends a copy that follows."""
    target = Store()
    with source.served({"Watch/Watch": watched, "KV/Range": asked}) as from_, target.served() as to:
        origin, client = (Ending(Config((name,)), (name,)) for name in (from_, to))
        try:
            copier = Copier(origin, client, EVERYTHING, 128, lambda key: key)
            copier.base()
            with pytest.raises(Exit) as ended:
                copier.follow()
        finally:
            client.close()
            origin.close()
    return str(ended.value)


@pytest.mark.parametrize(("restored", "failed", "end"), [
    (5, 0, "the source has no revision 10: if it was restored, begin again, with an empty store"),
    (5, 2, "the source has no revision 10: if it was restored, begin again, with an empty store"),
    (10, 0, "watch is canceled by the server"),  # a restart
])  # fmt: skip
def test_a_source_that_is_restored_to_something_older_ends_it(
    restored: int, failed: int, end: str
) -> None:
    """Its watch from the next revision on waits, and tells none of the changes below."""
    source, asked, failures = Store(a=b"1"), threading.Event(), [Code.INTERNAL] * failed
    streams: list[int] = []

    def watched(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[rpc_pb2.WatchResponse]:
        streams.append(next(requests).create_request.start_revision)
        yield rpc_pb2.WatchResponse(created=True)
        if len(streams) == 1:
            source.revision = restored
            context.abort(Code.UNAVAILABLE, "etcdserver: server stopped")
        if context.add_callback(asked.set):
            asked.wait(10)
        yield rpc_pb2.WatchResponse(canceled=True, cancel_reason="watch is canceled by the server")

    def read(request: rpc_pb2.RangeRequest, context: grpc.ServicerContext) -> rpc_pb2.RangeResponse:
        if streams and failures:
            context.abort(failures.pop(), "a balancer has lost it")
        answer = source._range(request, context)
        if streams and restored == 10:
            asked.set()
        return answer

    assert end in end_of(source, watched, read)
    assert streams[:2] == [11, 11]


def test_a_restore_behind_the_end_of_a_stream_is_seen_from_the_next_one_on() -> None:
    """What the source tells between the two is of before."""
    source, looked, seen, streams = Store(a=b"1"), threading.Event(), threading.Event(), [0]

    def watched(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[rpc_pb2.WatchResponse]:
        next(requests)
        streams[0] += 1
        if streams[0] > 1:
            looked.wait(3 * LOOK_S)  # as long as it cannot begin
            source.revision = 5
        yield rpc_pb2.WatchResponse(created=True)
        if streams[0] == 1:
            context.abort(Code.UNAVAILABLE, "etcdserver: server stopped")
        if context.add_callback(seen.set):
            seen.wait(10)
        yield rpc_pb2.WatchResponse(canceled=True, cancel_reason="nothing was seen")

    def read(request: rpc_pb2.RangeRequest, context: grpc.ServicerContext) -> rpc_pb2.RangeResponse:
        if streams[0] > 1:
            looked.set()
        return source._range(request, context)

    assert end_of(source, watched, read).startswith("the source has no revision 10")


@pytest.mark.parametrize(("cluster", "end"), [
    (1, "is compacted"), (0, "is compacted"), (2, "the source is another cluster now")])
def test_another_cluster_in_its_sources_place_ends_it(cluster: int, end: str) -> None:
    """It may be at a later revision."""
    source = Store(a=b"1")

    def watched(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[rpc_pb2.WatchResponse]:
        next(requests)
        header = rpc_pb2.ResponseHeader(cluster_id=cluster, revision=20)
        yield rpc_pb2.WatchResponse(created=True, header=header)
        yield rpc_pb2.WatchResponse(header=header)
        yield rpc_pb2.WatchResponse(header=header, canceled=True, cancel_reason="is compacted")

    def read(request: rpc_pb2.RangeRequest, context: grpc.ServicerContext) -> rpc_pb2.RangeResponse:
        answer = source._range(request, context)
        answer.header.cluster_id = 1
        return answer

    assert end in end_of(source, watched, read)
