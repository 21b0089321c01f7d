"""A cluster of one host, with keys that move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.node.replica.moving.world import KEYS
from tests.unit.storage.moved.cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, 1, hosts=1)
    for key in KEYS:
        made.put(key)
    yield made
    made.close()
