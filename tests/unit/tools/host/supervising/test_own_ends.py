"""Ends of a host that nobody asked for."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.ports import free_ports
from tests.unit.tools.host.supervising.small_children import GOOD, LIMIT_S, Host
from tools.muster.config import settings
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import ConfigError, resolve
from tools.muster.host import control, rundir, serve
from tools.muster.host.supervising.supervisor import AGAIN
from tools.muster.local import hosts
from tools.muster.local.layout import plan
from tools.muster.machine.process.crash import FATAL_EXIT, REMOVED_EXIT
from tools.muster.machine.zmtp.port.bound import Bound


def with_socket(folder: Path) -> Host:
    """A host of two nodes with a run directory."""
    run_dir = folder / "run"
    run_dir.mkdir()
    (run_dir / "control.sock").touch()
    host = Host(folder, node_0=GOOD, node_1=GOOD)
    host.supervisor._socket = str(run_dir / "control.sock")
    return host


def test_a_crash_without_a_run_directory_has_all_children_start_anew(tmp_path: Path) -> None:
    """A cleaner of /tmp had removed it: the child that crashed ended at its socket, for ever."""
    host = with_socket(tmp_path)

    async def scenario() -> int:
        task = asyncio.create_task(host.supervisor.run())
        await host.until(lambda: host.supervisor.ready)
        os.kill(host.pid(0), signal.SIGKILL)
        await host.until(lambda: host.supervisor.children[0].starts == 2 and host.supervisor.ready)
        shutil.rmtree(tmp_path / "run")
        os.kill(host.pid(0), signal.SIGKILL)
        return await asyncio.wait_for(task, LIMIT_S)

    assert asyncio.run(scenario()) == AGAIN
    assert host.log.all("the run directory was removed; starting all processes again") == [
        {"run_dir": str(tmp_path / "run")}]
    assert [child.starts for child in host.supervisor.children] == [2, 1]
    assert host.noted()[-1] == "node_1 down"


@pytest.mark.parametrize("code", [FATAL_EXIT, REMOVED_EXIT])
def test_one_signal_leaves_an_own_stop_in_order(tmp_path: Path, code: int) -> None:
    """`systemctl stop` of a host that a child's refusal was stopping killed node 0, which then handed over no
    leadership."""
    host = Host(
        tmp_path, node_0=GOOD, node_1="until_term(); note('leaves'); time.sleep(0.5); note('down')",
        node_2=f"until_term(); sys.exit({code})")

    async def scenario() -> int:
        task = asyncio.create_task(host.supervisor.run())
        await host.until(lambda: host.supervisor.ready)
        os.kill(host.pid(2), signal.SIGTERM)
        await host.until(lambda: "node_1 leaves" in host.noted())
        host.supervisor.stop()
        return await asyncio.wait_for(task, LIMIT_S)

    assert asyncio.run(scenario()) == (1 if code == FATAL_EXIT else 0)
    assert host.noted()[-2:] == ["node_1 down", "node_0 down"]


def test_a_stop_that_comes_while_children_start_anew_is_an_end(tmp_path: Path) -> None:
    host = Host(tmp_path, node_0=GOOD)

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.ready)
        host.supervisor.stop(AGAIN)
        host.supervisor.stop()

    assert host.run(scenario) == 0


@pytest.mark.parametrize("gone", ["", "d", "d/member/identity.json", "d/lock"])
def test_a_host_that_starts_anew_makes_its_run_directory_again_and_no_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    codes = [AGAIN, 7]
    run_dir = tmp_path / "run"

    def until_told(config: settings.ServerConfig, log: object, work: Coroutine[Any, Any, int]) -> int:
        work.close()
        assert Path(rundir.run_dir_of(config.data_dir)) == run_dir
        run_dir.rmdir()
        if (tmp_path / gone).is_dir() and gone:
            shutil.rmtree(tmp_path / gone)
        elif gone:
            (tmp_path / gone).unlink()
        return codes.pop(0)

    monkeypatch.setattr(serve, "log_of", lambda config: structlog.get_logger())
    monkeypatch.setattr(serve, "until_told", until_told)
    monkeypatch.setattr(os, "umask", lambda mask: 0)
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    flags = (f"--data-dir={tmp_path / 'd'}", f"--run-dir={run_dir}", f"--listen-client-urls={client}",
             f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
             f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}")
    config = settings.build(resolve(SERVER_FLAGS, flags, {}))
    if gone:
        with pytest.raises(ConfigError, match="was removed or replaced while this host ran"):
            serve.run(config)
    else:
        assert serve.run(config) == 7
    assert codes == ([7] if gone else [])


def test_a_socket_that_cannot_be_bound_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone/node-0\.sock"):
        Bound(f"ipc://{tmp_path}/gone/node-0.sock", own_user=False)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """No descriptor of a process can be had, as under an old profile of seccomp. Which were asked for."""
    asked: list[int] = []

    def refused(pid: int, flags: int = 0) -> int:
        asked.append(pid)
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", refused)
    return asked


def test_a_host_ends_where_its_children_cannot_be_watched(tmp_path: Path, opened: list[int]) -> None:
    """It had killed them, and waited for their end for ever."""
    host = Host(tmp_path, node_0=GOOD, node_1=GOOD)
    assert asyncio.run(asyncio.wait_for(host.supervisor.run(), LIMIT_S)) == 1
    assert [told["error"] for told in host.log.all("cannot start a child; stopping this host")] == [
        "PermissionError(1, 'pidfd_open: Operation not permitted')"] * 2
    assert len(opened) == 2
    assert not any(Path("/proc", str(pid)).exists() for pid in opened)


@pytest.mark.parametrize(("step", "code"), [
    ("pipe", errno.ENFILE), ("pipe", errno.EAGAIN), ("memfd_create", errno.ENOMEM),
    ("pidfd_open", errno.EMFILE)])
def test_a_child_that_cannot_start_for_a_moment_starts_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    """Any program of the machine may have used up the files: the host ended, with all that ran well."""
    host, real, lacking = Host(tmp_path, node_0=GOOD, node_1=GOOD), getattr(os, step), [True] * 2

    def lacks(*given: Any) -> Any:
        if lacking:
            lacking.pop()
            raise OSError(code, os.strerror(code))
        return real(*given)

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.ready)
        monkeypatch.setattr(os, step, lacks)
        os.kill(host.pid(0), signal.SIGKILL)
        await host.until(lambda: host.supervisor.children[0].starts == 2 and host.supervisor.ready)

    assert host.run(scenario) == 0
    told = host.log.all("cannot start a child; trying again")
    assert [one["in_s"] for one in told] == [0.2, 0.4]
    assert all(os.strerror(code) in one["error"] for one in told)
    assert host.supervisor.children[1].starts == 1


def test_local_hosts_end_where_they_cannot_be_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[int]
) -> None:
    monkeypatch.setattr(hosts, "python", lambda *_: ["sleep", "600"])
    layout = plan(str(tmp_path), 2, 1, 20_000, 1, ["none"] * 2, ())

    async def run() -> int:
        return await asyncio.wait_for(hosts.LocalCluster(str(tmp_path), layout).run(), LIMIT_S)

    with pytest.raises(PermissionError, match="pidfd_open: Operation not permitted"):
        asyncio.run(run())
    assert len(opened) == 1
    assert not Path("/proc", str(opened[0])).exists()


def test_a_local_host_that_has_just_ended_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its foreground process may be asked before it hears of the end."""
    cluster: Any = hosts.LocalCluster(str(tmp_path), plan(str(tmp_path), 1, 1, 20_000, 1, ["none"], ()))
    monkeypatch.setattr(cluster, "_start", lambda host: 7)
    process = subprocess.Popen(["sleep", "60"])
    cluster._processes[0] = process

    async def asked() -> list[dict[str, Any]]:
        said = [await cluster._answer({"do": "start", "host": 0})]
        process.kill()
        process.wait()
        asyncio.get_running_loop().call_later(0.03, cluster._processes.pop, 0)
        return [*said, await cluster._answer({"do": "start", "host": 0})]

    assert asyncio.run(asked()) == [
        {"error": f"host 0 is already running (process {process.pid})"}, {"pid": 7}]


def test_a_local_host_that_cannot_be_started_is_told_why(tmp_path: Path) -> None:
    """It said that `muster local` was not running."""
    layout = plan(str(tmp_path), 1, 1, 20_000, 1, ["none"], ())
    cluster: Any = hosts.LocalCluster(str(tmp_path), layout)
    log = Path(layout.hosts[0].log_file)
    log.mkdir()

    async def asked() -> int:
        server = await control.listen(str(Path(cluster._run_dir, "local.sock")), cluster._answer)
        try:
            return await asyncio.to_thread(hosts.start, str(tmp_path), layout.hosts[0])
        finally:
            server.close()

    with pytest.raises(ConfigError, match=f"^Is a directory: {log}$"):
        asyncio.run(asked())
