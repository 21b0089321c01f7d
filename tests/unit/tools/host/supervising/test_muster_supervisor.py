"""How a supervisor starts its children, starts them anew and ends them. They are ten lines of Python."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.first_process import first
from tests.unit.tools.host.supervising import small_children
from tests.unit.tools.host.supervising.small_children import GOOD, LIMIT_S, Host, Log
from tools.muster.host.supervising import children
from tools.muster.host.supervising.children import ChildSpec
from tools.muster.host.supervising.supervisor import AGAIN, StopLimits, Supervisor
from tools.muster.machine.signals import IGNORED

ROOT = Path(__file__).parents[5]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_DELAY_S", 0.02)
    monkeypatch.setattr(children, "LONGEST_DELAY_S", 0.08)
    monkeypatch.setattr(small_children, "LIMITS", StopLimits(front_s=1.0, node_s=1.0))


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def notify_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        path = f"/tmp/muster-test-{os.getpid()}-{time.monotonic_ns()}"
        s.bind(path)
        s.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        try:
            yield s
        finally:
            os.unlink(path)


def test_ready_is_told_once_every_child_is(tmp_path: Path, notify_socket: socket.socket) -> None:
    gate = tmp_path / "gate"
    late = f"\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nuntil_term()"
    host = Host(tmp_path, node_0=GOOD, front_0=late)

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.children[0].ready)
        with pytest.raises(BlockingIOError):
            notify_socket.recv(100)
        gate.touch()
        await host.until(lambda: host.supervisor.announced)
        assert notify_socket.recv(100) == b"READY=1"

    assert host.run(scenario) == 0
    assert notify_socket.recv(100) == b"STOPPING=1"


def test_children_that_end_to_start_anew_are_no_end_of_the_host(
    tmp_path: Path, notify_socket: socket.socket
) -> None:
    """systemd would kill a host that says it stops, and goes on."""
    host = Host(tmp_path, front_0=GOOD)

    async def scenario() -> int:
        task = asyncio.create_task(host.supervisor.run())
        await host.until(lambda: host.supervisor.announced)
        host.supervisor.stop(AGAIN)
        return await task

    assert asyncio.run(scenario()) == AGAIN
    assert notify_socket.recv(100) == b"READY=1"
    with pytest.raises(BlockingIOError):
        notify_socket.recv(100)


def test_nodes_stop_before_the_one_that_feeds_them(tmp_path: Path) -> None:
    slow = "until_term(); time.sleep(0.3); note('down')"
    host = Host(tmp_path, node_0=GOOD, node_1=slow, node_2=slow, front_0=GOOD)

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.ready)

    assert host.run(scenario) == 0
    ends = [line for line in host.noted() if line.endswith("down")]
    assert ends[0] == "front_0 down"
    assert sorted(ends[1:3]) == ["node_1 down", "node_2 down"]
    assert ends[3:] == ["node_0 down"]


DRAINS = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1]); say(event="ready")
signal.sigwait([signal.SIGUSR1]); note("drains"); %s
signal.sigwait([signal.SIGTERM]); note("down")
"""


def test_a_front_in_node_0s_process_ends_before_all_nodes(tmp_path: Path) -> None:
    host = Host(
        tmp_path, node_0=DRAINS % "time.sleep(0.3); note('drained'); say(event='drained')", node_1=GOOD,
        serving="node_0",
    )

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.ready)

    assert host.run(scenario) == 0
    assert host.noted()[-4:] == ["node_0 drains", "node_0 drained", "node_1 down", "node_0 down"]


def test_a_front_that_a_strangers_signal_ended_is_started_again(tmp_path: Path, quick: None) -> None:
    """Its node went on, ready as before, and the port answered nobody any more."""
    host = Host(tmp_path, node_0=DRAINS % "say(event='drained')", serving="node_0")

    async def scenario() -> None:
        (node,) = host.supervisor.children
        await host.until(lambda: node.ready)
        os.kill(node.pid, signal.SIGUSR1)
        await host.until(lambda: node.starts == 2 and node.ready)

    assert host.run(scenario) == 0


def test_a_front_that_does_not_end_holds_the_nodes_up_for_its_limit_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_children, "LIMITS", StopLimits(front_s=1.0, node_s=30.0))
    host = Host(tmp_path, node_0=DRAINS % "", node_1=GOOD, serving="node_0")

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.ready)

    assert host.run(scenario) == 0
    assert host.noted()[-3:] == ["node_0 drains", "node_1 down", "node_0 down"]


def test_fronts_stop_before_nodes(tmp_path: Path) -> None:
    slow = "until_term(); time.sleep(0.3); note('down')"
    host = Host(tmp_path, node_0=GOOD, node_1=GOOD, front_0=slow, front_1=slow)

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.ready)

    assert host.run(scenario) == 0
    ends = [line for line in host.noted() if line.endswith("down")]
    assert sorted(ends[:2]) == ["front_0 down", "front_1 down"]
    assert sorted(ends[2:]) == ["node_0 down", "node_1 down"]


