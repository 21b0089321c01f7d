"""``--wal-dir``: each node's ``log`` is a link to its folder there.

The link lets later starts and tools find the log without the flag. Another directory is refused: a replica
without its log has lost its votes (H10), and a log that is gone is never made anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from node.durable import make_folder, sync_directory
from tools.muster.config.parse import ConfigError
from tools.muster.machine.disk import seal

LOG = seal.LOG
_WHOLE = "db/CURRENT"  # exists as long as the log does


def place_logs(wal_dir: str, folders: Sequence[str]) -> None:
    """Link the logs of these nodes' directories into ``wal_dir``, by the directories' names; "": leave them.
    ConfigError: no link is made if one is refused. OSError."""
    if not wal_dir:
        return
    links = [(Path(folder, LOG), Path(os.path.abspath(wal_dir), Path(folder).name)) for folder in folders]
    for log, wanted in [link for link in links if _is_wanting(*link)]:
        make_folder(wanted)
        log.symlink_to(wanted)
        sync_directory(log.parent)


def begin_wal_dir(wal_dir: str, shards: int) -> None:
    """Make the folders of a new host's logs; "": none. ConfigError if that fails, or if a folder there is not
    empty, be it of a shard that is added later."""
    if not wal_dir:
        return
    path = Path(os.path.abspath(wal_dir))
    with told(wal_dir):
        for shard in range(shards):
            make_folder(path / f"shard-{shard}")
        for folder in sorted(path.glob("shard-*")):
            if folder.is_dir():
                _check_empty(folder)


def begin_logs(wal_dir: str, folders: Sequence[Path], made: list[Path] | None = None) -> None:
    """The same for nodes that are being made; the links first, which tell whose the folders are. ``made``
    gets those that are there now. FileExistsError: one is another's. OSError."""
    made = [] if made is None else made
    for shard, folder in enumerate(folders) if wal_dir else ():
        wanted = Path(os.path.abspath(wal_dir), f"shard-{shard}")
        (folder / LOG).symlink_to(wanted)
        made.append(wanted)
        try:
            make_folder(wanted, may_exist=False)
        except FileExistsError:
            made.pop()
            raise


def is_unused(wal_dir: str, folders: Iterable[Path]) -> bool:
    """Whether all that is there are folders that :func:`begin_logs` made for these nodes, still empty."""
    path = Path(os.path.abspath(wal_dir))
    made = [Path(os.readlink(folder / LOG)) for folder in folders if (folder / LOG).is_symlink()]
    try:
        return any(link.parent == path for link in made) and all(
            child in made and not any(child.iterdir()) for child in path.iterdir())
    except OSError:
        return False


def remove_unused(wal_dir: str) -> None:
    """OSError if anything has come into it."""
    for child in Path(wal_dir).iterdir():
        child.rmdir()
    Path(wal_dir).rmdir()


def made_at(wal_dir: str, data_dir: Path, aside: Path) -> str:
    """Where a ``wal_dir`` is made for ``aside``, which becomes ``data_dir`` at the end."""
    path, whole = (os.path.abspath(one) for one in (wal_dir, data_dir))
    inside = os.path.commonpath((path, whole)) == whole
    return str(aside / os.path.relpath(path, whole)) if wal_dir and inside else wal_dir


def point_logs(wal_dir: str, folders: Sequence[Path]) -> None:
    """Give the links of :func:`begin_logs` the directory's final name. OSError."""
    for shard, folder in enumerate(folders):
        (folder / LOG).unlink()
        (folder / LOG).symlink_to(Path(os.path.abspath(wal_dir), f"shard-{shard}"))
        sync_directory(folder)


def _is_wanting(log: Path, wanted: Path) -> bool:
    """Whether the link is to be made. ConfigError: not to that folder."""
    if log.is_symlink():
        if (there := os.readlink(log)) != str(wanted):
            raise ConfigError(f"the log of {log.parent} is in {there}, and --wal-dir asks for {wanted}")
        return False
    if log.exists():
        raise ConfigError(
            f"{log} holds the log. To have it in --wal-dir, stop this host, move that directory to {wanted}, "
            "and start it")
    begun = seal.read(log.parent)[1] != seal.NEW
    if begun and not (wanted / _WHOLE).is_file():
        return False  # the seal says what is missing
    if not begun and wanted.exists():
        _check_empty(wanted)
    try:
        seal.check_name(log.parent, wanted)
    except seal.SealBroken as e:
        raise ConfigError(str(e)) from None
    return True


def _check_empty(wanted: Path) -> None:
    if any(wanted.iterdir()):
        raise ConfigError(f"{wanted} is not empty, and its node is new: is it another host's --wal-dir?")


@contextmanager
def told(wal_dir: str) -> Iterator[None]:
    """An OSError becomes a ConfigError, which names the flag."""
    try:
        yield
    except OSError as e:
        raise ConfigError(f"cannot use --wal-dir={wal_dir}: {e.strerror}: {e.filename}") from None
