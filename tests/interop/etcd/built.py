"""etcd's own tests, downloaded by Go and built, with its tools, and a program ``etcd`` that starts muster.

Nothing of the tests is changed. Their module is a part of etcd's repository and says so by ``replace``; these
lines are taken out, so that Go fetches the other parts as it does for anybody.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.interop.toolchain import cache

VERSION = "v3.6.14"
MODULE = f"go.etcd.io/etcd/tests/v3@{VERSION}"
WHOLE = "go.etcd.io/etcd/v3@v3.6.8"  # the newest of the root that was published; of it, the example of a file
EXAMPLE = "etcd.conf.yml.sample"
TOOLS = {"etcdctl": "etcdctl/v3", "etcdutl": "etcdutl/v3", "etcd.real": "server/v3"}
PACKAGES = ("common", "e2e")
_ROOT = Path(__file__).resolve().parents[3]
_FLAGS = "-mod=mod -buildvcs=false"
_START = """#!/bin/sh
# muster in etcd's place; a gateway and a gRPC proxy are etcd's own, in front of muster
case "$1" in
gateway | grpc-proxy) exec "{real}" "$@" ;;
esac
export PYTHONPATH="{root}"
exec "{python}" -m tools.muster.cli --shards={shards} "$@"
"""


def _downloaded(module: str) -> Path:
    with tempfile.TemporaryDirectory() as elsewhere:  # outside of any module: it is no dependency of one
        done = subprocess.run(
            ["go", "mod", "download", "-json", module], cwd=elsewhere, capture_output=True, check=True
        )
    return Path(json.loads(done.stdout)["Dir"])


def _copied(module: Path, to: Path) -> None:
    shutil.copytree(module, to, copy_function=shutil.copyfile, dirs_exist_ok=True)
    for folder in (to, *(path for path in to.rglob("*") if path.is_dir())):
        folder.chmod(0o755)  # Go's cache is read-only
    described = to / "go.mod"
    described.write_text(re.sub(r"(?ms)^replace \(.*?^\)\n|^replace [^(].*?\n", "", described.read_text()))


def _go(*arguments: str, cwd: Path) -> None:
    subprocess.run(["go", *arguments], cwd=cwd, env={**os.environ, "GOFLAGS": _FLAGS}, check=True)


def built() -> Path:
    """The folder with what was built. The first time takes minutes."""
    with cache("etcd") as folder:
        home = folder / VERSION
        programs = home / "programs"
        if not (home / "done").exists():
            shutil.rmtree(home, ignore_errors=True)
            _copied(_downloaded(MODULE), home / "tests")
            shutil.copyfile(_downloaded(WHOLE) / EXAMPLE, home / EXAMPLE)
            programs.mkdir()
            for name, part in TOOLS.items():
                _go("build", "-o", str(programs / name), f"go.etcd.io/etcd/{part}", cwd=home / "tests")
            for package in PACKAGES:
                made = str(programs / f"{package}.test")
                _go("test", "-vet=off", "-tags=e2e", "-c", "-o", made, f"./{package}", cwd=home / "tests")
            (home / "done").touch()
    return home


def programs(home: Path, to: Path, shards: int) -> None:
    """A folder as the tests want it: etcd (muster with so many shards), etcdctl, etcdutl."""
    to.mkdir(parents=True)
    for name in ("etcdctl", "etcdutl"):
        (to / name).symlink_to(home / "programs" / name)
    start = to / "etcd"
    real = home / "programs" / "etcd.real"
    start.write_text(_START.format(real=real, root=_ROOT, python=sys.executable, shards=shards))
    start.chmod(start.stat().st_mode | stat.S_IXUSR)


def place(home: Path, to: Path, package: str) -> Path:
    """A working directory for one run of a test: what lies beside it is where the tests look for it."""
    where = to / "etcd" / "tests" / package
    where.mkdir(parents=True)
    (to / "etcd" / "tests" / "fixtures").symlink_to(home / "tests" / "fixtures")
    (to / "etcd" / EXAMPLE).symlink_to(home / EXAMPLE)
    return where
