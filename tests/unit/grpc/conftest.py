"""A server that listens, and what it serves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.listener.server import Limits
from tests.unit.grpc.harness import Running, Service, serving


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def running(service: Service) -> Iterator[Running]:
    with serving(service.registry, Limits(max_body_bytes=100_000)) as running:
        yield running
