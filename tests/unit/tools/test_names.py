"""Docstrings, comments and documents name modules that exist, and link to what is there."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("cluster", "node", "proxy", "tools", "bench")
_DOTTED = re.compile(rf"(?<![\w.`/-])((?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+)")
_PATH = re.compile(rf"`((?:{'|'.join((*PACKAGES, 'tests'))})/[\w/.*-]+)`")
_FILES = ("cluster.keys",)  # an example's, that look like modules
_ORDER = re.compile(r"Read in this order:(.*?)(?:\n\n|\Z)", re.DOTALL)


def python_files() -> list[Path]:
    """The project's modules."""
    return sorted(
        p for package in PACKAGES for p in (ROOT / package).rglob("*.py") if not p.stem.endswith("_pb2")
    )


def texts(path: Path) -> Iterator[str]:
    """Docstrings and comments of a module."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for item in ast.walk(ast.parse(source)):
        if isinstance(item, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            text := ast.get_docstring(item)
        ):
            yield text


def exists(name: str) -> bool:
    """Whether a dotted name is a module's, or of something that the module names."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        module = place.with_suffix(".py")
        if not (place.is_dir() or module.exists()):
            continue
        if count == len(parts):
            return True
        file = module if module.exists() else place / "__init__.py"
        return (
            file.exists() and re.search(rf"\b{parts[count]}\b", file.read_text(encoding="utf-8")) is not None
        )
    return False


def lies(path: str) -> bool:
    """Whether there is such a file or folder, or one that begins so where the name says ``*``."""
    return any(ROOT.glob(path.rstrip("/"))) or (ROOT / path).with_suffix(".py").exists()


