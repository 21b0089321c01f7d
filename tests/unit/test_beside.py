"""When an attack counts as borne: by the floor at first, then by turns without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.attacking.beside import Attacked
from tests.faults.attacking.bystander import Turn
from tests.tries import TRIES

FLOOR_S = 0.1


class Played(Attacked):
    """Turns whose requests all take as long as is said."""

    _known = True

    def __init__(self, beside_s: list[float], quiet_s: float, failures: list[str]) -> None:
        self.turns = ""  # a for one with the attack, q for one without
        self._beside_s, self._quiet_s, self._failures = beside_s, quiet_s, failures

    def standing(self) -> list[object]:
        return []

    def memory(self) -> list[int]:
        return [100]

    def turn(self, least_s: float, attack: Callable[[], object] | None = None) -> Turn:
        self.turns += "a" if attack else "q"
        if attack:
            return Turn([self._beside_s.pop(0)], [])
        return Turn([self._quiet_s], self._failures)


@pytest.mark.parametrize(
    ("beside_s", "quiet_s", "turns"),
    [
        ([0.2, 0.2], 0.05, "aaq"),  # within the floor: nothing is compared
        ([0.5, 0.5, 0.2, 0.2], 0.05, "aaq" "qaqa"),  # the second try is better
        ([0.5] * 4, 0.25, "aaq" "qaqa"),  # no worse than twice what it is without
    ],
)
def test_an_attack_is_borne(beside_s: list[float], quiet_s: float, turns: str) -> None:
    played = Played(beside_s, quiet_s, [])
    played.beside(lambda: None, turns=2, floor_s=FLOOR_S)
    assert played.turns == turns


def test_one_that_always_costs_others_more_is_not() -> None:
    played = Played([0.5] * 2 * TRIES, 0.2, [])
    with pytest.raises(AssertionError, match="p99 200 ms without, 500 ms beside"):
        played.beside(lambda: None, turns=2, floor_s=FLOOR_S)
    assert played.turns == "aaq" + "qaqa" * (TRIES - 1)


def test_nor_is_one_after_which_a_request_fails() -> None:
    with pytest.raises(AssertionError, match="UNAVAILABLE"):
        Played([0.1], 0.05, ["UNAVAILABLE"]).beside(lambda: None, turns=1, floor_s=FLOOR_S)
