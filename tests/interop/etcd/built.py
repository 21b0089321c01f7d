"""etcd's own tests, downloaded by Go and built, with its tools, and a program ``etcd`` that starts muster.

Nothing of the tests is changed but a type's name. Their module is a part of etcd's repository and says so by
``replace``; these lines are taken out, so that Go fetches the other parts as it does for anybody. Where the
integration tests start etcd's servers inside their own process, ``muster.go`` starts processes of muster: the
functions that it has are taken out of etcd's ``framework/integration/cluster.go``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.interop.toolchain import cache

WHOLE = "go.etcd.io/etcd/v3@v3.6.8"  # the newest of the root that was published; of it, the example of a file
EXAMPLE = "etcd.conf.yml.sample"
TOOLS = {"etcdctl": "etcdctl/v3", "etcdutl": "etcdutl/v3", "etcd.real": "server/v3"}
_CLIENT = "integration/clientv3"
#: Those whose tests start servers inside their own process.
INSIDE = ("integration", _CLIENT, *(f"{_CLIENT}/{part}" for part in (
    "concurrency", "connectivity", "experimental/recipes", "lease", "naming")))
PROGRAM = "PROGRAM_OF_MEMBERS"  # of the environment, as muster.go reads it
_ROOT = Path(__file__).resolve().parents[3]
_MEMBER = Path(__file__).with_name("muster.go")
_FLAGS = "-mod=mod -buildvcs=false"


@dataclass(frozen=True, slots=True)
class Release:
    """One of etcd's whose tests are run. ``packages``: that are run unless others are asked for."""

    version: str
    packages: tuple[str, ...]
    inside: bool  # whether those of INSIDE may be asked for, too

    @property
    def module(self) -> str:
        """Of its tests, as Go names it."""
        return f"go.etcd.io/etcd/tests/v3@{self.version}"


RELEASES = {
    "3.6": Release("v3.6.14", ("common", "e2e"), inside=True),
    "3.5": Release("v3.5.35", ("e2e",), inside=False),  # common begins with 3.6
}
_START = """#!/bin/sh
# muster in etcd's place; a gateway and a gRPC proxy are etcd's own, in front of muster
case "$1" in
gateway | grpc-proxy) exec "{real}" "$@" ;;
esac
export PYTHONPATH="{root}"
exec "{python}" -m tools.muster.cli --shards={shards} "$@"
"""


def downloaded(module: str) -> Path:
    """Where Go keeps a module."""
    with tempfile.TemporaryDirectory() as elsewhere:  # outside of any module: it is no dependency of one
        done = subprocess.run(
            ["go", "mod", "download", "-json", module], cwd=elsewhere, capture_output=True, check=True
        )
    return Path(json.loads(done.stdout)["Dir"])


def copied(module: Path, to: Path) -> None:
    """A copy of the tests' module, of which files may be changed; its parts are fetched."""
    shutil.copytree(module, to, copy_function=shutil.copyfile, dirs_exist_ok=True)
    for folder in (to, *(path for path in to.rglob("*") if path.is_dir())):
        folder.chmod(0o755)  # Go's cache is read-only
    described = to / "go.mod"
    described.write_text(re.sub(r"(?ms)^replace \(.*?^\)\n|^replace [^(].*?\n", "", described.read_text()))


def go(*arguments: str, cwd: Path) -> None:
    """Run Go in a module of tests."""
    subprocess.run(["go", *arguments], cwd=cwd, env={**os.environ, "GOFLAGS": _FLAGS}, check=True)


def built(release: Release) -> Path:
    """The folder with what was built. The first time takes minutes."""
    with cache("etcd") as folder:
        home = folder / release.version
        programs = home / "programs"
        if not (home / "done").exists():
            shutil.rmtree(home, ignore_errors=True)
            copied(downloaded(release.module), home / "tests")
            shutil.copyfile(downloaded(WHOLE) / EXAMPLE, home / EXAMPLE)
            programs.mkdir()
            # not all of them are in the tests' go.mod: the newest would be taken, and fit nothing else
            tools = [f"go.etcd.io/etcd/{part}@{release.version}" for part in TOOLS.values()]
            go("get", *tools, cwd=home / "tests")
            for name, part in TOOLS.items():
                go("build", "-o", str(programs / name), f"go.etcd.io/etcd/{part}", cwd=home / "tests")
            for package in release.packages:
                made = str(programs / f"{package}.test")
                go("test", "-vet=off", "-tags=e2e", "-c", "-o", made, f"./{package}", cwd=home / "tests")
            (home / "done").touch()
        if release.inside:
            _inside(home, release)
    return home


