"""A host that comes back finds another member at a member's address: its copy of the members' table is older
than both have moved."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from cluster.members import meant
from tests.sim.directed.members.test_order_moved import BACK_AT, BEHIND_S, LEADS, MOVES, UPDATED_AT, Moved

FOLLOWED_AT = UPDATED_AT + 1.0


class Swapped(Moved):
    """The sequencer's host takes the address of the member that has moved."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.at(FOLLOWED_AT, None, lambda: self.give(LEADS, "h2"))


def refused(monkeypatch: pytest.MonkeyPatch, *, named: bool = True) -> list[str]:
    """Hellos that came to another member than is meant; unless ``named`` they are taken, as before."""
    came: list[str] = []
    judge = meant.mismatch

    def judged(parts: Iterable[bytes], own: int) -> str:
        if reason := judge(parts, own):
            came.append(reason)
        return reason if named else ""

    monkeypatch.setattr(meant, "mismatch", judged)
    return came


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.timeout(600)
def test_a_host_that_is_behind_takes_no_member_for_another_one(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = refused(monkeypatch)
    simulation = Swapped(seed)
    simulation.run_faults()
    assert simulation.did["moved"] == 2
    assert simulation.addresses == {"h2"} == {simulation.listens_at(LEADS)}, "another one is there"
    assert {*came} == {f"{meant.REASON} (got {MOVES} want {LEADS})"}
    assert len(came) < 5 * BEHIND_S, "a peer's, a node's and a front's link pause for a second each"
    assert len(simulation.asked) > 30
    assert all(o.ok and o.answered_at - o.asked_at < 2.0 for o in simulation.asked)


def test_without_the_name_of_who_is_meant_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    came = refused(monkeypatch, named=False)
    simulation = Swapped(1)
    simulation.run_faults()
    assert came
    early = [o for o in simulation.asked if o.asked_at < BACK_AT + BEHIND_S / 2]
    assert early
    assert not any(o.ok and o.answered_at < BACK_AT + BEHIND_S for o in early)
