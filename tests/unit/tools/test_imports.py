"""Imports point one way: ``cluster`` knows nothing of ours and touches no machine; ``node``, ``proxy`` and
``bench`` know it alone."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OURS = ("cluster", "node", "proxy", "tools", "bench", "muster")
MAY = {"cluster": {"cluster"}, "node": {"node", "cluster"}, "proxy": {"proxy", "cluster"},
       "bench": {"bench", "cluster"}, "tools": {"tools", "bench", "proxy", "node", "cluster"}}
# a socket is the machine's, for all of them; what else touches one enters cluster/ by ``cluster.machine``
SOCKETS = {"socket", "select", "selectors", "zmq", "socketserver"}
MACHINE = SOCKETS | {
    "asyncio",
    "threading",
    "multiprocessing",
    "subprocess",
    "signal",
    "time",
    "random",
    "secrets",
    "ssl",
    "uvloop",
    "psutil",
    "resource",
    "structlog",
}


def modules(package: str) -> list[Path]:
    """All but those that protoc makes."""
    return sorted(p for p in (ROOT / package).rglob("*.py") if not p.stem.endswith("_pb2"))


@cache
def imported(path: Path, *, types_too: bool) -> frozenset[str]:
    """Dotted names of the modules that one imports. ``types_too``: those that only a type checker sees,
    besides."""
    return frozenset(_imported(path, types_too))


@cache
def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").exists()


def _imported(path: Path, types_too: bool) -> Iterator[str]:
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        item = todo.pop()
        if isinstance(item, ast.If) and ast.unparse(item.test) == "TYPE_CHECKING" and not types_too:
            todo += item.orelse
            continue
        if isinstance(item, ast.Import):
            yield from (name.name for name in item.names)
        elif isinstance(item, ast.ImportFrom) and item.module is not None:
            for name in item.names:
                full = f"{item.module}.{name.name}"
                yield full if item.module.split(".")[0] in OURS and is_module(full) else item.module
        todo += ast.iter_child_nodes(item)


@pytest.mark.parametrize("package", MAY)
def test_imports_point_down(package: str) -> None:
    assert not [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imported(path, types_too=True)
        if name.split(".")[0] in OURS and name.split(".")[0] not in MAY[package]
    ]


@pytest.mark.parametrize(
    ("package", "forbidden"), [("cluster", MACHINE), ("node", SOCKETS), ("proxy", SOCKETS)]
)
def test_the_machine_is_passed_in(package: str, forbidden: set[str]) -> None:
    assert not [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imported(path, types_too=package == "cluster")
        if name.split(".")[0] in forbidden
    ]


def room(words: list[str]) -> str:
    """Two words of a module's name: a folder with those inside of it is one room for those outside."""
    return ".".join(words[: min(2, len(words) if ROOT.joinpath(*words).is_dir() else len(words) - 1)])


def test_no_rooms_import_each_other_over_whatever_others() -> None:
    known: dict[str, set[str]] = {}
    for path in (p for package in OURS for p in modules(package)):
        parts = path.relative_to(ROOT).with_suffix("").parts
        own = ".".join(parts[: min(2, len(parts) - 1)])
        ours = [words for name in imported(path, types_too=False) if (words := name.split("."))[0] in OURS]
        for other in map(room, ours):
            if not f"{own}.".startswith(f"{other}.") and not other.startswith(f"{own}."):
                known.setdefault(own, set()).add(other)
    try:
        TopologicalSorter(known).prepare()
    except CycleError as circle:
        pytest.fail(" <- ".join(circle.args[1]))


def test_a_folder_of_many_modules_has_folders() -> None:
    """A dozen are enough for one folder; one that has folders may keep two more."""
    paths = [path for package in (*OURS, "tests") for path in modules(package)]
    held = Counter(path.parent for path in paths if path.stem != "__init__")
    sorted_ = {path.parent.parent for path in paths}
    assert not {str(folder.relative_to(ROOT)): count for folder, count in held.items()
                if count > (14 if folder in sorted_ else 12)}


def circles(known: dict[str, set[str]]) -> list[set[str]]:
    """Modules that all lead to each other, two or more of them."""
    reached: dict[str, set[str]] = {}
    for start in known:
        todo, seen = [start], reached.setdefault(start, set())
        while todo:
            fresh = known.get(todo.pop(), set()) - seen
            seen |= fresh
            todo += fresh
    found = {
        frozenset(b for b in seen if a in reached.get(b, ())) for a, seen in reached.items() if a in seen
    }
    return [set(circle) for circle in found]


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}}) == [{"a", "b", "c"}]


def test_no_more_than_two_modules_stand_in_a_circle() -> None:
    """Types counted. Two may: a class and its kinds, where one imports the other when it is called."""
    known = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): {
            name for name in imported(path, types_too=True) if name.split(".")[0] in OURS}
        for package in OURS for path in modules(package)
    }
    assert [sorted(circle) for circle in circles(known) if len(circle) > 2] == []


WHOLE = {"node/replica/server.py", "node/replica/roles/made.py"}  # where the node is, and where it is made


def test_no_part_of_a_node_takes_the_whole_node() -> None:
    """A part says what it needs: as parameters, or as a protocol of its own."""
    assert not [
        where
        for path in modules("node")
        if (where := str(path.relative_to(ROOT))) not in WHOLE
        and "node.replica.server" in imported(path, types_too=True)
    ]


def test_what_a_part_needs_of_its_node_is_little_and_public() -> None:
    needs = {
        f"{path.relative_to(ROOT)}: {item.name}": [name for step in item.body if (name := member(step))]
        for path in modules("node")
        for item in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(item, ast.ClassDef) and item.name.endswith("Node")
        and any(ast.unparse(base) == "Protocol" for base in item.bases)
    }
    assert len(needs) > 10, "they are found"
    assert not {where: len(names) for where, names in needs.items() if len(names) > MOST_NEEDED}
    assert not [where for where, names in needs.items() if any(name.startswith("_") for name in names)]


MOST_NEEDED = 14  # what a protocol that it is joined of needs is counted there


def member(step: ast.stmt) -> str:
    """What a line of a protocol's body declares; empty: nothing."""
    if isinstance(step, ast.FunctionDef):
        return step.name
    return step.target.id if isinstance(step, ast.AnnAssign) and isinstance(step.target, ast.Name) else ""


def test_no_part_of_a_node_reaches_for_what_is_private_to_it() -> None:
    assert not [
        f"{path.relative_to(ROOT)}:{item.lineno} {ast.unparse(item)}"
        for path in modules("node")
        for item in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(item, ast.Attribute) and item.attr.startswith("_") and not item.attr.startswith("__")
        and ast.unparse(item.value).split(".")[-1] in {"node", "_node"}
    ]
