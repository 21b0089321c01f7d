"""pytest's fixtures: ``muster``, an empty store for each test, and ``muster_cluster``, to start clusters.

pytest loads this wherever muster is installed, so it imports nothing more until a test asks for a fixture.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

from muster.testing.store import Store

if TYPE_CHECKING:
    from muster.testing.cluster import Cluster

_KEPT = pytest.StashKey["Cluster"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("muster_shards", "shards of the host of the fixture `muster`", default="1")
    parser.addini("muster_flags", "more flags of that host", type="args", default=[])


@pytest.fixture(scope="session")
def _muster_host(request: pytest.FixtureRequest) -> Iterator[Callable[[], Cluster]]:
    """Gives the session's host, started at first use, and again if it cannot be cleaned. With pytest-xdist
    each worker has a session, so each has a host."""
    from muster.testing.cluster import Cluster, ClusterError

    config = request.config
    shards, flags = int(config.getini("muster_shards")), config.getini("muster_flags")

    def host() -> Cluster:
        if (kept := config.stash.get(_KEPT, None)) is not None:
            try:
                kept.clean()
                return kept
            except ClusterError:
                kept.close()
        config.stash[_KEPT] = Cluster(shards=shards, flags=flags)
        return config.stash[_KEPT].start()

    yield host
    if (kept := config.stash.get(_KEPT, None)) is not None:
        kept.close()


@pytest.fixture
def muster(request: pytest.FixtureRequest, _muster_host: Callable[[], Cluster]) -> Iterator[Store]:
    """An empty store on a host that the session's tests share one after the other."""
    word = re.sub(r"\W+", "-", request.node.name)[:60]
    with contextlib.ExitStack() as ends:
        yield Store(_muster_host(), f"/{word}-{secrets.token_hex(4)}/", ends)


@pytest.fixture
def muster_cluster() -> Iterator[Callable[..., Cluster]]:
    """``muster_cluster(hosts=3, shards=1, flags=())`` starts a cluster, which ends with the test."""
    from muster.testing.cluster import Cluster

    with contextlib.ExitStack() as ends:

        def start(hosts: int = 3, shards: int = 1, *, flags: Sequence[str] = ()) -> Cluster:
            return ends.enter_context(Cluster(hosts, shards, flags=flags))

        yield start
