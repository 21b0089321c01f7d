"""A clock of leases that tests move."""

from __future__ import annotations

import inspect
import os
import runpy
from pathlib import Path

import pytest

from cluster.features import lessor
from muster.testing.clock import Clock

CLOCKED = Path(__file__).parents[3] / "muster" / "testing" / "clocked" / "sitecustomize.py"


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of this process's leases."""
    file = tmp_path / "clock"
    monkeypatch.setenv("TESTING_CLOCK_OF_MUSTER", str(file))
    found = {
        name: list(inspect.signature(method).parameters).index("now_ms") - 1
        for name, method in vars(lessor.Lessor).items()
        if not name.startswith("_") and callable(method) and "now_ms" in inspect.signature(method).parameters
    }
    for name in found:
        monkeypatch.setattr(lessor.Lessor, name, vars(lessor.Lessor)[name])  # put back at the end
    assert runpy.run_path(str(CLOCKED))["DOORS"] == found, "every method of the lessor that takes the time"
    return Clock(file)


def test_leases_live_by_it(clock: Clock) -> None:
    one = lessor.Lessor(1000)
    one.promote(0)
    one.granted(1, 60, 0)
    one.granted(2, 600, 0)
    clock.advance(50)
    assert one.due(5_000) == []
    assert one.time_to_live(1, 5_000) == (4, 60)
    assert one.renew(2, 5_000) == 600
    clock.advance(10)
    assert clock.ahead_s == 60
    assert one.due(5_000) == [1]
    assert one.time_to_live(2, 5_000) == (589, 600)


def test_it_moves_forward_alone(clock: Clock) -> None:
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)
    clock.advance(0.5)
    assert (clock.ahead_s, os.listdir(clock._file.parent)) == (0.5, ["clock"])
