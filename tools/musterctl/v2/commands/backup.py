"""``backup``: a directory for ``muster --force-new-cluster`` from a host's data directory (decision 90).

A running host makes the copy itself, at one revision, of a new cluster. Of a stopped one the files are
copied, with its IDs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tools.musterctl.command import Exit
from tools.musterctl.v2.client import credentials, refuse, variable
from tools.musterctl.v2.start import Run

if TYPE_CHECKING:
    from tools.client.channels import Config
    from tools.musterctl.client import Client

_STATUS_S = 30.0
_NEAR_S = 5.0  # on its own machine a host answers soon
_NS = 1e9
_OF_ETCD = ("snap", "wal")
_ASIDE = ".copying"  # in the backup's directory, until it is whole


def backup(run: Run) -> None:
    """``backup --data-dir D --backup-dir B [--backup-wal-dir W]``. v3 data is always in it."""
    data_dir, backup_dir = (Path(run.options.string(name)) for name in ("data-dir", "backup-dir"))
    wal_dir = Path(run.options.string("backup-wal-dir")) if run.options.string("backup-wal-dir") else None
    if not run.options.string("backup-dir"):
        refuse("--backup-dir is required: the directory for the copy")
    try:
        if all((data_dir / "member" / name).is_dir() for name in _OF_ETCD):
            refuse(
                f"{data_dir} belongs to an etcd: use etcdctl snapshot save, then musterctl snapshot restore, "
                "or musterctl import while it runs")
        (data_dir / "member" / "identity.json").read_bytes()
        if run.options.string("wal-dir"):
            os.listdir(run.options.string("wal-dir"))  # the data directory knows where its logs are
        _check_places(data_dir, backup_dir, wal_dir)
        _copy(run, data_dir, backup_dir, wal_dir)
    except shutil.Error as error:
        refuse("; ".join(reason for *_, reason in error.args[0][:3]))
    except OSError as error:
        what = f"open {error.filename}" if error.filename else f"write {backup_dir}"  # a write names no file
        refuse(f"{what}: {(error.strerror or '').lower()}")


def _check_places(data_dir: Path, backup_dir: Path, wal_dir: Path | None) -> None:
    """Refuse directories that hold anything but what a killed backup of this line has left."""
    aside = [backup_dir / _ASIDE]
    _check_outside("--backup-dir", backup_dir, data_dir / "member")
    if wal_dir is not None:
        for whole in (data_dir / "member", backup_dir / "member", *aside):
            _check_outside("--backup-wal-dir", wal_dir, whole)
        aside.append(_logs_aside(backup_dir, wal_dir))
    for folder in (backup_dir, wal_dir):
        left = {_from(one, folder).parts[0] for one in aside} if folder is not None else set()
        if folder is not None and folder.exists() and not left.issuperset(os.listdir(folder)):
            refuse(f"{folder} is not empty")


def _check_outside(flag: str, path: Path, folder: Path) -> None:
    if _from(path, folder).parts[:1] != ("..",):
        refuse(f"{flag} {path} is in {folder}: give a directory outside of it")


def _from(path: Path, folder: Path) -> Path:
    """The way to a path from a folder, without links."""
    return Path(os.path.relpath(os.path.realpath(path), os.path.realpath(folder)))


def _copy(run: Run, data_dir: Path, backup_dir: Path, wal_dir: Path | None) -> None:
    from tools.muster.config.parse import ConfigError
    from tools.muster.host import rundir
    from tools.muster.host.identity import copies

    os.umask(0o077)  # the copies have all keys, and hashes of passwords
    if rundir.holder_of(str(data_dir)):
        with _logs_of(backup_dir, wal_dir) as logs:
            _of_running(run, data_dir, backup_dir, logs)
        return
    try:
        lock = rundir.DataDirLock(str(data_dir), to_read=True)  # it must not start meanwhile
    except ConfigError as error:
        refuse(error)
    try:
        with copies.held(str(data_dir)), _logs_of(backup_dir, wal_dir) as logs:
            _of_files(data_dir, backup_dir, logs)
    except ConfigError as error:
        refuse(error)
    finally:
        lock.release()


def _of_files(data_dir: Path, backup_dir: Path, logs: Path | None) -> None:
    from tools.muster.host.identity.copies import LOCK, mark
    from tools.muster.machine.disk.seal import TRANSFERS

    _check_logs(data_dir)
    aside = _aside(backup_dir)
    # transfers that a killed host has left are whole states, which its next start removes
    left_out = shutil.ignore_patterns(LOCK, *TRANSFERS, "*incoming-*")
    try:
        # links of --wal-dir are followed: the copy has its logs inside
        shutil.copytree(data_dir / "member", aside / "data" / "member", ignore=left_out)
        mark(str(aside / "data"))
        _take_place(aside, backup_dir, logs)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _say(f"copied the files of the stopped host to {backup_dir}; the copy keeps its IDs")


def _check_logs(data_dir: Path) -> None:
    """Refuse a copy that has another's logs, or has not been told where its own are: a copy of it would take
    the same."""
    from tools.muster.machine.disk import seal

    for node in sorted((data_dir / "member").glob("shard-*")):
        try:
            seal.check_name(node)
        except seal.SealBroken as error:
            refuse(error)
        if (node / seal.NAME).exists() and not os.path.lexists(node / seal.LOG):
            refuse(f"{node} has no link to its log: start this copy once with --wal-dir")


def _of_running(run: Run, data_dir: Path, backup_dir: Path, logs: Path | None) -> None:
    from cluster.bolt.etcd import NoBackup
    from node.backup.restore import Changed
    from node.storage import StorageError
    from tools.muster.config.parse import ConfigError
    from tools.muster.host.identity.restoring import NewHost, restore_host

    status = _status(data_dir)
    identity = json.loads((data_dir / "member" / "identity.json").read_bytes())
    aside = _aside(backup_dir)
    file = aside / "snapshot"
    new = NewHost(
        "default", str(aside / "data"), "default=http://localhost:2380", secrets.token_hex(16),
        "http://localhost:2380", int(identity["shard_count"]), int(identity["placement_depth"]),
    )  # fmt: skip
    try:
        _save(run, status, file)
        restored = restore_host(file, new, Changed(), False, lambda done, total: None)
        _take_place(aside, backup_dir, logs)
    except (NoBackup, ConfigError, StorageError) as error:
        refuse(error)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _say(f"saved the running host's data at revision {restored.revision} to {backup_dir}, for a new cluster")


def _status(data_dir: Path) -> dict[str, Any]:
    """The host's report, with the listen URLs that are known to be its own as seen from here."""
    from tools.muster.host import control, rundir

    path = control.socket_of(rundir.run_dir_of(str(data_dir)))
    try:
        found = control.ask(path, {"do": "status"}, _STATUS_S)
    except control.Unreachable as error:
        refuse(f"the host of {data_dir} runs and does not answer: {error}")
    # beside a container anyone may listen there, and would be told the name and the password
    near = [
        url for url in found.get("listen_urls", ())  # a host of an older version does not tell
        if control.shares(path, "mnt" if url.startswith("unix") else "net")
    ]  # fmt: skip
    return {**found, "listen_urls": near}


