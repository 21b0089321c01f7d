"""The table of rows, and the checks that are written here, by the row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "docs" / "know" / "articles.tsv"

Check = TypeVar("Check", bound=Callable[..., None])


class Row(NamedTuple):
    """One row."""

    name: str
    what: str
    how: str  # here, as, test, page, missing, n/a
    by: str  # rows, tests, a page and its sentence, or a reason


def rows() -> dict[str, Row]:
    """All rows by name, in their order."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    found = [Row(*line.split("\t")) for line in lines if not line.startswith("#")]
    return {row.name: row for row in found}


class Checks:
    """Functions by the rows that they check."""

    def __init__(self) -> None:
        self.of: dict[str, Callable[..., Any]] = {}

    def row(self, *names: str) -> Callable[[Check], Check]:
        """Have a function check these rows."""

        def added(check: Check) -> Check:
            for name in names:
                assert name not in self.of, name
                self.of[name] = check
            return check

        return added
