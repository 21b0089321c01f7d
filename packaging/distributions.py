"""Build what users install: ``python packaging/distributions.py [FOLDER]`` (``make packages``: ``dist/``).

Wheels and source archives of muster and of muster-client, which muster needs in its own version, and a bill
of materials (CycloneDX) of muster with that one and the versions of ``requirements.lock``. The same commit
gives the same bytes: files are taken as git has them, with the time of the commit (or SOURCE_DATE_EPOCH),
whatever the checkout's own times and modes are.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
PROJECTS = (".", "tools/client")


def commit_time() -> str:
    """SOURCE_DATE_EPOCH, or the time of the commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return given or _git("log", "-1", "--format=%ct").strip()


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def export(folder: Path, epoch: int) -> None:
    """What git tracks, as it is in the checkout, with modes and times that depend on nothing else."""
    for line in _git("ls-files", "-s", "-z").split("\0"):
        if not line:
            continue
        mode, name = line.split(None, 1)[0], line.split("\t", 1)[1]
        source, target = ROOT / name, folder / name
        if not source.is_file():
            continue  # it was removed, and not committed yet
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755 if mode == "100755" else 0o644)
        os.utime(target, (epoch, epoch))


def repack(path: Path, epoch: int) -> None:
    """Write a source archive again in a fixed order, with no user, one time, and two modes."""
    made = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    with open(path, "wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=epoch) as packed:
        packed.write(made.getvalue())


def build(folder: Path) -> list[Path]:
    """Both distributions of both projects in a folder; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    epoch = commit_time()
    environ = {**os.environ, "SOURCE_DATE_EPOCH": epoch, "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as clean, tempfile.TemporaryDirectory() as out:
        export(Path(clean), int(epoch))
        Path(clean, "PKG-INFO").touch()  # for setup.py: no source tree, whose path would be in the metadata
        for project in PROJECTS:
            built = subprocess.run(
                [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, Path(clean, project)],
                check=False, env=environ, umask=0o022, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT)
            if built.returncode:
                raise SystemExit(built.stdout)
        for archive in Path(out).glob("*.tar.gz"):
            repack(archive, int(epoch))
        made = sorted(Path(out).iterdir())
        subprocess.run([sys.executable, "-m", "twine", "--no-color", "check", "--strict", *made], check=True)
        return [Path(shutil.copy(one, folder / one.name)) for one in made]


def bill(path: Path, client: Sequence[Path]) -> None:
    """The bill of materials of a host; ``client``: the distributions of muster-client that were built."""
    version = client[0].name.split("-")[1].removesuffix(".tar.gz")
    hashes = " ".join(f"--hash=sha256:{hashlib.sha256(one.read_bytes()).hexdigest()}" for one in client)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as needed:
        needed.write(f"{LOCK.read_text(encoding='utf-8')}\nmuster-client=={version} {hashes}\n")
        needed.flush()
        subprocess.run(
            [sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible",
             "--pyproject", ROOT / "pyproject.toml", "--spec-version", "1.6",
             "--output-format", "JSON", "--output-file", path, needed.name],
            check=True)  # fmt: skip


def main() -> None:
    """Build all, and say what was built."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "dist")
    made = build(folder)
    for path in made:
        print(path)
    bill(folder / "muster.cdx.json", [path for path in made if path.name.startswith("muster_client-")])
    print(folder / "muster.cdx.json")


if __name__ == "__main__":
    main()