def _save(run: Run, status: dict[str, Any], file: Path) -> None:
    """A backup in etcd's form from the host's own client port."""
    from tools.client.channels import Config
    from tools.musterctl.client import RequestError

    user = variable(run.globals, "username")
    name, password = credentials(user, "Password: ") if user else ("", "")
    cert, key, ca = (variable(run.globals, flag) for flag in ("cert-file", "key-file", "ca-file"))
    config = Config(tuple(status["client_urls"]), True, cert, key, ca, name, password, 10_000, 6_000)
    limit_s = max(run.globals.number("total-timeout") / _NS, _STATUS_S)
    try:
        client = _near(config, status) or _advertised(config, status, limit_s)
        with file.open("wb") as out:
            for chunk in client.each(client.raw().snapshot()):
                out.write(chunk.blob)
            out.flush()
            os.fsync(out.fileno())
    except RequestError as error:
        refuse(f"{error} (if the host cannot answer, stop it and try again: backup then copies its files)")


def _near(config: Config, status: dict[str, Any]) -> Client | None:
    """The host where it listens. What it advertises may lead through others, or be out of reach from here."""
    from tools.musterctl.client import Client, RequestError

    # its certificate names what it advertises
    config = replace(config, server_name=urlsplit(config.endpoints[0]).hostname or "")
    own = f"{status['cluster_id']} {status['member_id']}"
    for url in status["listen_urls"]:
        client = Client(config, (url,))
        with contextlib.suppress(RequestError, Exit):
            header = _header(client, _NEAR_S)
            if f"{header.cluster_id:x} {header.member_id:x}" == own:
                return client
        client.close()
    return None


