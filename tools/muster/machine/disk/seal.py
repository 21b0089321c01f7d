"""The seal of a node's directory: whose data it holds, and whether there is any yet (H10).

A replica that lost its log has lost its votes and acknowledgements: it may not come back under its old
identity. An empty directory does not tell that loss from a first start, so there is a seal. The host writes
``<incarnation> new`` before any process runs. The node writes ``<incarnation> begun`` once its log, the log's
mark and its state are on the disk, before it sends anything. From then on a directory without one of them is
refused.

Seals of older versions have the incarnation only. Beside a log they count as begun; without one they are
refused.

All directories of a host bear the same seal. So each log says itself which shard's it is (:func:`claim`).

A copy that ``musterctl backup --backup-wal-dir`` made has no links to its logs, and may have its host's IDs.
So each node's directory and its log have the same file with a random name. No other log will do.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Protocol

from node.durable import SCARCE, sync_directory, write_whole

FILE = "incarnation"
NAME = "log-name"  # in a node's directory and in its log: the random name, and where the backup put that log
LOG = "log"  # in a node's directory
REMOVED = "removed"  # in node 0's directory: this host was removed, and never starts again
TRANSFERS = ("outgoing", "backups")  # likewise: checkpoints, which the node's start removes
NEW, BEGUN, OLD = "new", "begun", ""
SHARD = "shard"  # a row beside a log's entries: whose they are
# what a begun node's directory holds, by a file that each part always has
PARTS = {
    "the log (log/db)": "log/db/CURRENT", "the log's mark (log/synced)": "log/synced",
    "the state (state)": "state/current",
}
_ADVICE = (
    "This replica must not vote under its old identity: put back what is missing, or remove the member, then "
    "add it anew with an empty data directory")


class SealBroken(Exception):
    """The text says what is missing and what to do."""


class Claimed(Protocol):
    """Of ``node.storage.RaftLog``."""

    def meta(self, name: str) -> bytes | None: ...
    def set_meta(self, name: str, value: bytes) -> None: ...
    def sync(self) -> None: ...


def read(folder: str | Path) -> tuple[int, str]:
    """``(incarnation, NEW or BEGUN or OLD)``; ``(0, OLD)`` without a seal, or with one that is no
    seal. OSError: it cannot be told."""
    try:
        words = Path(folder, FILE).read_text(encoding="utf-8").split(" ")
        if len(words) <= 2 and (state := "".join(words[1:]).strip()) in (NEW, BEGUN, OLD):
            return int(words[0], 16), state
    except (FileNotFoundError, NotADirectoryError, ValueError):
        pass
    return 0, OLD


def seal(folder: str | Path, incarnation: int) -> None:
    """Make a node's directory this incarnation's, before any node runs; a second call changes nothing."""
    if read(folder)[0] != incarnation:
        Path(folder).mkdir(mode=0o700, exist_ok=True)
        write_whole(Path(folder, FILE), f"{incarnation:016x} {NEW}\n".encode())


def check(folder: str | Path, member_id: int, incarnation: int) -> None:
    """SealBroken unless a directory is this incarnation's and holds all that it ever held. OSError: for
    lack of files or memory it cannot be told now."""
    try:
        sealed, state = read(folder)
    except OSError as e:
        raise _unreadable(folder, FILE, e) from None
    if sealed != incarnation:
        raise SealBroken(
            f"{folder} is not what member {member_id:x} wrote there (its seal, {FILE}, is missing, damaged "
            f"or another host's). {_ADVICE}")
    missing = [part for part, file in PARTS.items() if not Path(folder, file).is_file()]
    elsewhere = "" if os.path.lexists(Path(folder, LOG)) else _elsewhere(folder)
    check_name(folder)
    if state == BEGUN and missing:
        raise SealBroken(
            f"{folder} has lost {' and '.join(missing)}, which its seal says were there. "
            f"{elsewhere}{_ADVICE}")
    if state == OLD and not Path(folder, PARTS["the log (log/db)"]).is_file():
        raise SealBroken(
            f"{folder} has no log, and its seal is an older version's, which does not say "
            f"whether there was one. {elsewhere}{_ADVICE}")


def begin(folder: str | Path, incarnation: int) -> None:
    """From now on log, mark and state must be there. Call it once they are durable, before the node sends
    anything."""
    if read(folder) != (incarnation, BEGUN):
        write_whole(Path(folder, FILE), f"{incarnation:016x} {BEGUN}\n".encode())


def claim(folder: str | Path, log: Claimed, shard: int) -> None:
    """From now on the log is this shard's. Call it before the node sends anything. SealBroken: it is
    another's."""
    own, said = str(shard).encode(), log.meta(SHARD)
    if said is None:  # new, or of an older version
        log.set_meta(SHARD, own)
        log.sync()
    elif said != own:
        raise SealBroken(
            f"{folder} holds the log of shard {said.decode()}, not of shard {shard}. Put the directories of "
            "this host's shards, and their logs in --wal-dir, back in their places: another shard's votes "
            "and writes would be taken for this one's")


def empty(folder: Path, incarnation: int) -> None:
    """Its node has served nobody: the next one begins anew. After a crash a second call does the rest.
    OSError."""
    write_whole(folder / FILE, f"{incarnation:016x} {NEW}\n".encode())
    if (log := folder / LOG).is_symlink():  # --wal-dir
        place = log.resolve()  # it may be relative, as an operator made it
        if place.exists():
            shutil.rmtree(place)
            sync_directory(place.parent)
        log.unlink()
    for part in folder.iterdir():
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        elif part.name != FILE:
            part.unlink()
    sync_directory(folder)


def name_log(folder: Path, log: Path, place: Path) -> None:
    """Make a log, which another will put at ``place``, the only one of a node's directory. OSError."""
    name = b"%s %s\n" % (secrets.token_hex(16).encode(), os.fsencode(os.path.abspath(place)))
    for one in (folder, log):
        write_whole(one / NAME, name)


def check_name(folder: str | Path, log: str | Path = "") -> None:
    """SealBroken if a log that is there bears another name than a node's directory, or only one of them has
    one. ``log``: it is not in the directory yet."""
    own = Path(folder, LOG)
    log = log or own
    if os.path.isdir(log) and _name(folder) != _name(log):
        unlink = f"Remove the link {own}. " if own.is_symlink() else ""
        raise SealBroken(
            f"{os.path.realpath(log)} is not the log of {folder}, or lacks its file {NAME}. "
            f"{unlink}{_elsewhere(folder)}Keep both logs: each has somebody's votes")


def _elsewhere(folder: str | Path) -> str:
    name = _name(folder)
    if name is None:
        return "If its log is in another directory (--backup-wal-dir), name that one with --wal-dir. "
    place = os.fsdecode(name.partition(b" ")[2]).strip()
    return (
        f"musterctl backup has put its log into {place}: name the directory where that folder is now, such "
        f"as {os.path.dirname(place)}, with --wal-dir. ")


def _name(folder: str | Path) -> bytes | None:
    """None: it has none. SealBroken: it cannot be read. OSError as of :func:`check`."""
    try:
        return Path(folder, NAME).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise _unreadable(folder, NAME, e) from None


def _unreadable(folder: str | Path, file: str, error: OSError) -> Exception:
    return error if error.errno in SCARCE else SealBroken(f"cannot read {folder}/{file}: {error.strerror}")
