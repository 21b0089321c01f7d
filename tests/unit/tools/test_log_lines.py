"""docs/run/monitor.md explains log lines that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_PACKAGES = ("cluster", "node", "proxy", "tools/muster")


def explained() -> list[str]:
    """The lines of the table, by their `msg`."""
    table = (ROOT / "docs" / "run" / "monitor.md").read_text(encoding="utf-8").split("| `msg` |")[1]
    return [line for row in table.splitlines()[2:] for line in re.findall("`([^`]+)`", row.split(" | ")[0])]


def constants() -> str:
    """All strings of the program, those of f-strings in pieces."""
    files = [path for package in _PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return "\n".join(
        item.value
        for path in files
        for item in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(item, ast.Constant) and isinstance(item.value, str)
    )


@pytest.fixture(scope="module")
def strings() -> str:
    """Once for all lines."""
    return constants()


@pytest.mark.parametrize("line", explained())
def test_a_line_that_the_page_explains_is_logged(strings: str, line: str) -> None:
    assert all(part in strings for part in line.split("…"))
