"""A host's log file is set aside by the host or by ``logrotate``, and every process of it goes on in a new
one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.cluster.local_cluster import until
from tests.cluster.one_host import started


@pytest.mark.parametrize("by_itself", [False, True], ids=["logrotate", "by-itself"])
def test_all_processes_of_a_host_follow_a_log_file_that_was_set_aside(
    tmp_path: Path, by_itself: bool
) -> None:
    path = tmp_path / "muster.log"
    flags = [f"--log-outputs={path}"]
    if by_itself:
        flags += ["--enable-log-rotation", '--log-rotation-config-json={"maxsize": 1, "compress": true}']

    def callers() -> set[str]:
        return (
            {json.loads(line)["caller"] for line in path.read_text().splitlines()} if path.exists() else set()
        )

    with started(tmp_path / "data", 0, 1, *flags, "--fronts=1", cold=True) as host:
        until(lambda: path.exists() and "ready to serve client requests" in path.read_text())
        if by_itself:
            with open(path, "a") as file:
                file.write("x" * (1 << 20) + "\n")
            until(lambda: list(tmp_path.glob("muster-*.log.gz")))
        else:
            os.rename(path, tmp_path / "aside.log")
        # the supervisor tells of the front's end; the next front and the node write where the name leads
        children = psutil.Process(host.process.pid).children()
        front = next(p for p in children if "tools.muster.processes.front" in p.cmdline())
        front.kill()
        until(lambda: "muster/supervisor" in callers())
        os.kill(host.process.pid, signal.SIGTERM)
        assert host.process.wait(60) == 0
    assert {"muster/supervisor", "muster/node"} <= callers()
