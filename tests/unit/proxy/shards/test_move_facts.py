"""Every wait of a move has a figure (G15)."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.metrics.move_facts import move_samples


def figures(*found: dict[str, Any]) -> dict[str, float]:
    return {
        ":".join((sample.name.removeprefix("muster_move_"), *sample.labels.values())): sample.value
        for family in move_samples(found) for sample in family.samples}


def test_a_move_that_goes_on_has_its_step_failures_and_each_hosts_copy() -> None:
    copies = {"a1": {"keys": 5, "bytes": 70, "lag_ms": 250, "whole": False}}
    move = {"move": 3, "step": "pausing", "failed_switches": 9, "hosts": copies}
    assert figures({"shard": 0, "up": True, "role": "leader", "move": move}) == {
        "number": 3, "step": 3, "failed_switches": 9, "alarm": 0,
        "copied_keys:a1": 5, "copied_bytes:a1": 70, "lag_seconds:a1": 0.25}
    move["failed_switches"] = 10
    assert figures({"shard": 0, "up": True, "role": "leader", "move": move})["alarm"] == 1


def test_a_lag_that_is_not_known_has_no_figure() -> None:
    copies = {"a1": {"keys": 0, "bytes": 0, "lag_ms": -1, "whole": False}}
    move = {"move": 3, "step": "copying", "failed_switches": 0, "hosts": copies}
    found = figures({"shard": 0, "up": True, "role": "leader", "move": move})
    assert "copied_keys:a1" in found
    assert "lag_seconds:a1" not in found


def test_without_a_move_the_figures_are_nought() -> None:
    assert figures({"shard": 0, "up": True, "role": "leader"}) == {
        "number": 0, "step": 0, "failed_switches": 0, "alarm": 0}


@pytest.mark.parametrize("facts", [
    {"shard": 0, "up": True, "role": "follower"}, {"shard": 1, "up": True, "role": "leader"},
    {"shard": 0, "up": False}])
def test_other_nodes_tell_nothing_of_moves(facts: dict[str, Any]) -> None:
    assert figures(facts) == {}
