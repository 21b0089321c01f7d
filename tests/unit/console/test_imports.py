"""Keys of a file are written in transactions that a store takes (tools.console.store.keys.copies). Files are
written and read beside the loop: browsers lose pages that are silent for long."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import muster_client as m
import pytest
from muster_client.ops import Op

from tools.console.store.keys import copies
from tools.console.views import key_dialogs

MIB = 1024 * 1024


class Store:
    """Takes transactions, and keeps how many puts and bytes each has."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, int]] = []
        self.keys: list[bytes] = []

    def when(self) -> Store:
        return self

    async def then(self, *ops: Op) -> None:
        self.taken.append((len(ops), sum(op.request.ByteSize() for op in ops)))
        self.keys += [op.request.request_put.key for op in ops]


@pytest.mark.parametrize(
    ("sizes", "transactions"),
    [
        ([], 0),
        ([10] * 250, 3),
        ([20_000] * 100, 2),
        ([600_000] * 3, 3),
        ([10, 1_500_000, 10], 3),
        ([1_500_000], 1),
    ],
)
def test_an_import_is_cut_by_keys_and_by_bytes(sizes: list[int], transactions: int) -> None:
    pairs = [(b"/key/%03d" % n, bytes(size)) for n, size in enumerate(sizes)]
    store = Store()
    assert asyncio.run(copies.load(cast(Any, store), pairs)) == len(pairs)
    assert store.keys == [key for key, _ in pairs]
    assert len(store.taken) == transactions
    for puts, size in store.taken:
        assert puts <= 100
        assert size <= MIB or puts == 1


class Client:
    """Holds one key."""

    async def range(self, keys: m.KeyRange, revision: int) -> Any:
        yield m.KeyValue(b"/a", b"value", 1, 2, 1)


@pytest.fixture(name="threads")
def _threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Where files were written and read."""
    found: list[threading.Thread] = []
    written, parsed = copies.written, copies.parsed

    def noted(step: Any, *given: Any) -> Any:
        found.append(threading.current_thread())
        return step(*given)

    monkeypatch.setattr(copies, "written", partial(noted, written))
    monkeypatch.setattr(copies, "parsed", partial(noted, parsed))
    return found


def test_a_file_is_written_beside_the_loop(threads: list[threading.Thread]) -> None:
    file = asyncio.run(copies.export(cast(m.Client, Client()), m.EVERYTHING, "yaml"))
    assert file == b"- key: /a\n  value: value\n"
    assert threads[0] is not threading.main_thread()


def test_a_file_is_read_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch, threads: list[threading.Thread]
) -> None:
    sure = MagicMock()
    for name in ("ui", "dialog"):
        monkeypatch.setattr(key_dialogs, name, MagicMock())
    monkeypatch.setattr(key_dialogs, "buttons", lambda *_: sure)
    key_dialogs.import_dialog(MagicMock())
    taken = cast(Any, key_dialogs.ui).upload.call_args.kwargs["on_upload"]

    async def read() -> bytes:
        assert sure.set_enabled.call_args.args == (False,), "nothing of before is imported meanwhile"
        return b"- {key: /a, value: value}"

    asyncio.run(taken(SimpleNamespace(file=SimpleNamespace(read=read))))
    assert threads[0] is not threading.main_thread()
    assert sure.set_enabled.call_args.args == (True,)


def test_of_two_files_the_later_one_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file may be read when the one behind it is."""
    sure, read, written = MagicMock(), [asyncio.Event(), asyncio.Event()], list[copies.Pair]()
    buttons: list[Any] = []
    for name in ("ui", "dialog"):
        monkeypatch.setattr(key_dialogs, name, MagicMock())
    monkeypatch.setattr(key_dialogs, "buttons", lambda *given: [sure, buttons.append(given[-1])][0])

    async def load(_: object, pairs: list[copies.Pair]) -> int:
        written.extend(pairs)
        return len(pairs)

    monkeypatch.setattr(copies, "load", load)
    key_dialogs.import_dialog(MagicMock())
    taken = cast(Any, key_dialogs.ui).upload.call_args.kwargs["on_upload"]

    async def upload(at: int) -> None:
        async def file() -> bytes:
            await read[at].wait()
            return b"- {key: /%d, value: value}" % at

        await taken(SimpleNamespace(file=SimpleNamespace(read=file)))

    async def main() -> None:
        uploads = [asyncio.create_task(upload(at)) for at in range(2)]
        await asyncio.sleep(0.001)
        read[1].set()
        await uploads[1]
        assert sure.set_enabled.call_args.args == (True,)
        read[0].set()
        await uploads[0]
        assert sure.set_enabled.call_args.args == (True,)
        await buttons[0]()

    asyncio.run(main())
    assert written == [(b"/1", b"value")]
