"""docs/know/compatibility.md from two tables beside it: ``python packaging/compatibility.py``.

``compatibility.tsv`` has every RPC, path, flag and command of etcd, with its test or the reason for its
absence; ``articles.tsv`` what articles about etcd show. ``--refresh`` first writes the states of flags and
commands from the programs' tables.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "know" / "compatibility.tsv"
ARTICLES = ROOT / "docs" / "know" / "articles.tsv"
HEAD = """# Compatibility

What of etcd 3.4 to 3.6 is missing, has limits or has no effect, for users of etcd. `make docs`
makes this page.

[compatibility.tsv](compatibility.tsv) has a row for each RPC, path, flag and command of etcd, with the test
that holds it. Most tests ask a real etcd the same and compare. Between machines, peers need [a key file or a
flag](../run/install.md#three-hosts).

|part|rows|works|works partly|no effect|missing|
|---|---|---|---|---|---|"""
ARTICLES_HEAD = """
## Articles

[articles.tsv](articles.tsv) lists what four articles about etcd show, mostly of the v2 API. Tests try
rows: by the row's name in real processes (`tests/interop/rows`), keys and commands at members and through a
proxy, or those that the row names.

|rows||
|---|---|"""
_ELSEWHERE = ("Server flags", "no effect")  # another page names them
_FLAGS_PAGE = "[flags](flags.md#flags-that-do-nothing-of-their-own)"
STATES = ("yes", "partly", "no effect", "no")
_FLAG_TEST = "tests/unit/tools/test_muster_flags.py"


class Row(NamedTuple):
    area: str
    name: str
    state: str  # one of STATES
    by: str  # its test; of a missing one, the reason


def rows() -> list[Row]:
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
    found = rows()
    lines = [HEAD]
    for area in dict.fromkeys(row.area for row in found):
        of_area = [row.state for row in found if row.area == area]
        counts = "|".join(str(of_area.count(state)) for state in STATES)
        lines.append(f"|{area}|{len(of_area)}|{counts}|")
    lines += ["", "## Missing, partial, or without effect", "", "|part|what|state|why|", "|---|---|---|---|"]
    for (area, state, why), names in _gathered(found).items():
        what = _named(names) if (area, state) != _ELSEWHERE else f"{len(names)} flags: {_FLAGS_PAGE}"
        lines.append(f"|{area}|{what}|{state}|{why}|")
    return "\n".join([*lines, *_articles()])


def _gathered(found: list[Row]) -> dict[tuple[str, str, str], list[str]]:
    """Rows that are missing or limited, by part, state and reason."""
    gathered: dict[tuple[str, str, str], list[str]] = {}
    for row in found:
        if row.state != "yes":
            gathered.setdefault((row.area, row.state, _without_tests(row.by)), []).append(row.name)
    return gathered


def _named(names: list[str]) -> str:
    """Names, with their common beginning once."""
    words = [name.rpartition(" ")[0] for name in names]
    if len(names) > 1 and words[0] and len(set(words)) == 1:
        return f"`{words[0]}`: " + ", ".join(f"`{_cell(name.rpartition(' ')[2])}`" for name in names)
    return ", ".join(f"`{_cell(name)}`" for name in names)


def _without_tests(why: str) -> str:
    return re.sub(r":? tests/\S+", "", why)


def _articles() -> list[str]:
    counts = Counter(row.state for row in articles())
    lines = [ARTICLES_HEAD]
    for how, meaning in _HOW.items():
        if counts[how]:
            lines.append(f"|{counts[how]}|{meaning}|")
    missing = [f"- {row.area}, {_cell(row.name)}: {row.by}" for row in articles() if row.state == "missing"]
    return [*lines, *(["", "Not here:", "", *missing] if missing else [])]


_HOW = {
    "here": "checked by the test of the row's name",
    "test": "checked by the tests that the row names",
    "as": "the same as other rows",
    "page": "answered by a page",
    "missing": "not here",
    "n/a": "nothing that a store can have or lack",
}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def refresh() -> None:
    """Write what the tables of flags and commands know."""
    fresh = [_refreshed(row) for row in rows()]
    head = TABLE.read_text(encoding="utf-8").splitlines()[0]
    TABLE.write_text("\n".join([head, *("\t".join(row) for row in fresh)]) + "\n", encoding="utf-8")


def _refreshed(row: Row) -> Row:
    from tools.muster.config.flags import SERVER_FLAGS
    from tools.muster.config.kinds import Support

    if row.area != "Server flags":
        return row
    flag = SERVER_FLAGS[row.name.lstrip("-")]
    target = flag
    if flag.support is Support.ALIAS and flag.alias in SERVER_FLAGS:
        target = SERVER_FLAGS[flag.alias]
    if target.support is Support.REFUSED:
        return Row(row.area, row.name, "no", "refused at start, unless it has its default value")
    if target.support in (Support.NO_EFFECT, Support.IGNORED):
        return Row(
            row.area, row.name, "no effect", f"accepted, and named in a warning at the start: {_FLAG_TEST}")
    return Row(row.area, row.name, "yes", row.by or _FLAG_TEST)


if __name__ == "__main__":
    if "--refresh" in sys.argv:
        refresh()
    print(markdown())
