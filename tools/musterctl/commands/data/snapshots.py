"""``snapshot save``, ``status`` and ``restore``: files of etcd's tools."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from tools.musterctl.command import Command, Exit, Flag, Invocation, number

if TYPE_CHECKING:
    import mmap

    from cluster.bolt.status import Status

_TELL_EVERY_S = 1.0
_CHECKSUM_BYTES = 32
_PAGE_BYTES = 512  # a file of etcd is a multiple of it; the checksum follows
Found = TypeVar("Found")


def command() -> Command:
    return Command(
        "snapshot <subcommand>", "Manages etcd node snapshots",
        children=[
            Command(
                "restore <filename> --data-dir {output dir} [options]",
                "Restores an etcd member snapshot to a data directory of muster", "data.snapshots:restore",
                flags=(
                    Flag("data-dir", "string", "", "Path to the output data directory"),
                    Flag("wal-dir", "string", "", "Path to the WAL directory (use --data-dir if none given)"),
                    Flag("name", "string", "default", "Human-readable name for this member"),
                    Flag("initial-cluster", "string", "default=http://localhost:2380",
                         "Initial cluster configuration for restore bootstrap"),
                    Flag("initial-cluster-token", "string", "etcd-cluster",
                         "Initial cluster token for the etcd cluster during restore bootstrap"),
                    Flag("initial-advertise-peer-urls", "string", "http://localhost:2380",
                         "List of this member's peer URLs to advertise to the rest of the cluster"),
                    Flag("skip-hash-check", "bool", "false",
                         "Ignore snapshot integrity hash value (required if copied from data directory)"),
                    number("initial-memory-map-size", "Accepted for scripts; has no effect",
                           newer=True),
                    Flag("bump-revision", "int", "0",
                         "How much to increase the latest revision after restore"),
                    Flag("mark-compacted", "bool", "false",
                         "Mark the latest revision after restore as the point of scheduled compaction "
                         "(required if --bump-revision > 0, disallowed otherwise)"),
                    Flag("shards", "int", "1", "Number of shards of the new cluster, the same on every host"),
                    Flag("shard-depth", "int", "0",
                         "Number of segments of a key's directory that choose its shard (0: 2)"))),
            Command(
                "save <filename>", "Stores an etcd node backend snapshot to a given file",
                "data.snapshots:save",
                flags=(
                    Flag("data-dir", "string", "",
                         "Optional. If present, saves the data directory of a stopped host",
                         own=True),
                    Flag("uneven", "bool", "false",
                         "With --data-dir: save all of each shard, even if shards end at different revisions",
                         own=True))),
            Command("status <filename>", "Gets backend snapshot status of a given file",
                    "data.snapshots:status"),
        ])


def hashkv_command() -> Command:
    """``hashkv``, of etcdutl."""
    rev = Flag("rev", "int", "0", "maximum revision to hash (default: latest revision)")
    return Command("hashkv <filename>", "Prints the KV history hash of a given backup file",
                   "data.snapshots:hashkv", (rev,), of_etcdctl=False)


class Progress:
    """Progress of long work on standard error: a changing line on a terminal, else some lines."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._terminal = sys.stderr.isatty()
        self._told_at = time.monotonic()
        self._shown = False

    def tell(self, done: int, total: int) -> None:
        """So many bytes of so many."""
        from cluster.gotext import si_bytes

        now = time.monotonic()
        if now - self._told_at < (_TELL_EVERY_S if self._terminal else 5 * _TELL_EVERY_S):
            return
        self._told_at = now
        text = f"{self._what}: {si_bytes(done)} of {si_bytes(total)}"
        print(f"\r{text}\033[K" if self._terminal else text, end="" if self._terminal else "\n",
              file=sys.stderr, flush=True)
        self._shown = True

    def end(self) -> None:
        """End the line."""
        if self._shown and self._terminal:
            print(file=sys.stderr)


