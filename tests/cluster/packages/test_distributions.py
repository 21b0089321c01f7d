"""What users install: wheels and source archives, the lock of servers, the bill of materials."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.cluster.local_cluster import ROOT, environment

# two builds of 20 s of CPU time each, whatever else takes the CPUs: 240 s were not enough once
pytestmark = pytest.mark.timeout(900)
CLIENT = "muster-client"
PINNED = re.compile(r"^([\w.-]+)==(\S+?)(?: ; (.*?))? \\$", re.MULTILINE)


def built(folder: Path, umask: int) -> dict[str, bytes]:
    done = subprocess.run(
        [sys.executable, ROOT / "packaging/distributions.py", folder], check=False, capture_output=True,
        text=True, umask=umask, timeout=420)  # fmt: skip
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
        assert "usage" in told.stdout.lower()


def test_the_archive_has_what_a_build_needs_and_no_tests(dist: Path) -> None:
    with tarfile.open(next(dist.glob("muster-0*.tar.gz"))) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "muster/testing/plugin.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "tools/client/src"))]
    with tarfile.open(next(dist.glob("muster-0*.tar.gz"))) as archive:
        told = [archive.extractfile(one) for one in archive.getmembers() if one.name.endswith("PKG-INFO")]
        metadata = [file.read().decode() for file in told if file is not None]
    assert metadata
    for one in metadata:
        assert "Requires-Dist: muster-client==" in one
        assert " @ " not in one, "the building machine's path"


def project(folder: str = "") -> dict[str, Any]:
    """What a distribution says of itself; setup.py adds the client library to muster's dependencies."""
    found = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))
    if not folder:
        return {**found["project"], "dependencies": found["tool"]["muster"]["dependencies"]}
    assert isinstance(found["project"], dict)
    return found["project"]


def test_muster_needs_the_client_library_of_its_own_version(dist: Path) -> None:
    client = project("tools/client")
    assert client["version"] == project()["version"]
    with zipfile.ZipFile(next(dist.glob("muster-0*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = wheel.read(name).decode()
    assert f"Requires-Dist: {client['name']}=={client['version']}\n" in metadata


def test_a_source_tree_needs_its_own_client_library(tmp_path: Path) -> None:
    """``pip install .`` asks no index for it."""
    line = [sys.executable, "setup.py", "--quiet", "dist_info", "--output-dir", tmp_path]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    (metadata,) = tmp_path.glob("*/METADATA")
    needs = f"Requires-Dist: {CLIENT} @ {(ROOT / 'tools/client').as_uri()}\n"
    assert needs in metadata.read_text(encoding="utf-8")


def lock() -> dict[str, str]:
    """Each package's version."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return {canonicalize_name(name): version for name, version, _ in PINNED.findall(text)}


def test_the_lock_has_a_version_and_hashes_for_all_that_a_host_needs() -> None:
    """As pyproject.toml bounds them, and what those need in turn: `make lock` makes it anew. The client
    library is not in it, since it is built beside muster; what it needs is."""
    wanted = [*project()["dependencies"], *project("tools/client")["dependencies"]]
    pins, seen = lock(), set[str]()
    assert CLIENT not in pins
    todo = [need for one in wanted if (need := Requirement(one)).name != CLIENT]
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
    named = {canonicalize_name(one["name"]): one["version"] for one in bill["components"]}
    assert named == {**lock(), CLIENT: project("tools/client")["version"]}
    hashed = {told["content"] for one in bill["components"] if one["name"] == CLIENT
              for reference in one["externalReferences"] for told in reference["hashes"]}
    assert hashed == {hashlib.sha256(path.read_bytes()).hexdigest() for path in dist.glob("muster_client-*")}


def test_the_debian_package_has_programs_that_run(dist: Path, tmp_path: Path) -> None:
    """Unpacked beside this system; `make package-check` installs it in a fresh Debian."""
    if shutil.which("dpkg-deb") is None or not Path("/usr/bin/python3").exists():
        pytest.skip("needs dpkg-deb and /usr/bin/python3")
    wheel = next(dist.glob("muster-0*.whl"))
    done = subprocess.run(
        [sys.executable, ROOT / "packaging/debian.py", wheel, tmp_path], check=False, capture_output=True,
        text=True, timeout=200)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    package, root = done.stdout.strip(), tmp_path / "root"
    asked = ["dpkg-deb", "--field", package, "Package", "Version"]
    fields = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    assert fields == "Package: muster\nVersion: 0.1.0\n"
    subprocess.run(["dpkg-deb", "--extract", package, root], check=True)
    control = tmp_path / "control"
    subprocess.run(["dpkg-deb", "--control", package, control], check=True)
    assert (control / "conffiles").read_text().split() == ["/etc/muster/muster.env"]
    assert "systemctl start" not in (control / "postinst").read_text()
    unit = (root / "usr/lib/systemd/system/muster.service").read_text()
    assert "ExecStart=/opt/muster/venv/bin/muster\n" in unit
    bare = {k: v for k, v in environment().items() if k != "PYTHONPATH"}
    python = root / "opt/muster/venv/bin/python3"
    for name in ("muster", "musterctl", "muster-bench"):
        script = root / "usr/bin" / name
        first = script.read_text().splitlines()[0]
        assert first.startswith("#!/opt/muster/venv/bin/python"), "its path once it is installed"
        help_ = [python, script, "--help"]
        told = subprocess.run(help_, check=True, capture_output=True, text=True, env=bare)
        assert "usage" in told.stdout.lower()
    line = [python, "-c", "import cluster, muster_client; print(cluster.__file__, muster_client.__file__)"]
    found = subprocess.run(line, check=True, capture_output=True, text=True, env=bare, cwd=tmp_path).stdout
    assert all(path.startswith(str(root)) for path in found.split()), "it has its own modules"
