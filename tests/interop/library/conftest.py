"""Three clusters in turn: muster of one shard, muster of three, etcd; in `make soak` etcd 3.7, too, which
``make etcd-new`` builds. MUSTER_LIBRARY_SERVERS names others, by commas."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.local_cluster import local_cluster
from tests.interop.hosts import EtcdProcesses, Hosts, MusterProcesses, serving
from tests.interop.toolchain import CACHE, CI, call, unavailable
from tests.ports import free_base_port
from tests.soaking import SOAK

_USUAL = "muster-1,muster-3,etcd,etcd-3.7" if SOAK else "muster-1,muster-3,etcd"
SERVERS = os.environ.get("MUSTER_LIBRARY_SERVERS", _USUAL).split(",")
VERSION = "v3.7.1"
NEWER = CACHE / "bench" / f"etcd-{VERSION}" / "etcd"
BUILT_IN_S = 900.0  # with all downloads, beside other tests
_STUCK_S = 3000.0 if SOAK else 220.0  # before pytest's own limit, which does not tell what a task waits for
_directories = itertools.count()


@pytest.fixture(scope="package", params=SERVERS)
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Three hosts of one of them."""
    folder = tmp_path_factory.mktemp("library")
    if request.param == "etcd-3.7":
        yield from newer_etcd(folder)
        return
    if request.param == "etcd":
        with serving(EtcdProcesses(folder / "etcd", free_base_port(3), "--enable-v2=true")) as hosts:
            yield hosts
        return
    shards = int(request.param.partition("-")[2])
    with local_cluster(folder / "muster", 3, f"--shards={shards}") as cluster:
        yield Hosts(cluster.endpoints(), MusterProcesses(cluster))


def newer_etcd(folder: Path) -> Iterator[Hosts]:
    """Three hosts of etcd 3.7, where it is built; in CI it is built, or waited for."""
    if CI and not NEWER.exists():
        done = call(["sh", CACHE.parent / "bench" / "compare" / "go_etcd.sh", VERSION], limit_s=BUILT_IN_S)
        if done.returncode:
            unavailable(f"etcd {VERSION} cannot be built: {done.stderr}")
    if not NEWER.exists():
        pytest.skip(f"needs {NEWER}: `make etcd-new` builds it")
    with serving(EtcdProcesses(folder / "etcd", free_base_port(3), binary=NEWER)) as hosts:
        yield hosts


@pytest.fixture
def hosts(servers: Hosts) -> Iterator[Hosts]:
    """All of them serve; a test may kill some."""
    yield servers
    servers.mend()


@pytest.fixture
def directory() -> str:
    """Where a test's keys lie, apart from others'."""
    return f"/library-{next(_directories)}/"


@pytest.fixture
def run(caplog: pytest.LogCaptureFixture) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a test's coroutine; what a loop meets beside it is a failure."""

    async def limited(main: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(_STUCK_S):
            await main

    def runs(main: Coroutine[Any, Any, None]) -> None:
        asyncio.run(limited(main))
        assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]

    return runs
