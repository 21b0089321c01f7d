"""The console's views, as NiceGUI's simulated user sees them, on a real store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import muster_client as m
import nicegui
import pytest
from muster_client import Client
from nicegui import ui
from nicegui.testing import User, user_simulation

from tests.interop.console.conftest import console_of
from tools.console.app import Console, add_doors
from tools.console.store import leases
from tools.console.views.parts import Text

Visit = Callable[["Visitor"], Coroutine[Any, Any, None]]


class Visitor:
    """Somebody in front of the console, and a client beside it."""

    def __init__(self, user: User, client: Client, console: Console) -> None:
        self.user, self.client, self.console = user, client, console

    async def open(self, path: str) -> None:
        await self.user.open(path)

    async def sees(self, text: str, kind: Any = None) -> None:
        """A text comes into sight, whatever shows it."""
        async with asyncio.timeout(10):
            while text not in self.seen(kind):
                await asyncio.sleep(0.02)

    async def sees_no(self, text: str) -> None:
        async with asyncio.timeout(10):
            while text in self.seen():
                await asyncio.sleep(0.02)

    def seen(self, kind: Any = None) -> str:
        """All that is in sight."""
        client = self.user.client
        assert client is not None
        found = []
        for element in list(client.elements.values()):
            if element.visible and (kind is None or isinstance(element, kind)):
                found.append(str(getattr(element, "text", "") or ""))
                found += [str(element.props.get(name, "")) for name in ("label", "aria-label")]
                found.append(str(getattr(element, "value", "") or ""))
                if element.tag == "q-virtual-scroll":
                    found += [json.dumps(item, ensure_ascii=False) for item in element.props["items"]]
        return "\n".join([*found, *self.user.notify.messages])

    async def click(self, label: str) -> None:
        """The last button or item of a menu of that name, once there is one."""
        async with asyncio.timeout(10):
            while not (named := [one for one in self._elements() if _named(one, label)]):
                await asyncio.sleep(0.02)
        found = self.user.find(kind=type(named[-1]))
        found.elements = {named[-1]}
        found.click()

    async def click_in(self, row: str, label: str) -> None:
        """The button of that name in the line of a table that has a text, once there is one."""
        async with asyncio.timeout(10):
            while not (named := [one for one in self._elements() if _named(one, label) and _in(one, row)]):
                await asyncio.sleep(0.02)
        found = self.user.find(kind=type(named[0]))
        found.elements = {named[0]}
        found.click()

    def _elements(self) -> list[ui.element]:
        assert self.user.client is not None
        return list(self.user.client.elements.values())

    def type(self, label: str, text: str) -> None:
        """Write into the last field of that name."""
        self.all(label)[-1].value = text

    def all(self, label: str) -> list[Any]:
        """The fields of a name."""
        client = self.user.client
        assert client is not None
        fields = [
            element
            for element in list(client.elements.values())
            if hasattr(element, "value")
            and label in (element.props.get("label"), element.props.get("aria-label"))
        ]
        assert fields, f"no field {label!r}"
        return fields

    def tree(self) -> list[str]:
        """The names in the list of keys."""
        client = self.user.client
        assert client is not None
        lists = [one for one in client.elements.values() if one.tag == "q-virtual-scroll"]
        return [item["n"] for item in lists[-1].props["items"]]

    def pick(self, name: str) -> None:
        """A line of the list of keys, or of events."""
        client = self.user.client
        assert client is not None
        lists = [one for one in client.elements.values() if one.tag == "q-virtual-scroll"]
        (number,) = [item["i"] for item in lists[-1].props["items"] if item["n"] == name]
        for listener in lists[-1]._event_listeners.values():
            if listener.type == "pick":
                lists[-1]._handle_event({"listener_id": listener.id, "args": number})


def _named(element: ui.element, label: str) -> bool:
    """Whether it is something to click at, of that name."""
    if not isinstance(element, ui.button | ui.menu_item) or not getattr(element, "enabled", True):
        return False
    texts = [getattr(one, "text", "") for one in element.descendants(include_self=True)]
    return label in (*texts, element.props.get("aria-label"))


def _in(element: ui.element, text: str) -> bool:
    lines = [one for one in element.ancestors() if one.props.get("role") == "row"]
    return any(getattr(one, "text", "") == text for line in lines for one in line.descendants())


@pytest.fixture
def visit(muster: str) -> Callable[..., None]:
    """Visit a console of the store."""

    def visits(step: Visit, *, read_only: bool = False, address: str = muster) -> None:
        async def main() -> None:
            async with _visitor(address, read_only) as visitor, asyncio.timeout(60):
                await step(visitor)

        asyncio.run(main())

    return visits


@contextlib.asynccontextmanager
async def _visitor(address: str, read_only: bool) -> AsyncIterator[Visitor]:
    async with (
        console_of(address, read_only=read_only) as console,
        Client(address) as client,
        user_simulation(console.root) as user,
    ):
        add_doors(nicegui.app, console.sessions, secure=False)
        yield Visitor(user, client, console)


Visits = Callable[..., None]


def test_the_tree_opens_follows_and_shows_values(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.client.put(f"{directory}web/1", '{"port": 80}')
        await user.client.put(f"{directory}db", "up")
        await user.open("/")
        await user.sees(directory)
        user.pick(directory)
        await user.sees('"db"')
        user.pick("web/")
        await user.sees('"n": "1"')
        user.pick("1")
        await user.sees('{\n  "port": 80\n}', ui.codemirror)
        await user.client.put(f"{directory}web/2", "new")
        await user.sees('"n": "2"')
        await user.client.put(f"{directory}web/1", "changed")
        await user.sees("changed", ui.codemirror)
        await user.client.delete(f"{directory}web/1")
        await user.sees("There is no such key")
        await user.client.delete(m.prefix(f"{directory}web/"))
        await user.sees_no('"n": "web/"')

    visit(steps)


def test_an_address_shows_its_key(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        old = (await user.client.put(f"{directory}a/b", "before")).revision
        await user.client.put(f"{directory}a/b", "after")
        await user.open(f"/keys{directory}a/b")
        await user.sees("after", ui.codemirror)
        await user.sees('"n": "b"')
        await user.open(f"/keys{directory}a/b?rev={old}")
        await user.sees("before", ui.codemirror)
        await user.sees(f"The store as of revision {old:,}")
        assert "New key" not in user.seen()
        await user.open("/nothing")
        await user.sees("There is no such view")

    visit(steps)


def test_a_search_lists_a_prefix_and_a_range(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        for name in ("a", "b", "c"):
            await user.client.put(f"{directory}{name}", "")
        await user.open(f"/keys?search={directory}")
        await user.sees(f'"n": "{directory}c"')
        assert user.tree() == [f"{directory}{name}" for name in ("a", "b", "c")]
        await user.open(f"/keys?search={directory}b..{directory}d")
        await user.sees(f'"n": "{directory}c"')
        assert user.tree() == [f"{directory}{name}" for name in ("b", "c")]
        await user.client.put(f"{directory}bb", "")
        await user.sees(f"{directory}bb")
        await user.open("/keys?search=b..a")
        await user.sees("That is no range of keys")

    visit(steps)


def test_an_edit_is_reviewed_and_saved(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.client.put(f"{directory}key", "one\ntwo")
        await user.open(f"/keys{directory}key")
        await user.click("Edit")
        await user.sees("Review changes")
        user.type("Value", "one\nthree")
        await user.click("Review changes")
        await user.sees("three", ui.label)
        await user.click("Save")
        await user.sees("Saved at revision")
        kv = await user.client.get(f"{directory}key")
        assert kv is not None
        assert (kv.text, kv.version) == ("one\nthree", 2)

    visit(steps)


def test_who_was_slower_sees_both(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.client.put(f"{directory}key", "one")
        await user.open(f"/keys{directory}key")
        await user.click("Edit")
        user.type("Value", "mine")
        await user.client.put(f"{directory}key", "theirs")
        await user.sees("while you edit")
        await user.click("Review changes")
        await user.click("Save")
        await user.sees("Somebody was quicker")
        await user.sees("theirs", ui.label)
        kv = await user.client.get(f"{directory}key")
        assert kv is not None
        assert kv.text == "theirs"
        await user.click("Overwrite with mine")
        await user.sees("Saved at revision")
        kv = await user.client.get(f"{directory}key")
        assert kv is not None
        assert kv.text == "mine"

    visit(steps)


def test_keys_are_made_renamed_and_deleted(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/keys")
        await user.click("New key")
        user.type("Key", f"{directory}new")
        user.type("Value", "text")
        await user.click("Create")
        await user.sees("text", ui.codemirror)
        await user.click("Rename…")
        user.type("New name", f"{directory}other")
        await user.click("Rename…")
        await user.sees("other", Text)
        assert await user.client.get(f"{directory}new") is None
        await user.click("Delete")
        await user.sees("Delete this key?")
        await user.click("Delete")
        await user.sees("There is no such key")
        assert await user.client.get(f"{directory}other") is None

    visit(steps)


def test_a_prefix_is_deleted_once_its_name_is_typed(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        for n in range(12):
            await user.client.put(f"{directory}{n:02}", "")
        await user.open(f"/keys{directory}03")
        await user.click(f"Delete below {directory}…")
        await user.sees("12 keys will be deleted.")
        sure = [one for one in user.user.find(kind=ui.button).elements if one.text == "Delete"][-1]
        assert not sure.enabled
        user.type("Type the prefix", directory)
        async with asyncio.timeout(5):
            while not sure.enabled:
                await asyncio.sleep(0.02)
        await user.click("Delete")
        await user.sees("12 keys deleted")
        assert await user.client.count(m.prefix(directory)) == 0

    visit(steps)


def test_history_is_compared_and_restored(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.client.put(f"{directory}key", "first")
        await user.client.put(f"{directory}key", "second")
        await user.open(f"/keys{directory}key")
        await user.click("History")
        await user.sees("first", ui.label)
        await user.click("Restore")
        await user.sees("Save")
        await user.click("Save")
        await user.sees("Saved at revision")
        kv = await user.client.get(f"{directory}key")
        assert kv is not None
        assert (kv.text, kv.version) == ("first", 3)

    visit(steps)


def test_events_are_shown_as_they_come(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.open(f"/live?search={directory}")
        async with asyncio.timeout(10):
            while not user.console.sessions.nobody.hub.watches:
                await asyncio.sleep(0.02)
        for _ in range(100):  # until the watch is there
            await user.client.put(f"{directory}a", "value")
            if f"{directory}a" in user.seen():
                break
            await asyncio.sleep(0.05)
        await user.client.delete(f"{directory}a")
        await user.sees('"w": "delete"')
        await user.click("Pause")
        await user.sees("Go on")

    visit(steps)


def test_leases_locks_and_their_keys_are_shown(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        lease = await leases.grant(user.client, 500)
        await user.client.put(f"{directory}key", "", lease=lease)
        async with user.client.lock(f"{directory}lock"):
            await user.open("/leases")
            await user.sees(f"{lease:x}")
            await user.sees(f"{directory}lock", ui.label)
            await user.sees("holds")
        await user.click("Grant a lease")
        await user.sees("Nobody keeps it alive")
        user.type("Seconds", "77")
        await user.click("Grant a lease")
        await user.sees("of 77 s")

    visit(steps)


def test_services_are_shown_with_their_health(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        lease = await leases.grant(user.client, 60)
        await user.client.put(f"{directory}web/10.0.0.1", '{"zone": "a"}', lease=lease)
        await user.client.put(f"{directory}web/10.0.0.2", "")
        await user.open(f"/services?root={directory}")
        await user.sees("10.0.0.1")
        await user.sees("1 of 2 alive")
        await leases.revoke(user.client, lease)
        await user.sees("0 of 1 alive")

    visit(steps)


def test_a_transaction_is_shown_then_sent(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/txn")
        await user.sees("All of it happens at one revision")
        condition, operation = user.all("Key")
        condition.value = operation.value = f"{directory}job"
        user.type("Compared with", "0")
        user.type("Value", "mine")
        await user.click("Show the request")
        await user.sees(f'mod("{directory}job") = "0"\n\nput "{directory}job" "mine"')
        assert await user.client.get(f"{directory}job") is None
        await user.click("Send")
        await user.sees("All conditions hold")
        kv = await user.client.get(f"{directory}job")
        assert kv is not None
        assert kv.text == "mine"
        await user.click("Show the request")
        await user.click("Send")
        await user.sees("A condition does not hold")
        user.type("Compared with", "no number")
        await user.click("Show the request")
        await user.sees("is no number")

    visit(steps)


def test_the_cluster_is_a_picture(visit: Visits) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/cluster")
        await user.sees("Leader")
        await user.sees("Shard 1")
        revision = (await user.client.put("/console/compacted", "")).revision
        await user.click("Compact")
        await user.sees("Forgets all changes")
        user.type("Revision", str(revision))
        await user.click("Compact")
        await user.sees("Done")
        with pytest.raises(m.Compacted):
            await user.client.get("/console/compacted", revision=revision - 1)

    visit(steps)


def test_members_are_changed_by_dialogs(visit: Visits) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/cluster")
        await user.click("Add a learner")
        await user.sees("It follows without a vote")
        user.type("Peer URLs", "10.0.0.5:2380")
        await user.click("Add a learner")
        await user.sees("peer URLs look like http://10.0.0.5:2380")
        await user.click("Remove")
        await user.sees("leaves the cluster for good")
        sure = [one for one in user.user.find(kind=ui.button).elements if one.text == "Remove"]
        assert not any(one.enabled for one in sure), "the host's name is to be typed"

    visit(steps)


def test_a_read_only_console_offers_no_change(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.client.put(f"{directory}key", "text")
        for path in (f"/keys{directory}key", "/leases", "/cluster"):
            await user.open(path)
            await user.sees("Read-only")
            for name in (
                "Edit",
                "New key",
                "Delete",
                "Import",
                "Grant a lease",
                "Revoke",
                "Compact",
                "Defragment",
            ):
                assert not re.search(rf"^{name}$", user.seen(), re.MULTILINE), name

    visit(steps, read_only=True)


def test_the_console_speaks_chinese(visit: Visits) -> None:
    async def steps(user: Visitor) -> None:
        user.user.http_client.headers["accept-language"] = "zh-CN,zh;q=0.9"
        await user.open("/keys")
        await user.sees("新建键")
        user.user.http_client.cookies.set("muster-console-language", "en")
        await user.open("/keys")
        await user.sees("New key")

    visit(steps)


def test_a_cluster_that_does_not_answer_is_named(visit: Visits) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/cluster")
        await user.sees("The cluster does not answer")
        await user.sees("Try again")

    visit(steps, address="127.0.0.1:1")
