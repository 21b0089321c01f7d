"""A host's directories of shards that are born: what is on the disk at each step, and after a crash there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from cluster.placement.base import Base
from cluster.placement.changes import shard_item
from cluster.placement.table import Shard, State, Table
from cluster.raft.types import Configuration, Entry, EntryKind, HardState
from cluster.settings import Peer, genesis_file
from node.storage import RaftLog, StateStore
from node.upkeep.space.sizes import SIZES
from tools.muster.config.parse import ConfigError
from tools.muster.host.defragment import defragment
from tools.muster.host.identity import bootstrap
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.host.supervising import born as born_module
from tools.muster.host.supervising.born import BornShards, finish_drops
from tools.muster.machine.disk import seal

VOTERS = (1, 2, 3)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host's data directory, with one shard."""
    peer = Peer(1, "h1", "127.0.0.1", 1, ("http://127.0.0.1:1",))
    (tmp_path / "member").mkdir()
    identity = Identity(7, 1, 99, 1, 2, (peer,), level=2)
    bootstrap.write_identity(tmp_path / "member" / "identity.json", identity)
    return tmp_path


def born(host: Path, made: list[tuple[int, Sequence[int]]]) -> BornShards:
    def spec(shard: int, voters: Sequence[int], cpus: Sequence[int]) -> Any:
        noted = dict(bootstrap.known(str(host)).born)
        assert shard in noted, "noted before a process starts"
        assert seal.read(folder(host, shard))[0] == 99, "sealed before it is noted"
        made.append((shard, tuple(voters)))

    return BornShards(str(host), str(host), lambda shard: None, spec)


def folder(host: Path, shard: int) -> Path:
    return host / "member" / f"shard-{shard}"


def test_a_directory_is_sealed_then_noted_then_used(host: Path) -> None:
    made: list[tuple[int, Sequence[int]]] = []
    born(host, made).make(1, VOTERS, [])
    assert made == [(1, VOTERS)]
    assert bootstrap.known(str(host)).shards == (0, 1)
    born(host, made).make(1, (), [])
    assert made[1] == (1, VOTERS), "the first voters stay those of the birth"


def test_a_seal_without_its_note_has_never_run(host: Path) -> None:
    seal.seal(folder(host, 1), 99)  # and then it crashed
    born(host, made := []).make(1, VOTERS, [])
    assert made == [(1, VOTERS)]


@pytest.mark.parametrize("code", [errno.ENFILE, errno.EIO])
def test_an_identity_that_lacks_a_file_to_be_read_is_no_damaged_one(
    host: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It ended the whole host, whose other shards go on where the next try finds one."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", Mock(side_effect=OSError(code, os.strerror(code))))
        with pytest.raises(ConfigError if code == errno.EIO else OSError, match=os.strerror(code)):
            born(host, []).make(1, VOTERS, [])
    born(host, made := []).make(1, VOTERS, [])
    assert made == [(1, VOTERS)]


def test_a_log_that_has_no_room_yet_has_its_place_before_its_node_starts(host: Path) -> None:
    """``--wal-dir``: a full disk there ended the whole host."""
    seal.seal(folder(host, 0), 99)
    (host / "logs").write_text("in the way")
    config = Mock(data_dir=str(host), values={"wal-dir": str(host / "logs")})
    placed: list[Path] = []
    shards = BornShards(
        str(host), str(host), partial(bootstrap.place_logs_of, config),
        lambda shard, voters, cpus: placed.append((folder(host, shard) / "log").readlink()) or Mock())
    for _ in range(2):
        with pytest.raises(NotADirectoryError):
            shards.make(1, VOTERS, [])
    (host / "logs").unlink()
    shards.make(1, VOTERS, [])
    assert placed == [host / "logs" / "shard-1"]


def test_another_hosts_log_in_the_way_keeps_that_shard_waiting_alone(host: Path) -> None:
    """``--wal-dir``: it ended the whole host, for it was found behind the note."""
    (host / "logs" / "shard-1" / "db").mkdir(parents=True)
    config = Mock(data_dir=str(host), values={"wal-dir": str(host / "logs")})
    shards = BornShards(str(host), str(host), partial(bootstrap.place_logs_of, config), Mock())
    for _ in range(2):
        with pytest.raises(OSError, match="shard-1 is not empty, and its node is new"):
            shards.make(1, VOTERS, [])
    assert bootstrap.known(str(host)).shards == (0,), "the next start places these logs, or ends"
    (host / "logs" / "shard-1" / "db").rmdir()
    shards.make(1, VOTERS, [])
    assert bootstrap.known(str(host)).shards == (0, 1)


