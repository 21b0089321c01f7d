"""The verdict of ``check perf``."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import grpc
import pytest
from muster_client.pb import rpc_pb2

from tests.unit.library.scripted import scripted
from tools.musterctl.client import Client, Config
from tools.musterctl.commands.data.check import Load, Measured, drive, verdict

_LOAD = Load(puts_per_s=100, clients=10)


def test_a_fast_cluster_passes() -> None:
    lines, passed = verdict(_LOAD, Measured([0.01] * 990, {}, 10.0))
    assert passed
    assert lines == [
        "PASS: Throughput is 100 writes/s",
        "PASS: Slowest request took 0.010000s",
        "PASS: Stddev is 0.000000s",
        "PASS",
    ]


def test_each_shortcoming_fails_by_itself() -> None:
    assert verdict(_LOAD, Measured([0.01] * 900, {}, 10.0)) == (
        [
            "FAIL: Throughput too low: 91 writes/s",
            "PASS: Slowest request took 0.010000s",
            "PASS: Stddev is 0.000000s",
            "FAIL",
        ],
        False,
    )
    slow, passed = verdict(_LOAD, Measured([0.01] * 999 + [0.6], {}, 10.0))
    assert not passed
    assert "Slowest request took too long: 0.600000s" in slow
    uneven, passed = verdict(_LOAD, Measured([0.0, 0.4] * 500, {}, 10.0))
    assert not passed
    assert "Stddev too high: 0.200000s" in uneven
    failed, passed = verdict(_LOAD, Measured([0.01] * 1000, {"boom": 2}, 10.0))
    assert not passed
    assert failed[:2] == ["FAIL: too many errors", "FAIL: ERROR(boom) -> 2"]


def test_nothing_done_is_a_failure_not_an_error() -> None:
    lines, passed = verdict(_LOAD, Measured())
    assert not passed
    assert lines[0] == "FAIL: Throughput too low: 1 writes/s"


@pytest.mark.parametrize("endpoints", [1, 2])
def test_servers_that_went_away_end_it_with_errors_instead_of_holding_it_for_ever(endpoints: int) -> None:
    """Listening but never answering, as a machine that was frozen."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(endpoints)]
    config = Config((), True, "", "", "", "", "", 10_000, 6_000)
    client = Client(config, tuple(f"127.0.0.1:{s.getsockname()[1]}" for s in sockets))
    started = time.monotonic()
    measured = drive(client, Load(puts_per_s=100, clients=3), b"/check/", 1.0, 0.4, threading.Event())
    assert time.monotonic() - started < 60
    assert measured.latencies_s == []
    assert set(measured.errors) == {"context deadline exceeded"}
    client.close()
    for s in sockets:
        s.close()


@pytest.mark.parametrize("refused", ["", "etcdserver: permission denied"])
def test_an_interrupted_one_deletes_its_keys_and_tells_what_it_measured(refused: str) -> None:
    """Also where it cannot delete them."""
    began = threading.Event()
    deleted: list[bytes] = []

    def put(request: rpc_pb2.PutRequest, context: Any) -> rpc_pb2.PutResponse:
        began.set()
        return rpc_pb2.PutResponse()

    def delete(request: rpc_pb2.DeleteRangeRequest, context: grpc.ServicerContext) -> Any:
        deleted.append(request.key)
        if refused:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, refused)
        return rpc_pb2.DeleteRangeResponse()

    methods = {"KV/Range": lambda *_: rpc_pb2.RangeResponse(), "KV/Put": put, "KV/DeleteRange": delete}
    with scripted(methods) as address:
        line = [sys.executable, "-m", "tools.musterctl", "--endpoints", address, "check", "perf"]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert began.wait(30)
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=50)
    lines = out.splitlines()
    assert (process.returncode, lines[-1], said) in ((0, "PASS", ""), (1, "FAIL", ""))
    assert any("Throughput" in line for line in lines)
    failure = f"FAIL: Cleanup failed during key deletion: ERROR({refused})"
    assert (deleted, failure in lines) == ([b"/etcdctl-check-perf/"], bool(refused))
