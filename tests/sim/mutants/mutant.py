"""What a mutant is, and what the plans of many are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.sim.world.order_plan import MIX, Plan

Patch = pytest.MonkeyPatch
HOT = {"put": 8, "txn": 8, "transfer": 8, "wide": 6, "range": 4, "delete": 2}
LEASES = {**MIX, "lease_put": 10, "grant": 4, "revoke": 4, "keep": 2, "wide": 8}
CHANGES = (
    "pause leader",
    "pause leader",
    "kill leader",
    "transfer",
    "transfer",
    "restart",
    "heal",
    "cut sequencer",
    "isolate",
    "heal",
    "pause sequencer",
    "break",
)
SEQUENCERS = (
    "pause sequencer",
    "pause sequencer",
    "isolate",
    "heal",
    "heal",
    "kill sequencer",
    "restart",
    "one way",
)
WIDE = {"transfer": 10, "wide": 6, "put": 6}
WRONG = ("I22", "I19", "I5", "I7", "I9", "I14")  # the rules that most of what goes wrong with answers breaks


def plan(**given: Any) -> Plan:
    """Many clients on few shards, for a few seconds."""
    return Plan(
        **{
            "shards": 2,
            "seconds": 3.0,
            "clients": 6,
            "think_s": 0.005,
            "fault_every_s": 0.2,
            "repeats": 0.2,
            "mix": HOT,
            "faults": CHANGES,
            **given,
        }
    )


@dataclass(frozen=True)
class Mutant:
    """A rule's absence, and who notices: rules of violations, or the number of an assertion."""

    remove: Callable[[Patch], None]
    rules: tuple[str, ...]
    plan: Plan
    first: int = 0  # a seed at or before one that noticed when this was written
    seeds: int = 150

    def __str__(self) -> str:
        return self.remove.__name__
