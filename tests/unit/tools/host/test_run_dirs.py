"""Run directories: each is of one process, and what killed hosts have left of short ones."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_ports
from tools.muster.config import settings
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import ConfigError, resolve
from tools.muster.host import rundir, serve
from tools.muster.host.identity import bootstrap
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.proxy_mode import fronts


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where short run directories are."""
    with tempfile.TemporaryDirectory(prefix="muster") as folder:
        base = Path(folder) / "s"
        base.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
        monkeypatch.setattr(
            rundir, "LONGEST_SOCKET_PATH", len(f"{base}/muster-{'x' * 16}/front-999-0.sock"))
        yield base


def left(tmp_path: Path, name: str) -> tuple[Path, Path]:
    """A data directory and its run directory, as kill -9 leaves it."""
    data = tmp_path / (name * 60)
    data.mkdir()
    run = Path(rundir.make_run_dir(str(data)))
    with socket.socket(socket.AF_UNIX) as ended:
        ended.bind(str(run / "control.sock"))
    (run / "space").write_bytes(b"x")
    os.utime(run, (0, 0))
    return data, run


def test_a_start_removes_what_killed_hosts_left(tmp_path: Path, base: Path) -> None:
    data, _ = left(tmp_path, "a")
    kept_data, kept = left(tmp_path, "b")
    shutil.rmtree(data)
    own = tmp_path / ("c" * 60)
    own.mkdir()
    path = Path(rundir.make_run_dir(str(own)))
    assert sorted(base.iterdir()) == sorted([kept, path])
    assert kept_data.exists()


def listened(run: Path, sock: socket.socket) -> None:
    (run / "node-0.sock").unlink(missing_ok=True)
    sock.bind(str(run / "node-0.sock"))
    sock.listen(0)


def linked(run: Path, sock: socket.socket) -> None:
    run.rename(run.parent / "elsewhere")
    run.symlink_to(run.parent / "elsewhere")


def renamed(run: Path, sock: socket.socket) -> None:
    run.rename(run.with_name("muster-" + "0" * 16))


def unnamed(run: Path, sock: socket.socket) -> None:
    (run / rundir.OWNER).unlink()


def new(run: Path, sock: socket.socket) -> None:
    (run / "control.sock").unlink()


@pytest.mark.parametrize("change", [listened, linked, renamed, unnamed, new])
def test_a_start_removes_no_other(
    tmp_path: Path, base: Path, change: Callable[[Path, socket.socket], None]
) -> None:
    data, run = left(tmp_path, "a")
    shutil.rmtree(data)
    with socket.socket(socket.AF_UNIX) as sock:
        change(run, sock)
        if change is not new:
            for path in base.iterdir():
                os.utime(path, (0, 0))
        before = {path for path in base.iterdir() if (path / "space").exists()}
        assert before
        left(tmp_path, "c")
        assert before < {path for path in base.iterdir() if (path / "space").exists()}


