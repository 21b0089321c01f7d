"""Backups go both ways: muster's into a real etcd, etcd's into muster, on any number of hosts and shards."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.systems.systems import find_etcd, start_etcd
from tests import forks
from tests.cluster.local_cluster import ROOT, environment, free_base_port, local_cluster, until

LIMIT_S = 120
ETCD = Path(find_etcd())
DIRECTORIES = 12


def call(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = forks.run([str(c) for c in command], capture_output=True, text=True, timeout=LIMIT_S,
                     env=environment())
    assert not check or done.returncode == 0, done.stderr
    return done


def tool(name: str) -> Path:
    path = ETCD.parent / name
    path.chmod(path.stat().st_mode | 0o111)
    return path


def ctl(endpoint: str, *words: str) -> str:
    patience = "--command-timeout=60s", "--dial-timeout=60s"  # the latter also bounds a login
    return call(tool("etcdctl"), f"--endpoints={endpoint}", *patience, *words).stdout


def found(endpoint: str, *words: str) -> Any:
    return json.loads(ctl(endpoint, *words, "-w", "json"))


@dataclass
class Content:
    """What a store shows at a revision."""

    kvs: list[dict[str, Any]]
    past: list[dict[str, Any]]
    leases: dict[int, tuple[int, list[str]]]
    users: list[str]


def shown(endpoint: str) -> dict[str, str]:
    """Keys and values."""
    return {base64.b64decode(kv["key"]).decode(): kv.get("value", "")
            for kv in found(endpoint, "get", "", "--prefix")["kvs"]}


def leases_of(endpoint: str) -> dict[int, tuple[int, list[str]]]:
    """Time to live and keys of every lease."""
    leases = {}
    for one in found(endpoint, "lease", "list").get("leases", []):
        told = found(endpoint, "lease", "timetolive", f"{one['id']:x}", "--keys")
        leases[one["id"]] = (told["granted-ttl"], sorted(told.get("keys") or []))
    return leases


def users_of(endpoint: str) -> list[str]:
    """What is told of users and roles."""
    users = [ctl(endpoint, "user", "get", name) for name in ctl(endpoint, "user", "list").split()]
    roles = ctl(endpoint, "role", "list").split()
    return [*users, *roles, ctl(endpoint, "role", "get", "reader")]  # newer ones tell what root may


def content(endpoint: str, revision: int, past: int) -> Content:
    """All of it."""
    return Content(found(endpoint, "get", "", "--prefix", f"--rev={revision}")["kvs"],
                   found(endpoint, "get", "", "--prefix", f"--rev={past}")["kvs"], leases_of(endpoint),
                   users_of(endpoint))


def fill(endpoint: str) -> int:
    """Keys in many directories, of several versions, on leases, deleted, by transactions over all; compacted
    once. Returns a revision that is not compacted."""
    lease, other = (found(endpoint, "lease", "grant", str(ttl))["ID"] for ttl in (3600, 7200))
    for words in ("user add root:top", "role add root", "user grant-role root root", "role add reader",
                  "role grant-permission reader --prefix=true read /d", "user add reader:secret",
                  "user grant-role reader reader"):
        ctl(endpoint, *words.split())
    for n in range(DIRECTORIES):
        ctl(endpoint, "put", f"/d{n}/a/k", "first")
    lines = [f"put /d{n}/a/k second --lease={lease:x}" for n in range(0, DIRECTORIES, 2)]
    lines += [f"put /d{n}/a/l \"{'v' * 5000}\"" for n in range(DIRECTORIES)]
    typed = "\n".join(("", *lines, "", "", ""))
    subprocess.run([tool("etcdctl"), f"--endpoints={endpoint}", "txn"], input=typed, text=True, check=True,
                   timeout=LIMIT_S, stdout=subprocess.DEVNULL)
    revision = int(found(endpoint, "get", "x")["header"]["revision"])
    ctl(endpoint, "compact", str(revision))
    ctl(endpoint, "put", "/d1/a/k", "third", f"--lease={other:x}")
    ctl(endpoint, "del", "/d2/", "--prefix")
    ctl(endpoint, "put", "plain", "")
    return revision


@contextlib.contextmanager
def etcd_of(snapshot: Path, folder: Path) -> Iterator[str]:
    """A real etcd that was restored from a file."""
    data_dir = folder / "m0"
    call(tool("etcdutl"), "snapshot", "restore", snapshot, f"--data-dir={data_dir}")
    system = start_etcd(folder, members=1)
    try:
        yield system.endpoints[0]
    finally:
        system.stop()


@contextlib.contextmanager
def muster_of(snapshot: Path, folder: Path, hosts: int, shards: int, *flags: str) -> Iterator[list[str]]:
    """A muster cluster that was restored from a file."""
    base = free_base_port(hosts, shards)
    cluster = ",".join(f"host{i}=http://127.0.0.1:{base + 100 * i + 1}" for i in range(hosts))
    data_dir = folder / "muster"
    for i in range(hosts):
        call(
            *forks.MUSTERCTL,
            "snapshot",
            "restore",
            snapshot,
            f"--data-dir={data_dir / f'host{i}'}",
            f"--name=host{i}",
            f"--initial-cluster={cluster}",
            "--initial-cluster-token=muster-local",
            "--initial-memory-map-size=10485760",
            f"--shards={shards}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{base + 100 * i + 1}",
            *flags,
        )
    with local_cluster(data_dir, hosts, f"--shards={shards}", "--fronts=0", base_port=base) as cluster_:
        yield cluster_.endpoints()


@dataclass
class Saved:
    """A backup of a muster cluster, made while puts went on, and what it is to hold."""

    path: Path
    content: Content
    revision: int
    past: int


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    """Of three hosts and three shards, by way of a host that need not lead."""
    folder = tmp_path_factory.mktemp("backups")
    path = folder / "ours.db"
    with local_cluster(folder / "muster", 3, "--shards=3", "--fronts=0") as cluster:
        first, _, third = cluster.endpoints()
        past = fill(first)
        stop = threading.Event()

        def load() -> None:
            n = 0
            while not stop.is_set():
                n += 1
                ctl(first, "put", f"/load{n % 5}/x", str(n))

        loading = threading.Thread(target=load)
        loading.start()
        try:
            ctl(third, "snapshot", "save", str(path))
        finally:
            stop.set()
            loading.join()
        told = json.loads(call(tool("etcdutl"), "snapshot", "status", path, "-w", "json").stdout)
        yield Saved(path, content(first, told["revision"], past), told["revision"], past)


def is_compacted(endpoint: str, revision: int) -> bool:
    done = call(tool("etcdctl"), f"--endpoints={endpoint}", "get", "x", f"--rev={revision}", check=False)
    return "required revision has been compacted" in done.stderr


def same(endpoint: str, saved: Saved) -> None:
    assert found(endpoint, "get", "x")["header"]["revision"] == saved.revision
    got = content(endpoint, saved.revision, saved.past)
    assert got.kvs == saved.content.kvs
    assert got.past == saved.content.past
    assert got.leases == saved.content.leases
    assert got.users == saved.content.users
    assert is_compacted(endpoint, saved.past - 1)


@pytest.fixture(scope="module")
def theirs(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup that a real etcd made, after it was found to be the same as muster."""
    folder = tmp_path_factory.mktemp("theirs")
    path = folder / "theirs.db"
    with etcd_of(saved.path, folder / "etcd") as endpoint:
        same(endpoint, saved)
        ctl(endpoint, "put", "by-etcd", "x")
        ctl(endpoint, "del", "by-etcd")
        (folder / "hash").write_text(ctl(endpoint, "endpoint", "hashkv", "-w", "json"))
        ctl(endpoint, "snapshot", "save", str(path))
    return path


