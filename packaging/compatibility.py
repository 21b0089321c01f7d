"""docs/compatibility.md out of docs/compatibility.tsv: what of etcd is here, held by which test, and what is
not, and why.

python packaging/compatibility.py > docs/compatibility.md

``--refresh`` first writes the states of flags and of commands as the programs' own tables have them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "compatibility.tsv"
HEAD = """# Compatibility

What etcd 3.4 to 3.6 has, and where muster stands: every RPC, path, flag and command. `make docs` makes it of
[compatibility.tsv](compatibility.tsv). What is here is held by a test, which the last column names. Most
tests ask a real etcd the same and compare. What is not here says why.

| part | rows | here | with limits | without effect | not here |
|---|---|---|---|---|---|"""
STATES = ("yes", "partly", "no effect", "no")
_FLAG_TEST = "tests/unit/tools/test_muster_flags.py"


class Row(NamedTuple):
    """One row of the table."""

    area: str
    name: str
    state: str  # one of STATES
    by: str  # the test that holds it; of what is not here, why


def rows() -> list[Row]:
    """The table."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return [Row(*line.split("\t")) for line in lines if not line.startswith("#")]


def tests() -> set[str]:
    """The tests that rows name."""
    return {word for row in rows() for word in row.by.split() if word.startswith("tests/")}


def markdown() -> str:
    """The page."""
    found = rows()
    areas = list(dict.fromkeys(row.area for row in found))
    lines = [HEAD]
    for area in areas:
        of_area = [row.state for row in found if row.area == area]
        counts = " | ".join(str(of_area.count(state)) for state in STATES)
        lines.append(f"| [{area}](#{_anchor(area)}) | {len(of_area)} | {counts} |")
    for area in areas:
        lines += ["", f"## {area}", "", "| | | held by, or why not |", "|---|---|---|"]
        lines += [
            f"| `{_cell(row.name)}` | {row.state} | {_by(row.by)} |" for row in found if row.area == area
        ]
    return "\n".join(lines)


def _anchor(area: str) -> str:
    return "".join(c for c in area.lower().replace(" ", "-") if c.isalnum() or c == "-")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _by(text: str) -> str:
    return " ".join(f"`{word}`" if word.startswith("tests/") else word for word in text.split())


def refresh() -> None:
    """Write what the tables of flags and commands know."""
    fresh = [_refreshed(row) for row in rows()]
    head = TABLE.read_text(encoding="utf-8").splitlines()[0]
    TABLE.write_text("\n".join([head, *("\t".join(row) for row in fresh)]) + "\n", encoding="utf-8")


def _refreshed(row: Row) -> Row:
    from tools.muster.config.flags import SERVER_FLAGS, Support

    if row.area != "Server flags":
        return row
    flag = SERVER_FLAGS[row.name.lstrip("-")]
    target = flag
    if flag.support is Support.ALIAS and flag.alias in SERVER_FLAGS:
        target = SERVER_FLAGS[flag.alias]
    if target.support is Support.LATER:
        return Row(row.area, row.name, "no", "refused at start, unless it has its default value")
    if target.support in (Support.NO_EFFECT, Support.IGNORED):
        return Row(row.area, row.name, "no effect", "taken, and said so at the start: " + _FLAG_TEST)
    return Row(row.area, row.name, "yes", row.by or _FLAG_TEST)


if __name__ == "__main__":
    if "--refresh" in sys.argv:
        refresh()
    print(markdown())
