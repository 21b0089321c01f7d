"""A connection that is talked to."""

from __future__ import annotations

import pytest

from tests.unit.grpc.calls.talking import Talk


@pytest.fixture
def talk() -> Talk:
    return Talk()
