"""The guard: its bounds, what it judges, and what it counts of processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from bench.guard import bounds, check, traced
from bench.guard.bounds import BOUNDS
from bench.guard.events import Events
from bench.load import run
from bench.load.spec import Spec

#: Reads a line, works, and says that it did, for each line.
WORKER = """
import os, sys
def work(n):
    total = 0
    for i in range(n):
        total += i
    return total
for line in sys.stdin:
    for _ in range(int(line)):
        os.getppid()
        work(10)
    print(flush=True)
"""


def tries(factor: float, **change: float) -> dict[str, list[dict[str, float]]]:
    """Of each load one at so much of what was recorded, and one far above."""
    return {load: [{b.what: b.seen * factor for b in of_it} | change, {b.what: b.most * 9 + 1 for b in of_it}]
            for load, of_it in BOUNDS.items()}


def test_the_best_try_counts() -> None:
    assert all(row["passed"] for row in check._judge(tries(1.0)))
    assert all(row["passed"] for row in check._judge(tries(0.5)))


def test_growth_above_three_percent_fails_where_counts_repeat_and_only_there() -> None:
    failed = {(row["load"], row["what"]) for row in check._judge(tries(1.031)) if not row["passed"]}
    assert failed == {(load, b.what) for load, of_it in BOUNDS.items() for b in of_it if not b.why}


def test_what_is_not_counted_fails_by_name() -> None:
    missing = tries(1.0)
    for one in missing["put, 1 client"]:
        del one["log_entries"]
    rows = [row for row in check._judge(missing) if not row["passed"]]
    assert [(row["load"], row["what"], row["value"]) for row in rows] == [
        ("put, 1 client", "log_entries", None)]
    assert all(row["passed"] for row in check._judge(missing, {"log_entries": "no counter here"}))
    assert check._judge({}) == []


def test_a_bound_that_is_wider_than_growth_says_why_and_is_not_wide_without_end() -> None:
    for load, of_it in BOUNDS.items():
        assert len({bound.what for bound in of_it}) == len(of_it)
        for bound in of_it:
            assert bound.seen < bound.most, (load, bound)
            if not bound.why:
                assert bound.most == pytest.approx(bounds.GROWTH * bound.seen)
            assert bound.most <= (2.1 * bound.seen if bound.seen >= 0.05 else 3.5 * bound.seen + 0.01)


def test_each_kind_of_request_has_bounds_alone_and_in_a_crowd() -> None:
    specs = check._specs(["a:1"], check.PUTS)
    assert set(specs) <= set(BOUNDS)
    assert {load.partition(f", {check.SHARDS} shards")[0] for load in BOUNDS} == set(specs)
    kinds = {"put", "range", "txn", "keep-alive", "watched event"}
    assert {load.partition(",")[0] for load in specs} == kinds
    for load in specs:
        whats = {bound.what for bound in BOUNDS[load]}
        assert {"client_sent", "client_received", "peer_bytes", "node_frames", "syscalls", "lines",
                "cpu_loops"} <= whats


class _Counted:
    """A cluster whose counts are so much in turn, as a wait and a load begin and end."""

    def __init__(self, *counts: float) -> None:
        self._counts = iter(counts)

    def begin(self) -> dict[str, float]:
        return {"log_entries": next(self._counts)}

    end = begin


@pytest.mark.parametrize("counts", [(0, 3, 3, 303, 303, 303), (0, 0, 0, 300, 300, 303)],
                         ids=["before", "after"])
def test_an_entry_that_comes_once_beside_a_load_is_no_rate(
    counts: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def loaded(_spec: Spec) -> dict[str, Any]:
        return {"errors": {}, "operations": 100}

    monkeypatch.setattr(check, "_IDLE_S", 0.001)
    monkeypatch.setattr(run, "run", loaded)
    cluster = cast("check._Cluster", _Counted(*counts))
    work = asyncio.run(check._work(cluster, check._specs(["a:1"], 100)["put, 1 client"]))
    assert work["log_entries"] == 3.0


def worker(**environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            env={**os.environ, **environment})


def do(process: subprocess.Popen[bytes], times: int) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"%d\n" % times)
    process.stdin.flush()
    assert process.stdout.readline() == b"\n"


def test_system_calls_of_a_process_are_counted_and_waits_are_not() -> None:
    with worker() as process, Events([process.pid]) as events:
        if "syscalls" in events.missing:
            process.kill()
            pytest.skip(f"system calls are not counted here: {events.missing['syscalls']}")
        do(process, 1)
        before = events.read()["syscalls"]
        do(process, 1000)
        assert 1000 <= events.read()["syscalls"] - before <= 1010
        process.kill()


def test_what_a_machine_cannot_count_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    with Events([os.getpid()]) as events:
        assert events.read() == {}
        assert events.missing["instructions"] == "perf_event_open is not known on pdp11"


def test_lines_of_a_process_are_counted_and_repeat(tmp_path: Path) -> None:
    (site := tmp_path / "site").mkdir()
    (counts := tmp_path / "counts").mkdir()
    shutil.copyfile(traced.__file__, site / "sitecustomize.py")
    found = []
    with worker(PYTHONPATH=str(site), **{traced.FOLDER: str(counts)}) as process:
        for times in (1, 100, 100, 300):
            before = traced.read(str(counts))
            do(process, times)  # its last lines may come behind its answer: a few of thousands
            found.append(traced.read(str(counts)) - before)
        process.kill()
    assert found[2] == pytest.approx(found[1], abs=5)
    assert found[3] - found[1] == pytest.approx(200 * 26, abs=5)  # 3 lines of a turn, and work's 23
