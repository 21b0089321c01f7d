"""The console's views, as a visitor sees them, on a real store."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import httpx
import muster_client as m
import pytest
from muster_client.pb import rpc_pb2 as pb
from nicegui import ui
from nicegui.testing import User

from tests.interop.console.conftest import Visits, one_muster
from tests.interop.console.visitor import Visitor
from tools.console.store import leases, raw
from tools.console.store.charts import figures
from tools.console.views import leases as leases_view
from tools.console.views import services as services_view
from tools.console.views.cluster import cluster as cluster_view
from tools.console.views.cluster.cluster import ClusterView
from tools.console.views.leases import LeasesView
from tools.console.views.parts import Text
from tools.console.views.services import ServicesView


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A muster where no other test has leases that end, or puts that an alarm would refuse."""
    with one_muster(tmp_path_factory.mktemp("quiet")) as address:
        yield address


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
        kv = await user.kv(f"{directory}key")
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
        assert (await user.kv(f"{directory}key")).text == "theirs"
        await user.click("Overwrite with mine")
        await user.sees("Saved at revision")
        assert (await user.kv(f"{directory}key")).text == "mine"

    visit(steps)


def test_keys_are_made_renamed_and_deleted(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/keys")
        await user.fill("New key", {"Key": f"{directory}new", "Value": "text"}, sign="Create")
        await user.sees("text", ui.codemirror)
        await user.fill("Rename…", {"New name": f"{directory}other"})
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
        kv = await user.kv(f"{directory}key")
        assert (kv.text, kv.version) == ("first", 3)

    visit(steps)


def test_events_are_shown_as_they_come(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.open(f"/live?search={directory}")
        await user.until(lambda: user.console.sessions.nobody.hub.watches)
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
        await user.console.sessions.recorder.look()
        async with user.client.lock(f"{directory}lock"):
            await user.open("/leases")
            await user.sees(f"{lease:x}")
            await user.sees(f"{directory}lock", ui.label)
            await user.sees("holds")
            await user.sees("for about ")
        await user.click_in(f"{lease:x}", "Keep alive once")
        await user.sees(f"Lease {lease:x} runs for its whole time again")
        await user.click("Grant a lease")
        await user.sees("Nobody keeps it alive")
        user.type("Seconds", "77")
        await user.click("Grant a lease")
        await user.sees("of 77 s")
        await user.click_in(f"{lease:x}", "Revoke")
        await user.sees("its 1 keys are deleted")
        await user.click("Revoke")
        await user.until(lambda: not user.in_row(f"{lease:x}", ""))
        assert await user.client.get(f"{directory}key") is None

    visit(steps)


def test_the_lease_of_a_key_is_told_in_each_form(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        lease = await leases.grant(user.client, 500)
        await user.client.put(f"{directory}key", "text", lease=lease)
        await user.open(f"/keys{directory}key")
        await user.sees(f"lease {lease:x}, ")
        await user.click("Hex")
        await user.sees("74 65 78 74", ui.codemirror)
        await user.sees(f"lease {lease:x}, ")

    visit(steps)


def test_a_view_that_was_left_draws_nothing_more(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.client.put(f"{directory}key", "text")
        await user.open("/keys")
        await user.sees(directory)
        user.pick(directory)
        await user.sees('"n": "key"')
        client, told = user.console.sessions.nobody.client, asyncio.Event()
        get = client.get

        async def late(*given: Any, **how: Any) -> Any:
            await told.wait()
            return await get(*given, **how)

        client.get = late  # type: ignore[method-assign]
        user.pick("key")
        page = user.user.client
        assert page is not None
        await asyncio.sleep(0.05)
        (live,) = [one for one in page.elements.values() if one.props.get("href") == "/live"]
        for listener in live._event_listeners.values():
            live._handle_event({"listener_id": listener.id, "args": None})
        await user.sees("Every change, as the cluster makes it")
        told.set()
        await asyncio.sleep(0.2)
        assert not [one for one in page.elements.values() if isinstance(one, ui.codemirror)]

    visit(steps)


def test_the_past_is_chosen_by_a_slider(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        then = (await user.client.put(f"{directory}key", "then")).revision
        await user.client.put(f"{directory}key", "now")
        await user.open(f"/keys{directory}key")
        await user.sees("now", ui.codemirror)
        await user.click("Look into the past")
        await user.sees("See all keys as they were")
        (slider,) = user.user.find(kind=ui.slider).elements
        slider.value = then  # type: ignore[attr-defined]
        await user.click("Show")
        await user.sees(f"The store as of revision {then:,}")
        await user.sees("then", ui.codemirror)

    visit(steps)


def test_a_key_is_copied_as_a_command(
    visit: Visits, directory: str, muster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    monkeypatch.setattr(ui.clipboard, "write", copied.append)

    async def steps(user: Visitor) -> None:
        await user.client.put(f"{directory}key", "text")
        await user.open(f"/keys{directory}key")
        for name in ("etcdctl", "curl", "Python"):
            await user.click(f"Copy as {name}")
            await user.until(lambda: copied)
            line = copied.pop()
            assert name.lower() in line.lower() or "muster_client" in line
            assert muster in line

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
        assert (await user.kv(f"{directory}job")).text == "mine"
        await user.click("Show the request")
        await user.click("Send")
        await user.sees("A condition does not hold")
        user.type("Compared with", "no number")
        await user.click("Show the request")
        await user.sees("is no number")
        await user.open("/txn?key=0xff")
        assert [field.value for field in user.all("Key")] == ["0xff"] * 2

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


def test_alarms_are_ended_once_it_was_said_what_that_means(visit: Visits, quiet: str) -> None:
    async def steps(user: Visitor) -> None:
        (member,) = (await raw.call(user.client, raw.MEMBERS, pb.MemberListRequest())).members
        raised = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=member.ID, alarm=pb.NOSPACE)
        await raw.call(user.client, raw.ALARM, raised)
        await user.open("/cluster")
        await user.sees("NOSPACE")
        await user.click("Disarm alarms")
        await user.sees("One comes back as long as its cause is there")
        assert await user.client.maintenance.alarms(), "nothing is done before that is read"
        await user.click("Disarm alarms")
        await user.sees_no("NOSPACE")
        assert await user.client.maintenance.alarms() == ()

    visit(steps, address=quiet)


def test_fifty_browsers_cost_the_cluster_one_watch_for_each_view(
    visit: Visits, muster: str, directory: str
) -> None:
    async def steps(user: Visitor) -> None:
        async def served() -> float:
            async with httpx.AsyncClient() as asked:
                told = await asked.get(f"http://{muster}/metrics")
            return figures.read(told.text).gauges["watches"]

        async def none() -> bool:
            return not await served()

        await user.until(none)
        others = [Visitor(User(user.user.http_client), user.client, user.console) for _ in range(49)]
        for at, one in enumerate((user, *others)):
            await one.open(f"/keys?search={directory}" if at % 2 else f"/live?search={directory}b")
        await user.until(lambda: user.console.sessions.nobody.hub.watches == 2)

        async def told() -> bool:
            await user.client.put(f"{directory}b", "")
            return all(f"{directory}b" in one.seen() for one in (user, *others))

        await user.until(told)
        assert await served() == 2

    visit(steps)


@pytest.mark.parametrize(
    ("module", "view", "there"),
    [(leases_view, LeasesView, "lease"), (cluster_view, ClusterView, "Leader"),
     (services_view, ServicesView, "1 of 1 alive")],
)  # fmt: skip
def test_what_has_the_focus_stays_while_figures_change(
    visit: Visits, quiet: str, monkeypatch: pytest.MonkeyPatch, module: Any, view: Any, there: str
) -> None:
    looks, read = [0], view.read

    async def counted(self: Any) -> None:
        await read(self)
        looks[0] += 1

    monkeypatch.setattr(module, "_READ_EVERY_S", 0.1)
    monkeypatch.setattr(view, "read", counted)

    async def steps(user: Visitor) -> None:
        lease = await leases.grant(user.client, 100)
        await user.client.put("/services/web/1", "up", lease=lease)
        name = module.__name__.rpartition(".")[2]
        await user.open(f"/{name}")
        await user.sees(f"{lease:x}" if there == "lease" else there)
        clicked, before = user.clickable(), looks[0]
        assert clicked
        while looks[0] < before + 5:
            await user.client.put("/other", "")
            await asyncio.sleep(0.02)
        assert clicked <= user.clickable(), "nor does a menu that is open go"

    visit(steps, address=quiet)


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
