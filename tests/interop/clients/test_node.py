"""Node.js: the npm client etcd3."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.interop.hosts import APART, Hosts
from tests.interop.toolchain import (
    BUILD_LIMIT_S,
    HERE,
    cache,
    call,
    checked,
    fingerprint,
    need,
    skip_without,
    unavailable,
)

skip_without("node", "npm")
pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

NODE = HERE / "node"
CHECKS = ("kv", "transaction", "watch", "lease", "lock", "election", "cluster")


@pytest.fixture(scope="module")
def modules() -> Path:
    """A folder that has the client."""
    need("node", "npm")
    lock = NODE / "package-lock.json"
    with cache("node") as folder:
        installed = folder / fingerprint(lock)
        if not (installed / "installed").exists():
            installed.mkdir(exist_ok=True)
            for file in (lock, NODE / "package.json"):
                shutil.copy(file, installed)
            npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            if (done := call(npm, cwd=installed, limit_s=BUILD_LIMIT_S)).returncode != 0:
                unavailable(f"npm ci: {done.stderr.strip()}")
            (installed / "installed").touch()
    return installed / "node_modules"


def test_etcd3(modules: Path, hosts: Hosts) -> None:
    printed = checked(
        ["node", NODE / "client.js", hosts.all, *APART], env={"NODE_PATH": str(modules)}, limit_s=90
    )
    assert printed.split("\n") == [*(f"ok {name}" for name in CHECKS), ""]
