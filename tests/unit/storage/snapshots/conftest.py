"""A store whose state is sent."""

from __future__ import annotations

import pytest

from node.storage import StateStore
from tests.unit.storage.conftest import OpenStore
from tests.unit.storage.workload import stream


@pytest.fixture
def donor(open_store: OpenStore) -> StateStore:
    store = open_store("donor")
    source = stream(5)
    store.apply([next(source) for _ in range(200)])
    return store
