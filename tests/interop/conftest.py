"""One cluster for all clients, and the Go programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.hosts import Hosts, three_hosts
from tests.interop.toolchain import BUILD_LIMIT_S, HERE, cache, call, checked, need, unavailable

GO_VERSIONS = {"3.5": "go.mod", "3.6": "v36.mod"}  # of clientv3


@pytest.fixture(scope="package")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with three_hosts(tmp_path_factory.mktemp("interop")) as hosts:
        yield hosts


@pytest.fixture
def hosts(_cluster: Hosts) -> Iterator[Hosts]:
    """Three hosts, all of which serve; a test may kill some of them."""
    yield _cluster
    _cluster.mend()


@pytest.fixture(scope="session")
def programs() -> dict[str, Path]:
    """The program that is all of them, by the version of clientv3 that it is built with. Its first argument
    names one."""
    need("go")
    built = {}
    with cache("go") as folder:
        for version, mod in GO_VERSIONS.items():
            if (
                done := call(
                    ["go", "mod", "download", f"-modfile={mod}"], cwd=HERE / "go", limit_s=BUILD_LIMIT_S
                )
            ).returncode:
                unavailable(f"go mod download: {done.stderr.strip()}")
            built[version] = folder / f"clientv3-{version}"
            checked(
                ["go", "build", "-buildvcs=false", "-mod=readonly", f"-modfile={mod}", "-ldflags=-s -w",
                 "-o", built[version], "."],
                cwd=HERE / "go", limit_s=BUILD_LIMIT_S,
            )  # fmt: skip
    return built
