"""Ctrl-C while the modules of a program are imported."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_INTERRUPTED = """
import importlib, signal, sys

awaited, handler, entry = sys.argv[1:]
sys.argv[1:] = ["version"]

class Finder:
    def find_spec(self, name, *_):
        if name == awaited:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
signal.signal(signal.SIGINT, getattr(signal, handler))
module, _, name = entry.partition(":")
getattr(importlib.import_module(module), name)()
"""


@pytest.mark.parametrize(("handler", "code"), [("default_int_handler", -signal.SIGINT), ("SIG_IGN", 0)])
@pytest.mark.parametrize("program", ["muster", "musterctl"])
def test_an_interrupt_of_imports_ends_a_program_without_a_traceback(
    program: str, handler: str, code: int
) -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    entry = told["project"]["scripts"][program]
    ended = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, f"tools.{program}.cli", handler, entry], cwd=ROOT,
        capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (code, "")