def test_a_note_without_its_seal_is_an_emptied_disk(host: Path) -> None:
    born(host, []).make(1, VOTERS, [])
    (folder(host, 1) / seal.FILE).unlink()
    with pytest.raises(seal.SealBroken):
        born(host, []).make(1, VOTERS, [])


def test_data_that_the_identity_does_not_name_is_refused(host: Path) -> None:
    seal.seal(folder(host, 1), 99)
    seal.begin(folder(host, 1), 99)
    lost = r"beside it does not name that: .* in its cluster$"
    with pytest.raises(ConfigError, match=lost):
        born(host, []).make(1, VOTERS, [])
    folder(host, 0).mkdir()
    (folder(host, 0) / bootstrap.FOLLOWED).write_bytes(bootstrap.KEPT)  # a host of before has taken a layout
    with pytest.raises(ConfigError, match=r"cluster\. If .* too many --shards .*: remove that"):
        born(host, []).make(1, VOTERS, [])
    (folder(host, 0) / bootstrap.FOLLOWED).write_bytes(b"")  # such a host has emptied all
    with pytest.raises(ConfigError, match=lost):
        born(host, []).make(1, VOTERS, [])


def test_a_dropped_shard_leaves_nothing(host: Path) -> None:
    shards = born(host, [])
    shards.make(1, VOTERS, [])
    shards.make(2, VOTERS, [])
    genesis = Path(genesis_file(str(folder(host, 0)), 1))
    genesis.parent.mkdir()
    genesis.touch()
    (host / SIZES).write_bytes(b"\1" * 24)
    shards.drop(1)
    assert (host / SIZES).read_bytes() == b"\1" * 8 + bytes(8) + b"\1" * 8, "what the quota counts"
    assert not genesis.exists()
    genesis.parent.rmdir()
    assert [path.name for path in (host / "member").iterdir() if path.is_dir()] == ["shard-2"]
    assert bootstrap.known(str(host)).shards == (0, 2)


def test_a_drop_takes_the_log_that_its_link_names(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a link that an operator made, a relative one was taken from the working directory."""
    born(host, []).make(1, VOTERS, [])
    (host / "member" / "log-1").mkdir()
    (folder(host, 1) / "log").symlink_to("../log-1")
    (host / "here").mkdir()
    (host / "log-1").mkdir()
    monkeypatch.chdir(host / "here")
    born(host, []).drop(1)
    assert (host / "log-1").exists()
    assert not (host / "member" / "log-1").exists()


def test_a_drop_takes_no_file_for_a_directory(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forced start's file is the only copy of what it dropped."""
    removed: list[Path] = []
    kept = host / "member" / "dropped-1.jsonl"
    kept.touch()
    born(host, []).make(1, VOTERS, [])
    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: removed.append(path))
    born(host, []).drop(1)
    finish_drops(str(host))
    assert set(removed) == {host / "member" / "dropped-shard-1"}


@pytest.mark.parametrize("noted", [True, False])
def test_a_drop_that_was_interrupted_is_finished_at_the_next_start(host: Path, noted: bool) -> None:
    born(host, []).make(1, VOTERS, [])
    folder(host, 1).rename(host / "member" / "dropped-shard-1")
    if not noted:
        bootstrap.note_born(str(host), {})
    finish_drops(str(host))
    assert not [path for path in (host / "member").iterdir() if path.is_dir()]
    assert bootstrap.known(str(host)).shards == (0,)


