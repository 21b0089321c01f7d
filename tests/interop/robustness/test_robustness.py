"""A short run of etcd's robustness suite: each of its kinds of traffic, while shards come and go."""

from __future__ import annotations

import pytest

from tests.interop.robustness.run import FAULTS, NEEDED, TRAFFIC, Run, built, chosen
from tests.interop.toolchain import skip_without

skip_without(*NEEDED)
pytestmark = [pytest.mark.interop, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """On three shards at first."""
    return Run(built(), tmp_path_factory.mktemp("robustness"), 3, churns=True)


@pytest.mark.soak
@pytest.mark.parametrize(("traffic", "fault"), list(chosen(1, 0, churns=True)))
def test_all_operations_have_an_order_and_watches_keep_what_they_promise(
    run: Run, traffic: str, fault: str
) -> None:
    assert run.one(f"TestMuster/{traffic}/{fault}"), f"its output and report: {run.logs}"


@pytest.mark.parametrize("churns", [False, True])
def test_every_traffic_meets_every_fault_that_it_allows_in_so_many_rounds(churns: bool) -> None:
    met = list(chosen(len(FAULTS), 0, churns=churns))
    assert len(met) == len(set(met))
    left_out = {(traffic, fault) for traffic in TRAFFIC for fault in FAULTS} - set(met)
    assert left_out == {(traffic, "MemberReplace") for traffic in TRAFFIC if churns}