def save(invocation: Invocation) -> None:
    """Written as ``<file>.part``, synced, then renamed, which is synced, too."""
    from muster_client.admin.part import lasting, opened, placed

    from tools.musterctl.client import RequestError, session

    if len(invocation.args) != 1:
        raise Exit(128, "snapshot save expects one argument")
    path = invocation.args[0]
    if not path:
        raise Exit(128, "snapshot save expects one argument")
    if data_dir := invocation.flags.string("data-dir"):
        _save_offline(data_dir, path, invocation.flags.switch("uneven"))
        return
    if invocation.flags.switch("uneven"):
        raise Exit(128, "--uneven goes with --data-dir")
    s = session(invocation)
    if len(s.config.endpoints) != 1:
        raise Exit(
            5,
            f"snapshot must be requested to one selected node, not multiple [{' '.join(s.config.endpoints)}]")
    part = path + ".part"
    client, deadline = s.client(), time.monotonic() + s.timeout_s if s.timeout_given else None
    progress = Progress("snapshot save")
    server_version = ""  # etcd since 3.6 sends its storage's version
    try:
        with open(part, "wb", opener=lambda name, _: opened(name)) as file, _removed_unless_done(file):
            for chunk in client.each(client.raw(deadline).snapshot(), deadline):
                file.write(chunk.blob)
                server_version = chunk.version
                progress.tell(file.tell(), file.tell() + chunk.remaining_bytes)
            if file.tell() % _PAGE_BYTES != _CHECKSUM_BYTES:  # a stream may end early without an error
                raise Exit(5, f"sha256 checksum not found [bytes: {file.tell()}]")
            file.flush()
            os.fsync(file.fileno())
            placed(part, file.fileno(), path)
    except (RequestError, Exit) as error:  # an Exit is a failed login: within etcdctl's command as well
        raise Exit(5, str(error)) from None
    except OSError as error:
        raise Exit(5, _unwritten(error, part, path)) from None
    finally:
        progress.end()
    try:
        lasting(path)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise Exit(5, f"{path} is saved, and a power cut may undo that: {reason}") from None
    print(f"Snapshot saved at {path}")
    if server_version:
        print(f"Server version {server_version}")


@contextmanager
def _removed_unless_done(file: BinaryIO) -> Iterator[None]:
    """As etcdctl: a partial file is of no use."""
    from muster_client.admin.part import dropped

    try:
        yield
    except BaseException:
        dropped(file.name, file.fileno())
        raise


def _unwritten(error: OSError, part: str, path: str) -> str:
    """Which step failed, in etcdctl's words."""
    reason = (error.strerror or "").lower()
    if error.filename2:
        reason = "file exists" if error.errno == errno.EISDIR else reason
        return f"could not rename {part} to {path} (rename {part} {path}: {reason})"
    return f"could not open {part} (open {part}: {reason})" if error.filename else f"write {part}: {reason}"


def _save_offline(data_dir: str, path: str, uneven: bool) -> None:
    """Of a stopped host."""
    from pathlib import Path

    from tools.muster.config.parse import ConfigError
    from tools.muster.host import salvaging

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        found = salvaging.save(data_dir, Path(path), uneven, tell)
    except ConfigError as error:
        raise Exit(1, str(error)) from None
    except OSError as error:
        raise Exit(1, f"{error.filename or path}: {(error.strerror or str(error)).lower()}") from None
    for line in salvaging.described(found, Path(path) if uneven else None):
        tell(line)
    print(f"Snapshot saved at {path}")


def status(invocation: Invocation) -> None:
    from cluster.bolt.status import status_of

    if len(invocation.args) != 1:
        raise Exit(128, "snapshot status requires exactly one argument")
    form = _known_form(invocation)
    _print_status(form, _looked_at(invocation.args[0], status_of))


def _known_form(invocation: Invocation) -> str:
    """The output's form; etcdutl ignores the file if it does not know the form."""
    form = invocation.flags.string("write-out")
    if form not in ("simple", "json", "fields", "table", "protobuf"):
        raise Exit(4, "unsupported output format")
    return form


