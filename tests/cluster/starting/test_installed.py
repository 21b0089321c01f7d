"""What is installed runs by itself: the wheels, in an interpreter that knows nothing of this folder."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.local_cluster import LIMIT_S, ROOT, environment, free_base_port

pytest.importorskip("setuptools", reason="builds the wheel without a network")
SCRIPTS = {"muster", "musterctl", "muster-bench"}


@dataclass
class Installed:
    """The wheels' contents, and what runs its console scripts."""

    python: Path
    scripts: dict[str, str]  # name -> module:function
    folder: Path

    def command(self, script: str, *args: str) -> list[str]:
        module, _, function = self.scripts[script].partition(":")
        return [
            str(self.python), "-P", "-c",
            f"import sys; from {module} import {function}; sys.exit({function}())", *args,
        ]

    @property
    def environment(self) -> dict[str, str]:
        """Dependencies are taken from where the tests have them; an editable install there is not
        followed."""
        return {
            **environment(),
            "PYTHONPATH": os.pathsep.join([str(self.folder), sysconfig.get_path("purelib")]),
        }

    def run(self, script: str, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(script, *args), env=self.environment, cwd=self.folder, capture_output=True,
            text=True, check=False, timeout=LIMIT_S,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    tmp = tmp_path_factory.mktemp("installed")
    source = tmp / "source"
    shutil.copytree(
        ROOT,
        source,
        ignore=lambda folder, names: [
            n
            for n in names
            if n.startswith(".") or n in ("tests", "docs", "build", "__pycache__") or n.endswith(".egg-info")
        ],
    )
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(tmp)!r})"
    for project in (source, source / "tools" / "client"):
        subprocess.run(
            [sys.executable, "-c", build], cwd=project, check=True, capture_output=True, timeout=LIMIT_S
        )
    for wheel in tmp.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp / "lib")
    shutil.rmtree(source)
    entries = configparser.ConfigParser()
    entries.read(next((tmp / "lib").glob("muster-*.dist-info/entry_points.txt")))
    venv.create(tmp / "venv", with_pip=False)
    return Installed(tmp / "venv" / "bin" / "python", dict(entries["console_scripts"]), tmp / "lib")


def test_the_console_scripts_run(installed: Installed) -> None:
    assert set(installed.scripts) == SCRIPTS
    for script in SCRIPTS:
        done = installed.run(script, "--help")
        assert done.returncode == 0, done.stderr
        assert "usage" in done.stdout.lower()


def test_the_wheels_claim_seven_names_and_no_others(installed: Installed) -> None:
    """Decision 76: it is installed into an environment of its own, and says which names it takes there.
    The client library's only one is its own."""
    names = {p.name for p in installed.folder.iterdir() if not p.name.endswith(".dist-info")}
    assert names == {"cluster", "node", "proxy", "tools", "bench", "muster", "muster_client"}


@pytest.mark.parametrize("fronts", ["0", "1"])
def test_a_host_of_two_shards_serves(installed: Installed, tmp_path: Path, fronts: str) -> None:
    base = free_base_port(1, 2)
    command = installed.command(
        "muster", "local", "--hosts=1", "--shards=2", f"--fronts={fronts}", f"--base-port={base}",
        f"--data-dir={tmp_path / 'data'}",
    )
    with subprocess.Popen(
        command, env=installed.environment, cwd=installed.folder, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE,
    ) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if line.strip() == "ready":
                    break
            assert (
                installed.run("musterctl", "--endpoints", f"127.0.0.1:{base}", "put", "/a/b", "v").stdout
                == "OK\n"
            )
            assert (
                installed.run("musterctl", "--endpoints", f"127.0.0.1:{base}", "get", "/a/b").stdout
                == "/a/b\nv\n"
            )
        finally:
            server.terminate()
            server.communicate(timeout=LIMIT_S)
