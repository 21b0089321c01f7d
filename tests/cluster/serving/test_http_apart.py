"""A host with ``--listen-client-http-urls`` serves HTTP there and gRPC at its client URL, each alone."""

from __future__ import annotations

import http.client
import json
import urllib.request
from pathlib import Path

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import until
from tests.cluster.one_host import started
from tests.ports import free_ports

LIMIT_S = 60.0


@pytest.mark.timeout(300)
def test_http_and_grpc_have_listeners_of_their_own(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    flag = f"--listen-client-http-urls=http://127.0.0.1:{port}"
    with started(tmp_path / "data", 0, 1, flag, "--fronts=2") as host:
        until(host.leads)
        with grpc.insecure_channel(f"127.0.0.1:{host.port}") as channel:
            put = channel.unary_unary(
                "/etcdserverpb.KV/Put", pb.PutRequest.SerializeToString, pb.PutResponse.FromString
            )
            put(pb.PutRequest(key=b"a", value=b"1"), timeout=LIMIT_S, wait_for_ready=True)
        gateway = urllib.request.Request(f"http://127.0.0.1:{port}/v3/kv/range", b'{"key": "YQ=="}')
        with urllib.request.urlopen(gateway, timeout=LIMIT_S) as answer:
            assert [kv["value"] for kv in json.load(answer)["kvs"]] == ["MQ=="]
        for path in ("/health", "/metrics", "/version"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=LIMIT_S) as answer:
                assert answer.status == 200
        for path in ("/health", "/version"):
            client = http.client.HTTPConnection("127.0.0.1", host.port, timeout=LIMIT_S)
            client.request("GET", path)
            with pytest.raises(ConnectionError):
                client.getresponse()
            client.close()
