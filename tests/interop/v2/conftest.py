"""Servers of version 2: an etcd 3.5, and musters of one host and of three."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.local_cluster import LocalCluster, local_cluster, until
from tests.interop.v2 import v2_web
from tests.interop.v2.v2_hosts import Server, etcd_with_v2, serves

CORS = f"--cors={v2_web.ALLOWED},http://other.example:80"


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with etcd_with_v2(tmp_path_factory.mktemp("etcd"), CORS) as server:
        server.mask_itself()
        yield server


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A muster of one host."""
    args = [CORS, "--fronts=0"]  # plain reads are answered as their bytes come (decision 91)
    with local_cluster(tmp_path_factory.mktemp("one") / "muster", 1, "--shards=1", extra=args) as cluster:
        server = Server(cluster.endpoints()[0])
        until(lambda: serves(server))
        server.mask_itself()
        yield server


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A muster of three hosts and two shards."""
    with local_cluster(tmp_path_factory.mktemp("three") / "muster", 3, "--shards=2") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def three(trio: LocalCluster) -> list[Server]:
    """Its hosts."""
    servers = [Server(endpoint) for endpoint in trio.endpoints()]
    until(lambda: all(serves(server) for server in servers))
    return servers
