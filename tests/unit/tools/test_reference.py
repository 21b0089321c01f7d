"""docs/know/metrics.md, errors.md and rpcs.md: made from the code's tables, and nothing is left out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cluster import errors
from node.upkeep.counters import counters
from proxy.gateway.paths import TARGETS
from proxy.metrics.node_metrics import OF_NODES

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT / "packaging"))

import compatibility  # noqa: E402  # a script beside the packages
import reference  # noqa: E402  # another


@pytest.mark.parametrize("name", ["errors", "rpcs"])
def test_the_page_is_made_from_the_tables(name: str) -> None:
    page = (ROOT / "docs" / "know" / f"{name}.md").read_text(encoding="utf-8")
    assert page == reference.PAGES[name]() + "\n", "run `make docs`"


def lines(page: str) -> list[str]:
    """But for help of the library's own collectors, which differs from version to version."""
    return [line for line in page.splitlines() if not line.startswith(("|`python_", "|`process_"))]


def test_the_page_of_metrics_is_made_from_what_is_declared() -> None:
    page = (ROOT / "docs" / "know" / "metrics.md").read_text(encoding="utf-8")
    assert lines(page) == lines(reference.metrics()), "run `make docs`"


def test_every_series_has_a_meaning() -> None:
    assert not [family.name for family in reference.families() if not family.documentation]
    assert set(counters(reference._ZERO)) == set(OF_NODES)


def test_every_error_says_when_it_is_given() -> None:
    assert set(reference.WHEN) == set(errors.by_name)


def test_no_error_is_there_that_is_said_never_to_be_given() -> None:
    there = {kind.text.removeprefix("etcdserver: ") for kind in errors.by_number.values()}
    assert there.isdisjoint(reference.NEVER)


def test_every_difference_is_of_an_rpc_and_every_path_is_told() -> None:
    known = {row.name for row in compatibility.rows() if row.area == "RPCs"}
    assert {name.rpartition(".")[2] for name in known} >= {*reference.DIFFERENCES, *reference._OTHERS}
    assert {target.method.removeprefix("/") for target in TARGETS.values()} <= known
