"""Somebody in front of the console: NiceGUI's simulated user, and a client of the store beside it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import nicegui
from muster_client import Client, KeyValue
from nicegui import ui
from nicegui.testing import User, user_simulation

from tools.console.app import Console, add_doors, made
from tools.console.sessions import COOKIE, Target
from tools.console.views import parts

TEXT = re.compile(r"const field = getElement\((\d+)\), begin = (\d+)")  # of a field, as a browser has it
_LIMIT_S = 30.0  # a limit that a busy machine keeps

Visit = Callable[["Visitor"], Coroutine[Any, Any, None]]


def piece_of(text: str, asked: re.Match[str]) -> str:
    """Of a text, what a browser's JavaScript answers: so many of UTF-16's units, and no half of a pair."""
    units, begin = text.encode("utf-16-le"), 2 * int(asked[2])
    end = begin + 2 * parts._PIECE
    if 0xD800 <= int.from_bytes(units[end - 2 : end], "little") <= 0xDBFF:
        end += 2
    return units[begin:end].decode("utf-16-le")


class Visitor:
    """Somebody in front of the console, and a client beside it."""

    def __init__(self, user: User, client: Client, console: Console) -> None:
        self.user, self.client, self.console = user, client, console

    def text_in(self, asked: re.Match[str]) -> str:
        """What its browser shows in a field, from where it is asked for."""
        assert self.user.client is not None
        field: Any = self.user.client.elements[int(asked[1])]
        return piece_of(field.value or "", asked)

    async def open(self, path: str) -> None:
        await self.user.open(path)

    async def sees(self, text: str, kind: Any = None) -> None:
        """A text comes into sight, whatever shows it."""
        await self.until(lambda: text in self.seen(kind))

    async def sees_no(self, text: str) -> None:
        await self.until(lambda: text not in self.seen())

    async def until(self, met: Callable[[], object]) -> None:
        """Wait until a condition is met, which may be asked of the store."""
        try:
            async with asyncio.timeout(_LIMIT_S):
                while not (await found if inspect.isawaitable(found := met()) else found):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"waited too long; in sight is:\n{self.seen()}") from None

    def seen(self, kind: Any = None) -> str:
        """All that is in sight."""
        found = []
        for element in self._elements():
            if element.visible and (kind is None or isinstance(element, kind)):
                found.append(str(getattr(element, "text", "") or ""))
                found += [str(element.props.get(name, "")) for name in ("label", "aria-label")]
                found.append(str(getattr(element, "value", "") or ""))
                if element.tag == "q-virtual-scroll":
                    found += [json.dumps(item, ensure_ascii=False) for item in element.props["items"]]
        return "\n".join([*found, *self.user.notify.messages])

    async def click(self, label: str) -> None:
        """The last button or item of a menu of that name, once it is there and can be clicked at. An open
        dialog lies above everything else."""
        await self._click(
            lambda: sorted((one for one in self._elements() if _named(one, label)), key=_dialogs)[-1:]
        )

    async def click_in(self, row: str, label: str) -> None:
        """The same in the line of a table that has a text."""
        await self._click(
            lambda: [one for one in self._elements() if _named(one, label) and _in(one, row)][-1:]
        )

    async def _click(self, look: Callable[[], list[ui.element]]) -> None:
        await self.until(lambda: [one for one in look() if getattr(one, "enabled", True)])
        (chosen,) = look()
        found = self.user.find(kind=type(chosen))
        found.elements = {chosen}
        found.click()

    async def fill(self, title: str, fields: Mapping[str, Any], *, sign: str = "") -> None:
        """Open a dialog by its button, write into its fields, and click its last button: ``sign``, else of
        the same name."""
        await self.click(title)
        for name, value in fields.items():
            await self.until(partial(self._fields, name))
            self.type(name, value)
        await self.click(sign or title)

    async def log_in(self, name: str) -> None:
        """By the page."""
        await self.sees("Sign in")
        self.type("User", name)
        self.type("Password", secret_of(name))
        await self.click("Sign in")
        await self.until(lambda: COOKIE in self.user.http_client.cookies)

    async def kv(self, key: str) -> KeyValue:
        """A key's value, which is there."""
        found = await self.client.get(key)
        assert found is not None
        return found

    def in_row(self, row: str, text: str) -> bool:
        """Whether the line of a table that has a text shows another one; empty: whether there is one."""
        found = [getattr(one, "text", "") for one in self._elements() if _in(one, row)]
        return text in found if text else bool(found)

    def clickable(self) -> set[int]:
        """The numbers of the view's elements that can have the focus."""
        main = next(one for one in self._elements() if one.tag == "main")
        return {one.id for one in main.descendants() if isinstance(one, ui.button) or one.tag == "a"}

    def _elements(self) -> list[ui.element]:
        """Of the page, without those of dialogs that were closed."""
        assert self.user.client is not None
        return [one for one in list(self.user.client.elements.values()) if not _closed(one)]

    def type(self, label: str, text: Any) -> None:
        """Write into the last field of that name."""
        self.all(label)[-1].value = text

    def all(self, label: str) -> list[Any]:
        """The fields of a name."""
        fields = self._fields(label)
        assert fields, f"no field {label!r}"
        return fields

    def _fields(self, label: str) -> list[Any]:
        return [
            one
            for one in self._elements()
            if hasattr(one, "value") and label in (one.props.get("label"), one.props.get("aria-label"))
        ]

    def tree(self) -> list[str]:
        """The names in the list of keys."""
        return [item["n"] for item in self._list().props["items"]]

    def pick(self, name: str) -> None:
        """A line of the list of keys, or of events."""
        lines = self._list()
        (number,) = [item["i"] for item in lines.props["items"] if item["n"] == name]
        for listener in lines._event_listeners.values():
            if listener.type == "pick":
                lines._handle_event({"listener_id": listener.id, "args": number})

    def _list(self) -> ui.element:
        return [one for one in self._elements() if one.tag == "q-virtual-scroll"][-1]


