"""Every text is there, in every language, with the same places for values."""

from __future__ import annotations

import re
import string
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


def used() -> set[str]:
    """Names of texts in the views: any string that is one, and any argument of ``t``."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in CONSOLE.rglob("*.py"))
    asked = set(re.findall(r'(?:\bt|\bwords|\bsay)\(\s*"([a-z0-9_.]+)"', source))
    named = {text for text in re.findall(r'"([a-z0-9_.]+)"', source) if text in table()}
    return asked | named | _BUILT


def test_no_text_is_missing_and_none_is_left_over() -> None:
    assert used() == set(table())


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
