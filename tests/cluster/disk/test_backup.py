"""``musterctl --api 2 backup`` by the steps of old articles: a copy of a host that runs, or of one that does
not, becomes a cluster by ``--force-new-cluster``, and grows."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.pb import rpc_pb2 as pb
from tests import forks
from tests.cluster.local_cluster import environment, until
from tests.cluster.members.hosts import LIMIT_S, Hosts
from tests.cluster.members.test_forced import asked

SHARDS = 2
FORCED = "--force-new-cluster"

pytestmark = pytest.mark.timeout(400)


def ctl(hosts: Hosts, host: int, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A command of version 2 at a host, whose exit code is expected."""
    made = forks.run(
        [*forks.MUSTERCTL, "--api", "2", "--endpoints", hosts.client(host),
         "--total-timeout", "60s", "--timeout", "60s", *words],
        env=environment(), capture_output=True, text=True, timeout=200)  # fmt: skip
    assert made.returncode == code, made.stderr
    return made


def logs(hosts: Hosts, host: int) -> Path:
    return hosts.folder / f"h{host}.logs"


def backup(hosts: Hosts, host: int, to: int, code: int = 0) -> str:
    """Copy one host's data directory to another's place, and its logs; what is said of it."""
    folders = (str(hosts.folder / f"h{number}") for number in (host, to))
    data_dir, backup_dir = folders
    made = ctl(
        hosts, host, "backup", f"--data-dir={data_dir}", f"--backup-dir={backup_dir}",
        f"--backup-wal-dir={logs(hosts, to)}", code=code)  # fmt: skip
    assert made.stdout == ""
    return made.stderr


def in_place(data_dir: Path, backup_dir: Path) -> str:
    """The same of files, asked for in the empty directory itself."""
    backup_dir.mkdir()
    words = ("--api=2", "backup", f"--data-dir={data_dir}", "--backup-dir=.", "--backup-wal-dir=../h3.logs")
    made = forks.run(
        [*forks.MUSTERCTL, *words], env=environment(), cwd=backup_dir,
        capture_output=True, text=True, check=False, timeout=200)  # fmt: skip
    assert (made.returncode, made.stdout) == (0, ""), made.stderr
    return made.stderr


def is_private(folder: Path) -> bool:
    """Whether a copy is its user's alone, with its logs, and nothing lies there besides."""
    beside = folder.with_suffix(".logs")
    found = [path for path in (*folder.rglob("*"), *beside.rglob("*")) if path.stat().st_mode & 0o077]
    assert {path.name for path in beside.iterdir()} == {f"shard-{shard}" for shard in range(SHARDS)}
    return not found and [path.name for path in folder.iterdir()] == ["member"]


def serves(hosts: Hosts, host: int) -> bool:
    """Whether it answers a linearizable read."""
    assert hosts.running[host].poll() is None, hosts.log(host)
    with contextlib.suppress(OSError):
        answer = urllib.request.urlopen(f"http://{hosts.client(host)}/health", timeout=5)
        return bool(json.load(answer)["health"] == "true")
    return False


def publishes(hosts: Hosts, host: int) -> bool:
    """Whether it lists itself with its client URL: it has caught up with what the members are."""
    with contextlib.suppress(OSError):
        answer = urllib.request.urlopen(f"http://{hosts.client(host)}/v2/members", timeout=5)
        return any(hosts.client(host) in " ".join(m["clientURLs"]) for m in json.load(answer)["members"])
    return False


def put(hosts: Hosts, host: int, key: bytes, value: bytes) -> None:
    asked(hosts, host, "KV/Put", pb.PutRequest(key=key, value=value), pb.PutResponse)


def get(hosts: Hosts, host: int, key: bytes) -> bytes:
    found = asked(hosts, host, "KV/Range", pb.RangeRequest(key=key), pb.RangeResponse)
    return bytes(found.kvs[0].value)


