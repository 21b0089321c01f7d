"""Signals while the modules of a program are imported, and for the first process of a container."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.first_process import first

ROOT = Path(__file__).parents[3]
_INTERRUPTED = """
import importlib, signal, sys

awaited, number, handler, entry = sys.argv[1:]
sys.argv[1:] = ["version"]

class Finder:
    def find_spec(self, name, *_):
        if name == awaited:
            signal.raise_signal(int(number))

sys.meta_path.insert(0, Finder())
signal.signal(signal.SIGINT, getattr(signal, handler))
module, _, name = entry.partition(":")
getattr(importlib.import_module(module), name)()
"""


def line(program: str, number: signal.Signals, handler: str) -> list[str]:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    entry = told["project"]["scripts"][program]
    return [sys.executable, "-c", _INTERRUPTED, f"tools.{program}.cli", str(int(number)), handler, entry]


def started(words: list[str]) -> tuple[int, str]:
    """Exit code and errors."""
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(("handler", "code"), [("default_int_handler", -signal.SIGINT), ("SIG_IGN", 0)])
@pytest.mark.parametrize("program", ["muster", "musterctl"])
def test_an_interrupt_of_imports_ends_a_program_without_a_traceback(
    program: str, handler: str, code: int
) -> None:
    assert started(line(program, signal.SIGINT, handler)) == (code, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("program", ["muster", "musterctl"])
def test_a_containers_first_process_ends_by_signals(program: str, number: signal.Signals) -> None:
    words = line(program, number, "default_int_handler")
    assert started(first(words)) == (128 + number, "")


def test_a_containers_first_process_ends_by_a_signal_of_its_own() -> None:
    words = [sys.executable, "-c", "from tools import ending; ending.by(2)"]
    assert started(first(words)) == (130, "")
    assert started(words) == (-2, "")
