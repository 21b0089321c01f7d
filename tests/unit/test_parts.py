"""``make test`` and ``make soak`` run tests in parts: each module is in one of them, and what they name is
there."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.plugins import lanes

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Part:
    """One run of pytest: what it is given, and what of that it leaves out."""

    given: list[Path]
    ignored: list[Path]

    def runs(self, module: Path) -> bool:
        """Whether a module is in it."""
        return _below(module, self.given) and not _below(module, self.ignored)


def _below(module: Path, paths: list[Path]) -> bool:
    return any(module.is_relative_to(path) for path in paths)


@pytest.fixture(scope="module", params=["test", "soak"])
def parts(request: pytest.FixtureRequest) -> list[Part]:
    """As make would run them."""
    env = {name: value for name, value in os.environ.items() if "MAKE" not in name and name != "TESTS"}
    line = ["make", "-n", request.param]
    told = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    found = []
    for words in [shlex.split(line.rstrip("\\")) for line in told.splitlines() if " -m pytest " in line]:
        given = [ROOT / word for word in words if word == "tests" or word.startswith("tests/")]
        ignored = [ROOT / word.partition("=")[2] for word in words if word.startswith("--ignore=")]
        found.append(Part(given, ignored))
    return found


def test_all_that_the_parts_name_is_there(parts: list[Part]) -> None:
    assert len(parts) > 3
    assert [path for part in parts for path in part.given + part.ignored if not path.exists()] == []


def test_each_module_is_in_one_part(parts: list[Part]) -> None:
    modules = sorted((ROOT / "tests").rglob("test_*.py"))
    assert len(modules) > 100
    runs = {module: sum(part.runs(module) for part in parts) for module in modules}
    assert {str(module): count for module, count in runs.items() if count != 1} == {}


def test_files_that_share_clusters_in_turn_have_one_lane() -> None:
    names = ("library/test_calls", "library/test_watches", "dns/test_coredns")
    files = [f"tests/interop/{name}.py" for name in names]
    assert [lanes.lane(f"{file}::test_it[muster-1]") for file in files] == [*lanes.TOGETHER * 2, files[2]]
    assert all((ROOT / folder).is_dir() for folder in lanes.TOGETHER)


def test_what_takes_long_begins_first() -> None:
    assert all((ROOT / name).exists() for name in lanes.LONG)
    first, second = lanes.LONG[:2]
    rest = {"few": range(2), second: range(1), "many": range(9)}
    order = []
    while rest:
        order.append(lanes.longest(rest))
        del rest[order[-1]]
    assert order == [second, "many", "few"]
    assert lanes.longest({second: range(9), first: range(1)}) == first