@contextlib.contextmanager
def held(run: Path) -> Iterator[int]:
    """As another process holds it: a lock is of one opening."""
    fd = os.open(run, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield fd
    finally:
        os.close(fd)


def config_of(tmp_path: Path) -> settings.ServerConfig:
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    return settings.build(resolve(SERVER_FLAGS, (
        f"--data-dir={tmp_path / 'd'}", f"--run-dir={tmp_path / 'r'}", f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}", "--log-outputs=/dev/null",
        f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"), {}))


def a_host(config: settings.ServerConfig) -> None:
    serve.run(config)


def a_proxy(config: settings.ServerConfig) -> None:
    os.mkdir(config.data_dir)
    fronts.run(config, Identity(7, 0, 0, (0,), 2, ()), serve.log_of(config), lambda run_dir: [])


@pytest.mark.parametrize("run", [a_host, a_proxy])
def test_a_run_directory_in_use_is_refused_and_nothing_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[[settings.ServerConfig], None]
) -> None:
    """The second host took over the first one's sockets: its peers and fronts came to the second."""
    monkeypatch.setattr(os, "umask", lambda mask: 0)
    monkeypatch.setattr(serve, "until_told", lambda config, log, work: pytest.fail("it runs"))
    (tmp_path / "r").mkdir()
    config = config_of(tmp_path)
    with held(tmp_path / "r"), pytest.raises(ConfigError, match=f"^run directory {tmp_path / 'r'} is in use"):
        run(config)
    assert rundir.run_dir_of(config.data_dir) == str(tmp_path / "d" / "run")
    assert not bootstrap.is_known(config.data_dir)


@pytest.mark.parametrize("kept", [0o755, 0o750, 0o711, 0o700, 0o2755])
def test_an_asked_run_directory_that_others_only_read_is_used_as_it_is(tmp_path: Path, kept: int) -> None:
    """Under the unit, clients of other users go through /run/muster."""
    asked = tmp_path / "r"
    asked.mkdir()
    asked.chmod(kept)
    run = rundir.make_run_dir(str(tmp_path), str(asked))
    rundir.remove_run_dir(str(tmp_path), run)
    assert (run, mode_of(asked)) == (str(asked), kept)


def test_an_asked_run_directory_such_as_tmp_keeps_its_mode(tmp_path: Path) -> None:
    asked = tmp_path / "r"
    asked.mkdir()
    asked.chmod(0o1777)
    for _ in range(2):
        run = rundir.make_run_dir(str(tmp_path), str(asked))
        rundir.remove_run_dir(str(tmp_path), run)
        assert (run, mode_of(run), mode_of(asked)) == (str(asked / "muster"), 0o700, 0o1777)
        assert rundir.run_dir_of(str(tmp_path)) == run
    (asked / "muster").rmdir()
    (asked / "muster").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="belongs to another user"):
        rundir.make_run_dir(str(tmp_path), str(asked))


def test_others_may_not_replace_sockets_in_an_asked_run_directory(tmp_path: Path) -> None:
    asked = tmp_path / "r"
    asked.mkdir()
    asked.chmod(0o777)
    run = rundir.make_run_dir(str(tmp_path), str(asked))
    rundir.remove_run_dir(str(tmp_path), run)
    assert (run, mode_of(asked)) == (str(asked), 0o755)


def test_a_run_directory_that_muster_makes_is_private(tmp_path: Path, base: Path) -> None:
    (tmp_path / "d").mkdir()
    asked = rundir.make_run_dir(str(tmp_path / "d"), str(base / "new" / "r"))
    assert mode_of(asked) == 0o700
    usual = base / "d" / "run"
    usual.mkdir(parents=True)
    usual.chmod(0o755)
    assert rundir.make_run_dir(str(base / "d")) == str(usual)
    assert mode_of(usual) == 0o700
    for path in (asked, str(usual)):
        rundir.remove_run_dir(str(tmp_path / "d"), path)


def test_a_full_disk_leaves_the_run_directory_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file was emptied first: what asked for the host's sockets then looked for them where it ran."""
    (tmp_path / "d").mkdir()
    data, first = str(tmp_path / "d"), str(tmp_path / "first")
    rundir.remove_run_dir(data, rundir.make_run_dir(data, first))
    whole = Path.open

    def opened(self: Path, mode: str = "r", *args: Any, **others: Any) -> Any:
        if "w" not in mode:
            return whole(self, mode, *args, **others)
        whole(self, mode, *args, **others).close()  # a file without content has room
        return whole(Path("/dev/full"), mode, *args, **others)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(ConfigError, match="No space left on device"):
        rundir.make_run_dir(data, str(tmp_path / "second"))
    rundir._let_go(str(tmp_path / "second"))
    assert (rundir.run_dir_of(data), sorted(os.listdir(data))) == (first, ["run-dir"])
    rundir.remove_run_dir(data, rundir.make_run_dir(data, first))  # nothing is to be written


def test_a_run_directory_whose_name_is_no_text_is_noted(tmp_path: Path) -> None:
    asked = os.fsdecode(os.fsencode(tmp_path) + b"/r\xff")
    run = rundir.make_run_dir(str(tmp_path), asked)
    rundir.remove_run_dir(str(tmp_path), run)
    assert run == rundir.run_dir_of(str(tmp_path)) == asked


def test_an_empty_note_names_no_run_directory(tmp_path: Path) -> None:
    """As a full disk left it before; an empty path is where the asking process runs."""
    (tmp_path / rundir.POINTER).touch()
    assert rundir.run_dir_of(str(tmp_path)) == str(tmp_path / "run")


def mode_of(path: Path | str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_run_directory_is_its_makers_until_removed_and_not_its_childrens(tmp_path: Path) -> None:
    run = Path(rundir.make_run_dir(str(tmp_path), str(tmp_path / "r")))
    with subprocess.Popen(
        [sys.executable, "-Sc", "print('up', flush=True); input()"], close_fds=False,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        with pytest.raises(BlockingIOError), held(run):
            pass
        rundir.remove_run_dir(str(tmp_path), str(run))
        with held(run):
            pass
        assert child.poll() is None
        child.communicate(b"\n")


def test_a_start_waits_for_what_only_looks_at_a_run_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As systemd's cleaner of /tmp does."""
    monkeypatch.setattr(rundir, "_ASKED_S", 10.0)
    (tmp_path / "r").mkdir()
    with held(tmp_path / "r") as fd:
        ending = threading.Timer(0.1, fcntl.flock, (fd, fcntl.LOCK_UN))
        ending.start()
        run = rundir.make_run_dir(str(tmp_path), str(tmp_path / "r"))
        ending.join()
    rundir.remove_run_dir(str(tmp_path), run)


def test_a_file_system_without_such_locks_keeps_no_host_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(fd: int, operation: int) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refused)
    run = rundir.make_run_dir(str(tmp_path), str(tmp_path / "r"))
    rundir.remove_run_dir(str(tmp_path), run)


def test_a_data_directory_that_cannot_be_locked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start ended with "No locks available", and nothing more."""

    def refused(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(ConfigError, match=f"^cannot lock data directory: {tmp_path}/lock: No locks avail"):
        rundir.DataDirLock(str(tmp_path))
