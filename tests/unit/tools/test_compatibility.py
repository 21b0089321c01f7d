"""docs/know/compatibility.md: made from its tables, and every test that these name is there."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tools.musterctl.commands import table
from tools.musterctl.v2.table import COMMANDS as COMMANDS_V2

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT / "packaging"))

import compatibility  # noqa: E402  # a script beside the packages


def test_the_page_is_made_from_the_table() -> None:
    page = ROOT / "docs" / "know" / "compatibility.md"
    assert page.read_text(encoding="utf-8") == compatibility.markdown() + "\n", "run `make docs`"


def test_the_page_names_all_that_is_not_plainly_here() -> None:
    know = ROOT / "docs" / "know"
    pages = [(know / f"{name}.md").read_text(encoding="utf-8") for name in ("compatibility", "flags")]
    names = [row.name for row in compatibility.rows() if row.state != "yes" and row.name not in ("-v", "-vv")]
    assert names
    other = ("etcd grpc-proxy start ", "--experimental-")  # said once for all of them
    assert not [
        name
        for name in names
        if not any(name.removeprefix(other[0]).removeprefix(other[1]) in page for page in pages)
    ]


_FIXED = (ROOT / "docs" / "run" / "fixed-in-etcd.tsv").read_text(encoding="utf-8").splitlines()[1:]
_FIXED_BY = {test for row in _FIXED for test in row.split("\t")[1].split()}


@pytest.mark.parametrize("test", sorted(compatibility.tests() | _FIXED_BY))
def test_a_test_that_is_named_is_there(test: str) -> None:
    path, _, name = test.partition("::")
    assert (ROOT / path).is_file()
    if name:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {
            item.name for item in ast.walk(tree) if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
        }


_TOLD = [row for row in compatibility.articles() if row.state == "page"]


@pytest.mark.parametrize("row", _TOLD, ids=lambda row: row.area)
def test_a_page_says_what_a_row_of_articles_wants(row: compatibility.Row) -> None:
    """By words that stand there once: a word of every paragraph would stay without the promise."""
    page, _, sentence = row.by.partition(" ")
    assert " ".join((ROOT / page).read_text(encoding="utf-8").split()).count(sentence) == 1


def test_a_row_of_articles_says_how_it_is_held() -> None:
    found = {row.area: row for row in compatibility.articles()}
    for row in found.values():
        assert row.state in ("here", "as", "test", "page", "missing", "n/a"), row
        if row.state == "as":
            assert "n/a" not in {found[name].state for name in row.by.split()}, row
        else:
            assert row.by or row.state == "here", row


def test_what_is_here_names_a_test_and_what_is_not_says_why() -> None:
    for row in compatibility.rows():
        assert row.state in compatibility.STATES, row
        assert row.by, row
        if row.state == "yes":
            assert "tests/" in row.by, row


def test_every_command_and_flag_that_is_told_is_in_the_table_of_commands() -> None:
    for row in compatibility.rows():
        if row.area != "musterctl" or row.state != "yes":
            continue
        at, flags = table.root(), []
        for word in (
            row.name.removeprefix("(every command) ").replace("bash|zsh|fish|powershell", "bash").split()
        ):
            if word.startswith("--"):
                flags.append(word.removeprefix("--"))
            else:
                found = [child for child in at.children if child.name == word]
                assert found, row.name
                at = found[0]
        assert set(flags) <= {flag.name for flag in at.all_flags()}, row.name


def test_every_command_of_version_2_is_told() -> None:
    told = {row.name.rpartition(" ")[2] for row in compatibility.rows() if "API=2" in row.name}
    assert told == {command.name for command in COMMANDS_V2}
