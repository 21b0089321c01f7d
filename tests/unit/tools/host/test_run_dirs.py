"""Short run directories that killed hosts have left."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.muster.host import rundir


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
