"""Every decision that code or pages name is found by the index of decisions, and pages stay short."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docs" / "decisions"
MOST_WORDS = 250
_NAMED = re.compile(r"\b[Dd]ecisions?\s+\[?(\d+)")
_UNUSED = {38, 71, 99, 112, 119}


def pages() -> dict[int, Path]:
    """The pages by their number."""
    return {int(path.name[:4]): path for path in FOLDER.glob("0*.md")}


def listed() -> list[int]:
    """The numbers in the index: of pages, of what these include, and of rows of tuning.md."""
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| \[(\d+)\]\(\d+-[\w-]+\.md\)[^|]*\| ([\d, ]*)\|$", index)
    lists = re.findall(r"(?ms)^- \*(?:Speed|Rejected|Small choices)\*: ([\d,\s]+)\.$", index)
    return [int(number) for text in (*(" ".join(row) for row in rows), *lists)
            for number in re.findall(r"\d+", text)]


def test_the_index_has_every_number_once() -> None:
    numbers = listed()
    assert len(numbers) == len(set(numbers))
    assert set(numbers) == set(range(1, max(numbers) + 1)) - _UNUSED
    assert set(pages()) <= set(numbers)


def test_a_row_of_what_was_tried_is_there() -> None:
    text = (ROOT / "docs" / "design" / "tuning.md").read_text(encoding="utf-8")
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    lists = " ".join(re.findall(r"(?ms)^- \*(?:Speed|Rejected|Small choices)\*: ([\d,\s]+)\.$", index))
    assert {int(n) for n in re.findall(r"\d+", lists)} == {
        int(n) for n in re.findall(r"(?m)^\| (\d+) \|", text)}


def test_what_a_page_includes_is_said_on_it() -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| \[\d+\]\((\d+-[\w-]+\.md)\)[^|]*\| ([\d, ]*)\|$", index)
    assert len(rows) == len(pages())
    for name, included in rows:
        said = re.search(r"(?m)^Includes ([^.]*)\.$", (FOLDER / name).read_text(encoding="utf-8"))
        assert re.findall(r"\d+", included) == re.findall(r"\d+", said[1] if said else ""), name


def test_decisions_that_are_named_are_in_the_index() -> None:
    files = subprocess.run(["git", "ls-files", "*.py", "*.md", "Makefile", ".ci/run"], cwd=ROOT, check=True,
                           capture_output=True, text=True).stdout.splitlines()
    named = {int(number) for name in files if (ROOT / name).is_file()
             for number in _NAMED.findall((ROOT / name).read_text(encoding="utf-8"))}
    assert len(named) > 20
    assert named <= set(listed())


def test_a_page_has_context_decision_and_consequences_in_few_words() -> None:
    assert len(pages()) <= 32
    for path in pages().values():
        text = path.read_text(encoding="utf-8")
        assert len(text.split()) <= MOST_WORDS, path.name
        for part in ("Context", "Decision", "Consequences"):
            assert f"**{part}.**" in text, path.name
