"""What the process that runs the hosts says to the tests."""

from __future__ import annotations

import json
import os
import random
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from muster.testing import keeper, ports
from tools.muster.config.parse import ConfigError
from tools.muster.local import commands, layout


def test_what_fails_before_the_hosts_run_answers_the_first_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def fails(plan: dict[str, Any], asking: socket.socket) -> int:
        raise OSError("no free ports")

    ours, theirs = socket.socketpair()
    plan = {"data_dir": str(tmp_path / "data"), "hosts": 1, "remove": False}
    monkeypatch.setattr(keeper, "_run", fails)
    monkeypatch.setattr(sys, "argv", ["keeper", str(theirs.detach()), json.dumps(plan)])
    with ours:
        assert keeper.main() == 1
        assert json.loads(ours.recv(1000)) == {"id": 0, "error": "no free ports"}


_PLANNED = """
import json, sys
from muster.testing import keeper
try:
    made, doors = keeper.planned(json.loads(sys.argv[1]))
except keeper.ConfigError as error:
    print(json.dumps(str(error)))
else:
    named = [one for one in made.hosts[0].arguments if one.startswith("--initial-cluster=")]
    print(json.dumps([doors, named[-1]]), flush=True)
    sys.stdin.read()
"""


@contextmanager
def planned(data_dir: Path, hosts: int = 3) -> Iterator[Any]:
    """What a process plans, which has its ports meanwhile; the words of an error."""
    plan = {"data_dir": str(data_dir), "hosts": hosts, "shards": 1, "flags": []}
    with subprocess.Popen(
        [sys.executable, "-c", _PLANNED, json.dumps(plan)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.stdin.close()


def begin(data_dir: Path, hosts: int) -> None:
    for host in range(hosts):
        identity = data_dir / f"host{host}" / "member" / "identity.json"
        identity.parent.mkdir(parents=True)
        identity.touch()


def test_hosts_with_data_find_each_other_at_the_next_start(tmp_path: Path) -> None:
    """They dialled the ports of the first start, where nobody listened, and had no leader."""
    with planned(tmp_path) as first:
        doors, named = first
        assert all(f":{door}" in named for door in doors)
    begin(tmp_path, 3)
    with planned(tmp_path) as again:
        assert again == first
        with planned(tmp_path) as third:
            assert "know each other by ports that are taken: another cluster of tests has" in third
    with planned(tmp_path, 2) as fewer:
        assert fewer == f"{tmp_path} has the data of 3 hosts, not of 2"
    (tmp_path / "doors.json").write_text("{")
    with planned(tmp_path) as torn:
        assert torn.startswith(f"{tmp_path}/doors.json has no list of ports: ")
    (tmp_path / "doors.json").unlink()
    with planned(tmp_path) as older:
        told = f"{tmp_path}/doors.json does not tell"
        assert older == f"the hosts of {tmp_path} know each other by ports that {told}"


def test_a_first_start_that_failed_binds_no_later_one(tmp_path: Path) -> None:
    with planned(tmp_path) as first, planned(tmp_path, 2) as second:
        assert (len(first[0]), len(second[0])) == (3, 2)


def test_others_take_the_ports_of_a_kept_cluster_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that drew them by lot kept it from its next start."""
    doors = tmp_path / "doors.json"
    monkeypatch.setattr(ports, "_folder", lambda: tmp_path)
    monkeypatch.setattr(ports, "_ABOVE", (61_000, 61_100))
    monkeypatch.setattr(ports, "_last_of_kernel", lambda: 60_999)
    monkeypatch.setattr(ports, "_is_free", lambda port: True)
    monkeypatch.setattr(random, "shuffle", lambda starts: None)
    ports.keep([61_051, 61_052], str(doors))  # its data was removed, and made anew
    ports.keep([61_001, 61_002], str(doors))
    doors.write_text("[61001, 61002]")
    assert ports.free(1) == [61_050]
    assert ports.free(1) == [61_000]


def test_a_folder_of_ports_that_another_user_may_have_made_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is known: a link in it had :func:`ports.keep` overwrite any file of the tests' user."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    mine.write_text("precious")
    theirs.mkdir()
    (theirs / "61050").symlink_to(mine)
    named = tmp_path / f"muster-testing-ports-{os.getuid()}"
    named.symlink_to(theirs)
    with pytest.raises(OSError, match="belongs to another user, or is no directory: set TMPDIR"):
        ports.keep([61_051], "doors.json")
    named.unlink()
    theirs.rename(named)
    real = os.lstat

    def another_users(path: Path) -> os.stat_result:
        return os.stat_result((*real(path)[:4], os.getuid() + 1, *real(path)[5:]))

    monkeypatch.setattr(os, "lstat", another_users)
    with pytest.raises(OSError, match="belongs to another user"):
        ports.keep([61_051], "doors.json")
    monkeypatch.setattr(os, "lstat", real)
    assert mine.read_text() == "precious"
    (named / "61050").unlink()
    named.chmod(0o777)
    ports.keep([61_051], "doors.json")
    assert stat.S_IMODE(named.stat().st_mode) == 0o700


def test_a_lone_host_with_data_takes_any_ports_and_keeps_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, 1)
    with planned(tmp_path, 1) as first, planned(tmp_path, 1) as other:
        assert first != other
    monkeypatch.setattr(ports, "keep", lambda *_: pytest.fail("no later start needs them"))
    keeper.planned({"hosts": 1, "data_dir": str(tmp_path), "shards": 1, "flags": []})


def test_the_only_one_of_several_hosts_that_began_is_not_taken_for_a_lone_one(tmp_path: Path) -> None:
    """Its start waited for the others, and another number was refused for good."""
    with planned(tmp_path):
        begin(tmp_path, 1)
    with planned(tmp_path, 1) as fewer:
        assert fewer == f"{tmp_path} has the data of 3 hosts, not of 1"
    with planned(tmp_path) as again:
        assert len(again[0]) == 3


def keeping(monkeypatch: pytest.MonkeyPatch, leaders: dict[int, int]) -> keeper.Keeper:
    """One of two hosts that began with shards 0 and 1; who leads each shard that there is now."""
    hosts = layout.plan("unused", 2, 2, 1, 0, ["none"] * 2, ()).hosts
    told = [{"shard": shard, "leader_host": host} for shard, host in sorted(leaders.items())]
    monkeypatch.setattr(commands, "status", lambda found: {"shards": told})
    made = keeper.Keeper.__new__(keeper.Keeper)
    made._layout, made._frozen = layout.Layout(hosts, 2), set()
    return made


def test_the_leader_of_an_added_shard_is_told_and_of_none_that_has_retired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = keeping(monkeypatch, {0: 0, 2: 1, 3: 0})
    assert [kept._leader({"shard": shard, "wait_s": 0}) for shard in (0, 2, 3)] == [
        {"host": 0}, {"host": 1}, {"host": 0}]
    for shard in (1, 4, -1):
        with pytest.raises(ConfigError, match=f"there is no shard {shard}: they are 0, 2, 3"):
            kept._leader({"shard": shard, "wait_s": 0})
