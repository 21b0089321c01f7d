"""A signal to ``musterctl lock`` and ``elect``: what they held or waited for is given up."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import muster_client as m
import pytest
from muster_client import sync

from muster.testing import Cluster
from tests.cluster.local_cluster import until

MUSTERCTL = Path(sys.executable).parent / "musterctl"
LINES = {"lock": ("lock", "/held"), "elect": ("elect", "/held", "me")}
BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(scope="module")
def client() -> Iterator[sync.Client]:
    with Cluster() as cluster, cluster.client() as one:
        yield one


@contextlib.contextmanager
def running(client: sync.Client, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    line = [str(MUSTERCTL), f"--endpoints={client.inner._caller.connections.names[0]}", *words]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Its exit code and its errors, without what it says of an endpoint that is slow."""
    _, said = process.communicate(timeout=60)
    told = [line for line in said.splitlines(keepends=True) if not line.startswith(b"musterctl: ")]
    return process.returncode, b"".join(told)


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize("command", LINES)
def test_what_is_held_is_given_up(client: sync.Client, command: str, number: signal.Signals) -> None:
    with running(client, *LINES[command]) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"/held/")
        assert client.count(m.prefix("/held/")) == 1
        process.send_signal(number)
        assert ended(process) == (0, b"")
    assert client.count(m.prefix("/held/")) == 0
    assert client.leases() == ()


@pytest.mark.parametrize("command", LINES)
def test_a_signal_that_comes_twice_leaves_nothing(client: sync.Client, command: str) -> None:
    """As ``timeout`` sends it: to the process, then to its group."""
    for step in range(6):
        with running(client, *LINES[command]) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            time.sleep(step / 2000)
            process.send_signal(signal.SIGINT)
            assert ended(process) == (0, b"")
        assert client.leases() == ()


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize("command", LINES)
def test_a_place_in_line_is_given_up(client: sync.Client, command: str, number: signal.Signals) -> None:
    with client.lock("/held", ttl=60), running(client, *LINES[command]) as process:
        until(lambda: client.count(m.prefix("/held/")) == 2)
        process.send_signal(number)
        assert ended(process) == (1, b"Error: context canceled\n")
        assert client.count(m.prefix("/held/")) == 1
        assert len(client.leases()) == 1


@pytest.mark.parametrize("command", LINES)
def test_a_signal_at_any_moment_leaves_nothing(client: sync.Client, command: str) -> None:
    """From the lease's first moment on, in small steps."""
    for step in range(8):
        with running(client, *LINES[command]) as process:
            until(client.leases, look_s=0.001)
            for _ in range(step):
                client.get("/held")  # the time of a request
            process.send_signal(signal.SIGTERM)
            assert ended(process)[1] in (b"", b"Error: context canceled\n")
        assert client.leases() == ()
        assert client.count(m.prefix("/held/")) == 0


def test_a_lock_is_kept_while_its_command_runs(client: sync.Client) -> None:
    """A signal to musterctl alone is no reason to let another begin."""
    line = [str(MUSTERCTL), f"--endpoints={client.inner._caller.connections.names[0]}"]
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        waits = f"while kill -0 {sleeper.pid} 2>/dev/null; do sleep 0.05; done; exit 3"
        line += ["lock", "/held", "--", "sh", "-c", f"echo began; {waits}"]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"began\n"
                process.send_signal(signal.SIGTERM)
                assert client.count(m.prefix("/held/")) == 1
                sleeper.kill()
                sleeper.wait()
                assert ended(process) == (3, b"Error: exit status 3\n")
            finally:
                sleeper.kill()
                process.kill()
    assert client.leases() == ()
