"""Python: the PyPI clients etcd3 and aetcd, each in an environment of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.interop.hosts import APART, Hosts
from tests.interop.toolchain import BUILD_LIMIT_S, HERE, cache, call, checked, fingerprint, unavailable

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

PYTHON = HERE / "python"


def environment(client: str) -> Path:
    """The Python of a virtual environment with this client, made once."""
    requirements = PYTHON / f"{client}.txt"
    with cache("python") as folder:
        version = ".".join(map(str, sys.version_info[:2]))
        venv = folder / f"{client}-{version}-{fingerprint(requirements)}"
        if not (venv / "installed").exists():
            checked([sys.executable, "-m", "venv", "--clear", venv], limit_s=BUILD_LIMIT_S)
            pip: list[str | Path] = [
                venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            ]
            done = call([*pip, "-r", requirements], limit_s=BUILD_LIMIT_S)
            if done.returncode != 0:
                unavailable(f"pip install {client}: {done.stderr.strip()}")
            (venv / "installed").touch()
    return venv / "bin" / "python"


@pytest.mark.parametrize("client", ["etcd3", "aetcd"])
def test_client(client: str, hosts: Hosts) -> None:
    printed = checked([environment(client), PYTHON / f"{client}_client.py", hosts.all, *APART], limit_s=90)
    assert printed.split("\n") == [
        *(f"ok {name}" for name in ("kv", "transaction", "watch", "lease", "lock")),
        "",
    ]
