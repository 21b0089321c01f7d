"""Ports of tests that run side by side."""

from __future__ import annotations

import subprocess
import sys

from bench.systems.systems import _PORTS
from tests.cluster.local_cluster import ROOT
from tests.ports import _END, _FIRST, _block, free_base_port, free_ports

_ASK = "from tests.ports import _block; b = _block(); print(b.start, b.stop, flush=True); input()"


def test_processes_that_run_side_by_side_choose_from_different_ports() -> None:
    line, pipe = [sys.executable, "-c", _ASK], subprocess.PIPE
    others = [subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) for _ in range(2)]
    blocks = [_block()]
    for other in others:
        assert other.stdout is not None
        blocks.append(range(*map(int, other.stdout.readline().split())))
    for other in others:
        other.communicate("\n")
    assert all(set(one).isdisjoint(another) for at, one in enumerate(blocks) for another in blocks[:at])


def test_a_plan_of_ports_lies_in_the_block_whole() -> None:
    block = _block()
    for _ in range(50):
        assert free_base_port(5, 64) in block
        assert free_base_port(5, 64) + 464 in block
    found = free_ports(5)
    assert len(set(found)) == 5
    assert all(port in block for port in found)


def test_what_the_bench_chooses_for_etcd_lies_in_no_block() -> None:
    assert set(_PORTS).isdisjoint(range(_FIRST, _END))
