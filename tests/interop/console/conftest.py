"""A muster of two shards, and an etcd, for the console."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from muster_client import Client

from tests.cluster import one_host
from tests.cluster.local_cluster import until
from tests.interop.console import visitor
from tests.interop.console.visitor import Visit
from tests.interop.hosts import answers
from tests.ports import free_base_port

_directories = itertools.count()
_ETCD = Path(sys.executable).parent / "etcd"


@contextlib.contextmanager
def one_muster(folder: Path, *flags: str) -> Iterator[str]:
    """One host of two shards; its address."""
    with one_host.started(folder / "muster", 0, 2, *flags) as host:
        until(host.serves)
        yield f"127.0.0.1:{host.port}"


@contextlib.contextmanager
def one_etcd(folder: Path, *flags: str) -> Iterator[str]:
    """One member; its address."""
    port = free_base_port(1)
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
    line = [
        str(_ETCD), f"--data-dir={folder}/etcd", "--log-level=error", f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}", *flags,
    ]  # fmt: skip
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(f"127.0.0.1:{port}"))
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="package")
def muster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A muster's address."""
    with one_muster(tmp_path_factory.mktemp("console")) as address:
        yield address


@pytest.fixture(scope="package", params=["muster", "etcd"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of each in turn."""
    if request.param == "muster":
        yield request.getfixturevalue("muster")
        return
    with one_etcd(tmp_path_factory.mktemp("console-etcd")) as address:
        yield address


@pytest.fixture
def directory() -> str:
    """Where a test's keys lie, apart from others'."""
    return f"/console-{next(_directories)}/"


Step = Callable[[Client], Coroutine[Any, Any, None]]


@pytest.fixture
def run(server: str) -> Callable[[Step], None]:
    """Run a test's steps with a client of the server."""

    def runs(step: Step) -> None:
        async def main() -> None:
            async with Client(server) as client, asyncio.timeout(60):
                await step(client)

        asyncio.run(main())

    return runs


Visits = Callable[..., None]


@pytest.fixture
def visit(muster: str) -> Visits:
    """Visit a console of the store (``visitor.visit``)."""

    def visits(step: Visit, **how: Any) -> None:
        visitor.visit(how.pop("address", muster), step, **how)

    return visits
