"""grpcio without any etcd client: metadata, deadlines, compression, and requests during an election."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import until
from tests.interop.hosts import ETCD, Hosts, answers, unary
from tests.tries import best_of_three, within

pytestmark = pytest.mark.interop

LIMIT_S = 60.0


@pytest.fixture
def channels(hosts: Hosts) -> Iterator[list[grpc.Channel]]:
    """One to each host."""
    opened = [grpc.insecure_channel(endpoint) for endpoint in hosts.endpoints]
    yield opened
    for channel in opened:
        channel.close()


def put(channel: grpc.Channel) -> Callable[..., Any]:
    return unary(channel, "KV/Put", pb.PutResponse)


def get(channel: grpc.Channel) -> Callable[..., Any]:
    return unary(channel, "KV/Range", pb.RangeResponse)


def test_a_host_that_knows_a_leader_serves_who_insists_on_one(channels: list[grpc.Channel]) -> None:
    for channel in channels:
        metadata = (("hasleader", "true"),)
        answer = put(channel)(pb.PutRequest(key=b"/grpcio/h", value=b"1"), metadata=metadata, timeout=LIMIT_S)
        assert answer.header.revision > 1
        assert get(channel)(pb.RangeRequest(key=b"/grpcio/h"), metadata=metadata, timeout=LIMIT_S).count == 1


@best_of_three
def test_a_host_alone_refuses_who_insists_on_a_leader_and_keeps_others_to_their_deadline(
    hosts: Hosts, channels: list[grpc.Channel]
) -> None:
    left = hosts.leader()
    channel = channels[left]
    put(channel)(pb.PutRequest(key=b"/grpcio/h", value=b"1"), timeout=LIMIT_S)
    hosts.kill(*(host for host in range(3) if host != left))

    def refusal(**more: Any) -> grpc.RpcError | None:
        try:
            put(channel)(pb.PutRequest(key=b"/grpcio/alone"), **more)
        except grpc.RpcError as error:
            return error
        return None

    deadline = time.monotonic() + LIMIT_S
    while True:  # until it has noticed that it leads nobody
        error = refusal(metadata=(("hasleader", "true"),), timeout=2)
        assert error is not None, "a put was acknowledged by one host of three"
        if error.code() == grpc.StatusCode.UNAVAILABLE and error.details() == "etcdserver: no leader":
            break
        assert time.monotonic() < deadline, error
    began = time.monotonic()
    error = refusal(timeout=1)
    assert error is not None
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    took_s = time.monotonic() - began
    assert took_s > 0.9
    found = get(channel)(pb.RangeRequest(key=b"/grpcio/h", serializable=True), timeout=LIMIT_S)
    assert found.header.revision > 1  # a serializable read needs nobody
    hosts.mend()
    assert refusal(timeout=LIMIT_S) is None
    within(took_s, 2.0)


def test_requests_wait_for_an_election_and_are_answered(hosts: Hosts, channels: list[grpc.Channel]) -> None:
    leader = hosts.leader()
    others = [i for i in range(3) if i != leader]
    for i in others:  # connected before the leader goes
        put(channels[i])(pb.PutRequest(key=b"/grpcio/e", value=b"before"), timeout=LIMIT_S)

    def attempt(channel: grpc.Channel, name: bytes) -> tuple[bytes, grpc.StatusCode | None, float]:
        began = time.monotonic()
        try:
            put(channel)(pb.PutRequest(key=b"/grpcio/e/" + name, value=b"x"), timeout=LIMIT_S)
        except grpc.RpcError as error:
            return name, error.code(), time.monotonic() - began
        return name, None, time.monotonic() - began

    with ThreadPoolExecutor(40) as pool:
        killing = pool.submit(hosts.kill, leader)
        asked: list[Future[tuple[bytes, grpc.StatusCode | None, float]]] = []
        while not killing.done():  # some before the kill, some after
            for i in others:
                asked.append(pool.submit(attempt, channels[i], b"%d" % len(asked)))
            time.sleep(0.02)
        killing.result()
        for i in others:  # a host that has answered since has seen its link end: no put enters a dead one
            for _ in range(2):
                get(channels[i])(pb.RangeRequest(key=b"/grpcio/e", serializable=True), timeout=LIMIT_S)
        for i in others * 5:
            asked.append(pool.submit(attempt, channels[i], b"%d" % len(asked)))
        found = [future.result() for future in asked]
    # what the old leader had taken may be of unknown fate; whatever came after it waited for the next one
    assert {code for _, code, _ in found} <= {None, grpc.StatusCode.UNAVAILABLE}
    if not ETCD:  # which drops proposals while there is no leader
        assert [code for _, code, _ in found[-10:]] == [None] * 10
    assert max(seconds for _, _, seconds in found) < LIMIT_S
    for name, code, _ in found:
        if code is None:
            for i in others:
                assert get(channels[i])(pb.RangeRequest(key=b"/grpcio/e/" + name), timeout=LIMIT_S).count == 1


def test_a_read_waits_for_an_election_and_sees_what_was_acknowledged(
    hosts: Hosts, channels: list[grpc.Channel]
) -> None:
    leader = hosts.leader()
    reader = channels[(leader + 1) % 3]
    for i in range(50):
        put(channels[leader])(pb.PutRequest(key=b"/grpcio/last", value=b"%d" % i), timeout=LIMIT_S)
    hosts.kill(leader)
    request = pb.RangeRequest(key=b"/grpcio/last")
    if ETCD:  # whose reads may fail while there is no leader
        until(lambda: answers(hosts.endpoints[(leader + 1) % 3]))
    found = get(reader)(request, timeout=LIMIT_S)
    assert found.kvs[0].value == b"49"


@pytest.mark.parametrize("host", range(3))
def test_compressed_requests_are_understood(channels: list[grpc.Channel], hosts: Hosts, host: int) -> None:
    value = b"compressible " * 5000
    with grpc.insecure_channel(hosts.endpoints[host], compression=grpc.Compression.Gzip) as channel:
        put(channel)(pb.PutRequest(key=b"/grpcio/z", value=value), timeout=LIMIT_S)
        assert get(channel)(pb.RangeRequest(key=b"/grpcio/z"), timeout=LIMIT_S).kvs[0].value == value
    assert (
        get(channels[(host + 1) % 3])(pb.RangeRequest(key=b"/grpcio/z"), timeout=LIMIT_S).kvs[0].value
        == value
    )


def test_compressed_watch_requests_are_understood(hosts: Hosts) -> None:
    requests: queue.Queue[Any] = queue.Queue()
    with grpc.insecure_channel(hosts.endpoints[0], compression=grpc.Compression.Gzip) as channel:
        watch = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.WatchResponse.FromString,
        )(iter(requests.get, None), timeout=LIMIT_S)
        requests.put(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"/grpcio/zw", prev_kv=True)))
        assert next(watch).created
        put(channel)(pb.PutRequest(key=b"/grpcio/zw", value=b"1"), timeout=LIMIT_S)
        assert next(watch).events[0].kv.value == b"1"
        watch.cancel()
        requests.put(None)


def test_every_watch_of_a_stream_gets_its_own_response_to_an_event(channels: list[grpc.Channel]) -> None:
    """400 responses of 3 kB leave in a few frames, and do not fit the client's window at once."""
    watches, value = 400, b"v" * 3_000
    requests: queue.Queue[Any] = queue.Queue()
    stream = channels[0].stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=pb.WatchResponse.FromString,
    )(iter(requests.get, None), timeout=LIMIT_S)
    for number in range(watches):
        filters = [pb.WatchCreateRequest.NOPUT] if number % 10 == 9 else []
        requests.put(
            pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"/grpcio/many", filters=filters))
        )
    assert sorted(next(stream).watch_id for _ in range(watches)) == list(range(watches))
    revisions = [
        put(channels[0])(pb.PutRequest(key=b"/grpcio/many", value=value), timeout=LIMIT_S).header.revision
        for _ in range(2)
    ]
    got: dict[int, list[int]] = {}
    for _ in range(2 * watches * 9 // 10):
        response = next(stream)
        (event,) = response.events
        assert event.kv.value == value
        assert response.header.revision == event.kv.mod_revision
        got.setdefault(response.watch_id, []).append(event.kv.mod_revision)
    assert got == {number: revisions for number in range(watches) if number % 10 != 9}
    stream.cancel()
    requests.put(None)


def test_a_method_that_does_not_exist_is_unimplemented(channels: list[grpc.Channel]) -> None:
    for channel in channels:
        for method in ("KV/Nothing", "Nothing/At", "KV/put"):
            with pytest.raises(grpc.RpcError) as refused:
                unary(channel, method, pb.PutResponse)(pb.PutRequest(key=b"k"), timeout=LIMIT_S)
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_health_is_checked_listed_and_watched(channels: list[grpc.Channel]) -> None:
    """Answers are etcd 3.7's, to the byte; 3.5.1 has no List."""
    serving = b"\x08\x01"
    for channel in channels:
        health = "/grpc.health.v1.Health/"
        assert channel.unary_unary(health + "Check")(b"", timeout=LIMIT_S) == serving
        assert channel.unary_unary(health + "List")(b"", timeout=LIMIT_S) == b"\n\x06\n\x00\x12\x02" + serving
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(health + "Check")(b"\n\x01x", timeout=LIMIT_S)
        assert (refused.value.code(), refused.value.details()) == (
            grpc.StatusCode.NOT_FOUND, "unknown service")  # fmt: skip
        for request, status in ((b"", serving), (b"\n\x01x", b"\x08\x03")):
            watch = channel.unary_stream(health + "Watch")(request, timeout=LIMIT_S)
            assert next(watch) == status
            watch.cancel()


def test_a_cancelled_watch_does_not_hold_up_the_rest_of_its_connection(channels: list[grpc.Channel]) -> None:
    channel = channels[0]
    for _ in range(20):
        requests: queue.Queue[Any] = queue.Queue()
        watch = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.WatchResponse.FromString,
        )(iter(requests.get, None))
        requests.put(
            pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"/grpcio/", range_end=b"/grpcio0"))
        )
        assert next(watch).created
        watch.cancel()
        requests.put(None)
        put(channel)(pb.PutRequest(key=b"/grpcio/c", value=b"1"), timeout=LIMIT_S)


def test_many_calls_at_once_on_one_connection(channels: list[grpc.Channel]) -> None:
    done = threading.Semaphore(0)
    failures: list[Any] = []

    def finished(call: Any) -> None:
        if call.code() != grpc.StatusCode.OK:
            failures.append((call.code(), call.details()))
        done.release()

    call = channels[1].unary_unary(
        "/etcdserverpb.KV/Put",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=pb.PutResponse.FromString,
    )
    for i in range(2000):
        call.future(pb.PutRequest(key=b"/grpcio/m/%d" % i, value=b"v"), timeout=LIMIT_S).add_done_callback(
            finished
        )
    for _ in range(2000):
        assert done.acquire(timeout=LIMIT_S)
    assert failures == []
    counted = get(channels[2])(
        pb.RangeRequest(key=b"/grpcio/m/", range_end=b"/grpcio/m0", count_only=True), timeout=LIMIT_S
    )
    assert counted.count == 2000
