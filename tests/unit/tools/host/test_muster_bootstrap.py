"""Who a host is: IDs by etcd's rules, kept for ever; one process per data directory; run directories that
fit."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.features.growth import LEVEL
from cluster.members.described import Running
from cluster.members.table import Host
from tools.muster import cli, peer_keys
from tools.muster.config import settings as config
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import ConfigError, resolve
from tools.muster.host import rundir
from tools.muster.host.identity import bootstrap, joining
from tools.muster.host.identity.bootstrap import Identity

THREE = "infra0=http://127.0.0.1:23800,infra1=http://127.0.0.1:23801,infra2=http://127.0.0.1:23802"


def establish(data_dir: Path, *args: str) -> tuple[Identity, bool]:
    settings = config.build(resolve(SERVER_FLAGS, (f"--data-dir={data_dir}", *args), {}))
    bootstrap.prepare_data_dir(settings.data_dir)
    identity, is_new = bootstrap.establish(settings)
    if is_new:
        bootstrap.keep(settings, identity)
    return identity, is_new


def of_three(name: str, url: str = "") -> tuple[str, ...]:
    own = url or dict(p.split("=") for p in THREE.split(","))[name]
    return (
        f"--name={name}", f"--initial-cluster={THREE}", f"--initial-advertise-peer-urls={own}",
        "--initial-cluster-token=etcd-cluster-1",
    )  # fmt: skip


def test_variables_of_three_hosts_make_the_cluster_that_flags_make() -> None:
    """S1-022: an article starts three instances both ways."""
    found = []
    for name, url in (part.split("=") for part in THREE.split(",")):
        flags = {"name": name, "listen-peer-urls": url, "initial-advertise-peer-urls": url,
                 "initial-cluster": THREE, "initial-cluster-state": "new", "initial-cluster-token": "t"}
        variables = {f"ETCD_{flag.upper().replace('-', '_')}": value for flag, value in flags.items()}
        ways = [
            resolve(SERVER_FLAGS, [f"--{flag}={value}" for flag, value in flags.items()], {}),
            resolve(SERVER_FLAGS, [], variables),
        ]
        one, other = (replace(bootstrap.identity_of(config.build(way)), incarnation=1) for way in ways)
        assert one == other
        found.append((one.cluster_id, one.member_id))
    assert len({cluster for cluster, _ in found}) == 1
    assert len({member for _, member in found}) == 3


def test_a_host_without_flags_has_etcds_ids(tmp_path: Path) -> None:
    identity, is_new = establish(tmp_path)
    assert is_new
    assert f"{identity.member_id:x}" == "8e9e05c52164694d"
    assert f"{identity.cluster_id:x}" == "cdf818194e3a8c32"
    assert identity.incarnation != 0


def test_three_hosts_agree_on_all_ids(tmp_path: Path) -> None:
    found = [establish(tmp_path / name, *of_three(name))[0] for name in ("infra0", "infra1", "infra2")]
    assert {f"{i.cluster_id:x}" for i in found} == {"27949674065375ef"}
    assert [f"{i.member_id:x}" for i in found] == ["7b5a8be93824acf5", "2abecb6143ceca2c", "ef48f5673c3497fa"]
    assert found[0].peers == found[1].peers == found[2].peers
    assert [p.port for p in sorted(found[0].peers, key=lambda p: p.name)] == [23800, 23801, 23802]
    assert len({i.incarnation for i in found}) == 3


def test_later_starts_keep_the_identity_and_ignore_the_initial_flags(tmp_path: Path) -> None:
    first, _ = establish(tmp_path, *of_three("infra0"))
    again, is_new = establish(tmp_path, "--initial-cluster=x=http://wrong:1", "--initial-cluster-token=other")
    assert not is_new
    assert again == first


def test_no_host_begins_where_a_restore_has_not_ended(tmp_path: Path) -> None:
    """It would be an empty one, and the restore would find the directory taken."""
    aside = tmp_path / bootstrap.RESTORING
    aside.mkdir()
    with pytest.raises(ConfigError, match=rf"a restore into {tmp_path} has not ended.* empty that directory"):
        establish(tmp_path)
    assert list(tmp_path.iterdir()) == [aside]
    aside.rmdir()
    establish(tmp_path)
    aside.mkdir()  # it ended but for that
    assert establish(tmp_path)[1] is False


def test_another_number_of_shards_is_refused_at_a_restart(tmp_path: Path) -> None:
    establish(tmp_path, "--shards=1")
    path = tmp_path / "member" / "identity.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**raw, "shard_count": 4}), encoding="utf-8")
    for shard in (1, 2, 3):
        shutil.copytree(tmp_path / "member" / "shard-0", tmp_path / "member" / f"shard-{shard}")
    with pytest.raises(
        ConfigError, match="--shards=1, but this cluster was made with 4: the flag keeps that number"
    ):
        establish(tmp_path, "--shards=1")
    assert establish(tmp_path)[0].shard_count == 4  # nothing was asked for: what was agreed holds
    assert establish(tmp_path, "--shards=auto")[0].shard_count == 4
    with pytest.raises(ConfigError, match="--shard-depth=3, but this cluster was made with 2"):
        establish(tmp_path, "--shard-depth=3")


def test_a_host_follows_what_was_agreed_unless_it_was_told_a_number(tmp_path: Path) -> None:
    identity, _ = establish(tmp_path, "--shards=2")
    (tmp_path / "member" / "shard-0" / bootstrap.AGREED).write_text("3 2\n", encoding="utf-8")

    def may_follow(*flags: str) -> bool:
        return bootstrap.may_follow(
            config.build(resolve(SERVER_FLAGS, (f"--data-dir={tmp_path}", *flags), {})), identity
        )

    assert may_follow()
    assert may_follow("--shards=auto", "--shard-depth=2")
    assert not may_follow("--shards=2")  # it was told so, and is told that it cannot be
    assert not may_follow("--shards=3")
    (tmp_path / "member" / "shard-0" / bootstrap.AGREED).write_text("2 1\n", encoding="utf-8")
    assert may_follow()
    assert not may_follow("--shard-depth=2")
    (tmp_path / "member" / "shard-0" / bootstrap.AGREED).write_text("2 2\n", encoding="utf-8")
    assert not may_follow()  # it has these: its nodes stopped for another reason


@pytest.mark.parametrize("joined", [False, True])
def test_a_host_with_grown_data_is_refused_by_versions_that_do_not_know_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, joined: bool
) -> None:
    identity, _ = establish(tmp_path)
    path = tmp_path / "member" / "identity.json"
    bootstrap.write_identity(path, replace(identity, joined=joined))
    before = path.read_bytes()
    bootstrap.grown(str(tmp_path), 0)
    assert path.read_bytes() == before
    bootstrap.grown(str(tmp_path), 1)
    bootstrap.grown(str(tmp_path), 0)  # another node is behind
    assert establish(tmp_path)[0] == replace(identity, joined=joined, level=1)
    with monkeypatch.context() as older:  # the versions before growth look for these
        older.setattr(bootstrap, "FORMATS", (bootstrap.FORMAT, bootstrap.JOINED_FORMAT))
        with pytest.raises(ConfigError, match=r"identity.json has format 3; this muster knows 1, 2"):
            establish(tmp_path)
    bootstrap.write_identity(path, replace(identity, level=LEVEL + 1))
    with pytest.raises(ConfigError, match=f"older than the cluster's data: .* level {LEVEL + 1}, and"):
        establish(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "cluster_id": "zz"}'])
def test_a_damaged_identity_is_refused(tmp_path: Path, text: str) -> None:
    establish(tmp_path)
    (tmp_path / "member" / "identity.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="is damaged"):
        establish(tmp_path)


@pytest.mark.parametrize(("wrong", "why"), [
    ({"peers": []}, "none of its peers has its member_id"), ({"member_id": "77"}, "none of its peers"),
    ({"shard_count": "3"}, "TypeError"), ({"born": [1]}, "AttributeError"), ({"peers": 7}, "TypeError")])
def test_an_identity_that_cannot_be_is_refused(tmp_path: Path, wrong: dict[str, Any], why: str) -> None:
    establish(tmp_path)
    path = tmp_path / "member" / "identity.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | wrong), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"is damaged.*{why}"):
        establish(tmp_path)


def test_a_flipped_bit_of_an_identity_is_refused(tmp_path: Path) -> None:
    establish(tmp_path)
    path = tmp_path / "member" / "identity.json"
    path.write_bytes(path.read_bytes().replace(b"member_id", b"member_i\xe4"))
    with pytest.raises(ConfigError, match="is damaged"):
        establish(tmp_path)


def test_a_log_without_its_identity_does_not_come_back_as_somebody(tmp_path: Path) -> None:  # H10
    establish(tmp_path)
    (tmp_path / "member" / "shard-0" / "log").mkdir()
    (tmp_path / "member" / "identity.json").unlink()
    with pytest.raises(ConfigError, match=r"identity.json is missing, but .* holds shard-0"):
        establish(tmp_path)


def test_the_data_of_an_etcd_is_left_alone(tmp_path: Path) -> None:
    for name in ("snap", "wal"):
        (tmp_path / "member" / name).mkdir(parents=True)
        (tmp_path / "member" / name / "db").touch()
    with pytest.raises(ConfigError, match="holds the data of an etcd, which muster cannot open"):
        establish(tmp_path)
    assert sorted(path.name for path in (tmp_path / "member").iterdir()) == ["snap", "wal"]


@pytest.mark.parametrize("loss", ["removed", "emptied", "another's"])
def test_a_node_whose_directory_was_emptied_does_not_vote_again(tmp_path: Path, loss: str) -> None:  # H10
    establish(tmp_path / "a")
    establish(tmp_path / "b")
    folder = tmp_path / "a" / "member" / "shard-0"
    shutil.rmtree(folder)
    if loss == "emptied":
        folder.mkdir()
    if loss == "another's":
        shutil.copytree(tmp_path / "b" / "member" / "shard-0", folder)
    with pytest.raises(
        ConfigError, match=r"must not vote under its old identity: .* remove the member, then add it anew"
    ):
        establish(tmp_path / "a")


@pytest.mark.parametrize("state", ["new", "existing"])
def test_a_new_host_is_nobody_until_its_identity_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    flags = (f"--data-dir={tmp_path}", f"--initial-cluster-state={state}", *of_three("infra0"))
    settings = config.build(resolve(SERVER_FLAGS, flags, {}))
    bootstrap.prepare_data_dir(settings.data_dir)
    peers = bootstrap.peers_of(settings.initial_cluster, "etcd-cluster-1")
    own = next(p.member_id for p in peers if p.name == "infra0")
    told = Running(bootstrap.cluster_id_of(peers), 1, 2, (), origin="a7")
    monkeypatch.setattr(joining, "join", lambda *_: (told, peers, own))
    first, is_new = bootstrap.establish(settings)
    assert is_new
    joins = state == "existing"
    assert (first.joined, first.joining, first.origin) == (joins, joins, "a7" if joins else "new")
    assert list((tmp_path / "member").iterdir()) == []
    again, is_new = bootstrap.establish(settings)  # the start before was refused
    assert is_new
    bootstrap.keep(settings, again)
    assert bootstrap.establish(settings) == (again, False)
    bootstrap.grown(settings.data_dir, 1)
    for _ in range(2):
        bootstrap.served(settings.data_dir)
        assert bootstrap.known(settings.data_dir) == replace(again, level=1, joining=False)


def test_a_crash_while_the_identity_is_written_leaves_a_first_start(tmp_path: Path) -> None:
    establish(tmp_path)
    path = tmp_path / "member" / "identity.json"
    path.rename(path.with_name("identity.json.tmp"))
    assert establish(tmp_path)[1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--name=infra9", f"--initial-cluster={THREE}"),
         'couldn\'t find local name "infra9" in the initial cluster configuration'),
        (("--name=", "--initial-cluster==http://localhost:2380"),
         'couldn\'t find local name "" in the initial cluster configuration'),
        (
            of_three("infra0", "http://127.0.0.1:1"),
            "--initial-cluster has infra0=http://127.0.0.1:23800 but missing from "
            "--initial-advertise-peer-urls=http://127.0.0.1:1 "
            '(resolved urls: "http://127.0.0.1:1" != "http://127.0.0.1:23800")',
        ),
        (
            of_three("infra0", "http://127.0.0.1:23800,http://127.0.0.1:5"),
            "--initial-advertise-peer-urls has http://127.0.0.1:5 but missing from "
            "--initial-cluster=infra0=http://127.0.0.1:23800",
        ),
        (
            (f"--initial-cluster={THREE},infra0=http://127.0.0.1:5", "--name=infra0",
             "--initial-advertise-peer-urls=http://127.0.0.1:23800"),
            "--initial-cluster has infra0=http://127.0.0.1:5 but missing from "
            "--initial-advertise-peer-urls=http://127.0.0.1:23800",
        ),
        (  # by their addresses none is missing
            ("--name=a", "--initial-cluster=a=http://localhost:2380,a=http://127.0.0.1:2380",
             "--initial-advertise-peer-urls=http://127.0.0.1:2380"),
            "--initial-cluster has a=http://localhost:2380 but missing from "
            "--initial-advertise-peer-urls=http://127.0.0.1:2380 "
            '(resolved urls: "http://127.0.0.1:2380" != "http://127.0.0.1:2380,http://127.0.0.1:2380")',
        ),
        (
            ("--name=a", "--initial-cluster=a=http://127.0.0.1:2380",
             "--initial-advertise-peer-urls=http://127.0.0.1:2380,http://localhost:2380"),
            "--initial-advertise-peer-urls has http://localhost:2380 but missing from "
            "--initial-cluster=a=http://127.0.0.1:2380",
        ),
        (
            ("--name=a", "--initial-cluster=a=http://127.0.0.1:2380",
             "--initial-advertise-peer-urls=http://127.0.0.1:2380,http://127.0.0.1:2380"),
            "failed to resolve http://127.0.0.1:2380,http://127.0.0.1:2380 to match "
            "--initial-cluster=a=http://127.0.0.1:2380",
        ),
        (("--initial-cluster-state=existing",), "could not retrieve cluster information from the given URLs"),
    ],
)  # fmt: skip
def test_a_cluster_that_cannot_be_bootstrapped(tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as e:
        establish(tmp_path, *args)
    assert message in str(e.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("advertised", [(), ("--initial-advertise-peer-urls=http://10.0.0.9:2380",)])
def test_a_host_that_joins_is_known_by_the_url_that_it_was_added_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advertised: tuple[str, ...], scheme: str
) -> None:
    """It was refused unless its own flag had that URL as well, which etcd asks of new clusters alone."""
    urls = f"{scheme}://127.0.0.1:23800", f"{scheme}://127.0.0.1:23803"
    running = Running(7, 1, 2, tuple(Host(n, "", (url,)) for n, url in enumerate(urls, 1)))
    monkeypatch.setattr(joining, "ask", lambda *args, **options: running)
    flags = (
        "--name=h3", "--initial-cluster-state=existing", f"--initial-cluster=h0={urls[0]},h3={urls[1]}",
        f"--listen-peer-urls={urls[1]}", *["--peer-auto-tls"][: scheme == "https"], *advertised)
    identity, _ = establish(tmp_path, *flags)
    assert (identity.member_id, identity.own.peer_urls) == (2, urls[1:])
    settings = config.build(resolve(SERVER_FLAGS, (*flags, f"--data-dir={tmp_path}", "--proxy=on"), {}))
    assert (config.as_member(settings).peer_tls is not None) == (scheme == "https")


def test_a_wrong_cluster_with_defaults_left_gives_etcds_hints(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"forgot to set --initial-advertise-peer-urls flag\?"):
        establish(tmp_path, "--name=infra0", f"--initial-cluster={THREE}")


def test_names_that_resolve_to_the_same_address_are_the_same_host(tmp_path: Path) -> None:
    establish(
        tmp_path, "--name=a", "--initial-cluster=a=http://localhost:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
    )


def test_a_data_directory_belongs_to_one_process(tmp_path: Path) -> None:
    lock = rundir.DataDirLock(str(tmp_path))
    try:
        assert rundir.holder_of(str(tmp_path)) == os.getpid()
        with pytest.raises(ConfigError, match=rf"is in use by another muster \(process {os.getpid()}\)"):
            rundir.DataDirLock(str(tmp_path))
    finally:
        lock.release()
    assert rundir.holder_of(str(tmp_path)) == 0
    rundir.DataDirLock(str(tmp_path)).release()


def test_who_asks_for_the_holder_is_no_holder_and_a_start_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(f"{os.getpid()}\n")  # of the last one
    with open(tmp_path / "lock", "rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert rundir.holder_of(str(tmp_path)) == 0
        ending = threading.Timer(0.1, fcntl.flock, (asking, fcntl.LOCK_UN))
        ending.start()
        rundir.DataDirLock(str(tmp_path)).release()
        ending.join()


def test_a_full_disk_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(*given: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def other_write(args: list[str]) -> int:
        return write()

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(ConfigError, match=r"access data directory: .*/lock: No space left on device"):
        rundir.DataDirLock(str(tmp_path))
    assert cli.guarded(other_write, []) == 1
    assert capsys.readouterr().err == "muster: No space left on device\n"


def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from tools.muster.host.rundir import DataDirLock as D; d = D(sys.argv[1]); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[4],
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert rundir.holder_of(str(tmp_path)) == holder.pid
        holder.kill()
        holder.wait(60)
    assert rundir.holder_of(str(tmp_path)) == 0


def test_a_short_path_keeps_its_sockets_with_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundir, "LONGEST_SOCKET_PATH", 1000)
    assert rundir.make_run_dir(str(tmp_path)) == str(tmp_path / "run")
    assert rundir.run_dir_of(str(tmp_path)) == str(tmp_path / "run")


def test_a_long_path_gets_short_sockets_that_others_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    path = rundir.make_run_dir(str(deep))
    try:
        assert path.startswith("/tmp/muster-")
        assert len(path + rundir.LONGEST_SOCKET_NAME) <= rundir.LONGEST_SOCKET_PATH
        assert rundir.run_dir_of(str(deep)) == path
        assert rundir.make_run_dir(str(deep)) == path
        assert os.stat(path).st_mode & 0o777 == 0o700
    finally:
        rundir.remove_run_dir(str(deep), path)
    assert not os.path.exists(path)


def test_a_run_directory_beside_the_data_is_left_alone(tmp_path: Path) -> None:
    asked = rundir.make_run_dir(str(tmp_path), str(tmp_path / "r"))
    rundir.remove_run_dir(str(tmp_path), asked)
    assert rundir.run_dir_of(str(tmp_path)) == asked
    assert os.path.isdir(asked)


def test_a_run_directory_that_is_a_link_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundir, "LONGEST_SOCKET_PATH", 1000)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="belongs to another user"):
        rundir.make_run_dir(str(tmp_path))


def test_a_data_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "disk")  # which may be mounted later
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match="cannot access data directory"):
            bootstrap.prepare_data_dir(str(tmp_path / name))


def test_a_data_directory_behind_a_link_is_where_the_system_finds_it(tmp_path: Path) -> None:
    """``..`` is that of the link's target. Another directory was made, and left there."""
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "deep")
    bootstrap.prepare_data_dir(f"{tmp_path}/link/../data")
    assert (tmp_path / "disk" / "data" / "member").is_dir()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("there", ["", "new", "new/data"])
