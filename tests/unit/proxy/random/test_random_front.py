"""Whatever happens to a front, each call is counted once, no write is taken twice, and nothing stays. A seed
repeats by itself: ``-k 'front and 17'``."""

from __future__ import annotations

import pytest

from tests.sim.world.seeds import seeds
from tests.unit.proxy.random.rules import broken
from tests.unit.proxy.random.run import Run


@pytest.mark.longer
@pytest.mark.parametrize("seed", seeds(30, 1_000))
def test_nothing_is_left_of_a_front(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(seed, monkeypatch)
    run.go()
    assert not broken(run)
