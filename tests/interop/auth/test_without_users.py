"""Clients that name themselves while users are not enabled: they are served as those that do not."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Timer

import pytest

from tests.cluster.local_cluster import LocalCluster, local_cluster
from tests.cluster.moves.moving import standing
from tests.interop.auth.asking import Client, Watch

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path_factory.mktemp("no-users") / "data", 2) as running:
        yield running


@pytest.mark.parametrize("who", ["", "?"])
def test_watches_are_created_without_a_leader(hosts: LocalCluster, who: str) -> None:
    client = Client(*hosts.endpoints())
    assert not isinstance(client.put(b"k"), str)
    with standing(*(node["pid"] for node in hosts.host(1)["nodes"])):
        watch: Watch = client.watch(b"k", who)
        limit = Timer(5, watch.close)
        limit.start()
        try:
            assert watch.next().created
        finally:
            limit.cancel()
            watch.close()
