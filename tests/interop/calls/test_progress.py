"""Progress requests, as Kubernetes' consistent lists from a cache use them; MUSTER_INTEROP_SERVER=etcd tries
etcd.

The list asks for the store's revision, then for the progress of its watch until that is as far, with no other
write to push it.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.interop.hosts import Hosts, unary

pytestmark = pytest.mark.interop

LIMIT_S = 60.0
ROUNDS = 100


class Watching:
    """A stream with two watches of everything below a prefix."""

    def __init__(self, channel: grpc.Channel, prefix: bytes) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        call = channel.stream_stream(
            "/etcdserverpb.Watch/Watch", request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )
        self._responses = call(iter(self._requests.get, None), timeout=120)
        self.newest = [0, 0]  # revision of the last event, by watch
        for _ in self.newest:
            create = pb.WatchCreateRequest(key=prefix, range_end=prefix[:-1] + bytes([prefix[-1] + 1]))
            self._requests.put(pb.WatchRequest(create_request=create))
            while not (response := next(self._responses)).created:  # an event of the first may be on its way
                self._take(response)

    def ask(self) -> int:
        """The revision of the answer to a progress request; all events before it are taken."""
        self._requests.put(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
        while True:
            response = next(self._responses)
            if response.watch_id == -1:
                return int(response.header.revision)
            self._take(response)

    def _take(self, response: Any) -> None:
        self.newest[response.watch_id] = response.events[-1].kv.mod_revision

    def end(self) -> None:
        self._requests.put(None)


@contextlib.contextmanager
def watching(endpoint: str, prefix: bytes) -> Iterator[tuple[Watching, Any]]:
    """A stream, and puts on the same endpoint."""
    with grpc.insecure_channel(endpoint) as channel:
        stream = Watching(channel, prefix)
        yield stream, unary(channel, "KV/Put", pb.PutResponse)
        stream.end()


@pytest.mark.parametrize("host", range(3))
def test_progress_is_not_older_than_a_put_that_the_same_endpoint_has_acknowledged(
    hosts: Hosts, host: int
) -> None:
    with watching(hosts.endpoints[host], b"/progress/") as (stream, put):
        behind = 0
        for i in range(ROUNDS):
            revision = put(
                pb.PutRequest(key=b"/progress/%d/x" % i, value=b"1"), timeout=LIMIT_S
            ).header.revision
            told = stream.ask()
            behind += told < revision
            assert min(stream.newest) >= revision or told < revision, "an event up to the progress is missing"
        assert behind == 0, f"{behind} of {ROUNDS} answers are older than a put acknowledged before"


def test_progress_soon_reaches_a_put_through_another_endpoint_without_another_write(hosts: Hosts) -> None:
    for other in range(3):
        with (watching(hosts.endpoints[(other + 1) % 3], b"/progress/") as (stream, _),
              grpc.insecure_channel(hosts.endpoints[other]) as channel):
            for i in range(10):
                revision = unary(channel, "KV/Put", pb.PutResponse)(
                    pb.PutRequest(key=b"/progress/%d/y" % i, value=b"1"), timeout=LIMIT_S).header.revision
                deadline = time.monotonic() + LIMIT_S
                while stream.ask() < revision:
                    assert time.monotonic() < deadline, "the progress never reaches the put"
                assert min(stream.newest) >= revision
