"""Simulated nodes log nothing. In a soak whose tests run side by side, those of many slow seeds begin."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import structlog

from tests.sim.world.seeds import dealt
from tests.soaking import SOAK

# dozens of seeds in one test, of 3 to 10 s of a CPU each
_LONG = tuple(f"tests/sim/{folder}/" for folder in ("births", "everything", "moves"))


@pytest.hookimpl(trylast=True)  # once the others are deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if SOAK and workers > 1:
        items[:] = dealt(sorted(items, key=lambda item: not item.nodeid.startswith(_LONG)), workers)


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()
