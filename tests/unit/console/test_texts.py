"""Every text is there, in every language, with the same places for values."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from cluster.pb.shards_pb2 import Move
from cluster.placement.table import State
from tools.console.store.access.model import KINDS, Scope
from tools.console.store.charts.series import CHARTS
from tools.console.store.keys.values import FORMS
from tools.console.texts import LANGUAGES, Words, table
from tools.console.views.shell import VIEWS
from tools.console.views.v2.dialogs import What

CONSOLE = Path(__file__).parents[3] / "tools" / "console"
_BUILT = {*(f"view.{name}" for name in VIEWS), *(f"form.{form}" for form in FORMS),
          *(f"users.kind.{kind}" for kind in KINDS), *(f"charts.{chart.name}" for chart in CHARTS),
          *(f"v2.new_{what}" for what in get_args(What)),
          *(f"users.scope.{scope}" for scope in get_args(Scope)),
          *(f"live.{kind}" for kind in ("create", "put", "delete")),
          *(f"{name}_text" for name in ("cluster.move", "cluster.defragment", "member.promote",
                                        "users.delete", "users.delete_role")),
          *(f"shard.{state.name.lower()}" for state in (State.FORMING, State.RETIRING)),
          *(f"move.{step.name.lower()}" for step in Move.Step.DESCRIPTOR.values),
          *(f"keys.{kind}" for kind in ("directory", "key", "more", "first"))}  # fmt: skip
# what the console says of its own files when it starts, and what a view says in words of its own
_NOT_SHOWN = ("certificates.py", "guard.py", "views/access/key_fields.py")
_LABELS = {"label", "placeholder", "tip", "aria_label", "text"}
_SAME = {"JSON", "YAML", "muster", "Enter", "Esc"}  # in every language


def used() -> set[str]:
    """Names of texts in the views: any string that is one, and any argument of ``t``."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in CONSOLE.rglob("*.py"))
    asked = set(re.findall(r'(?:\bt|\bwords|\bsay)\(\s*"([a-z0-9_.]+)"', source))
    named = {text for text in re.findall(r'"([a-z0-9_.]+)"', source) if text in table()}
    return asked | named | _BUILT | {name for name in table() if name.startswith("why.")}


def sources() -> Iterator[tuple[str, ast.Module]]:
    """The modules of the console."""
    for path in sorted(CONSOLE.rglob("*.py")):
        yield path.relative_to(CONSOLE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def _text(node: ast.expr) -> str | None:
    """What an expression says, if it is a text; values in it are ``1``."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "1" for part in node.values)
    return None


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _reasons() -> Iterator[str]:
    """The console's own reasons: what is raised, or given to an error of its own."""
    for path, tree in sources():
        for node in ast.walk(tree):
            call = node.exc if isinstance(node, ast.Raise) else node
            if not isinstance(call, ast.Call) or path in _NOT_SHOWN:
                continue
            if isinstance(node, ast.Raise) or _called(call) == "__init__":
                for argument in call.args:
                    if (text := _text(argument)) is not None and " " in text:
                        yield text


def test_no_text_is_missing_and_none_is_left_over() -> None:
    assert used() == set(table())


def test_each_of_the_console_s_own_reasons_is_told_in_every_language() -> None:
    chinese, found = Words("zh"), list(_reasons())
    assert len(found) > 15
    # a store's own words, and a library's
    theirs = {"status 1", "lease 1: 1", "key 1: 1", "etcdserver: user name is empty"}
    assert [text for text in found if text not in theirs and chinese.reason(text) == text] == []
    english = [texts["en"] for name, texts in table().items() if name.startswith("why.")]
    told = {chinese.reason(text) for text in found}
    assert {chinese.reason(re.sub(r"{\w+}", "1", text)) for text in english} <= told, "none is left over"


def test_a_reason_keeps_its_values_and_a_store_s_own_words() -> None:
    assert Words("zh").reason("key /a {b} has no value") == "键 /a {b} 没有值"
    assert Words("en").reason("'x' is no number") == "'x' is no number"
    assert Words("zh").reason("etcdserver: permission denied") == "etcdserver: permission denied"


def test_no_view_has_a_word_of_its_own() -> None:
    shows = {"label", "button", "chip", "tag_text", "heading", "empty", "input", "textarea", "number",
             "select", "tooltip", "notify", "menu_item", "dialog", "set_text", "complain"}  # fmt: skip
    asked = [(path, node) for path, tree in sources() if path.startswith("views/")
             for node in ast.walk(tree) if isinstance(node, ast.Call) and _called(node) in shows]  # fmt: skip
    assert len(asked) > 200
    said = {
        (path, text)
        for path, call in asked
        for argument in (*call.args, *(one.value for one in call.keywords if one.arg in _LABELS))
        if (text := _text(argument)) and not text.startswith("mc-") and text not in _SAME
        if re.search("[A-Z][a-z]|[a-z] [a-z]", text)
    }
    assert said == set()


@pytest.mark.parametrize("name", table())
def test_a_text_is_whole_in_each_language(name: str) -> None:
    texts = table()[name]
    assert set(texts) == set(LANGUAGES)
    places = [
        {field for _, field, _, _ in string.Formatter().parse(text) if field} for text in texts.values()
    ]
    assert all(place == places[0] for place in places)
    assert all(texts.values())


@pytest.mark.parametrize(
    ("asked", "language"),
    [("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("de,en;q=0.7", "en"), ("", "en"), ("fr", "en"), ("zh", "zh"),
     ("en-US,zh", "en")],
)  # fmt: skip
def test_the_browser_chooses_the_language(asked: str, language: str) -> None:
    assert Words.preferred(asked).language == language
