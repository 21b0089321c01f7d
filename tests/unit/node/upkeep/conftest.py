"""Nodes whose upkeep is real, and hosts that send each other states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.node.upkeep.replicas import Make, Replica
from tests.unit.node.upkeep.sending import Host, World


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Make]:
    made: list[Replica] = []

    def make(**settings: Any) -> Replica:
        made.append(Replica(tmp_path / str(len(made)), **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def hosts(world: World, tmp_path: Path) -> Iterator[dict[int, Host]]:
    found = {i: Host(world, i, tmp_path / str(i)) for i in (1, 2, 3)}
    for host in found.values():
        host.hosts = found
    found[1].put(50)
    found[3].put(50)
    yield found
    for host in found.values():
        host.snapshots.close()
        host.store.close()
