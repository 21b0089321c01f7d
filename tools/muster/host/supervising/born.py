"""A host's nodes of shards that are born and retire: directories that are made and dropped while it runs.

Made: directory, seal and the log's link, synced; then the note in ``identity.json``, synced; then the process
starts. A seal without its note has never run. A note without its seal is an emptied disk, which the next
start refuses (H10). Dropped: the process has ended; the directory is renamed, ``identity.json`` has no node
of it any more, the files go. So it is with the first shards, too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.effects.newer import NewerRecord
from cluster.features import growth
from cluster.settings import genesis_file
from node.durable import sync_directory
from node.upkeep.space import sizes
from tools.muster.config.parse import ConfigError
from tools.muster.host.identity import bootstrap
from tools.muster.host.supervising.children import ChildSpec
from tools.muster.machine.disk import seal

_DROPPED = "dropped-"  # before a directory's name: nothing in it is needed any more
_LEFT = f"{_DROPPED}shard-*"  # not dropped-N.jsonl, a forced start's only copy of what it dropped

Spec = Callable[[int, Sequence[int], Sequence[int]], ChildSpec]


class BornShards:
    """Of one host. ``spec(shard, voters, cpus in use)`` describes a node's process."""

    def __init__(self, data_dir: str, run_dir: str, place_log: Callable[[int], None], spec: Spec) -> None:
        """``place_log``: of a shard, for ``--wal-dir``. ConfigError, OSError."""
        self._data_dir = data_dir
        self._run_dir = run_dir
        self._place_log = place_log
        self._spec = spec

    def make(self, shard: int, voters: Sequence[int], cpus: Sequence[int]) -> ChildSpec:
        """What is needed to start a node of this shard. ConfigError, OSError, SealBroken."""
        identity = bootstrap.known(self._data_dir)
        folder = bootstrap.shard_dir(self._data_dir, shard)
        noted = dict(identity.born)
        if shard not in noted:
            state = seal.read(folder)[1]
            if state == seal.BEGUN:
                first = Path(bootstrap.shard_dir(self._data_dir, 0))
                mark = first / bootstrap.FOLLOWED
                kept = mark.exists() and mark.read_bytes() == bootstrap.KEPT
                raise ConfigError(
                    f"{folder} holds a node's data, and identity.json beside it does not name that: restore "
                    "the file, or replace this host in its cluster" + (
                        ". If a first start with too many --shards (or auto) has left it: remove that "
                        "directory, and its log in --wal-dir" if kept else ""))
            seal.seal(folder, identity.incarnation)
            sync_directory(Path(folder).parent)
        else:
            seal.check(folder, identity.member_id, identity.incarnation)
        try:
            self._place_log(shard)
        except ConfigError as error:  # another's log is in the way: the other shards go on
            raise OSError(str(error)) from None
        if shard not in noted:  # a start refuses a note whose log has no place
            bootstrap.note_born(self._data_dir, {**noted, shard: tuple(voters)})
        return self._spec(shard, noted.get(shard, voters), cpus)

    def drop(self, shard: int) -> None:
        """Its node has ended for good. OSError."""
        sizes.forget(self._run_dir, shard)
        drop_files(self._data_dir, shard)


def drop_files(data_dir: str, shard: int) -> None:
    """Remove a shard's directory, and its note. ConfigError, OSError."""
    folder = Path(bootstrap.shard_dir(data_dir, shard))
    aside = folder.with_name(_DROPPED + folder.name)
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)
        sync_directory(folder.parent)
    first = bootstrap.shard_dir(data_dir, 0)
    Path(genesis_file(first, shard)).unlink(missing_ok=True)  # its node may never have begun
    bootstrap.note_dropped(data_dir, (shard,))
    remove_dropped(data_dir)


def remove_dropped(data_dir: str) -> None:
    """Remove the directories of dropped shards, with their logs elsewhere, and their notes."""
    member = Path(bootstrap.member_dir(data_dir))
    for aside in member.glob(_LEFT):
        if (log := aside / "log").is_symlink():
            shutil.rmtree(log.resolve(), ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def finish_drops(data_dir: str) -> None:
    """At a start: what a crash has left of a drop, and what older versions have not noted. ConfigError,
    OSError."""
    if not bootstrap.is_known(data_dir):
        return
    member = Path(bootstrap.member_dir(data_dir))
    lacking = {
        folder.name: shard for shard in bootstrap.known(data_dir).shards
        if not (folder := Path(bootstrap.shard_dir(data_dir, shard))).exists()}
    gone = {aside.name.removeprefix(_DROPPED) for aside in member.glob(_LEFT)}
    if noted := [shard for name, shard in lacking.items() if name in gone]:
        bootstrap.note_dropped(data_dir, noted)
    if gone:
        remove_dropped(data_dir)
    _note_unnoted(data_dir, [shard for name, shard in lacking.items() if name not in gone])


def _note_unnoted(data_dir: str, lacking: Sequence[int]) -> None:
    """``lacking``: shards of this host without a directory. Older versions did not note that one of the first
    shards was dropped; the order tells. ConfigError."""
    identity = bootstrap.known(data_dir)
    first = bootstrap.shard_dir(data_dir, 0)
    suspects = set(lacking).intersection(identity.first) - {0}
    if not suspects or identity.level < growth.BIRTHS or seal.read(first)[1] != seal.BEGUN:
        return
    with contextlib.suppress(seal.SealBroken):  # the start says what is missing
        seal.check(first, identity.member_id, identity.incarnation)
        # it loads RocksDB, which a supervisor needs for nothing else
        from node.backup.stopped.retired import dropped_by
        from node.storage import StorageError

        try:
            bootstrap.note_dropped(data_dir, suspects & dropped_by(Path(first)))
        except (StorageError, NewerRecord) as error:
            raise ConfigError(f"cannot read which shards have retired: {error}") from None
