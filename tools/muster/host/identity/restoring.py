"""``musterctl snapshot restore``: a host's data directory from a backup, once for each host.

The IDs come from the host's name, its cluster's peer URLs and token, as at a first start. All is made in a
folder of the data directory, and moved up when it is whole. So the directory may be there already, as a mount
point, a link, or in a directory that its user may not write.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from cluster.bolt import Database, InvalidDatabase
from cluster.bolt.etcd import NoBackup, checked_size
from cluster.bolt.status import check
from node.backup.restore import Changed, Restored, restore
from node.durable import make_folder, sync_directory
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import ConfigError, UsageError, resolve
from tools.muster.config.settings import build
from tools.muster.host.identity.bootstrap import RESTORING, identity_of, member_dir, shard_dir, write_identity
from tools.muster.host.identity.wal_dir import (
    begin_logs,
    is_unused,
    made_at,
    point_logs,
    remove_unused,
)
from tools.muster.host.rundir import LOCK, DataDirLock
from tools.muster.machine.disk import seal

_CHUNK_BYTES = 4 << 20
Tell = Callable[[int, int], None]  # bytes done, of so many


@dataclass(slots=True, frozen=True)
class NewHost:
    name: str
    data_dir: str
    initial_cluster: str
    initial_cluster_token: str
    initial_advertise_peer_urls: str
    shards: int
    shard_depth: int  # 0: as a first start has it
    wal_dir: str = ""  # for the logs; "": in the data directory

    def arguments(self) -> list[str]:
        """The new host's flags."""
        given = [
            f"--name={self.name}", f"--data-dir={self.data_dir}", f"--initial-cluster={self.initial_cluster}",
            f"--initial-cluster-token={self.initial_cluster_token}", f"--shards={self.shards}",
            f"--initial-advertise-peer-urls={self.initial_advertise_peer_urls}"]
        scheme = self.initial_advertise_peer_urls.partition(":")[0].lower()
        if scheme == "https":  # its certificate is not known yet
            given += ["--listen-peer-urls=https://localhost:2380", "--peer-auto-tls"]
        elif scheme == "unix":
            given.append(f"--listen-peer-urls={self.initial_advertise_peer_urls}")
        return [*given, f"--shard-depth={self.shard_depth}"] if self.shard_depth else given


def restore_host(
    snapshot: Path, new: NewHost, changed: Changed, skip_hash_check: bool, tell: Tell,
) -> Restored:
    """Make the data directory. NoBackup, ConfigError, OSError, StorageError: nothing is left of it that is
    not whole."""
    try:
        config = build(resolve(SERVER_FLAGS, new.arguments(), {}, use_environ=False))
    except UsageError as e:  # the tool names no flag of a server
        raise ConfigError(str(e).partition(": ")[2]) from None
    identity = identity_of(config)
    data_dir = Path(config.data_dir)
    _check_room(data_dir, new.wal_dir)
    with snapshot.open("rb") as file, _mapped(file.fileno(), skip_hash_check) as data:
        database = opened(data, skip_hash_check)
        identity = replace(identity, origin=_origin(data, database.size_bytes, changed))
        with _alone(data_dir, new.wal_dir) as aside:
            folders = [Path(shard_dir(str(aside), shard)) for shard in range(identity.shard_count)]
            for folder in folders:
                folder.mkdir(parents=True)
            with _logs(new.wal_dir, data_dir, aside, folders) as moves:
                restored = restore(
                    database, folders, identity.placement_depth, [peer.member_id for peer in identity.peers],
                    changed, lambda rows, size: tell(size, database.size_bytes))
                for folder in folders:
                    seal.seal(folder, identity.incarnation)
                    seal.begin(folder, identity.incarnation)
                if moves:
                    point_logs(new.wal_dir, folders)
                write_identity(Path(member_dir(str(aside)), "identity.json"), identity)
                _move_up(aside)
    with suppress(PermissionError):  # a directory of one's own may stand in one not to be read
        sync_directory(data_dir.absolute().parent)
    return restored


