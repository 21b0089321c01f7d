"""What views of the console do with what the cluster tells, without a browser."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from muster_client import Unavailable

from tools.console.store.keys import outline, tree
from tools.console.store.keys.outline import Outline
from tools.console.store.v2.nodes import Node
from tools.console.views import keys
from tools.console.views.keys import KeysView
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


class Tree:
    """An outline whose first two counts fail."""

    counts = 0

    async def count(self) -> bool:
        self.counts += 1
        if self.counts <= 2:
            raise Unavailable(grpc.StatusCode.UNAVAILABLE, "no answer")
        return False

    def drop_empty(self) -> bool:
        return False


def test_a_count_that_fails_is_told_once_and_the_tree_follows_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(keys, "_AGAIN_S", 0.001)
        monkeypatch.setattr(keys, "_SETTLED_S", 0.001)
        page, drawn = Page(), list[int]()
        view = bare(KeysView, page=page, outline=Tree(), _dirty=asyncio.Event())
        view._draw = lambda: drawn.append(view.outline.counts)
        drawing = asyncio.create_task(view._keep_drawn())
        view._dirty.set()
        async with asyncio.timeout(5):
            while view.outline.counts < 3:
                await asyncio.sleep(0.001)
            view._dirty.set()
            while drawn[-1] < 3:
                await asyncio.sleep(0.001)
        drawing.cancel()
        assert (page.complaints, drawn) == (["no answer"], [0, 1, 2, 3])

    asyncio.run(run())


def test_where_one_count_fails_no_other_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        asked: list[bytes] = []

        async def count(client: object, path: bytes, revision: int) -> tuple[int, int]:
            asked.append(path)
            await asyncio.sleep(0)
            raise Unavailable(grpc.StatusCode.UNAVAILABLE, "no answer")

        monkeypatch.setattr(tree, "count", count)
        tree_of_many = bare(Outline, _client=None, _revision=0, _flat=None, _counts={}, base=b"")
        tree_of_many._nodes = {
            b"": outline._Node([tree.Entry(b"/%d/" % n, b"%d/" % n, None) for n in range(100)])
        }
        with pytest.raises(Unavailable):
            await tree_of_many.count()
        await asyncio.sleep(0.01)
        assert len(asked) < 20

    asyncio.run(run())