def unknown(text: str) -> list[str]:
    """Names in a text that are of nothing."""
    return [m[1] for m in _DOTTED.finditer(text) if m[1] not in _FILES and not exists(m[1])] + [
        m[1] for m in _PATH.finditer(text) if not lies(m[1])
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_and_comments_name_modules_that_exist(package: str) -> None:
    files = [path for path in python_files() if path.relative_to(ROOT).parts[0] == package]
    assert files
    assert not [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for text in texts(path)
        for name in unknown(text)
    ]


def test_documents_name_modules_that_exist() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert not [
        f"{path.relative_to(ROOT)}: {name}"
        for path in documents
        for name in unknown(path.read_text(encoding="utf-8"))
    ]


_CODE = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(r"[\w/]+\.(?:py|tsv|md)")
_MEMBER = re.compile(r"([A-Z][a-z]\w+)(?:\.(\w+))?")  # a class, or something of it
# something of a module, with some of the folders that it lies in
_OF_A_MODULE = re.compile(r"((?:[a-z]\w*/)*[a-z]\w*)\.(?!json)(\w+)")


@cache
def classes() -> dict[str, str]:
    """The text of each class of this project and its tests; of those of one name, of all of them."""
    found: dict[str, str] = {}
    for path in [*python_files(), *(ROOT / "tests").rglob("*.py")]:
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        for item in ast.walk(ast.parse(source)):
            if isinstance(item, ast.ClassDef):
                text = "\n".join(lines[item.lineno - 1 : item.end_lineno])
                found[item.name] = found.get(item.name, "") + text
    return found


@cache
def files() -> list[str]:
    """The project's, as a slash and their path."""
    top = (*PACKAGES, "muster", "tests", "docs", "packaging")
    return [f"/{path.relative_to(ROOT)}" for folder in top for path in (ROOT / folder).rglob("*.*")]


def ending(path: str) -> list[Path]:
    """Those whose path ends so, behind a slash."""
    return [ROOT / found[1:] for found in files() if found.endswith(f"/{path}")]


def has(text: str, name: str) -> bool:
    """Whether a class or a module has a function or a variable of that name."""
    return re.search(rf"(?m)\b(?:def|class) {name}\b|\bself\.{name}\b|^\s*{name}\s*[:=]", text) is not None


def names_nothing(code: str) -> bool:
    """Whether a piece of code in a page is the name of a module or a class, and there is none."""
    if _DOTTED.fullmatch(code) and exists(code):
        return False
    if _FILE.fullmatch(code):
        return not ending(code)
    if (named := _MEMBER.fullmatch(code)) is not None:
        text = classes().get(named[1])
        if text is None:
            return named[2] is not None
        return named[2] is not None and not has(text, named[2])
    if (named := _OF_A_MODULE.fullmatch(code)) is not None and (found := ending(f"{named[1]}.py")):
        return not any(has(file.read_text(encoding="utf-8"), named[2]) for file in found)
    return False


def test_pages_of_design_name_code_that_is_there() -> None:
    """Modules by their last folders, classes and what is in them: more than other pages' whole paths."""
    assert names_nothing("storage/apply.py")
    assert names_nothing("Coordinator.nothing")
    assert not names_nothing("Coordinator._release")
    assert names_nothing("raft/core.nothing")
    pages = sorted((ROOT / "docs" / "design").glob("*.md"))
    assert len(pages) > 8
    assert not [
        f"{path.name}: {code[1]}"
        for path in pages
        for code in _CODE.finditer(path.read_text(encoding="utf-8"))
        if names_nothing(code[1])
    ]


_SHOWN = re.compile(r"(?m)^\|[A-Z]+\d.*\|([^|\n]*)\|$")  # the last column of a table of rules


def test_what_shows_an_invariant_is_there() -> None:
    """A mutant that has gone shows nothing."""
    tests = list((ROOT / "tests").rglob("*.py"))
    functions = [re.findall(r"def (\w+)", path.read_text(encoding="utf-8")) for path in tests]
    there = {path.stem for path in tests}.union(classes(), *functions)
    page = (ROOT / "docs" / "design" / "invariants.md").read_text(encoding="utf-8")
    named = [name for shown in _SHOWN.findall(page) for name in re.findall(r"`(\w+)`", shown)]
    assert len(named) > 100
    assert not [name for name in named if name not in there]


_CODE_BLOCK = re.compile(r"(?ms)^```.*?^```")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def anchors(page: Path) -> set[str]:
    """What a link may name in a page: its headings, as GitHub makes names of them."""
    text = _CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", "\n".join(re.findall(r"(?m)^#+ (.*)$", text)))
    return {re.sub(r"[^\w\- ]", "", one.strip()).replace(" ", "-") for one in headings.lower().splitlines()}


def leads_nowhere(page: Path, link: str) -> bool:
    """Whether a link of a page names a file or a heading that is not there. Other sites are not asked."""
    if re.match(r"\w+:", link):
        return False
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return True
    return bool(anchor) and target.suffix == ".md" and anchor not in anchors(target)


def test_links_of_documents_lead_somewhere() -> None:
    assert leads_nowhere(ROOT / "README.md", "docs/nothing.md")
    assert leads_nowhere(ROOT / "README.md", "docs/design/README.md#nothing")
    assert not leads_nowhere(ROOT / "README.md", "docs/design/README.md#where-is-it")
    front = [ROOT / name for name in ("README.md", "README.zh.md", "CHANGELOG.md")]
    documents = [*front, *(ROOT / "docs").rglob("*.md"), *(ROOT / "packaging").rglob("*.md")]
    assert not [
        f"{page.relative_to(ROOT)}: {link}"
        for page in documents
        for link in _LINK.findall(_CODE_BLOCK.sub("", page.read_text(encoding="utf-8")))
        if leads_nowhere(page, link)
    ]


@pytest.mark.parametrize("package", ["cluster", "node", "proxy"])
def test_what_is_to_be_read_in_order_is_there(package: str) -> None:
    order = _ORDER.search((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    assert order is not None
    names = re.findall(r"``(\w+)``", order[1])
    assert len(names) > 5
    assert not [name for name in names if not exists(f"{package}.{name}")]


MOST_WORDS = 45_000  # of docs/: what one person reads


def test_the_pages_can_be_read() -> None:
    pages = {page: len(page.read_text(encoding="utf-8").split()) for page in (ROOT / "docs").rglob("*.md")}
    assert len(pages) > 40, "they are found"
    assert sum(pages.values()) <= MOST_WORDS
