"""What views of the console do with what the cluster tells, without a browser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tools.console.store.v2.nodes import Node
from tools.console.views.v2.tree import TreeView


class Page:
    """Keeps what it is told to show."""

    def __init__(self, client: Any = None) -> None:
        self.complaints: list[str] = []
        self.identity = SimpleNamespace(client=client)
        self.browser = SimpleNamespace(is_deleted=False)

    def t(self, text: str, **_: object) -> str:
        return text

    def complain(self, reason: str) -> None:
        self.complaints.append(reason)


def bare(view: type[Any], **values: Any) -> Any:
    """A view that draws nothing."""
    made = view.__new__(view)
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("value", "complaints"), [("text", []), ("a\ufffdb", ["v2.bytes"]), ("a\r\nb", ["v2.returns"])]
)
def test_the_editor_of_version_2_takes_no_value_that_it_would_damage(
    value: str, complaints: list[str]
) -> None:
    page = Page()
    view = bare(TreeView, page=page, editing=None, fill=lambda: None)
    view._edit(Node("/key", False, value))
    assert page.complaints == complaints
    assert (view.editing is None) == bool(complaints)
