"""The pane of a value: what it shows is what was asked for last, and what it writes is what was seen."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import grpc
import pytest
from muster_client import Delete, KeyValue, LeaseInfo, MusterError, PermissionDenied, Put, Unavailable
from nicegui import ui
from nicegui.testing import user_simulation

from tests.unit.console.test_hub import until
from tests.unit.console.test_views import Page, bare
from tools.console.store.keys import history
from tools.console.views import value
from tools.console.views.value import ValuePane, preview

AWAY = Unavailable(grpc.StatusCode.UNAVAILABLE, "no answer")
DENIED = PermissionDenied(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")


class Store:
    """Answers each read when a test says so."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[KeyValue | None]] = []

    async def get(self, key: bytes, *, revision: int = 0) -> KeyValue | None:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]


def of(revision: int, key: bytes = b"/a", text: bytes = b"text") -> KeyValue:
    return KeyValue(key, text, 1, revision, revision)


def pane(store: Any, **values: Any) -> Any:
    """One that notes what it draws."""
    made = bare(ValuePane, page=Page(store), revision=0, key=b"/a", kv=None, form="text", editing=False)
    made._overtaken = made._history_due = False
    made._history = made.past = None
    made._asked = made._told = made._forms_asked = 0
    made.box = SimpleNamespace(is_deleted=False)
    made.drawn = list[object]()
    made._draw = made.drawn.append
    for name, one in values.items():
        setattr(made, name, one)
    return made


async def answered(store: Store, *answers: KeyValue | MusterError | None) -> None:
    """So many reads are answered, the last one first."""
    await until(lambda: len(store.asked) == len(answers))
    for read, answer in list(zip(store.asked, answers, strict=True))[::-1]:
        if isinstance(answer, MusterError):
            read.set_exception(answer)
        else:
            read.set_result(answer)
        await asyncio.sleep(0.001)


def test_a_value_that_could_not_be_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(value, "_AGAIN_S", 0.001)
        store = Store()
        shows = pane(store)
        showing = asyncio.create_task(shows.show(b"/a"))
        for answer in (AWAY, AWAY, of(5)):
            store.asked.clear()
            await answered(store, answer)
        await showing
        await until(lambda: shows.kv == of(5))
        assert shows.drawn[-1] == shows._whole

    asyncio.run(run())