def test_musterctl_says_of_a_backup_what_etcdutl_says(saved: Saved, theirs: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.db"
    cut.write_bytes(saved.path.read_bytes()[:5000])
    for path in (saved.path, theirs, cut, tmp_path / "none"):
        for form in ("simple", "table", "json", "fields"):
            ours, etcds = (call(*words, "snapshot", "status", path, "-w", form, check=False)
                           for words in (forks.MUSTERCTL, [tool("etcdutl")]))
            assert ours.stdout == etcds.stdout
            assert (ours.returncode, ours.stderr) == (etcds.returncode, etcds.stderr)


def test_the_hash_of_a_backups_keys_is_that_of_the_etcd(theirs: Path) -> None:
    (told,) = json.loads((theirs.parent / "hash").read_text())
    found = json.loads(call(*forks.MUSTERCTL, "hashkv", theirs, "-w", "json").stdout)
    assert found["hash"] == told["HashKV"]["hash"]
    assert found["hashRevision"] == told["HashKV"]["header"]["revision"]
    assert found["compactRevision"] == told["HashKV"]["compact_revision"]


def test_a_real_etcds_backup_is_restored_to_one_host_with_three_shards(
        saved: Saved, theirs: Path, tmp_path: Path) -> None:
    with muster_of(theirs, tmp_path, 1, 3) as (endpoint,):
        saved.revision += 2
        try:
            same(endpoint, saved)
        finally:
            saved.revision -= 2
        ctl(endpoint, "put", "/d5/a/k", "after")
        assert found(endpoint, "get", "/d5/a/k")["kvs"][0]["mod_revision"] == saved.revision + 3


def test_musters_backup_is_restored_to_three_hosts_with_one_shard(saved: Saved, tmp_path: Path) -> None:
    with muster_of(saved.path, tmp_path, 3, 1) as endpoints:
        for endpoint in endpoints:
            same(endpoint, saved)
        lease = next(iter(saved.content.leases))
        hanging = saved.content.leases[lease][1]
        ctl(endpoints[0], "lease", "revoke", f"{lease:x}")
        left = {kv["key"] for kv in found(endpoints[1], "get", "", "--prefix")["kvs"]}
        assert left == {kv["key"] for kv in saved.content.kvs} - set(hanging)
        ctl(endpoints[0], "auth", "enable")
        as_reader = ["--user=reader:secret", "get", "/d1/a/l", "--print-value-only"]
        assert ctl(endpoints[2], *as_reader).startswith("vvv")
        refused = call(tool("etcdctl"), f"--endpoints={endpoints[2]}", "--user=reader:secret", "put", "/d1/a",
                       "x", check=False)
        assert "permission denied" in refused.stderr


def test_a_bumped_revision_is_compacted(saved: Saved, tmp_path: Path) -> None:
    with muster_of(saved.path, tmp_path, 1, 2, "--bump-revision=1000", "--mark-compacted") as (endpoint,):
        now = found(endpoint, "get", "", "--prefix")
        assert now["header"]["revision"] == saved.revision + 1000
        assert now["kvs"] == saved.content.kvs
        assert is_compacted(endpoint, saved.revision)


def of_the_page(source: str, target: str) -> list[str]:
    """The commands of docs/use/from-etcd.md that move data while an etcd serves, for two endpoints: what
    copies, and what compares."""
    page = (ROOT / "docs" / "use" / "from-etcd.md").read_text()
    blocks = re.findall(r"(?ms)^   ```sh\n   OLD=\S+ NEW=\S+\n(.*?)^   ```$", page)
    assert len(blocks) == 2
    return [f"PATH={ETCD.parent}:{Path(sys.executable).parent}:$PATH OLD={source} NEW={target}\n{block}"
            for block in blocks]


def test_a_running_etcd_is_imported_with_its_leases_and_followed(saved: Saved, tmp_path: Path) -> None:
    with (etcd_of(saved.path, tmp_path / "etcd") as source,
          local_cluster(tmp_path / "muster", 1, "--shards=2", "--fronts=0") as cluster):
        (target,) = cluster.endpoints()
        copy, compare = of_the_page(source, target)
        words = ["bash", "-ec", copy.replace("musterctl", "exec musterctl")]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment()) as copying:
            assert copying.stderr is not None
            try:
                told = [copying.stderr.readline() for _ in range(2)]
                assert f"keys and 2 leases of revision {saved.revision}" in told[1]
                lease = found(source, "lease", "grant", "900")["ID"]
                ctl(source, "put", "/d4/late", "x", f"--lease={lease:x}")
                ctl(source, "del", "plain")
                ctl(source, "put", "/last", "x")
                until(lambda: "kvs" in found(target, "get", "/last"))
                until(lambda: len(set(call("bash", "-ec", compare).stdout.splitlines())) == 1)
            finally:
                copying.send_signal(signal.SIGINT)
            assert "ended: all is copied up to revision" in copying.stderr.read()
        now, copied = (shown(endpoint) for endpoint in (source, target))
        assert copied == now
        assert leases_of(target) == leases_of(source)
        mirrored = forks.popen(
            [*forks.MUSTERCTL, f"--endpoints={target}", "make-mirror", source, "--prefix=/d",
             "--dest-prefix=/mirror/d"], env=environment())
        try:
            wanted = {f"/mirror{key}": value for key, value in copied.items() if key.startswith("/d")}
            until(lambda: {k: v for k, v in shown(source).items() if k.startswith("/mirror/")} == wanted)
        finally:
            mirrored.terminate()
            mirrored.wait(LIMIT_S)


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_file_is_refused_in_etcdutls_words(saved: Saved, tmp_path: Path, damage: str) -> None:
    data = bytearray(saved.path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 1
    path = tmp_path / "damaged.db"
    path.write_bytes(data)
    ours, etcds = (call(*words, "snapshot", "restore", path, f"--data-dir={tmp_path / name}", check=False)
                   for name, words in (("ours", forks.MUSTERCTL), ("theirs", [tool("etcdutl")])))
    assert ours.returncode == etcds.returncode == 1
    assert ours.stderr == next(line for line in etcds.stderr.splitlines(True) if line.startswith("Error: "))
    assert not (tmp_path / "ours").exists()