def test_the_names_of_a_first_start_outlast_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    """A host that finds no directory begins as a new one: all three of a cluster would be empty."""
    synced, sync = set[str](), os.fsync

    def note(fd: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))
        sync(fd)

    (tmp_path / there).mkdir(parents=True, exist_ok=True)  # by its user, maybe just now
    data_dir = tmp_path / "new" / "data"
    monkeypatch.setattr(os, "fsync", note)
    establish(data_dir)
    made = {data_dir / "member", data_dir, data_dir.parent, *([] if there else [tmp_path])}
    assert {str(path) for path in made} <= synced


def test_peer_keys_are_a_private_pair(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    peer_keys.generate(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert set(json.loads(path.read_text(encoding="utf-8"))) == {"public", "secret"}
    peer_keys.check(str(path))
    with pytest.raises(FileExistsError):
        peer_keys.generate(str(path))


def test_a_key_file_that_cannot_be_used(tmp_path: Path) -> None:
    first, second, open_to_all = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    for path in (first, second, open_to_all):
        peer_keys.generate(str(path))
    mixed = {
        **json.loads(first.read_text(encoding="utf-8")),
        "public": json.loads(second.read_text(encoding="utf-8"))["public"],
    }
    first.write_text(json.dumps(mixed), encoding="utf-8")
    second.write_text("-----BEGIN PRIVATE KEY-----", encoding="utf-8")
    open_to_all.chmod(0o644)
    for path, message in (
        (first, "do not belong together"), (second, "is not a key file of muster"),
        (open_to_all, "can be read by others"), (tmp_path / "4", "No such file"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            peer_keys.check(str(path))