def binary(package: str) -> str:
    """The name of what a package is built to."""
    return f"{package.replace('/', '-')}.test"


def _inside(home: Path, release: Release) -> None:
    """The tests that start servers themselves, with members that are processes of muster."""
    ours, made = _MEMBER.read_text(), home / "inside"
    version = hashlib.sha256(repr((ours, MEMBERS, CHANGED, INSIDE)).encode()).hexdigest()
    if made.exists() and made.read_text() == version:
        return
    module = downloaded(release.module)
    for path, changes in CHANGED.items():
        (home / "tests" / path).write_text(changed((module / path).read_text(), changes))
    framework = Path("framework", "integration")
    original = (module / framework / "cluster.go").read_text()
    (home / "tests" / framework / "cluster.go").write_text(without(original, ours))
    (home / "tests" / framework / "muster.go").write_text(ours)
    for package in INSIDE:
        to = str(home / "programs" / binary(package))
        go("test", "-vet=off", "-c", "-o", to, f"./{package}", cwd=home / "tests")
    made.write_text(version)


#: What is changed where: a tick is a heartbeat there. With ten of them to an election the least lease is of a
#: second, and a process needs more than a server inside a test.
CHANGED = {
    "framework/config/cluster.go": {"TickDuration = 10 *": "TickDuration = 65 *"},
    "integration/hashkv_test.go": {"*etcdserver.EtcdServer": "*integration2.Server"},
}
#: And in the file whose functions ``muster.go`` takes the place of.
MEMBERS = {
    "type Member struct {\n": "type Member struct {\n\tprocess\n",
    "*etcdserver.EtcdServer\n": "*Server\n",
    'URLScheme    = "unix"': 'URLScheme    = "http"',
    'URLSchemeTLS = "unixs"': 'URLSchemeTLS = "https"',
    "m := &Member{\n": "m := &Member{\n\t\tprocess:      process{given: mcfg},\n",
}
_FUNCTION = re.compile(r"^func (\([^)]*\) )?(\w+)\(", re.M)


def changed(text: str, changes: Mapping[str, str]) -> str:
    """A file of etcd's with other words, each of which it has once."""
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def without(original: str, ours: str) -> str:
    """etcd's file less the functions that ``muster.go`` has, and less the imports that nobody needs then."""
    own = {found.group(0) for found in _FUNCTION.finditer(ours)}
    original = changed(original, MEMBERS)
    for found in reversed(list(_FUNCTION.finditer(original))):
        if found.group(0) in own:
            end = original.index("\n}\n", found.start()) + 3
            original = original[: found.start()] + original[end:]
    head, _, body = original.partition("\n)\n")

    def used(line: str) -> bool:
        path = re.search(r'^\t(?:(\w+) )?"([^"]+)"$', line)
        if path is None:
            return True
        name = path[1] or next(part for part in reversed(path[2].split("/")) if not re.match(r"v\d+$", part))
        return re.search(rf"\b{name}\.", body) is not None

    return "\n".join(filter(used, head.split("\n"))) + "\n)\n" + body


def starter(to: Path, shards: int, real: Path) -> None:
    """A program etcd in a folder: muster with so many shards. ``real``: the etcd whose proxies are used."""
    start = to / "etcd"
    start.write_text(_START.format(real=real, root=_ROOT, python=sys.executable, shards=shards))
    start.chmod(start.stat().st_mode | stat.S_IXUSR)


def programs(home: Path, to: Path, shards: int) -> None:
    """A folder as the tests want it: etcd (muster with so many shards), etcdctl, etcdutl."""
    to.mkdir(parents=True)
    for name in ("etcdctl", "etcdutl"):
        (to / name).symlink_to(home / "programs" / name)
    starter(to, shards, home / "programs" / "etcd.real")


def place(home: Path, to: Path, package: str) -> Path:
    """A working directory for one run of a test: what lies beside it is where the tests look for it."""
    where = to / "etcd" / "tests" / package
    where.mkdir(parents=True)
    for folder in {to / "etcd" / "tests", where.parent}:
        (folder / "fixtures").symlink_to(home / "tests" / "fixtures")
    if package in INSIDE:
        expired = Path("tests", "integration", "fixtures-expired")
        (to / "etcd" / expired).symlink_to(home / expired)
    (to / "etcd" / EXAMPLE).symlink_to(home / EXAMPLE)
    return where