def _dialogs(element: ui.element) -> int:
    """In how many dialogs it is."""
    return sum(isinstance(one, ui.dialog) for one in element.ancestors())


def _closed(element: ui.element) -> bool:
    return any(isinstance(one, ui.dialog) and not one.value for one in element.ancestors(include_self=True))


def _named(element: ui.element, label: str) -> bool:
    """Whether it is something to click at, of that name."""
    if not isinstance(element, ui.button | ui.menu_item):
        return False
    texts = [getattr(one, "text", "") for one in element.descendants(include_self=True)]
    return label in (*texts, element.props.get("aria-label"))


def _in(element: ui.element, text: str) -> bool:
    lines = [one for one in element.ancestors() if one.props.get("role") == "row"]
    return any(getattr(one, "text", "") == text for line in lines for one in line.descendants())


def secret_of(name: str) -> str:
    """The password of a user of the tests."""
    return f"secret of {name}"


@contextlib.asynccontextmanager
async def console_of(address: str, *, read_only: bool = False) -> AsyncIterator[Console]:
    """A console, closed in the end."""
    console = made(Target((address,), read_only=read_only))
    try:
        yield console
    finally:
        await console.sessions.close()


def visit(address: str, step: Visit, *, read_only: bool = False, user: str = "") -> None:
    """Visit a console of the store. ``user``: of the client beside it."""

    async def main() -> None:
        async with (
            console_of(address, read_only=read_only) as console,
            Client(address, user=user, password=secret_of(user) if user else "") as client,
            user_simulation(console.root) as simulated,
            asyncio.timeout(150),
        ):
            visitor = Visitor(simulated, client, console)
            simulated.javascript_rules[TEXT] = visitor.text_in
            add_doors(nicegui.app, console.sessions, secure=False)
            await step(visitor)

    asyncio.run(main())
