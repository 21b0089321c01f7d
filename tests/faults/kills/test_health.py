"""/health after all hosts died at once, on a busy machine: it says what a client's linearizable read would
meet."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.faults.hosts import Hosts, three_hosts
from tests.tries import best_of_three, within

ROUNDS = 3
LIMIT_S = 60.0
MARGIN_S = 1.0  # of a busy machine, between the answer to a read and the one to the question for health


def health(endpoint: tuple[str, int]) -> bool:
    """What /health says; False while nobody listens."""
    try:
        with urllib.request.urlopen("http://{}:{}/health".format(*endpoint), timeout=10) as answer:
            return bool(json.load(answer)["health"] == "true")
    except (OSError, urllib.error.HTTPError):
        return False


def readable_s(endpoint: tuple[str, int], began: float) -> float:
    """When a linearizable read was answered first."""
    while True:
        assert time.monotonic() - began < LIMIT_S, "no read was answered"
        with grpc.insecure_channel("{}:{}".format(*endpoint)) as channel:
            read = channel.unary_unary(
                "/etcdserverpb.KV/Range", pb.RangeRequest.SerializeToString, pb.RangeResponse.FromString
            )
            try:
                read(pb.RangeRequest(key=b"health"), timeout=10)
                return time.monotonic() - began
            except grpc.RpcError:
                time.sleep(0.02)


def healthy_s(endpoint: tuple[str, int], began: float) -> float:
    """When /health was true first."""
    while not health(endpoint):
        assert time.monotonic() - began < LIMIT_S, "never healthy"
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.longer
@pytest.mark.timeout(300)
@best_of_three
def test_health_is_true_as_soon_as_reads_are_answered(tmp_path: Path) -> None:
    def measure(hosts: Hosts) -> list[tuple[float, float]]:
        began = time.monotonic()
        with ThreadPoolExecutor(6) as pool:
            reads = [pool.submit(readable_s, e, began) for e in hosts.endpoints]
            healths = [pool.submit(healthy_s, e, began) for e in hosts.endpoints]
            return [(r.result(), h.result()) for r, h in zip(reads, healths, strict=True)]

    with three_hosts(Path(tempfile.mkdtemp(dir=tmp_path)) / "c") as hosts:
        for _ in range(ROUNDS):
            hosts.kill(0, 1, 2)
            busy = [
                subprocess.Popen([sys.executable, "-c", "while True: pass"])
                for _ in range(multiprocessing.cpu_count())
            ]
            try:
                hosts.start(0, 1, 2, wait_s=0)
                found = measure(hosts)
            finally:
                for process in busy:
                    process.kill()
                    process.wait()
            print(
                "by host, first read and first health:", ", ".join(f"{r:.2f} {h:.2f} s" for r, h in found),
                flush=True,
            )
            assert all(health(e) for e in hosts.endpoints)
            within(max(h - r for r, h in found), MARGIN_S, "from the first read to the first health it")
