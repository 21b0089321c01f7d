"""Tests end what they start with signals, so what they start must not ignore any: a shell that starts pytest
in the background has it ignore SIGINT and SIGQUIT, and who ignores a signal hands that on to its children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BY_A_SHELL = (signal.SIGINT, signal.SIGQUIT)


def _ignored_by_a_child() -> set[signal.Signals]:
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    mask = int(next(line for line in status.splitlines() if line.startswith("SigIgn")).split()[1], 16)
    return {number for number in BY_A_SHELL if mask >> (number - 1) & 1}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_what_a_test_starts_ignores_no_signal() -> None:
    assert _ignored_by_a_child() == set()


def test_nor_does_it_where_a_shell_starts_the_tests_in_the_background() -> None:
    def as_a_shell() -> None:
        for number in BY_A_SHELL:
            signal.signal(number, signal.SIG_IGN)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "ignores_no_signal"],
        cwd=ROOT, env={**os.environ, "PYTEST_ADDOPTS": ""}, preexec_fn=as_a_shell, capture_output=True,
        text=True, check=False,
    )
    assert done.returncode == 0, done.stdout
