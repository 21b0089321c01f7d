"""What views of the console do with what the cluster tells, without a browser."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import grpc
import pytest
from muster_client import MusterError, Unavailable
from muster_client.pb import rpc_pb2 as pb

from tools.console.store.access.rights import UNLIMITED, Rights
from tools.console.store.keys import outline, tree
from tools.console.store.keys.outline import Outline, Row
from tools.console.store.v2.nodes import Node
from tools.console.views import keys, leases, shell
from tools.console.views.cluster import cluster
from tools.console.views.keys import KeysView
from tools.console.views.shell import Shell
from tools.console.views.v2.tree import TreeView


class Page:
    """Keeps what it is told to show."""

    stays = None
    path = "/"

    def __init__(self, client: Any = None) -> None:
        self.complaints: list[str] = []
        self.identity = SimpleNamespace(client=client)
        self.browser = SimpleNamespace(is_deleted=False)

    def t(self, text: str, **_: object) -> str:
        return text

    def complain(self, reason: str) -> None:
        self.complaints.append(reason)

    async def told(self, step: Awaitable[None]) -> None:
        try:
            await step
        except MusterError as error:
            self.complain(str(error))

    def run(self, step: Awaitable[None]) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.told(step))

    def leave(self) -> None:
        pass


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
        view = bare(KeysView, page=page, outline=Tree(), _dirty=asyncio.Event(), _missed=False)
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
        tree_of_many = bare(Outline, _client=None, _revision=0, _flat=None, base=b"")
        tree_of_many._counts, tree_of_many._counting = {}, {}
        tree_of_many._nodes = {
            b"": outline._Node([tree.Entry(b"/%d/" % n, b"%d/" % n, None) for n in range(100)])
        }
        with pytest.raises(Unavailable):
            await tree_of_many.count()
        await asyncio.sleep(0.01)
        assert len(asked) < 20

    asyncio.run(run())


def test_a_view_that_waits_draws_nothing_beside_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        drawn: list[str] = []
        answered = asyncio.Event()

        async def slow(_: object) -> None:
            await answered.wait()
            drawn.append("slow")

        async def quick(_: object) -> None:
            drawn.append("quick")

        async def rights() -> Rights:
            return UNLIMITED

        async def beat() -> None:
            pass

        monkeypatch.setattr(shell, "VIEWS", {"slow": (slow, ""), "quick": (quick, "")})
        monkeypatch.setattr(shell.background_tasks, "create", lambda step, context: asyncio.create_task(step))

        class Main(nullcontext[None]):
            clear = staticmethod(drawn.clear)

        page = Page()
        page.identity.rights = rights
        view = bare(Shell, page=page, _links={}, _main=Main(), _showing=None, _beat=beat)
        view._open("/slow")
        await asyncio.sleep(0.01)
        view._open("/quick")
        await asyncio.sleep(0.01)
        answered.set()
        await asyncio.sleep(0.01)
        assert (page.path, drawn) == ("/quick", ["quick"])

    asyncio.run(run())


def test_a_fault_of_a_view_is_told_and_the_page_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page stayed blank beside its navigation, and did not say whether the cluster answers."""
    shown: list[str] = []

    async def faulty(_: object) -> None:
        shown.append("a half")
        raise ValueError("no such time")

    async def rights() -> Rights:
        return UNLIMITED

    async def beat() -> None:
        shown.append("pulse")

    class Main(nullcontext[None]):
        clear = staticmethod(shown.clear)

    monkeypatch.setattr(shell, "VIEWS", {"faulty": (faulty, "")})
    monkeypatch.setattr(shell, "empty", lambda _, *texts: shown.extend(texts))
    monkeypatch.setattr(shell, "button", lambda text, *_, **__: shown.append(text))
    page = Page()
    page.identity.rights = rights
    asyncio.run(bare(Shell, page=page, _links={}, _main=Main(), _beat=beat).show("/faulty"))
    assert shown == ["broken", "ValueError: no such time", "again", "pulse"]


def test_of_two_keys_the_one_chosen_last_is_shown() -> None:
    async def run() -> None:
        opened = {b"/first": asyncio.Event(), b"/last": asyncio.Event()}
        shown: list[bytes] = []

        async def show(key: bytes) -> None:
            shown.append(key)

        view = bare(
            KeysView,
            outline=SimpleNamespace(reveal=lambda key: opened[key].wait()),
            value=SimpleNamespace(show=show),
            frame=SimpleNamespace(classes=lambda **_: None),
            page=Page(),
            _at="",
            _draw=lambda: None,
        )
        steps = [asyncio.create_task(view._choose(key)) for key in opened]
        await asyncio.sleep(0)
        opened[b"/last"].set()
        await steps[1]
        opened[b"/first"].set()
        await steps[0]
        assert shown == [b"/last"]

    asyncio.run(run())


def test_a_value_is_shown_though_the_tree_does_not_open_at_its_key() -> None:
    async def run() -> None:
        shown: list[bytes] = []

        async def show(key: bytes) -> None:
            shown.append(key)

        async def reveal(_: bytes) -> None:
            raise Unavailable(grpc.StatusCode.UNAVAILABLE, "no answer")

        view = bare(KeysView, outline=SimpleNamespace(reveal=reveal), value=SimpleNamespace(show=show))
        view.frame, view.page = SimpleNamespace(classes=lambda **_: None), Page()
        view._at, view._draw = "", lambda: None
        await view._choose(b"/a")
        assert (shown, view.page.complaints) == ([b"/a"], ["no answer"])

    asyncio.run(run())


@pytest.mark.parametrize(
    ("row", "above"),
    [
        (Row("directory", b"/a/b/", b"b/", 1), 0),  # it is closed
        (Row("key", b"/a/1", b"1", 1), 0),
        (Row("key", b"/a/", b"", 1), 0),
        (Row("more", b"/a/", b"", 1), 0),
        (Row("directory", b"/z/", b"/z/", 0), -1),
        (Row("key", b"/z", b"/z", 0), -1),
    ],
)
def test_the_left_key_leads_to_the_directory_above(row: Row, above: int) -> None:
    stood: list[int] = []
    rows = [Row("directory", b"/a/", b"/a/", 0, is_open=True), row]
    view = bare(KeysView, _rows=rows, _at=row.id, key=b"", _stand=stood.append)
    view._move(SimpleNamespace(args="ArrowLeft"))
    assert stood == [above]


@pytest.mark.parametrize(("module", "kind"), [(leases, "LeasesView"), (cluster, "ClusterView")])
def test_a_number_beyond_64_bits_is_told(monkeypatch: pytest.MonkeyPatch, module: Any, kind: str) -> None:
    async def call(*_: object, **__: object) -> None:
        pb.CompactionRequest(revision=10**30)

    async def again() -> None:
        return

    monkeypatch.setattr(module, "dialog", lambda *_: MagicMock())
    monkeypatch.setattr(module, "ui", MagicMock())
    done = list[Any]()
    monkeypatch.setattr(module, "buttons", lambda made, page, text, do, **_: done.append(do))
    page = Page(SimpleNamespace(compact=call, raw=SimpleNamespace(call=call)))
    page.browser = MagicMock()
    view = bare(getattr(module, kind), page=page, _again=again, picture=MagicMock())
    (view._grant if module is leases else view._compact)()
    asyncio.run(done[0]())
    (complaint,) = page.complaints
    assert "out of range" in complaint
