"""No program asks for the pass phrase of a key on the terminal: it would wait there for ever."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[4]


def test_every_certificate_is_loaded_with_a_pass_phrase() -> None:
    loads = [
        (path, call)
        for room in ("proxy", "node", "tools", "bench", "muster")
        for path in sorted((ROOT / room).rglob("*.py"))
        if "load_cert_chain" in (text := path.read_text(encoding="utf-8"))
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        and call.func.attr == "load_cert_chain"]
    assert len(loads) > 5
    assert not [
        f"{path}:{call.lineno}"
        for path, call in loads if not any(given.arg == "password" for given in call.keywords)]
