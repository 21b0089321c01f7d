"""What takes long begins first."""

from __future__ import annotations

import pytest

from tests.cluster.local_cluster import ROOT
from tests.plugins.lanes import LONG, lane, longest


@pytest.mark.parametrize("one", LONG)
def test_what_is_listed_is_there(one: str) -> None:
    assert (ROOT / one).exists()


def test_those_that_are_listed_begin_in_their_order_then_those_of_many_tests() -> None:
    lanes = {"few": "a", LONG[2]: "a", "many": "abc", LONG[1]: "a"}
    began = []
    while lanes:
        began.append(longest(lanes))
        del lanes[began[-1]]
    assert began == [LONG[1], LONG[2], "many", "few"]


def test_files_that_share_clusters_are_one() -> None:
    assert {lane(f"{LONG[0]}{file}.py::test") for file in "ab"} == {LONG[0]}
    assert lane("tests/cluster/a.py::test[b]") == "tests/cluster/a.py"
