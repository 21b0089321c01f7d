"""Nodes whose upkeep is real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.node.upkeep.replicas import Make, Replica


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Make]:
    made: list[Replica] = []

    def make(**settings: Any) -> Replica:
        made.append(Replica(tmp_path / str(len(made)), **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()