def _looked_at(name: str, look: Callable[[mmap.mmap], Found]) -> Found:
    import mmap

    from cluster.bolt import InvalidDatabase
    from cluster.bolt.etcd import NoBackup
    from cluster.bolt.hashkv import NoSuchRevision

    try:
        with open(name, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return look(data)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise Exit(1, f"{'stat' if missing else 'open'} {name}: {(error.strerror or '').lower()}") from None
    except ValueError:  # an empty file cannot be mapped
        raise Exit(1, "invalid database") from None
    except (InvalidDatabase, NoBackup, NoSuchRevision) as error:
        raise Exit(1, str(error)) from None


def hashkv(invocation: Invocation) -> None:
    from cluster.bolt.hashkv import hash_of_keys

    if len(invocation.args) != 1:
        raise Exit(128, "hashkv requires exactly one argument")
    revision = invocation.flags.number("rev")
    form = _known_form(invocation)
    found = _looked_at(invocation.args[0], lambda data: hash_of_keys(data, revision))
    row = [str(found.hash), str(found.revision), str(found.compact_revision)]
    numbers = (found.hash, found.revision, found.compact_revision)
    _show(form, ("HASH", "HASH REVISION", "COMPACT REVISION"), row,
          dict(zip(("hash", "hashRevision", "compactRevision"), numbers, strict=True)),
          dict(zip(("Hash", "Hash revision", "Compact revision"), numbers, strict=True)))


def _show(
    form: str, header: Sequence[str], row: Sequence[str], document: Mapping[str, object],
    fields: Mapping[str, object],
) -> None:
    from tools.musterctl.printing import layout

    if form == "simple":
        print(", ".join(row))
    elif form == "table":
        sys.stdout.write(layout.grid(header, [row]))
    elif form == "json":
        print(json.dumps(document, separators=(",", ":")))
    elif form == "fields":
        for name, value in fields.items():
            print(f'"{name}" : {value}')
    else:
        raise Exit(4, f"{form} not supported as output format")


def _print_status(form: str, found: Status) -> None:
    from cluster.gotext import si_bytes

    header = ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"]
    row = [f"{found.hash:x}", str(found.revision), str(found.total_keys), si_bytes(found.total_bytes)]
    document: dict[str, int | str] = {
        "hash": found.hash, "revision": found.revision, "totalKey": found.total_keys,
        "totalSize": found.total_bytes}
    fields: dict[str, int | str] = {
        "Hash": found.hash, "Revision": found.revision, "Keys": found.total_keys, "Size": found.total_bytes}
    if found.version:
        header.append("VERSION")
        row.append(found.version)
        document["version"] = fields["Version"] = found.version
    _show(form, header, row, document, fields)


def restore(invocation: Invocation) -> None:
    """The data directory of one host of a new cluster."""
    from pathlib import Path

    from cluster.bolt.etcd import NoBackup
    from node.backup.restore import Changed
    from node.storage import StorageError
    from tools.muster.config.parse import ConfigError
    from tools.muster.config.settings import default_data_dir
    from tools.muster.host.identity.restoring import NewHost, restore_host

    flags = invocation.flags
    if len(invocation.args) != 1:
        raise Exit(128, "snapshot restore requires exactly one argument")
    bump, compacted = flags.number("bump-revision"), flags.switch("mark-compacted")
    if bump < 0 or (bump > 0) != compacted:
        raise Exit(128, "--mark-compacted required if --revision-bump > 0")  # etcdutl's name for it
    given, name = invocation.args[0], flags.string("name")
    if not given:
        raise Exit(1, "open : no such file or directory")
    path = Path(given)
    new = NewHost(
        name=name, data_dir=flags.string("data-dir") or default_data_dir(name),
        initial_cluster=flags.string("initial-cluster"),
        initial_cluster_token=flags.string("initial-cluster-token"),
        initial_advertise_peer_urls=flags.string("initial-advertise-peer-urls"),
        shards=flags.number("shards"), shard_depth=flags.number("shard-depth"),
        wal_dir=flags.string("wal-dir"))
    progress = Progress("snapshot restore")
    try:
        restored = restore_host(
            path, new, Changed(bump, compacted), flags.switch("skip-hash-check"), progress.tell)
    except (NoBackup, ConfigError, StorageError) as error:
        raise Exit(1, str(error)) from None
    except OSError as error:
        told = str(error.filename or path)
        if error.filename == str(path):  # what has none is a write's, as of a full disk
            told = f"{'read' if isinstance(error, IsADirectoryError) else 'open'} {given}"
        raise Exit(1, f"{told}: {(error.strerror or str(error)).lower()}") from None
    finally:
        progress.end()
    print(f"restored {path} to {new.data_dir}: {restored.rows} revisions of keys, {restored.leases} leases, "
          f"revision {restored.revision}", file=sys.stderr)