def _advertised(config: Config, status: dict[str, Any], limit_s: float) -> Client:
    """The host, or another one of its cluster, where clients of other machines ask. RequestError."""
    from tools.musterctl.client import Client

    client = Client(config, config.endpoints)
    if f"{_header(client, limit_s).cluster_id:x}" != status["cluster_id"]:
        refuse(f"{config.endpoints[0]} belongs to another cluster than the data directory")
    return client


def _header(client: Client, limit_s: float) -> Any:
    from muster_client.pb import rpc_pb2

    return client.unary(
        "Maintenance/Status", rpc_pb2.StatusRequest(), rpc_pb2.StatusResponse, limit_s).header


def _aside(backup_dir: Path) -> Path:
    """A new folder in the backup's directory, which may be the working directory, or a disk of its own."""
    aside = backup_dir / _ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside


def _logs_aside(backup_dir: Path, wal_dir: Path) -> Path:
    """Where the logs wait in their directory until they are whole: each backup has its own name."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(backup_dir))).hexdigest()
    return wal_dir / f"{_ASIDE}-{digest[:16]}"


@contextlib.contextmanager
def _logs_of(backup_dir: Path, wal_dir: Path | None) -> Iterator[Path | None]:
    """A new folder in the directory of the logs; None: the copy has them inside."""
    if wal_dir is None:
        yield None
        return
    logs = _logs_aside(backup_dir, wal_dir)
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    try:
        yield logs
    finally:
        shutil.rmtree(logs, ignore_errors=True)
    _say(f"its logs are in {wal_dir}: start it with --wal-dir, which names them wherever they then are")


def _take_place(aside: Path, backup_dir: Path, logs: Path | None) -> None:
    """``logs``: the folder of :func:`_logs_of`. Where it fails, nothing is left."""
    from node.durable import sync_directory

    member = aside / "data" / "member"
    made: list[Path] = []
    try:
        if logs is not None:
            _place_logs(member, logs, made)
        os.replace(member, backup_dir / "member")
    except OSError:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    for folder in (backup_dir, backup_dir.resolve().parent):  # the backup's directory may be new
        sync_directory(folder)


def _place_logs(member: Path, logs: Path, made: list[Path]) -> None:
    """Move a copy's logs to the directory that ``logs`` is in, by their nodes' names. ``made`` gets what is
    there. FileExistsError: it has become another's."""
    from node.durable import sync_directory
    from tools.muster.machine.disk import seal

    nodes = [node for node in sorted(member.glob("shard-*")) if (node / seal.LOG).exists()]
    for node in [node for node in nodes if seal.read(node)[1] == seal.NEW]:
        shutil.rmtree(node / seal.LOG)  # it never voted; with a log it would not start
        nodes.remove(node)
    for node in nodes:
        shutil.move(node / seal.LOG, logs / node.name)
        seal.name_log(node, logs / node.name, logs.parent / node.name)
    os.sync()  # it may be another disk
    for node in nodes:
        wanted = logs.parent / node.name
        wanted.mkdir()
        made.append(wanted)
        os.replace(logs / node.name, wanted)
    for folder in (logs.parent, logs.parent.resolve().parent):
        sync_directory(folder)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
