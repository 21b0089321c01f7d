"""A connection of musterctl notices a network that is dead, by its own times."""

from __future__ import annotations

import time

import grpc
import pytest
from muster_client.wire.http2.answers import CallError

from cluster.pb import rpc_pb2 as pb
from tests.interop.library.cutting import Cutting
from tests.unit.library.scripted import scripted, watched
from tools.client.channels import Config
from tools.musterctl.client import Client


def test_a_watch_at_an_endpoint_that_stands_still_ends() -> None:
    """Within its keep-alive time and timeout."""
    with scripted({"Watch/Watch": watched}) as address:
        proxy = Cutting(address, lambda n: (None, None))
        config = Config((proxy.address,), keepalive_ms=500, keepalive_timeout_ms=500)
        client = Client(config, config.endpoints)
        try:
            stream = client.stream("Watch/Watch", pb.WatchResponse)
            stream.send(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"a")))
            created = stream.read(30)
            assert created is not None
            assert created.created
            proxy.stall()
            began = time.monotonic()
            with pytest.raises(CallError) as met:
                stream.read(30)
            assert met.value.code is grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - began < 10
        finally:
            client.close()
            proxy.close()
