"""docs/compatibility.md out of docs/compatibility.tsv: what of etcd is here, held by which test, and what is
not, and why. Behind it the rows of docs/articles.tsv: what articles about etcd show.

python packaging/compatibility.py > docs/compatibility.md

``--refresh`` first writes the states of flags and of commands as the programs' own tables have them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "compatibility.tsv"
ARTICLES = ROOT / "docs" / "articles.tsv"
HEAD = """# Compatibility

What etcd 3.4 to 3.6 has, and where muster stands: every RPC, path, flag and command. `make docs` makes it of
[compatibility.tsv](compatibility.tsv). What is here is held by a test, which the last column names. Most
tests ask a real etcd the same and compare. What is not here says why.

| part | rows | here | with limits | without effect | not here |
|---|---|---|---|---|---|"""
ARTICLES_HEAD = """
## Articles

What four articles about etcd show, row by row, of the v2 API for the most part. A row is tried in real
processes, at members and through a proxy (`tests/interop/rows`, where the test of a row bears its name), by
the test that is named, or as other rows. `make docs` makes the table of [articles.tsv](articles.tsv).

| row | what | | held by, or why not |
|---|---|---|---|"""
_ROWS = "tests/interop/rows/test_rows.py"
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


def articles() -> list[Row]:
    """The rows of articles: name, what, how (here, test, as, page, missing, n/a), by."""
    lines = ARTICLES.read_text(encoding="utf-8").splitlines()
    return [Row(*line.split("\t")) for line in lines if not line.startswith("#")]


def tests() -> set[str]:
    """The tests that rows name."""
    every = [row.by for row in (*rows(), *articles())]
    return {word for by in every for word in by.split() if word.startswith("tests/")}


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
    return "\n".join([*lines, ARTICLES_HEAD, *_articles()])


def _articles() -> list[str]:
    found = articles()
    missing = {row.area for row in found if row.state == "missing"}
    lines = []
    for name, what, how, by in found:
        if how == "here":
            state, by = "yes", f"{_ROWS}::test_row"
        elif how == "as":
            lacks = missing & set(by.split())
            state = "partly" if lacks else "yes"
            by = f"as {', '.join(by.split())}" + (f"; not {', '.join(sorted(lacks))}" if lacks else "")
        elif how == "page":
            page = by.split()[0]
            link = page.removeprefix("docs/") if page.startswith("docs/") else f"../{page}"
            state, by = "told", f"[{page}]({link})"
        else:
            state = {"test": "yes", "missing": "no", "n/a": "n/a"}[how]
        lines.append(f"| {name} | {_cell(what)} | {state} | {_by(by)} |")
    return lines


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
    if target.support is Support.REFUSED:
        return Row(row.area, row.name, "no", "refused at start, unless it has its default value")
    if target.support in (Support.NO_EFFECT, Support.IGNORED):
        return Row(row.area, row.name, "no effect", "taken, and said so at the start: " + _FLAG_TEST)
    return Row(row.area, row.name, "yes", row.by or _FLAG_TEST)


if __name__ == "__main__":
    if "--refresh" in sys.argv:
        refresh()
    print(markdown())
