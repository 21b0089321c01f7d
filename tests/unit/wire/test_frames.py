"""Every kind of frame is declared once, and the page that lists them says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster.wire import frames
from cluster.wire.messages import Method, Status

ROOT = Path(__file__).parents[3]


def test_every_method_and_every_answer_is_declared() -> None:
    assert set(frames.REQUESTS) == set(Method)
    assert set(frames.ANSWERS) == set(Status)
    assert set(frames.PEER_KINDS) == set(frames.PeerKind)


@pytest.mark.parametrize(
    "kind",
    [*frames.PEER_KINDS.values(), *frames.REQUESTS.values(), *frames.ANSWERS.values(), *frames.LINES],
    ids=lambda kind: kind.name,
)
def test_a_declaration_leaves_nothing_open(kind: frames.Kind) -> None:
    assert all((kind.name, kind.code, kind.sender, kind.receiver, kind.body, kind.lost))
    assert frames.LOWEST <= kind.since <= frames.HIGHEST


def test_nodes_send_their_peers_nothing_that_is_not_declared() -> None:
    """A kind stands as ``PeerKind`` where it is sent, nowhere as a letter."""
    letters = [
        f"{path.name}: {found}"
        for path in (ROOT / "node").rglob("*.py")
        for found in re.findall(r'FRAME = b".*"|peers\.send\([^\n]*b"."', path.read_text(encoding="utf-8"))
    ]
    assert not letters


@pytest.mark.parametrize(("spoken", "version"), [
    ((7, 7), 7), ((7, 8), 8), ((8, 9), 9), ((7, 12), 9), ((10, 11), None), ((1, 6), None)])
def test_a_link_speaks_the_highest_version_that_both_sides_know(
    spoken: tuple[int, int], version: int | None
) -> None:
    assert frames.agreed(*spoken) == version


def test_the_page_is_up_to_date() -> None:
    """``make docs`` writes it."""
    assert (ROOT / "docs/design/frames.md").read_text(encoding="utf-8") == frames.page()
