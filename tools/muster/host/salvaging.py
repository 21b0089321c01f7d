"""``musterctl snapshot save --data-dir``: a backup from the files of a stopped host.

The files stay as they are: copies beside the backup are opened (links of files that never change).
``node.backup.stopped.salvage`` decides what is in it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cluster.effects.newer import NewerRecord
from cluster.features import growth
from cluster.order.salvage import CannotBeKept
from node.backup.stopped import dropped
from node.backup.stopped.salvage import Salvaged, salvage
from node.durable import sync_directory
from node.storage import ApplyFailed, StorageCorruption, StorageError
from node.storage.kept import FOLDER
from tools.muster.config.parse import ConfigError
from tools.muster.host.identity import bootstrap, copies
from tools.muster.host.rundir import DataDirLock
from tools.muster.machine.disk import seal

Tell = Callable[[str], None]
_PARTS = ("state", "log", FOLDER)
_UNCHANGING = ".sst"  # RocksDB never changes such a file
_CHUNK_BYTES = 1 << 20


def save(data_dir: str, file: Path, uneven: bool, tell: Tell) -> Salvaged:
    """Make the backup. ConfigError, OSError: nothing is left of it."""
    if file.is_dir():
        raise ConfigError(f"{file} is a directory: name a file")
    identity = bootstrap.known(data_dir)
    # shard 0's table tells whether others have keys, or have retired
    for shard in identity.first[:1] if identity.level >= growth.BIRTHS else identity.first:
        if not _has_begun(data_dir, shard):
            raise ConfigError(
                f"no node of this host has begun ({bootstrap.shard_dir(data_dir, shard)}): there is nothing "
                "to save")
    lock = DataDirLock(data_dir, to_read=True)
    aside = file.with_name(file.name + ".salvaging")

    def named(text: str) -> str:
        """The host's own files instead of their copies, which go."""
        return text.replace(str(aside / "shard-"), os.path.join(bootstrap.member_dir(data_dir), "shard-"))

    mask = os.umask(0o077)  # the copies have all keys, and hashes of passwords
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        tell(f"working in {aside}: remove it if this is broken off")
        with copies.held(data_dir):
            folders = {
                shard: _copy(Path(bootstrap.shard_dir(data_dir, shard)), aside / f"shard-{shard}", tell)
                for shard in identity.shards if _has_begun(data_dir, shard)
            }
        (aside / "sorted").mkdir()
        made = aside / "sorted" / "backup.db"
        found = salvage(folders, made, identity.peers, identity.member_id, uneven, tell)
        found.absent = {shard: named(why) for shard, why in found.absent.items()}
        found.shards = [replace(share, unreadable=named(share.unreadable)) for share in found.shards]
        found.dropped = dropped.found_in(Path(bootstrap.member_dir(data_dir)))
        if uneven and found.dropped:
            _join(found.dropped, aside / "dropped")
        _seal(made)
        if uneven and found.dropped:
            os.replace(aside / "dropped", beside(file))
        else:
            beside(file).unlink(missing_ok=True)  # an older backup's
        os.replace(made, file)
        sync_directory(file.parent)
    except shutil.Error as error:
        raise ConfigError("; ".join(reason for *_, reason in error.args[0][:3])) from None
    except CannotBeKept as error:
        raise ConfigError(
            f"{named(str(error))}. --uneven saves all that each shard has, and perhaps only a part of "
            "transactions over several shards") from None
    except (ApplyFailed, StorageCorruption) as error:
        raise ConfigError(named(str(error))) from None
    except (StorageError, NewerRecord, dropped.Unreadable) as error:
        raise ConfigError(str(error)) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.umask(mask)
        lock.release()
    return found


def _has_begun(data_dir: str, shard: int) -> bool:
    return Path(bootstrap.shard_dir(data_dir, shard), "state", "current").is_file()


def beside(file: Path) -> Path:
    """The file for an uneven backup's dropped changes."""
    return file.with_name(file.name + ".dropped.jsonl")


def _join(found: list[dropped.Dropped], made: Path) -> None:
    with made.open("wb") as out:
        for one in found:
            with one.path.open("rb") as part:
                shutil.copyfileobj(part, out)
        out.flush()
        os.fsync(out.fileno())


def _copy(folder: Path, to: Path, tell: Tell) -> Path:
    try:
        seal.check_name(folder)
    except seal.SealBroken as error:
        raise ConfigError(str(error)) from None
    tell(f"copying {folder}")
    for part in _PARTS:
        if (folder / part).is_dir():  # a log may be lost; links of --wal-dir are followed
            left_out = shutil.ignore_patterns(copies.LOCK)
            shutil.copytree(folder / part, to / part, ignore=left_out, copy_function=_copied)
    return to


def _copied(source: str, to: str) -> str:
    if source.endswith(_UNCHANGING):
        try:
            os.link(source, to)
        except OSError:  # another file system, or one without links
            pass
        else:
            return to
    return str(shutil.copyfile(source, to))


def _seal(made: Path) -> None:
    """Append the hash that each backup has, and sync it."""
    digest = hashlib.sha256()
    with made.open("r+b") as out:
        while chunk := out.read(_CHUNK_BYTES):
            digest.update(chunk)
        out.write(digest.digest())
        out.flush()
        os.fsync(out.fileno())


def described(found: Salvaged, file: Path | None = None) -> list[str]:
    """Lines for an operator: what the backup holds and omits. ``file``: of an uneven one."""
    told = [
        f"saved revision {found.revision}, order record {found.order_index}: {found.rows} revisions "
        f"of keys, {found.leases} leases"
    ]
    if found.ends:
        behind = found.order_end - found.order_index
        told.append(f"the backup ends there because {found.ends}; it omits {behind} later order records")
    told += [f"shard {shard}: its keys are omitted: {why}" for shard, why in found.absent.items()]
    for share in found.shards:
        if share.unreadable:
            told.append(f"shard {share.shard}: its log cannot be used: {share.unreadable}")
        if share.revision < found.revision:
            told.append(f"shard {share.shard}: saved up to revision {share.revision} only")
        left = [f"{share.changes} applied changes of keys"] if share.changes else []
        left += [f"{share.entries} log entries without a place before the end"] if share.entries else []
        if left:
            told.append(f"shard {share.shard}: omitted: {' and '.join(left)}")
    if found.v2_revision:
        told.append(f"the tree of version 2 is saved as of revision {found.v2_revision}, without its history")
    for lost in found.dropped:
        more = ", ..." if lost.more else ""
        told.append(f"a forced start has dropped {lost.changes} changes, of {', '.join(lost.keys)}{more}: "
                    f"{lost.path}")
    if found.dropped:
        told.append("no backup contains them" + (f"; {beside(file)} has them with their values" if file else
                    "; --uneven copies them to a file beside the backup"))
    return told
