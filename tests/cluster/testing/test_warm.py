"""Hosts that are forked are processes as those that are started."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import forks
from tests.cluster.local_cluster import LIMIT_S, ROOT, environment, local_cluster, until


def inherited(pid: int, folder: Path) -> list[str]:
    """Files of the foreground process that another one has open."""
    names = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            target = Path(os.readlink(entry))
            if target.parent == folder:
                names.append(target.name)
    return names


@pytest.mark.parametrize("fronts", [0, 1])
def test_forked_hosts_are_processes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fronts: int
) -> None:
    monkeypatch.setenv("MUSTER_TEST_WARM", "1")
    folder = tmp_path / "c"
    with local_cluster(folder, 2, "--shards=2", f"--fronts={fronts}") as cluster:
        local = psutil.Process(cluster.process.pid)
        processes = local.children(recursive=True)
        assert len(processes) == 2 * (1 + 2 + fronts)
        assert {tuple(one.cmdline()) for one in processes} == {tuple(local.cmdline())}, "forked"
        assert inherited(local.pid, folder), "its lock"
        supervisors = [cluster.host(index)["pid"] for index in range(2)]
        for one in processes:
            kept = inherited(one.pid, folder)
            assert [name for name in kept if not name.startswith("host")] == [], "what is the foreground's"
            assert os.getsid(one.pid) in supervisors, "each host has a session"
            assert (os.getpgid(one.pid) == one.pid), "and each process a group"
        node = cluster.host(0)["nodes"][1]["pid"]
        os.kill(node, signal.SIGKILL)
        until(lambda: cluster.host(0)["nodes"][1]["pid"] not in (0, None, node))
        until(lambda: cluster.host(0)["ready"])
        assert psutil.Process(cluster.host(0)["nodes"][1]["pid"]).ppid() == supervisors[0]
        cluster.ok("kill", "1")
        cluster.ok("start", "1", "--wait=60s")
        everything = local.children(recursive=True)
        cluster.process.kill()
        assert psutil.wait_procs(everything, 30)[1] == [], "they end with the foreground process"


SIGNALLED = """
import asyncio, os, signal, sys
from tests.cluster import warm

async def main() -> None:
    loop, came = asyncio.get_running_loop(), []
    loop.add_signal_handler(signal.SIGTERM, came.append, "here")
    fork = os.fork
    def forked() -> int:
        if not (pid := fork()):
            os.kill(os.getpid(), signal.SIGTERM)  # as soon as it is there
        return pid
    os.fork = forked
    command = [sys.executable, "-P", "-m", "tools.muster.cli", "version"]
    code = warm.Process(command, env=dict(os.environ), preexec_fn=lambda: None).wait()
    await asyncio.sleep(0)
    await loop.run_in_executor(None, int)  # the loop has looked at what woke it
    print(code, came)

asyncio.run(main())
"""


def test_a_signal_to_a_forked_process_is_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, check=False,
                          cwd=ROOT, env=environment(), timeout=LIMIT_S)  # fmt: skip
    assert done.stdout == f"{-signal.SIGTERM} []\n", done.stderr


READS = [*forks.MUSTERCTL, "txn", "--endpoints=127.0.0.1:1"]  # which waits for its lines


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of programs are this test's."""
    monkeypatch.setattr(forks, "_started", functools.cache(forks._started.__wrapped__))


@pytest.mark.usefixtures("fresh")
def test_signals_to_the_group_do_not_end_a_server_and_its_end_ends_what_it_has_forked() -> None:
    with (
        forks.popen(READS, stdin=subprocess.PIPE) as first,
        forks.popen(READS, stdin=subprocess.PIPE) as last,
    ):
        server = psutil.Process(first.pid).parent()
        assert server is not None
        assert server.cmdline()[3] == "tests.forks"
        server.send_signal(signal.SIGINT)
        server.send_signal(signal.SIGTERM)
        first.terminate()
        assert first.wait(LIMIT_S) == -signal.SIGTERM, "which only the server ignores"
        process = psutil.Process(last.pid)
        server.kill()
        assert psutil.wait_procs([process], LIMIT_S)[1] == []
        last.kill()
        assert last.wait(LIMIT_S) == -signal.SIGKILL


@pytest.mark.usefixtures("fresh")
def test_a_server_goes_on_when_those_that_ask_end() -> None:
    with forks.popen(READS, stdin=subprocess.PIPE) as process:
        server = psutil.Process(process.pid).parent()
        assert server is not None
        links = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        server.suspend()
        for link in links:
            link.connect(forks.server(forks.MUSTERCTL[2]))
        links[1].send(b"\0\0\1\0half")
        reads, writes = os.pipe()
        with open("/proc/self/ns/net", "rb") as network:
            given = (READS[2], READS[3:], environment(), os.getcwd(), False, 0)
            forks.send(links[2], given, [reads, 1, 2, network.fileno()])
        for link in links:
            link.close()
        server.resume()
        assert forks.run([*forks.MUSTERCTL, "version"], capture_output=True).returncode == 0
        until(lambda: [one.pid for one in server.children()] == [process.pid])
        os.close(reads)
        os.close(writes)
        process.kill()


def test_a_forked_program_has_what_it_is_given(tmp_path: Path) -> None:
    words = [*forks.MUSTERCTL, "snapshot", "status", "none.db"]
    how: dict[str, Any] = {"capture_output": True, "text": True, "cwd": tmp_path, "timeout": LIMIT_S}
    real = subprocess.run(words, env=environment(), check=False, **how)
    forked = forks.run(words, env=environment(), **how)
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)
    assert forked.returncode != 0
    version = [*forks.MUSTERCTL, "version"]
    assert "API version: 3" in forks.run(version, check=True, **how).stdout
    with pytest.raises(subprocess.CalledProcessError):  # version 2 has no such command
        forks.run(version, check=True, env={"ETCDCTL_API": "2"}, **how)
    with pytest.raises(AssertionError, match="not for what is forked"):
        forks.popen(version, process_group=0)
    with forks.popen(READS, stdin=subprocess.PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not psutil.pid_exists(process.pid)
