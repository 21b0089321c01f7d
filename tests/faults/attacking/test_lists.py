"""Watches beside long lists: it measures, and has the machine to itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.interop.hosts import three_hosts, unary
from tests.tries import best_of_three, within

_LIMIT_S = 60.0
_READERS, _EVENTS, _DELAY_S = 10, 40, 0.15  # as in etcd's TestWatchDelayForEvent


def _read_lists(endpoint: str, over: threading.Event) -> None:
    """A megabyte at a time, one answer after the other; nothing of it is parsed."""
    with grpc.insecure_channel(endpoint, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        get = channel.unary_unary(
            "/etcdserverpb.KV/Range", request_serializer=lambda message: message.SerializeToString()
        )
        while not over.is_set():
            get(pb.RangeRequest(key=b"lists/", range_end=b"lists0"), timeout=_LIMIT_S)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with three_hosts(tmp_path_factory.mktemp("lists")) as hosts:
        yield hosts.endpoints[0]


@pytest.mark.soak  # ten readers in Python take a CPU for themselves: not on a machine that others use
@best_of_three
def test_events_come_within_150_ms_beside_lists_of_a_megabyte(endpoint: str) -> None:
    with grpc.insecure_channel(endpoint) as channel:
        _measure(endpoint, unary(channel, "KV/Put", pb.PutResponse))


def _measure(endpoint: str, put: Callable[..., Any]) -> None:
    for number in range(100):
        put(pb.PutRequest(key=b"lists/%d" % number, value=b"v" * 10_000), timeout=_LIMIT_S)
    over = threading.Event()
    readers = [threading.Thread(target=_read_lists, args=(endpoint, over)) for _ in range(_READERS)]
    took: list[float] = []
    with grpc.insecure_channel(endpoint, options=[("grpc.use_local_subchannel_pool", 1)]) as watching:
        request = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"beside"))
        call = watching.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.WatchResponse.FromString,
        )(iter([request]), timeout=_LIMIT_S)
        assert next(call).created
        try:
            for reader in readers:
                reader.start()
            for _ in range(_EVENTS):
                began = time.monotonic()
                put(pb.PutRequest(key=b"beside"), timeout=_LIMIT_S)
                assert len(next(call).events) == 1
                took.append(time.monotonic() - began)
        finally:
            over.set()
            for reader in readers:
                reader.join(_LIMIT_S)
            call.cancel()
    within(sorted(took)[_EVENTS * 9 // 10], _DELAY_S, "nine of ten events")
