"""muster-bench beside etcd's benchmark tool: its report is read, and both are run on both systems."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bench.compare import go_tool
from bench.compare.loads import agree
from bench.compare.matrix import by_tool
from bench.load.run import RunError
from bench.load.spec import Spec
from bench.systems.systems import System
from tests.unit.bench.conftest import has_ended

REPORT = """
Summary:
  Total:\t2.0101 secs.
  Slowest:\t0.0551 secs.
  Fastest:\t0.0003 secs.
  Average:\t0.0041 secs.
  Stddev:\t0.0022 secs.
  Requests/sec:\t24378.9012

Response time histogram:
  0.0003 [1]\t|

Latency distribution:
  10% in 0.0020 secs.
  50% in 0.0035 secs.
  90% in 0.0080 secs.
  95% in 0.0100 secs.
  99% in 0.0121 secs.
  99.9% in 0.0300 secs.
"""


def test_the_report_of_etcds_tool_is_read() -> None:
    found = go_tool.parse(REPORT)
    latency = found["latency_ms"]
    assert (found["throughput_per_s"], found["duration_s"]) == (24378.9012, 2.0101)
    assert [latency[name] for name in ("mean", "p50", "p99", "p99.9", "max")] == pytest.approx(
        [4.1, 3.5, 12.1, 30.0, 55.1])
    short = REPORT.replace("  99.9% in 0.0300 secs.\n", "")
    assert go_tool.parse(short)["latency_ms"]["p99.9"] == pytest.approx(55.1)  # of few operations the slowest


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "did not say"),
        (REPORT + "\nError distribution:\n  [3]\tetcdserver: request timed out\n", "counted errors"),
    ],
)
def test_a_report_without_figures_or_with_errors_is_refused(said: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        go_tool.parse(said)


def test_each_cell_of_etcds_tool_has_a_command_line() -> None:
    lines = {cell.name: " ".join(go_tool.arguments(replace(cell.spec, endpoints=("a:1", "b:2")), 50))
             for cell in by_tool()}
    assert lines["tool-put-100"] == ("--endpoints=a:1,b:2 --conns=10 --clients=100 put --total=50 "
                                     "--key-size=8 --val-size=256 --key-space-size=10000")
    assert lines["tool-range-s-1"].endswith("range --total=50 00000001 --consistency=s")
    assert lines["tool-range-l-1"].endswith(" --consistency=l")
    assert lines["tool-lease-keepalive"].startswith("--endpoints=a:1 ")  # the leader's member
    for spec in (Spec("txn-put", ("a:1",)), Spec("range", ("a:1",))):
        with pytest.raises(ValueError, match="does not do the work"):
            go_tool.arguments(spec, 50)


def test_a_run_of_etcds_tool_is_as_long_as_its_last_rate_says(etcd: System, tmp_path: Path) -> None:
    tool, given = tmp_path / "benchmark", tmp_path / "given"
    tool.write_text(f"#!/bin/sh\necho $5 >>{given}\ncat <<'END'\n{REPORT}END\n")
    tool.chmod(0o755)
    spec = Spec("put", tuple(etcd.endpoints), duration_s=0.5)
    result = asyncio.run(go_tool.GoTool(tool).run(spec, "one", etcd.pids))
    assert given.read_text().split() == ["--total=100", "--total=12189"]
    assert (result["operations"], result["throughput_per_s"]) == (12189, 24378.9012)
    assert [process["name"] for process in result["server"]["processes"]] == ["etcd"]
    tool.write_text("#!/bin/sh\necho no server >&2\nexit 3\n")
    with pytest.raises(RunError, match="code 3: no server"):
        asyncio.run(go_tool.GoTool(tool).run(spec, "one", etcd.pids))


@pytest.mark.parametrize("script", ["exec timeout 900 sleep 600", "timeout 900 sleep 600 & wait"])
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_tool_that_does_not_end_is_ended_with_all_that_it_started(
    script: str, cancelled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(go_tool, "_LIMIT_S", 60.0 if cancelled else 5.0)
    tool = tmp_path / "benchmark"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)

    started: list[psutil.Process] = []

    async def scenario() -> None:
        running = asyncio.ensure_future(go_tool.GoTool(tool).total(Spec("put", ("127.0.0.1:1",)), 1))
        while not running.done() and not (found := [
                child for child in psutil.Process().children(recursive=True) if child.name() == "sleep"]):
            await asyncio.sleep(0.01)
        started.extend(found)
        await asyncio.sleep(0.5)  # its pipes are connected
        if cancelled:
            running.cancel()
        async with asyncio.timeout(20):
            await running

    with pytest.raises(asyncio.CancelledError if cancelled else RunError):
        asyncio.run(scenario())
    assert started
    assert all(has_ended(process) for process in started)


def test_both_tools_take_their_turns_and_the_ratios_are_told(etcd: System, tmp_path: Path) -> None:
    tool = tmp_path / "benchmark"
    tool.write_text("#!/bin/sh\ncat <<'END'\n" + REPORT + "END\n")
    tool.chmod(0o755)
    names = [f"{name}={','.join(etcd.endpoints)}" for name in ("one", "other")]
    result = agree.measure(
        tool, names, [1], rounds=1, duration_s=0.2, data_dir=tmp_path, said=lambda line: None
    )
    assert [row["work"] for row in result["rows"]] == ["put", "range-l", "range-s"]
    for row in result["rows"]:
        theirs, ours = row["tools"]["etcd's benchmark"], row["tools"]["muster-bench"]
        assert theirs["throughput_per_s"] == {"one": 24378.9012, "other": 24378.9012, "ratio": 1.0}
        assert ours["throughput_per_s"]["one"] > 0
    assert agree.markdown(result).count("\n") == 8
