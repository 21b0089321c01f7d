"""A channel of musterctl notices a network that is dead, as the library does."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.interop.library.cutting import Cutting
from tests.unit.library.scripted import scripted, watched
from tools.client.channels import Config, opened


def test_a_watch_at_an_endpoint_that_stands_still_ends() -> None:
    """Within its keep-alive time and timeout: gRPC alone waits a minute for the answer to a ping."""
    going: list[int] = [1]

    def requests() -> Iterator[pb.WatchRequest]:
        yield pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"a"))
        while going:
            time.sleep(0.01)

    with scripted({"Watch/Watch": watched}) as address:
        proxy = Cutting(address, lambda n: (None, None))
        channel = opened(Config((proxy.address,), keepalive_ms=500, keepalive_timeout_ms=500), proxy.address)
        try:
            answers = channel.stream_stream(
                "/etcdserverpb.Watch/Watch", request_serializer=pb.WatchRequest.SerializeToString,
                response_deserializer=pb.WatchResponse.FromString)(requests(), timeout=30)
            assert next(answers).created
            proxy.stall()
            began = time.monotonic()
            with pytest.raises(grpc.RpcError) as met:
                next(answers)
            assert met.value.code() is grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - began < 10
        finally:
            going.clear()
            channel.close()
            proxy.close()
