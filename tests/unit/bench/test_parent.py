"""Lines of a bench process for the one that started it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench.parent import environment, started
from bench.systems import systems
from tests.unit.bench.conftest import has_ended

SAYING = "from bench.parent import say; say('progress', operations=1); say('sent')"


def test_a_parent_reads_a_line_for_each_event() -> None:
    done = subprocess.run([sys.executable, "-c", SAYING], capture_output=True, text=True, check=True)
    assert done.stdout == '{"event":"progress","operations":1}\n{"event":"sent"}\n'


def test_a_parent_that_has_ended_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", SAYING], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_client_process_runs_nothing_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)

    async def scenario() -> None:
        process = await started("json.tool")
        told, _ = await process.communicate(b"{}")
        assert told == b"{}\n"

    asyncio.run(scenario())


def test_a_server_that_is_measured_runs_nothing_of_it_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert systems._version(systems._MUSTER, "muster").startswith("muster")
    found = systems.System("muster", "", [], [], tmp_path / "data")
    found._spawn("log", [*systems._MUSTER, "--version"])
    assert found.processes[0].wait(30) == 0


SERVING = """
import sys, time
from pathlib import Path
from bench.compare.cli import failures
from bench.systems.systems import System

with failures():
    system = System("sleep", "", [], [], Path(sys.argv[1]))
    try:
        system._spawn("log", ["sleep", "600"])
        print(system.pids[0], flush=True)
        time.sleep(600)
    finally:
        system.stop()
"""


@pytest.mark.parametrize(("signals", "ended"), [
    ([signal.SIGTERM], 143), ([signal.SIGHUP, signal.SIGHUP], 129), ([signal.SIGKILL], -signal.SIGKILL)])
def test_servers_end_with_the_benchmark_however_it_ends(
    signals: list[int], ended: int, tmp_path: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVING, str(tmp_path)], stdout=subprocess.PIPE,
                          # these tests may run under nohup
                          preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)) as process:
        assert process.stdout is not None
        server = psutil.Process(int(process.stdout.readline()))
        for number in signals:
            process.send_signal(number)
        assert process.wait(60) == ended
    assert has_ended(server)


def test_a_benchmark_under_nohup_goes_on_after_a_hangup(tmp_path: Path) -> None:
    with subprocess.Popen(["nohup", sys.executable, "-c", SERVING, str(tmp_path)], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143


def test_an_empty_part_of_the_path_is_not_the_working_directory() -> None:
    found = environment({"PYTHONPATH": ":/opt/lib", "HOME": "/root"})
    assert found["PYTHONPATH"].split(os.pathsep) == [str(Path(__file__).resolve().parents[3]), "/opt/lib"]
    assert found["HOME"] == "/root"