@pytest.mark.usefixtures("quick")
def test_a_crashing_child_is_started_again_and_waits_longer_each_time(tmp_path: Path) -> None:
    host = Host(tmp_path, node_0="note('up'); sys.exit(1)", front_0=GOOD)

    async def scenario() -> None:
        await host.until(lambda: len(host.log.all("crashed; starting it again")) >= 5)

    assert host.run(scenario) == 0
    delays = [fields["in_s"] for fields in host.log.all("crashed; starting it again")]
    assert delays[:5] == [0.02, 0.04, 0.08, 0.08, 0.08]
    assert host.log.all("crashed; starting it again")[0]["how"] == "exit code 1"


@pytest.mark.usefixtures("quick")
def test_children_share_memory_that_one_finds_again_after_a_crash(tmp_path: Path) -> None:
    shared = os.memfd_create("shared", os.MFD_CLOEXEC)
    adds = f"os.write({shared}, b'x')\nif len(os.pread({shared}, 9, 0)) < 3: sys.exit(1)\n"
    host = Host(tmp_path, shared_fd=shared, front_0=adds + GOOD, front_1=adds + GOOD)

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.ready)

    try:
        assert host.run(scenario) == 0
        assert sum(child.starts for child in host.supervisor.children) == len(os.pread(shared, 9, 0)) >= 3
        assert os.get_inheritable(shared) is False, "others do not get it"
    finally:
        os.close(shared)


@pytest.mark.usefixtures("quick")
def test_a_steady_child_waits_little_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "STEADY_S", 0.0)  # every run counts as steady
    host = Host(tmp_path, node_0="sys.exit(1)")

    async def scenario() -> None:
        await host.until(lambda: len(host.log.all("crashed; starting it again")) >= 3)

    host.run(scenario)
    assert {fields["in_s"] for fields in host.log.all("crashed; starting it again")} == {0.02}


@pytest.mark.usefixtures("quick")
def test_a_killed_child_comes_back_under_another_pid(tmp_path: Path) -> None:
    host = Host(tmp_path, node_0=GOOD, front_0=GOOD)

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.ready)
        first = host.pid(0)
        assert host.supervisor.kill("node", 0) == first
        await host.until(lambda: host.pid(0) not in (0, first) and host.supervisor.ready)
        assert host.supervisor.children[0].starts == 2

    assert host.run(scenario) == 0
    assert host.log.all("crashed; starting it again")[0]["how"] == "killed by SIGKILL"


def test_a_refusal_stops_the_host_and_tells_why(tmp_path: Path) -> None:
    refuse = "say(event='fatal', error='the log ends at 7 but 9 had been synced'); sys.exit(3)"
    host = Host(tmp_path, node_0=refuse, front_0=GOOD)

    async def main() -> int:
        return await asyncio.wait_for(host.supervisor.run(), LIMIT_S)

    assert asyncio.run(main()) == 1
    assert len(host.log.all("a child refuses to run; stopping this host")) == 1
    assert (
        host.log.all("a child refuses to run; stopping this host")[0]["reason"]
        == "the log ends at 7 but 9 had been synced"
    )
    assert host.supervisor.children[0].starts == 1


def test_a_child_that_cannot_even_be_started_stops_the_host(tmp_path: Path) -> None:
    log = Log()
    nowhere = ChildSpec("node", 0, -1, lambda fd: ["/nowhere/python"])
    supervisor = Supervisor([nowhere], log, small_children.LIMITS)
    assert asyncio.run(asyncio.wait_for(supervisor.run(), LIMIT_S)) == 1
    assert "FileNotFoundError" in log.all("cannot start a child; stopping this host")[0]["error"]


@pytest.mark.usefixtures("quick")
def test_a_child_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say(event='ready'); time.sleep(100)"
    host = Host(tmp_path, node_0=deaf, front_0=GOOD)

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.ready)

    began = time.monotonic()
    assert host.run(scenario) == 0
    assert time.monotonic() - began < LIMIT_S
    assert host.log.all("a child had to be killed") == [{"child": "node 0", "limit_s": 1.0}]


def test_asking_twice_to_stop_kills_at_once(tmp_path: Path) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say(event='ready'); time.sleep(100)"
    host = Host(tmp_path, node_0=deaf, front_0=deaf)

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.ready)
        host.supervisor.stop()

    began = time.monotonic()
    host.run(scenario)
    assert time.monotonic() - began < small_children.LIMITS.front_s


@pytest.mark.usefixtures("quick")
def test_stopping_does_not_wait_for_a_child_that_rests_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "FIRST_DELAY_S", 60.0)
    monkeypatch.setattr(children, "LONGEST_DELAY_S", 60.0)
    host = Host(tmp_path, node_0="sys.exit(1)", front_0=GOOD)

    async def scenario() -> None:
        await host.until(lambda: host.log.all("crashed; starting it again"))

    began = time.monotonic()
    assert host.run(scenario) == 0
    assert time.monotonic() - began < LIMIT_S


