"""Settings reach a child by its standard input, and nothing is left there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.muster.machine.process.handed import hand

CHILD = """
import sys
from tools.muster.machine.process.handed import take
print([len(text) for text in take(int(sys.argv[1]))], repr(sys.stdin.read()))
"""


def child(texts: list[str], count: int) -> subprocess.CompletedProcess[str]:
    with os.fdopen(hand(texts)) as handed:
        return subprocess.run(
            [sys.executable, "-c", CHILD, str(count)], stdin=handed, capture_output=True, text=True,
            check=False, cwd=Path(__file__).parents[3],
        )


@pytest.mark.parametrize("texts", [["{}"], ["{}", '{"name":"ä"}'], ["x" * 1_000_000]])
def test_a_child_takes_what_it_was_handed(texts: list[str]) -> None:
    done = child(texts, len(texts))
    assert done.stdout == f"{[len(text) for text in texts]} ''\n", done.stderr


def test_a_process_that_was_handed_nothing_says_so() -> None:
    assert "standard input has 0 lines of settings, not 1" in child([], 1).stderr