def _check_room(data_dir: Path, wal_dir: str) -> None:
    """NoBackup: something is there, other than what a restore has left that was killed."""
    if data_dir.exists() and (
        not data_dir.is_dir() or any(path.name != RESTORING for path in data_dir.iterdir())
    ):
        raise NoBackup(f'data-dir "{data_dir}" not empty or could not be read')
    nodes = Path(member_dir(str(data_dir / RESTORING))).glob("shard-*")
    if wal_dir and Path(wal_dir).exists() and not is_unused(wal_dir, nodes):
        raise NoBackup(f'wal-dir "{wal_dir}" exists')


@contextmanager
def _alone(data_dir: Path, wal_dir: str) -> Iterator[Path]:
    """The folder in which all is made, empty but for a lock; where that fails, nothing is left. ConfigError:
    another restore is at work in it."""
    aside, was_there = data_dir / RESTORING, data_dir.exists()
    mask = os.umask(0o077)
    try:
        make_folder(aside.absolute())
        lock = DataDirLock(str(aside))
        try:
            if not lock.is_there():
                raise ConfigError(f"data directory {data_dir} was in use by another restore, which has ended")
            _clear(data_dir, wal_dir)
            try:
                yield aside
            except BaseException:
                shutil.rmtree(aside if was_there else data_dir, ignore_errors=True)
                raise
        finally:
            lock.release()
    finally:
        os.umask(mask)


@contextmanager
def _logs(wal_dir: str, data_dir: Path, aside: Path, folders: Sequence[Path]) -> Iterator[bool]:
    """The folders of the logs, and whether they move with ``aside``. Where it fails, nothing is left but what
    another restore has made there meanwhile."""
    logs, made = made_at(wal_dir, data_dir, aside), list[Path]()
    moves = logs != wal_dir
    try:
        begin_logs(logs, folders, made)
        yield moves
    except BaseException:
        for folder in [Path(wal_dir)] if moves else made:
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another's folders are in it
            os.rmdir(wal_dir)
        raise


def _clear(data_dir: Path, wal_dir: str) -> None:
    """Drop what a killed restore has left. NoBackup: another one ended meanwhile."""
    aside = data_dir / RESTORING
    try:
        _check_room(data_dir, wal_dir)
    except NoBackup:
        shutil.rmtree(aside)
        raise
    if wal_dir and Path(wal_dir).exists():
        remove_unused(wal_dir)
    for left in aside.iterdir():
        if left.name != LOCK:
            shutil.rmtree(left)


def _move_up(aside: Path) -> None:
    """What was made is in the data directory itself from then on: the identity last, which makes it count."""
    sync_directory(aside)
    last = Path(member_dir(str(aside)))
    for path in sorted(aside.iterdir(), key=lambda path: path == last):
        if path.name != LOCK:
            os.replace(path, aside.parent / path.name)
    shutil.rmtree(aside, ignore_errors=True)  # another restore may look at the lock
    sync_directory(aside.parent)


def _origin(data: mmap.mmap | bytes, size: int, changed: Changed) -> str:
    """A digest of the backup without its hash, and of the changes: the same for all hosts of one restore."""
    digest = hashlib.blake2b(repr(astuple(changed)).encode(), digest_size=8)
    for at in range(0, size, _CHUNK_BYTES):
        digest.update(data[at : min(at + _CHUNK_BYTES, size)])
    return digest.hexdigest()


def opened(data: mmap.mmap | bytes, skip_hash_check: bool) -> Database:
    """A backup's database, after checks of its hash and pages. NoBackup."""
    try:
        database = Database(data, checked_size(data, skip_hash_check))
    except InvalidDatabase as e:
        raise NoBackup(str(e)) from e
    check(database)
    return database


def _mapped(fd: int, skip_hash_check: bool) -> mmap.mmap:
    try:
        return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    except ValueError:  # an empty file
        raise NoBackup(
            "invalid database" if skip_hash_check else "snapshot missing hash but --skip-hash-check=false"
        ) from None
