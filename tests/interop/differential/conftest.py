"""Servers for the differential tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .endpoints import GrpcEndpoint
from .etcd import running_etcd


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[GrpcEndpoint]:
    """A fresh etcd."""
    directory = tmp_path / "etcd"
    directory.mkdir()
    with running_etcd(directory) as endpoint:
        yield endpoint


@pytest.fixture
def second_etcd(tmp_path: Path) -> Iterator[GrpcEndpoint]:
    """Another one."""
    directory = tmp_path / "second"
    directory.mkdir()
    with running_etcd(directory) as endpoint:
        yield endpoint