@pytest.mark.parametrize("how", ["denied", "left", "another"])
def test_a_value_is_not_read_again_in_vain(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    async def run() -> None:
        monkeypatch.setattr(value, "_AGAIN_S", 0.01)
        store = Store()
        shows = pane(store)
        asyncio.create_task(shows.show(b"/a"))  # noqa: RUF006 - it ends at once
        await answered(store, DENIED if how == "denied" else AWAY)
        if how == "left":
            shows.box.is_deleted = True
        elif how == "another":
            await shows.show(b"")
        await asyncio.sleep(0.03)
        assert len(store.asked) == 1

    asyncio.run(run())


def test_an_answer_that_comes_late_is_not_shown() -> None:
    async def run() -> None:
        store = Store()
        shows = pane(store)
        reads = [asyncio.create_task(shows.show(b"/a")) for _ in range(2)]
        await answered(store, of(5), of(6))
        await asyncio.gather(*reads)
        assert shows.kv == of(6)
        assert shows.drawn == [shows._whole]

    asyncio.run(run())


@pytest.mark.parametrize("begun", [False, True])
def test_a_key_that_is_edited_is_not_drawn_anew(begun: bool) -> None:
    async def run() -> None:
        store, behind = Store(), list[int]()
        shows = pane(store, kv=of(5), editing=not begun, _behind=behind.append)
        showing = asyncio.create_task(shows.show(b"/a"))  # of a click at its row, or after a change
        await until(lambda: store.asked)
        shows.editing = True
        await answered(store, of(6))
        await showing
        assert (shows.drawn, shows.kv, behind) == ([], of(5), [6])

    asyncio.run(run())


def test_a_change_of_before_is_none() -> None:
    async def run() -> None:
        store, behind = Store(), list[int]()
        shows = pane(store, kv=of(7), _behind=behind.append)
        shows.tell([Put(of(5)), Delete(b"/a", 6), Put(of(7)), Put(of(8, b"/b"))])
        await asyncio.sleep(0.001)
        assert not store.asked
        shows.tell([Put(of(8)), Put(of(9))])
        await until(lambda: store.asked)
        shows.editing = True
        shows.tell([Put(of(7))])
        assert (len(store.asked), behind) == (1, [])
        shows.tell([Put(of(8)), Delete(b"/a", 9)])
        assert behind == [9]

    asyncio.run(run())


class Past:
    """Where a history is drawn."""

    is_deleted = False

    def __init__(self) -> None:
        self.cleared = 0

    def clear(self) -> None:
        self.cleared += 1

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return


async def tidy(shows: Any) -> None:
    if shows._history is not None:
        shows._history.cancel()
        await asyncio.gather(shows._history, return_exceptions=True)


def test_the_history_of_a_key_is_not_shown_below_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        told = asyncio.Event()

        async def of_key(*_: object) -> history.History:
            await told.wait()
            return history.History((history.Revision(5, of(5)),), 1, True)

        monkeypatch.setattr(history, "of_key", of_key)
        first = Past()
        shows = pane(Store(), past=first)
        shows._open_history()
        await asyncio.sleep(0.001)
        asyncio.create_task(shows.show(b"/b"))  # noqa: RUF006 - it waits for its value
        await asyncio.sleep(0.001)
        told.set()
        await asyncio.sleep(0.01)
        assert (shows.past, shows._history, first.cleared) == (None, None, 0)

    asyncio.run(run())


def test_a_history_is_read_by_one_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        reads, most, drawn = 0, 0, list[int]()

        async def of_key(*_: object) -> history.History:
            nonlocal reads, most
            reads += 1
            most = max(most, reads)
            await asyncio.sleep(0.02)
            reads -= 1
            if not drawn:
                drawn.append(0)
                raise AWAY
            return history.History((), 1, True)

        monkeypatch.setattr(history, "of_key", of_key)
        monkeypatch.setattr(value, "_HISTORY_S", 0.08)
        shows = pane(None, past=Past(), _draw_history=lambda found: drawn.append(found.oldest))
        began_s = time.monotonic()
        for _ in range(40):
            shows._open_history()
            await asyncio.sleep(0.005)
        await until(lambda: drawn[-1:] == [1] and not shows._history_due)
        assert most == 1
        assert len(drawn) <= 2 + (time.monotonic() - began_s) / 0.1
        assert shows.page.complaints == ["no answer"]
        await until(lambda: shows._history.done())
        shows._open_history()
        assert not shows._history.done()
        await tidy(shows)

    asyncio.run(run())


def test_a_history_stays_where_its_key_is_drawn_anew() -> None:
    drawn = list[list[str]]()

    def draw() -> None:
        with ui.column() as box:
            made = bare(ValuePane, box=box, past=None)
            for _ in range(2):
                ValuePane._draw(made, lambda: ui.label("value"))
            with box:
                made.past = ui.label("history")
            ValuePane._draw(made, lambda: ui.label("value"))
        drawn.append([one.text for one in box])
        drawn.append([made.past.text] if not made.past.is_deleted else [])

    async def run() -> None:
        async with user_simulation(draw) as user:
            await user.open("/")

    asyncio.run(run())
    assert drawn == [["value", "history"], ["history"]]


def test_a_history_is_read_with_its_value_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each failure of it would be told, every two seconds, for as long as the cluster is away."""

    async def run() -> None:
        monkeypatch.setattr(value, "_AGAIN_S", 0.001)
        store, read = Store(), list[int]()
        shows = pane(store, past=Past(), _open_history=lambda: read.append(1))
        showing = asyncio.create_task(shows.show(b"/a"))
        for answer in (AWAY, AWAY, of(5)):
            assert not read
            store.asked.clear()
            await answered(store, answer)
        await showing
        await until(lambda: read)
        assert (read, shows.kv) == ([1], of(5))
        store.asked.clear()
        showing = asyncio.create_task(shows.show(b"/a"))
        await answered(store, DENIED)
        await showing
        assert (read, shows.past) == ([1], None), "what was seen before is not shown any more"

    asyncio.run(run())


def test_a_history_keeps_no_large_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read once they are compared, or written again."""

    async def run() -> None:
        clicks: dict[str, Any] = {}
        monkeypatch.setattr(value, "button", lambda text, click, **_: clicks.setdefault(text, click))
        for name in ("chip", "div", "tag_text", "ui"):
            monkeypatch.setattr(value, name, MagicMock())
        compared: list[tuple[str, str]] = []
        monkeypatch.setattr(
            value.key_dialogs, "compare", lambda _, __, old, new: compared.append((old, new))
        )
        restored: list[KeyValue] = []

        async def restore(kv: KeyValue) -> None:
            restored.append(kv)

        read = list[int]()

        async def get(_: bytes, *, revision: int) -> KeyValue:
            read.append(revision)
            return of(3, text=b"before") if revision == 5 else of(6, text=b"then")

        shows = pane(SimpleNamespace(get=get), _text_of=bytes.decode, _restore=restore)
        shows.page.may_write = lambda _: True
        rows = list[tuple[Any, ...]]()
        row, shows._past_row = shows._past_row, lambda *given: rows.append(given)
        large = b"x" * 1_000_000
        past = (history.Revision(6, of(6, text=large)), history.Revision(3, of(3, text=large)))
        shows._draw_history(history.History(past, 5, True))
        assert all(len(one.value) == value._HEAD for one in rows[0][1:3])
        assert preview(rows[0][1].value) == preview(large)
        row(*rows[0])
        assert not read
        await clicks["history.compare"]()
        await clicks["history.restore"]()
        assert (compared, restored) == ([("before", "then")], [of(6, text=b"then")])
        assert read == [5, 6, 6], "what was compacted is read as of the compaction"

    asyncio.run(run())


def test_what_was_edited_is_written_to_its_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        written: list[tuple[bytes, int]] = []

        async def save(_: object, key: bytes, __: bytes, *, seen: int) -> int:
            written.append((key, seen))
            return 7

        monkeypatch.setattr(value.edits, "save", save)
        shows = pane(None, key=b"/b", editing=True)  # chosen by the browser's back button meanwhile
        shows.page.say = lambda *_, **__: None
        await shows._save(b"new", of(5))
        assert written == [(b"/a", 5)]
        assert shows.editing, "what was begun there stays"

    asyncio.run(run())


def test_what_is_restored_in_the_past_is_compared_with_the_present(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        reviewed: list[tuple[str, str]] = []
        monkeypatch.setattr(value.key_dialogs, "review", lambda _, old, new, __: reviewed.append((old, new)))
        store = Store()
        shows = pane(store, revision=6, kv=of(6, text=b"then"))
        restoring = asyncio.create_task(shows._restore(of(5, text=b"before")))
        await answered(store, of(9, text=b"now"))
        await restoring
        assert reviewed == [("now", "before")]
        store.asked.clear()
        restoring = asyncio.create_task(shows._restore(of(5, text=b"before")))
        await answered(store, AWAY)
        await restoring
        assert (len(reviewed), shows.page.complaints) == (1, ["no answer"])

    asyncio.run(run())


@pytest.mark.parametrize("revision", [0, 6])
def test_what_is_restored_is_written_to_its_own_key(monkeypatch: pytest.MonkeyPatch, revision: int) -> None:
    """A large old value may come behind a small one of another key."""

    async def run() -> None:
        clicks: dict[str, Any] = {}
        monkeypatch.setattr(value, "button", lambda text, click, **_: clicks.setdefault(text, click))
        for name in ("chip", "div", "ui"):
            monkeypatch.setattr(value, name, MagicMock())
        reviewed: list[object] = []
        monkeypatch.setattr(value.key_dialogs, "review", lambda *given: reviewed.append(given))
        store = Store()
        shows = pane(store, kv=of(6), revision=revision)
        shows.page.may_write = lambda _: True
        shows._past_row(5, of(5), None, 1)
        restoring = asyncio.create_task(clicks["history.restore"]())
        await until(lambda: store.asked)
        asyncio.create_task(shows.show(b"/b"))  # noqa: RUF006 - it ends at once
        await until(lambda: len(store.asked) == 2)
        store.asked[1].set_result(of(8, b"/b"))
        await until(lambda: shows.kv == of(8, b"/b"))
        store.asked[0].set_result(of(5))
        if revision:
            await until(lambda: len(store.asked) == 3)
            store.asked[2].set_result(of(6))
        await restoring
        assert not reviewed

    asyncio.run(run())


@pytest.mark.parametrize("left_s", [50, None])
def test_how_long_a_lease_lasts_is_told_anew(monkeypatch: pytest.MonkeyPatch, left_s: int | None) -> None:
    found: list[LeaseInfo | MusterError | None] = [LeaseInfo(left_s, 60, ()) if left_s else None, AWAY]

    async def life(*_: object) -> LeaseInfo | None:
        told = found.pop(0)
        if isinstance(told, MusterError):
            raise told
        return told

    monkeypatch.setattr(value.leases, "life", life)
    place, drawn, shows = MagicMock(), MagicMock(), pane(None)
    monkeypatch.setattr(value, "chip", drawn)
    asyncio.run(shows._show_lease(7, place))
    assert (place.clear.call_count, drawn.call_count) == (1, int(left_s is not None))
    asyncio.run(shows._show_lease(7, place))
    assert place.clear.call_count == 1, "what was told stays where nobody answers"


def test_a_value_becomes_another_form_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one takes seconds as YAML, and browsers lose pages that are silent for long."""

    async def run() -> None:
        asked: list[threading.Thread] = []
        may_go_on, reviewed = threading.Event(), list[tuple[object, ...]]()

        def waits(*_: object) -> bytes:
            asked.append(threading.current_thread())
            may_go_on.wait(60)
            return b"new"

        async def text_of(_: object) -> str:
            return "new"

        monkeypatch.setattr(value, "text_of", text_of)
        monkeypatch.setattr(value.values, "show", waits)
        monkeypatch.setattr(value.values, "read", waits)
        monkeypatch.setattr(value.key_dialogs, "review", lambda *given: reviewed.append(given[1:3]))
        shows = pane(None, kv=of(5), text="old", editor=None)
        turns = [asyncio.create_task(one) for one in (shows._as("yaml"), shows._review())]
        await until(lambda: len(asked) == 2)
        may_go_on.set()
        await asyncio.gather(*turns)
        assert threading.main_thread() not in asked
        assert (shows.form, shows.drawn, reviewed) == ("yaml", [shows._whole], [("old", "new")])

    asyncio.run(run())
