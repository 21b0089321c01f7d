"""One cluster for all clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.hosts import Hosts, three_hosts


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with three_hosts(tmp_path_factory.mktemp("interop")) as hosts:
        yield hosts


@pytest.fixture
def hosts(_cluster: Hosts) -> Iterator[Hosts]:
    """Three hosts, all of which serve; a test may kill some of them."""
    yield _cluster
    _cluster.mend()