@pytest.mark.usefixtures("quick")
def test_a_node_that_ends_while_fronts_drain_is_not_started_again(tmp_path: Path) -> None:
    host = Host(tmp_path, node_0=GOOD, front_0="until_term(); time.sleep(0.5)")

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.ready)
        node = host.pid(0)
        host.supervisor.stop()
        os.kill(node, signal.SIGTERM)  # as systemd does with its default KillMode

    assert host.run(scenario) == 0
    assert host.noted().count("node_0 up") == 1
    assert host.log.all("crashed; starting it again") == []


def test_what_a_child_says_of_its_leader_is_kept_and_rubbish_is_not(tmp_path: Path) -> None:
    body = (
        'os.write(fd, b\'rubbish\\n[1]\\n{"event": "lea\'); os.write(fd, b\'der", "shard": 0, "leader": 5, '
        '"name": "h5", "term": 2}\\n\')\n'
        + GOOD
    )
    host = Host(tmp_path, node_0=body)

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.ready)
        assert host.supervisor.children[0].state == {
            "event": "leader", "shard": 0, "leader": 5, "name": "h5", "term": 2,
        }

    assert host.run(scenario) == 0
    assert host.log.all("leader") == [{"child": "node 0", "shard": 0, "leader": "5", "name": "h5", "term": 2}]


SUPERVISED = """
import asyncio, sys
from tests.unit.tools.host.supervising.small_children import GOOD, Host
from pathlib import Path
host = Host(Path(sys.argv[1]), node_0=GOOD, front_0=GOOD)
async def main():
    task = asyncio.create_task(host.supervisor.run())
    await host.until(lambda: host.supervisor.ready)
    print(*(child.pid for child in host.supervisor.children), flush=True)
    return await task
sys.exit(asyncio.run(main()))
"""


@contextlib.contextmanager
def supervised(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """A supervisor in a process of its own, and its children's pids."""
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISED, str(folder)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[5]
    ) as process:
        try:
            assert process.stdout is not None
            yield process, [int(pid) for pid in process.stdout.readline().split()]
        finally:
            process.kill()


def test_children_die_with_their_supervisor(tmp_path: Path) -> None:
    with supervised(tmp_path) as (process, pids):
        assert all(map(alive, pids))
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT_S)
        deadline = time.monotonic() + LIMIT_S
        while any(map(alive, pids)):
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_in_order_and_exits_0(tmp_path: Path, number: signal.Signals) -> None:
    with hangups(signal.SIG_DFL), supervised(tmp_path) as (process, pids):
        process.send_signal(number)
        assert process.wait(LIMIT_S) == 0
        assert not any(map(alive, pids))
    assert (tmp_path / "notes").read_text(encoding="utf-8").splitlines()[-2:] == [
        "front_0 down",
        "node_0 down",
    ]


def test_signals_are_the_programs_again_behind_a_run(tmp_path: Path) -> None:
    """The first process of a container needs a handler of SIGTERM while it waits to start anew."""
    host = Host(tmp_path, node_0=GOOD)

    def handler(number: int, frame: object) -> None:
        """The program's own."""

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.announced)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        assert host.run(scenario) == 0
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


_LEAVES_AN_ORPHAN = """
import os, pathlib, sys
from tests.unit.tools.host.supervising.small_children import Host

def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False

async def scenario():
    await host.until(lambda: len(host.noted()) == 2)
    orphan, = (int(line.split()[1]) for line in host.noted() if line != "node_0 up")
    await host.until(lambda: gone(orphan))

host = Host(pathlib.Path(sys.argv[1]), node_0=(
    "if os.fork() == 0:\\n"
    "    if os.fork() == 0: note(str(os.getpid()))\\n"
    "    os._exit(0)\\n"
    "os.wait(); until_term()"))
sys.exit(host.run(scenario))
"""


def test_a_containers_first_process_takes_away_what_others_leave(tmp_path: Path) -> None:
    """Each backup that a client broke off left a zombie there, for ever."""
    words = first([sys.executable, "-c", _LEAVES_AN_ORPHAN, str(tmp_path)])
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_terminal_that_is_gone_ends_no_child_by_itself(tmp_path: Path) -> None:
    """The kernel tells all of them; the supervisor alone acts, so that they end in order. Under nohup it does
    not."""
    with hangups(signal.SIG_IGN), supervised(tmp_path) as (process, pids):
        for pid in (process.pid, *pids):
            os.kill(pid, signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
    notes = (tmp_path / "notes").read_text(encoding="utf-8").splitlines()
    assert sorted(notes) == ["front_0 down", "front_0 up", "node_0 down", "node_0 up"]


def test_signals_that_a_program_in_go_ignores_end_no_child(tmp_path: Path) -> None:
    """``pkill -USR2 -f muster`` ended all nodes and fronts at once."""
    with supervised(tmp_path) as (process, pids):
        for pid in pids:
            for number in IGNORED:
                os.kill(pid, number)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
    notes = (tmp_path / "notes").read_text(encoding="utf-8").splitlines()
    assert sorted(notes) == ["front_0 down", "front_0 up", "node_0 down", "node_0 up"]


@contextlib.contextmanager
def hangups(taken: signal.Handlers) -> Iterator[None]:
    """SIG_IGN: as a program that nohup has started; SIG_DFL: as any other, though nohup started the tests."""
    before = signal.signal(signal.SIGHUP, taken)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
