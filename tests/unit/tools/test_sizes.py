"""How large things may be: what one person holds in mind. A bound is raised only with its reason."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROOMS = ("bench", "cluster", "muster", "node", "packaging", "proxy", "tools")
MODULE_LINES = 500
FUNCTION_LINES = 60
BRANCHES = 20
PARAMETERS = 8
METHODS = 40
# reads every frame of a connection: two ways in a method of their own cost 0.6 us a call
HOT = {"proxy/http/http2/connection.py: _frames": 25}

Function = ast.FunctionDef | ast.AsyncFunctionDef
_BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.IfExp, ast.ExceptHandler, ast.Assert,
             ast.comprehension, ast.match_case)  # fmt: skip


def modules() -> Iterator[tuple[str, str]]:
    """Path and text of each module that is written by hand."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if not path.name.endswith("_pb2.py"):
                yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


@functools.cache
def definitions() -> tuple[list[tuple[str, Function]], list[tuple[str, ast.ClassDef]]]:
    """All functions and all classes. Each process that collects tests would take seconds for it."""
    functions, classes = [], []
    for path, text in modules():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append((f"{path}: {node.name}", node))
            elif isinstance(node, ast.ClassDef):
                classes.append((f"{path}: {node.name}", node))
    return functions, classes


def branches(function: Function) -> int:
    """Ways through a function, about as McCabe counts them."""
    found = 1
    for node in ast.walk(function):
        if isinstance(node, _BRANCHES):
            found += 1
        elif isinstance(node, ast.BoolOp):
            found += len(node.values) - 1
    return found


def parameters(function: Function) -> int:
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_a_module_is_read_in_one_go() -> None:
    assert {path: lines for path, text in modules() if (lines := text.count("\n")) > MODULE_LINES} == {}


def test_a_function_is_seen_at_once() -> None:
    lengths = {name: (one.end_lineno or 0) - one.lineno + 1 for name, one in definitions()[0]}
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES} == {}


def test_a_function_has_few_ways_through_it() -> None:
    found = {name: count for name, one in definitions()[0] if (count := branches(one)) > BRANCHES}
    assert {name: count for name, count in found.items() if count > HOT.get(name, BRANCHES)} == {}


def test_a_function_has_few_parameters() -> None:
    assert {name: count for name, one in definitions()[0] if (count := parameters(one)) > PARAMETERS} == {}


def test_a_class_has_few_methods() -> None:
    def methods(node: ast.ClassDef) -> int:
        return sum(isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) for one in node.body)

    counts = {name: methods(node) for name, node in definitions()[1]}
    assert {name: count for name, count in counts.items() if count > METHODS} == {}


@pytest.mark.parametrize(
    ("source", "ways"),
    [("def f(): pass", 1), ("def f(a):\n if a and a: pass", 3), ("def f(a): return [b for b in a]", 2)],
)
def test_branches_are_counted(source: str, ways: int) -> None:
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert branches(function) == ways
