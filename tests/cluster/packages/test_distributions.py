"""What users install: wheels and source archives, the lock of servers, the bill of materials."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.cluster.local_cluster import ROOT, environment

PINNED = re.compile(r"^([\w.-]+)==(\S+?)(?: ; (.*?))? \\$", re.MULTILINE)


def built(folder: Path, umask: int) -> dict[str, bytes]:
    done = subprocess.run(
        [sys.executable, ROOT / "packaging/distributions.py", folder], check=False, capture_output=True,
        text=True, umask=umask, timeout=200)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 4, "by twine"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    first = built(folder, 0o022)
    os.utime(ROOT / "cluster" / "__init__.py")
    again = built(tmp_path_factory.mktemp("again"), 0o077)
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == [], "the same bytes each time"
    return folder


def test_an_installed_wheel_runs_hosts(dist: Path, tmp_path: Path) -> None:
    """In an environment that has muster from its wheel, and dependencies as here."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    site = next(venv.glob("lib/python*/site-packages"))
    wheels = sorted(dist.glob("*.whl"))
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "-q", "--no-deps",
         "--no-index", *wheels],
        check=True, env=os.environ | {"PIP_FIND_LINKS": ""})  # fmt: skip
    ours = Path(pytest.__file__).parents[1]
    (site / "dependencies.pth").write_text(f"{ours}\n")
    script = (
        "import muster, muster_client, cluster; from muster.testing import Cluster\n"
        f"assert all(m.__file__.startswith({str(venv)!r}) for m in (muster, muster_client, cluster))\n"
        "with Cluster(3) as hosts, hosts.client() as client: print(client.put('/a', 'b'))\n"
    )
    done = subprocess.run(
        [venv / "bin/python", "-c", script], check=False, capture_output=True, text=True, cwd=tmp_path,
        env={k: v for k, v in environment().items() if k != "PYTHONPATH"}, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("muster", "musterctl", "muster-bench"):
        told = subprocess.run([venv / "bin" / name, "--help"], check=True, capture_output=True, text=True)
        assert "Usage" in told.stdout or "USAGE" in told.stdout or "usage" in told.stdout


def test_the_archive_has_what_a_build_needs_and_no_tests(dist: Path) -> None:
    with tarfile.open(next(dist.glob("muster-0*.tar.gz"))) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "muster/testing/plugin.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "tools/client/src"))]


def lock() -> dict[str, str]:
    """Each package's version."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return {canonicalize_name(name): version for name, version, _ in PINNED.findall(text)}


def test_the_lock_has_a_version_and_hashes_for_all_that_a_host_needs() -> None:
    """As pyproject.toml bounds them, and what those need in turn: `make lock` makes it anew."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    pins, todo, seen = lock(), [Requirement(one) for one in wanted], set[str]()
    while todo:
        need = todo.pop()
        name = canonicalize_name(need.name)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        assert name in pins, f"{name} is not in requirements.lock"
        assert need.specifier.contains(pins[name]), f"{need} is not {pins[name]}"
        if name not in seen:
            seen.add(name)
            todo += [Requirement(one) for one in importlib.metadata.requires(name) or ()]
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for block in re.split(r"(?m)^(?=[\w])", text):
        assert not block or "--hash=sha256:" in block, block


def test_the_bill_of_materials_names_what_is_locked(dist: Path) -> None:
    bill = json.loads((dist / "muster.cdx.json").read_text(encoding="utf-8"))
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "muster")
    assert {canonicalize_name(one["name"]): one["version"] for one in bill["components"]} == lock()