def test_a_stopped_host_is_compacted_with_all_its_shards(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those behind a shard that was dropped, whose id no other gets."""
    found: list[str] = []
    shards = born(host, [])
    for shard in (1, 2, 3):
        shards.make(shard, VOTERS, [])
    shards.drop(1)
    for shard in (0, 2):  # the third has not begun
        StateStore.open(folder(host, shard) / "state").close()
    monkeypatch.setattr(StateStore, "defragment", lambda store: found.append(store.root.parent.name))
    defragment(str(host))
    assert found == ["shard-0", "shard-2"]


def test_an_identity_keeps_what_it_notes(host: Path) -> None:
    path = host / "member" / "identity.json"
    known = bootstrap.known(str(host))
    bootstrap.write_identity(path, replace(known, born=((3, (2**63, 5)),)))
    assert bootstrap.known(str(host)).born == ((3, (2**63, 5)),)


def of_two(host: Path) -> None:
    """The host began with two shards, and has grown."""
    identity = replace(bootstrap.known(str(host)), shard_count=2)
    bootstrap.write_identity(host / "member" / "identity.json", identity)
    for shard in identity.shards:
        seal.seal(folder(host, shard), identity.incarnation)


def test_a_first_shard_that_was_dropped_is_looked_for_no_more(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_two(host)
    born(host, []).make(2, VOTERS, [])
    born(host, []).drop(1)
    identity = bootstrap.known(str(host))
    assert (identity.shards, identity.first, identity.shard_count) == ((0, 2), (0,), 2)
    bootstrap._check_seals(str(host), identity)
    monkeypatch.setattr(bootstrap, "FORMATS", (1, 2, 3))  # of versions that would look for it
    with pytest.raises(ConfigError, match=r"identity.json has format 4; this muster knows 1, 2, 3"):
        bootstrap.known(str(host))


@pytest.mark.parametrize(("step", "left"), [
    ("os.replace", (0, 1)), ("bootstrap.note_dropped", (0,)), ("remove_dropped", (0,)),
])
def test_a_crash_at_any_step_of_a_first_shards_drop_leaves_what_starts(
    host: Path, monkeypatch: pytest.MonkeyPatch, step: str, left: tuple[int, ...]
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    of_two(host)
    with monkeypatch.context() as patch:
        where, _, name = step.rpartition(".")
        patch.setattr(getattr(born_module, where) if where else born_module, name, crash)
        with pytest.raises(KeyboardInterrupt):
            born(host, []).drop(1)
    finish_drops(str(host))
    identity = bootstrap.known(str(host))
    assert identity.shards == left
    bootstrap._check_seals(str(host), identity)
    assert {path.name for path in (host / "member").iterdir() if path.is_dir()} == {
        f"shard-{shard}" for shard in left}
    born(host, []).drop(1)  # node 0 says it again
    assert bootstrap.known(str(host)).shards == (0,)


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("last", [State.RETIRING, State.DROPPED])
def test_what_older_versions_have_not_noted_is_read_from_the_order(
    host: Path, monkeypatch: pytest.MonkeyPatch, applied: bool, last: State
) -> None:
    of_two(host)
    with contextlib.closing(StateStore.open(folder(host, 0) / "state")):
        if applied:
            shards = {0: Shard(State.SERVING, 0, ()), 1: Shard(last, 1, ())}
            monkeypatch.setattr(StateStore, "placement", lambda store: Table(Base(2), shards))
    opened = RaftLog.open(folder(host, 0) / "log", initial=Configuration(frozenset(VOTERS)))
    with contextlib.closing(opened) as log:
        data = b"" if applied else shard_item(1, last)
        log.append([Entry(1, 1, EntryKind.RECORD, data)], HardState(1, 1, 1))
        log.sync()
    seal.begin(folder(host, 0), 99)
    (folder(host, 1) / seal.FILE).unlink()
    finish_drops(str(host))
    assert bootstrap.known(str(host)).shards == (0, 1), "a directory without a seal was emptied"
    folder(host, 1).rmdir()
    finish_drops(str(host))
    identity = bootstrap.known(str(host))
    if last == State.DROPPED:
        assert identity.shards == (0,)
        bootstrap._check_seals(str(host), identity)
    else:
        with pytest.raises(ConfigError, match="shard-1 is not what member 1 wrote there"):
            bootstrap._check_seals(str(host), identity)


@pytest.mark.parametrize("reading", ["read_text", "read_bytes"])  # the seal, the log's name
def test_a_lack_of_files_is_no_lost_seal(host: Path, monkeypatch: pytest.MonkeyPatch, reading: str) -> None:
    """Each start told the operator to remove a member that had lost nothing, and ended the host."""
    node = folder(host, 0)
    seal.seal(node, 99)
    seal.begin(node, 99)
    for part in seal.PARTS.values():
        (node / part).parent.mkdir(exist_ok=True, parents=True)
        (node / part).touch()
    for code in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO):
        kind, error = seal.SealBroken if code == errno.EIO else OSError, OSError(code, os.strerror(code))
        with monkeypatch.context() as patch:
            patch.setattr(Path, reading, Mock(side_effect=error))
            with pytest.raises(kind) as raised:
                seal.check(node, 1, 99)
        if code == errno.EIO:  # a replica that one failed read calls lost would be thrown away
            assert str(raised.value).startswith("cannot read ")
    seal.check(node, 1, 99)