def kill(hosts: Hosts, host: int) -> None:
    """All of its processes, and wait for their end."""
    process = hosts.running.pop(host)
    every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in every:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
    psutil.wait_procs(every, LIMIT_S)
    process.wait(LIMIT_S)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Host 0, with keys of both versions on both shards."""
    made = Hosts(tmp_path_factory.mktemp("copied"), SHARDS)
    try:
        made.found()
        until(lambda: serves(made, 0) and publishes(made, 0), LIMIT_S)
        ctl(made, 0, "set", "/testdir/testkey", "Hello world")
        for number in range(4):
            put(made, 0, b"/old/%d/key" % number, b"%d" % number)
        yield made
    finally:
        made.close()


def holds_all(hosts: Hosts, host: int) -> None:
    """The keys of host 0."""
    assert ctl(hosts, host, "get", "/testdir/testkey").stdout == "Hello world\n"
    assert [get(hosts, host, b"/old/%d/key" % number) for number in range(4)] == [b"%d" % n for n in range(4)]


def test_a_copy_of_a_host_that_runs_is_a_new_cluster_which_grows(hosts: Hosts) -> None:
    other = hosts.folder / "h1.snapshot"
    other.write_text("somebody else's")
    assert "for a new cluster" in backup(hosts, 0, to=1)
    assert other.read_text() == "somebody else's"
    assert is_private(hosts.folder / "h1")
    assert "is not empty" in backup(hosts, 0, to=1, code=1)
    hosts.start(1, FORCED, f"--wal-dir={logs(hosts, 1)}")
    until(lambda: serves(hosts, 1) and publishes(hosts, 1), LIMIT_S)
    holds_all(hosts, 1)
    (old,) = ctl(hosts, 0, "member", "list").stdout.splitlines()
    (new,) = ctl(hosts, 1, "member", "list").stdout.splitlines()
    new_id = new.partition(":")[0]
    assert new_id != old.partition(":")[0]
    assert "peerURLs=http://localhost:2380" in new  # as of etcd's copies: the one thing to mend

    ctl(hosts, 1, "member", "update", new_id, hosts.peer(1))
    printed = ctl(hosts, 1, "member", "add", "h2", hosts.peer(2)).stdout.splitlines()
    settings = dict(line.replace('"', "").split("=", 1) for line in printed if line.startswith("ETCD_"))
    assert settings["ETCD_INITIAL_CLUSTER_STATE"] == "existing"
    assert f"h1={hosts.peer(1)}" in settings["ETCD_INITIAL_CLUSTER"].split(",")
    hosts.start(
        2, f"--initial-cluster={settings['ETCD_INITIAL_CLUSTER']}", "--initial-cluster-state=existing"
    )
    until(lambda: serves(hosts, 2) and publishes(hosts, 2), LIMIT_S)
    holds_all(hosts, 2)
    ctl(hosts, 2, "set", "/testdir/new", "1")
    assert ctl(hosts, 1, "get", "--quorum", "/testdir/new").stdout == "1\n"


def test_a_copy_of_a_host_that_does_not_run_starts_as_a_cluster_alone(hosts: Hosts) -> None:
    kill(hosts, 0)
    assert "the copy keeps its IDs" in in_place(hosts.folder / "h0", hosts.folder / "h3")
    assert is_private(hosts.folder / "h3")
    process = hosts.start(3)
    assert process.wait(LIMIT_S) == 1
    assert "it starts with --force-new-cluster" in hosts.log(3)
    assert hosts.start(3, FORCED).wait(LIMIT_S) == 1
    assert f"name the directory where that folder is now, such as {logs(hosts, 3)}, with" in hosts.log(3)
    moved = logs(hosts, 3).rename(hosts.folder / "moved.logs")  # as on a new machine
    hosts.start(3, FORCED, f"--wal-dir={moved}")
    until(lambda: serves(hosts, 3) and publishes(hosts, 3), LIMIT_S)
    holds_all(hosts, 3)
    assert not (hosts.folder / "h3/member/copied").exists()  # from then on it is a host like any other


def test_a_plain_copy_of_a_directory_goes_on_as_a_cluster_alone(hosts: Hosts) -> None:
    """As docs/run/backup.md has it: no musterctl, and the modes that the umask gives."""
    if 0 in hosts.running:
        kill(hosts, 0)
    subprocess.run(["cp", "-r", str(hosts.folder / "h0"), str(hosts.folder / "h4")], check=True, timeout=60)
    hosts.start(4, FORCED)
    until(lambda: serves(hosts, 4) and publishes(hosts, 4), LIMIT_S)
    holds_all(hosts, 4)
