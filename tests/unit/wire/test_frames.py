"""Every kind of frame is declared once, on the page that lists them."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path

import pytest

from cluster.wire import frames
from cluster.wire.messages import Method, Status

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/design/frames.md").read_text(encoding="utf-8")
SECTIONS = {title: body for title, _, body in (part.partition("\n") for part in PAGE.split("\n## ")[1:])}
PEERS, REQUESTS, ANSWERS, LINES = SECTIONS
ROW = re.compile(r"\|(?P<name>\w+) `(?P<code>[^`]+)`(?: \(since (?P<since>\d+)\))?\|(?P<cells>.*)\|")


@pytest.mark.parametrize(("section", "kinds", "code"), [
    (PEERS, frames.PeerKind, chr), (REQUESTS, Method, str), (ANSWERS, Status, str)])
def test_every_kind_is_declared(section: str, kinds: type[IntEnum], code: type) -> None:
    declared = [(row["name"], row["code"]) for row in ROW.finditer(SECTIONS[section])]
    assert sorted(declared) == sorted((kind.name, code(int(kind))) for kind in kinds)


@pytest.mark.parametrize("section", [PEERS, REQUESTS, ANSWERS, LINES])
def test_a_declaration_leaves_nothing_open(section: str) -> None:
    """A table says once what the loss of its kinds costs, or each row does."""
    lost_of_all = False
    for line in SECTIONS[section].split("\n"):
        if line.startswith("From "):
            lost_of_all = "When lost: " in line
        elif row := ROW.fullmatch(line):
            _, body, *rest = re.split(r"(?<!\\)\|", row["cells"])
            assert body, line
            assert len(rest) == 1 if lost_of_all else len(rest) == 2 and rest[1], line
            assert frames.LOWEST <= int(row["since"] or frames.LOWEST) <= frames.HIGHEST


def test_nodes_send_their_peers_nothing_that_is_not_declared() -> None:
    """A kind stands as ``PeerKind`` where it is sent, nowhere as a letter."""
    letters = [
        f"{path.name}: {found}"
        for path in (ROOT / "node").rglob("*.py")
        for found in re.findall(r'FRAME = b".*"|peers\.send\([^\n]*b"."', path.read_text(encoding="utf-8"))
    ]
    assert not letters


@pytest.mark.parametrize(("spoken", "version"), [
    ((7, 7), 7), ((7, 8), 8), ((8, 9), 9), ((8, 13), 12), ((7, 13), 12), ((13, 14), None), ((1, 6), None)])
def test_a_link_speaks_the_highest_version_that_both_sides_know(
    spoken: tuple[int, int], version: int | None
) -> None:
    assert frames.agreed(*spoken) == version
